"""Valkyr, a durable workflow engine: what users import. What needs gRPC is loaded when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Not lazily: the file has the decorator's name, and once somebody imported it, `valkyr.module` would be the file.
from valkyr.module import Context, PermanentError, ProcessLimits, Retry, RetryLater, module

if TYPE_CHECKING:
    from valkyr.client import Client, Start, TriggerType
    from valkyr.errors import ValkyrError
    from valkyr.graph.model import Edge, Graph, Module, Node, WorkflowInfo

__all__ = [
    "Client",
    "Context",
    "Edge",
    "Graph",
    "Module",
    "Node",
    "PermanentError",
    "ProcessLimits",
    "Retry",
    "RetryLater",
    "Start",
    "TriggerType",
    "ValkyrError",
    "WorkflowInfo",
    "module",
]

_HOMES = {
    "valkyr.client": ("Client", "Start", "TriggerType"),
    "valkyr.errors": ("ValkyrError",),
    "valkyr.graph.model": ("Edge", "Graph", "Module", "Node", "WorkflowInfo"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'valkyr' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
