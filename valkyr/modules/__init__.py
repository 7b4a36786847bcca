"""The modules that come with Valkyr, one file each, and the catalogue of their configs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from valkyr.module import ModuleSpec
from valkyr.modules.delay import DELAY
from valkyr.modules.email_module import EMAIL
from valkyr.modules.email_rules import EmailRules
from valkyr.modules.fail import FAIL
from valkyr.modules.grpc_module import GRPC_CALL
from valkyr.modules.grpc_rules import GrpcRules
from valkyr.modules.http_request import HTTP_REQUEST
from valkyr.modules.http_rules import HttpRules
from valkyr.modules.log import LOG
from valkyr.modules.noop import NOOP
from valkyr.modules.transform import TRANSFORM

__all__ = ["EmailRules", "GrpcRules", "HttpRules", "builtin_modules", "catalogue", "reaching"]

_BUILTIN = MappingProxyType(
    {spec.class_name: spec for spec in (DELAY, EMAIL, FAIL, GRPC_CALL, HTTP_REQUEST, LOG, NOOP, TRANSFORM)}
)


def builtin_modules() -> Mapping[str, ModuleSpec]:
    """By class name, control nodes included."""
    return _BUILTIN


def reaching(
    allow_hosts: Collection[str] = (), allow_networks: Collection[str] = (), credentials_folder: str | None = None
) -> Mapping[str, Any]:
    """Settings of a runner whose calls, by whatever module, may all go to the same places. ValueError for what is no
    network."""
    hosts, networks = frozenset(host.lower() for host in allow_hosts), tuple(allow_networks)
    return {
        "http": HttpRules(hosts, networks),
        "grpc": GrpcRules(hosts, networks),
        "email": EmailRules(hosts, networks, credentials_folder=credentials_folder),
    }


def catalogue(modules: Mapping[str, ModuleSpec] = _BUILTIN) -> Mapping[str, dict[str, Any]]:
    """Class name to the JSON Schema 2020-12 of its config."""
    return {class_name: spec.config_schema() for class_name, spec in modules.items()}
