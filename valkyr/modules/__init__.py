"""The modules that come with Valkyr, one file each, and the catalogue of their configs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from valkyr.module import ModuleSpec
from valkyr.modules.delay import DELAY
from valkyr.modules.fail import FAIL
from valkyr.modules.http_request import HTTP_REQUEST
from valkyr.modules.http_rules import HttpRules
from valkyr.modules.log import LOG
from valkyr.modules.noop import NOOP
from valkyr.modules.transform import TRANSFORM

__all__ = ["HttpRules", "builtin_modules", "catalogue"]

_BUILTIN = MappingProxyType({spec.class_name: spec for spec in (DELAY, FAIL, HTTP_REQUEST, LOG, NOOP, TRANSFORM)})


def builtin_modules() -> Mapping[str, ModuleSpec]:
    """By class name, control nodes included."""
    return _BUILTIN


def catalogue(modules: Mapping[str, ModuleSpec] = _BUILTIN) -> Mapping[str, dict[str, Any]]:
    """Class name to the JSON Schema 2020-12 of its config."""
    return {class_name: spec.config_schema() for class_name, spec in modules.items()}
