"""Modules as the catalogue has them: what their code says of configs, targets, retries and timeouts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from valkyr.graph.catalogue import CatalogueModule
from valkyr.module import ModuleSpec
from valkyr.modules import builtin_modules

if TYPE_CHECKING:
    from valkyr.graph.schemas import ConfigSchema


def described(spec: ModuleSpec) -> CatalogueModule:
    """What can be registered of a module: `valkyr.module.registered_modules()` are those of the programs imported."""
    return CatalogueModule(
        class_name=spec.class_name,
        description=_description(spec),
        config_schema=spec.config_schema() if spec.takes_config or spec.control else None,
        target=spec.target or "",
        retry=spec.retry,
        timeout=spec.timeout,
        dedupe=spec.dedupe,
    )


@cache
def builtin_catalogue() -> Mapping[str, CatalogueModule]:
    """The modules that come with Valkyr, by class name in order."""
    return MappingProxyType({name: _built_in(spec) for name, spec in sorted(builtin_modules().items())})


@cache
def builtin_schemas() -> Mapping[str, ConfigSchema | None]:
    """What their configs have to fit, as `validate` takes it."""
    from valkyr.graph.schemas import compile_schema  # a runner checks no schemas, and does without what checks them

    return MappingProxyType(
        {
            name: None if module.config_schema is None else compile_schema(module.config_schema, trusted=True)
            for name, module in builtin_catalogue().items()
        }
    )


def _built_in(spec: ModuleSpec) -> CatalogueModule:
    module = described(spec)
    text = sys.modules[spec.function.__module__].__doc__ or ""
    words = " ".join(text.partition("\n\n")[0].split()).removeprefix(f"{spec.class_name}: ")
    return CatalogueModule(
        module.class_name,
        words,
        module.config_schema,
        target=module.target,
        retry=module.retry,
        timeout=module.timeout,
        dedupe=module.dedupe,
        built_in=True,
    )


def _description(spec: ModuleSpec) -> str:
    """The first paragraph of the function's docstring."""
    text = spec.function.__doc__ or ""
    return " ".join(text.strip().partition("\n\n")[0].split())[:10_000]
