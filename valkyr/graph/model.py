"""The graph as a value: what one version of a workflow says. Pure; no decisions beyond what a field means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

DEFAULT_POOL = "default"
DEFAULT_DEDUPE_TTL = timedelta(hours=24)
MAX_DEDUPE_TTL = timedelta(days=30)
"""Executions are kept no longer."""


class EdgeKind(StrEnum):
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    ALWAYS = "ALWAYS"


class Join(StrEnum):
    ALL = "ALL"
    ANY = "ANY"


class FailurePolicy(StrEnum):
    FINISH_BRANCHES = "FINISH_BRANCHES"
    FAIL_FAST = "FAIL_FAST"


@dataclass(frozen=True, slots=True)
class Position:
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how fast a failed attempt is tried again; None leaves it to what is configured further out."""

    max_attempts: int | None = None
    backoff_base: timedelta | None = None
    backoff_max: timedelta | None = None


class DedupeScope(StrEnum):
    """Among which runs of a namespace an equal one is looked for: those of the same workflow, or all."""

    WORKFLOW = "WORKFLOW"
    GLOBAL = "GLOBAL"


@dataclass(frozen=True, slots=True)
class Dedupe:
    """Of a module: an equal run's success is reused instead of run again, for `ttl` from its end."""

    scope: DedupeScope
    ttl: timedelta = DEFAULT_DEDUPE_TTL


@dataclass(frozen=True, slots=True)
class Node:
    node_id: str
    label: str = ""
    position: Position | None = None
    retry: Retry | None = None
    timeout: timedelta | None = None
    deadline: timedelta | None = None
    pool: str = DEFAULT_POOL
    priority: int = 0
    join: Join = Join.ALL


@dataclass(frozen=True, slots=True)
class Edge:
    edge_id: str
    source: str
    target: str
    condition: str = ""
    kind: EdgeKind = EdgeKind.SUCCESS


@dataclass(frozen=True, slots=True)
class Module:
    """What a node runs. `module_data` is JSON text, data as it is; `config` may hold expressions. One of both."""

    node_id: str
    class_name: str
    module_data: str | None = None
    config: Mapping[str, Any] | None = None
    target: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    failure_policy: FailurePolicy = FailurePolicy.FINISH_BRANCHES
    timeout: timedelta | None = None
    default_retry: Retry | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes, edges and modules in the author's order. May hold errors until `validate` has said otherwise."""

    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()
    modules: tuple[Module, ...] = ()
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True, slots=True)
class WorkflowInfo:
    """What is said about a workflow beside its graph, on the way in. `id` and `version` are None for a new one."""

    id: str | None = None
    name: str | None = None
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    version: int | None = None
