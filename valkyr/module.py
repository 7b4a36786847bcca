"""What authors of modules see: @module, Context, Retry and the two exceptions to learn."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from valkyr.graph.model import Retry

__all__ = ["Context", "ModuleSpec", "PermanentError", "Retry", "RetryLater", "module", "registered_modules"]


class PermanentError(Exception):
    """Trying again cannot help: the run fails for good at once."""


class RetryLater(Exception):
    """Not now: try again, after `after` if given (a rate limit's Retry-After, say)."""

    def __init__(self, message: str = "", *, after: timedelta | None = None) -> None:
        super().__init__(message or "asked to be tried again later")
        self.after = after


@dataclass(slots=True)
class Context:
    """One attempt of one run, as its module sees it. `inputs` is {"trigger": ..., "nodes": {"<predecessor>": {"outputs": ...}}}.

    `deadline` is aware UTC. `idempotency_key` is the same in every attempt; hand it to targets that can dedupe.
    """

    execution_id: str
    run_id: str
    node_id: str
    attempt: int
    idempotency_key: str
    inputs: Mapping[str, Any]
    deadline: datetime | None = None
    logger: Any = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    cost_tokens: float = 0.0

    @property
    def trigger(self) -> Any:
        return self.inputs.get("trigger")

    def outputs_of(self, node_id: str) -> Any:
        """Outputs of a taken predecessor. KeyError for any other node."""
        return self.inputs["nodes"][node_id]["outputs"]


class NoConfig(BaseModel):
    """The config of a module that takes none; whatever is given is ignored."""

    model_config = ConfigDict(extra="allow")


@dataclass(frozen=True, slots=True)
class ModuleSpec:
    """A module as the runner knows it. `function` takes (context, config), or (context) if it has no config model."""

    class_name: str
    function: Callable[..., Any]
    config_model: type[BaseModel]
    takes_config: bool
    is_async: bool
    target: str | None = None
    retry: Retry | None = None
    timeout: timedelta | None = None

    def config_schema(self) -> dict[str, Any]:
        """JSON Schema 2020-12 of the config."""
        return self.config_model.model_json_schema()


_Function = TypeVar("_Function", bound=Callable[..., Any])
_registered: dict[str, ModuleSpec] = {}


def module(
    class_name: str, *, target: str | None = None, retry: Retry | None = None, timeout: timedelta | None = None
) -> Callable[[_Function], _Function]:
    """Makes a function a module under `class_name`. The annotation of its second parameter, a pydantic model, is its config.

    `async def` runs on the event loop, `def` in a thread. Returns what becomes the run's outputs: anything JSON can hold.
    TypeError at import if the signature does not fit, ValueError if another function has the name.
    """

    def register(function: _Function) -> _Function:
        spec = spec_of(class_name, function, target=target, retry=retry, timeout=timeout)
        known = _registered.get(class_name)
        if known is not None and _origin(known.function) != _origin(function):
            raise ValueError(f"two modules are called {class_name!r}: {_origin(known.function)} and {_origin(function)}")
        _registered[class_name] = spec
        return function

    return register


def spec_of(
    class_name: str,
    function: Callable[..., Any],
    *,
    target: str | None = None,
    retry: Retry | None = None,
    timeout: timedelta | None = None,
) -> ModuleSpec:
    """The spec of a function, without registering it. TypeError if the signature does not fit."""
    parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    if not 1 <= len(parameters) <= 2:
        raise TypeError(f"module {class_name!r}: expected (context) or (context, config), got {len(parameters)} parameters")
    config_model: type[BaseModel] = NoConfig
    if len(parameters) == 2:
        annotation = parameters[1].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            raise TypeError(f"module {class_name!r}: annotate {parameters[1].name!r} with a pydantic model, not {annotation!r}")
        config_model = annotation
    return ModuleSpec(
        class_name=class_name,
        function=function,
        config_model=config_model,
        takes_config=len(parameters) == 2,
        is_async=inspect.iscoroutinefunction(function),
        target=target,
        retry=retry,
        timeout=timeout,
    )


def registered_modules() -> Mapping[str, ModuleSpec]:
    """Every module imported so far, by class name."""
    return dict(_registered)


def _origin(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
