"""What the modules of this executor say about runs of theirs: what they call, how often they are tried again."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import orjson

from services.chassis.settings import SettingsError
from valkyr.flow.attempts import RetryPolicy
from valkyr.flow.plan import PlannedNode, Template
from valkyr.graph.model import Dedupe, Module, Settings
from valkyr.module import ModuleSpec, registered_modules
from valkyr.modules import builtin_modules
from valkyr.planning.compiled import CompiledConfig
from valkyr.telemetry import get_logger

log = get_logger(__name__)

MAX_TARGET = 500


class Modules:
    """Classes that nobody here knows call nothing that a breaker guards, unless their node says so."""

    def __init__(self, specs: Mapping[str, ModuleSpec], retry: RetryPolicy) -> None:
        self._specs = specs
        self._retry = retry

    def target_before(self, module: Module | None, config: Template) -> str:
        """The target as far as it is known without resolving a config: what the node says, else its module."""
        if module is None:
            return ""
        spec = self._specs.get(module.class_name)
        said = module.target or (spec.target if spec else None)
        if said or spec is None or spec.target_of is None:
            return said or ""
        if isinstance(config, CompiledConfig) and config.constant:
            return _asked(spec, orjson.loads(config.raw))
        return ""

    def target_of(self, node: PlannedNode, config: bytes) -> str:
        """The target of a run whose config is resolved; empty if there is none."""
        spec = self._specs.get(node.class_name)
        if node.target or spec is None or spec.target_of is None:
            return node.target
        return _asked(spec, orjson.loads(config))

    def dedupe_of(self, class_name: str) -> Dedupe | None:
        """What the code of a class says of equal runs."""
        spec = self._specs.get(class_name)
        return spec.dedupe if spec else None

    def retry_of(self, node: PlannedNode, settings: Settings) -> RetryPolicy:
        """What the node says counts first, then its graph, then its module, then this executor's settings."""
        spec = self._specs.get(node.class_name)
        return self._retry.narrowed(node.retry, settings.default_retry, spec.retry if spec else None)


def _asked(spec: ModuleSpec, config: Any) -> str:
    """Code of others, on data of others: whatever it raises means that there is no target, and so does text that no
    table takes."""
    if spec.target_of is None or not isinstance(config, Mapping):
        return ""
    try:
        target = (spec.target_of(config) or "")[:MAX_TARGET]
        if b"\0" in target.encode():
            raise ValueError("a NUL in the target")
        return target
    except Exception as error:  # noqa: BLE001 - as said above
        log.warning("module.target_failed", class_name=spec.class_name, error=str(error))
        return ""


def load_modules(python_modules: tuple[str, ...]) -> Mapping[str, ModuleSpec]:
    """The modules that come with Valkyr, and those that importing `python_modules` registers. SettingsError."""
    for name in python_modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise SettingsError(f"executor.runner.modules: {name} cannot be imported: {error!r}") from error
    return {**builtin_modules(), **registered_modules()}
