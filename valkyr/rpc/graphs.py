"""Protobuf <-> the graph value, both directions, for the graph store, the executor and clients.

Strict on the way in: one InvalidRequest names every field that cannot be read. On the way out enums are spelled out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from itertools import repeat
from typing import Any, TypeVar

from google.protobuf import duration_pb2

from valkyr.api.common.v1 import common_pb2
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.duration import MAX_DURATION
from valkyr.errors import InvalidRequest
from valkyr.graph import fields
from valkyr.graph.configs import expanded, one_of_both
from valkyr.graph.depths import is_deeper
from valkyr.graph.findings import Finding, Severity
from valkyr.graph.limits import CARRIED_DEPTH
from valkyr.graph.model import (
    DEFAULT_POOL,
    Edge,
    EdgeKind,
    FailurePolicy,
    Graph,
    Join,
    Module,
    Node,
    Position,
    Retry,
    Settings,
    WorkflowInfo,
)
from valkyr.rpc.values import plain_to_struct, struct_to_plain

GraphMessage = pb.Graph | pb.SaveGraphRequest | pb.ValidateGraphRequest | pb.SaveGraphResponse
_Choice = TypeVar("_Choice", bound=StrEnum)
_Item = TypeVar("_Item")

_JOINS = {0: Join.ALL, pb.Node.ALL: Join.ALL, pb.Node.ANY: Join.ANY}
_KINDS = {
    0: EdgeKind.SUCCESS,
    pb.Edge.SUCCESS: EdgeKind.SUCCESS,
    pb.Edge.FAILURE: EdgeKind.FAILURE,
    pb.Edge.ALWAYS: EdgeKind.ALWAYS,
}
_POLICIES = {
    0: FailurePolicy.FINISH_BRANCHES,
    pb.Settings.FINISH_BRANCHES: FailurePolicy.FINISH_BRANCHES,
    pb.Settings.FAIL_FAST: FailurePolicy.FAIL_FAST,
}
_JOIN_NUMBERS = {join: number for number, join in _JOINS.items() if number}
_KIND_NUMBERS = {kind: number for number, kind in _KINDS.items() if number}


@dataclass(frozen=True, slots=True)
class RowIds:
    """The stored rows' ids, in the order of the graph's nodes, edges and modules."""

    tasks: Sequence[str] = ()
    connections: Sequence[str] = ()
    modules: Sequence[str] = ()


def graph_from_proto(message: GraphMessage) -> tuple[WorkflowInfo, Graph]:
    """The graph of a request or an answer, and what it says of its workflow. InvalidRequest naming every bad field."""
    problems = fields.Problems()
    read = read_graph(message, problems)
    problems.raise_if_any()
    return read


def read_graph(message: GraphMessage, problems: fields.Problems) -> tuple[WorkflowInfo, Graph]:
    """As `graph_from_proto`, for a caller who has more to look at: what cannot be read is added to `problems`."""
    info = _read_workflow(message, problems)
    graph = Graph(
        nodes=tuple(_read_node(node, index, problems) for index, node in enumerate(message.nodes)),
        edges=tuple(_read_edge(edge, index, problems) for index, edge in enumerate(message.edges)),
        modules=tuple(_read_module(module, index, problems) for index, module in enumerate(message.modules)),
        settings=_read_settings(message.settings, problems),
    )
    return info, graph


def graph_to_proto(graph: Graph, info: WorkflowInfo | None = None) -> pb.Graph:
    """The graph as a message; `workflow` is filled from `info` where given."""
    message = pb.Graph()
    if info is not None:
        message.workflow.CopyFrom(workflow_to_proto(info))
    fill_from_graph(message, graph)
    return message


def workflow_to_proto(info: WorkflowInfo) -> pb.Workflow:
    """What is said of a workflow on the way in."""
    return pb.Workflow(
        id=info.id or "",
        name=info.name or "",
        description=info.description,
        labels=dict(info.labels),
        version=info.version or 0,
    )


def fill_from_graph(
    message: GraphMessage, graph: Graph, *, ids: RowIds | None = None, expand_config: bool = False
) -> None:
    """Writes nodes, edges, modules and settings into a message that has these fields, with stored ids where given.

    `expand_config` adds to modules with `moduleData` the `config` that means the same, unless that is too deep for one.
    LimitExceeded for a `config` that is too deep to be carried.
    """
    tasks, connections, modules = (ids.tasks, ids.connections, ids.modules) if ids else ((), (), ())
    for node, task_id in _beside(graph.nodes, tasks):
        _add_node(message.nodes, node, task_id)
    for edge, connection_id in _beside(graph.edges, connections):
        _add_edge(message.edges, edge, connection_id)
    for index, (module, module_id) in enumerate(_beside(graph.modules, modules)):
        added = _add_module(message.modules, module, module_id)
        config = _carried(expanded(module.module_data)) if expand_config and module.module_data else module.config
        if config is not None:
            added.config.CopyFrom(plain_to_struct(config, f"modules[{index}].config"))
    message.settings.CopyFrom(_settings_to_proto(graph.settings))


def finding_to_proto(finding: Finding) -> common_pb2.Finding:
    return common_pb2.Finding(
        severity=common_pb2.Finding.Severity.Value(finding.severity.value),
        code=finding.code,
        path=finding.path,
        message=finding.message,
        hint=finding.hint,
        node_ids=finding.node_ids,
        edge_ids=finding.edge_ids,
    )


def finding_from_proto(message: common_pb2.Finding) -> Finding:
    is_warning = message.severity == common_pb2.Finding.WARNING
    return Finding(
        severity=Severity.WARNING if is_warning else Severity.ERROR,
        code=message.code,
        path=message.path,
        message=message.message,
        hint=message.hint,
        node_ids=tuple(message.node_ids),
        edge_ids=tuple(message.edge_ids),
    )


def _read_workflow(message: GraphMessage, problems: fields.Problems) -> WorkflowInfo:
    workflow = message.workflow
    for name in ("name", "description"):
        fields.check_text(getattr(workflow, name), f"workflow.{name}", problems)
    labels = dict(workflow.labels)
    for key, value in labels.items():
        fields.check_text(key, "workflow.labels", problems)
        fields.check_text(value, f"workflow.labels.{key}", problems)
    return WorkflowInfo(
        id=fields.read_uuid(workflow.id, "workflow.id", problems) if workflow.id else None,
        name=workflow.name or None,
        description=workflow.description,
        labels=labels,
        version=_read_version(message, problems),
    )


def _read_version(message: GraphMessage, problems: fields.Problems) -> int | None:
    outer = message.version if isinstance(message, pb.SaveGraphRequest) else None
    return fields.edited_version(outer, message.workflow.version, problems)


def _read_node(node: pb.Node, index: int, problems: fields.Problems) -> Node:
    path = f"nodes[{index}]"
    if "\x00" in node.node_id or "\x00" in node.label or "\x00" in node.pool:
        fields.check_text(node.node_id, f"{path}.nodeId", problems)
        fields.check_text(node.label, f"{path}.label", problems)
        fields.check_text(node.pool, f"{path}.pool", problems)
    fields.check_priority(node.priority, f"{path}.priority", problems)
    return Node(
        node_id=node.node_id,
        label=node.label,
        position=_read_position(node.position, path, problems) if node.HasField("position") else None,
        retry=read_retry(node.retry, f"{path}.retry", problems) if node.HasField("retry") else None,
        timeout=read_duration(node.timeout, f"{path}.timeout", problems) if node.HasField("timeout") else None,
        deadline=read_duration(node.deadline, f"{path}.deadline", problems) if node.HasField("deadline") else None,
        pool=node.pool or DEFAULT_POOL,
        priority=node.priority,
        join=_read_choice(node.join, _JOINS, f"{path}.join", problems),
    )


def _read_position(position: pb.Position, path: str, problems: fields.Problems) -> Position:
    x, y = position.x, position.y
    for name, value in (("x", x), ("y", y)):
        if value - value != 0:
            problems.add(f"{path}.position.{name}", f"{value} is not a finite number; give one, or no position")
    return Position(x, y)


def _read_edge(edge: pb.Edge, index: int, problems: fields.Problems) -> Edge:
    edge_id, source, target, condition = edge.edge_id, edge.source, edge.target, edge.condition
    if "\x00" in edge_id or "\x00" in source or "\x00" in target or "\x00" in condition:
        for name, value in (("edgeId", edge_id), ("source", source), ("target", target), ("condition", condition)):
            fields.check_text(value, f"edges[{index}].{name}", problems)
    return Edge(edge_id, source, target, condition, _read_choice(edge.kind, _KINDS, f"edges[{index}].kind", problems))


def _read_module(module: pb.Module, index: int, problems: fields.Problems) -> Module:
    path = f"modules[{index}]"
    fields.check_text(module.node_id, f"{path}.nodeId", problems)
    fields.check_text(module.class_name, f"{path}.className", problems)
    fields.check_text(module.module_data, f"{path}.moduleData", problems)
    fields.check_text(module.target, f"{path}.target", problems)
    config = _read_config(module, path, problems) if module.HasField("config") else None
    module_data, config = one_of_both(module.module_data or None, config, path, problems)
    return Module(module.node_id, module.class_name, module_data, config, module.target)


def _read_config(module: pb.Module, path: str, problems: fields.Problems) -> dict[str, Any] | None:
    try:
        return struct_to_plain(module.config, f"{path}.config")
    except InvalidRequest as error:
        problems.add_all(error.details.violations)
        return None


def read_retry(retry: pb.Retry, path: str, problems: fields.Problems) -> Retry:
    attempts = retry.max_attempts if retry.HasField("max_attempts") else None
    if attempts is not None:
        fields.check_attempts(attempts, f"{path}.maxAttempts", problems)
    base, cap = retry.backoff_base_delay, retry.backoff_max_delay
    return Retry(
        max_attempts=attempts,
        backoff_base=read_duration(base, f"{path}.backoffBaseDelay", problems, zero=True)
        if retry.HasField("backoff_base_delay")
        else None,
        backoff_max=read_duration(cap, f"{path}.backoffMaxDelay", problems, zero=True)
        if retry.HasField("backoff_max_delay")
        else None,
    )


def read_duration(
    message: duration_pb2.Duration, path: str, problems: fields.Problems, *, zero: bool = False
) -> timedelta | None:
    if abs(message.seconds) > MAX_DURATION.total_seconds() * 2 or abs(message.nanos) >= 1_000_000_000:
        problems.add(path, f"{message.seconds} s is out of range; at most {MAX_DURATION.days} days")
        return None
    if message.nanos % 1_000:
        problems.add(path, f"{message.seconds} s {message.nanos} ns is finer than a microsecond")
        return None
    value = timedelta(seconds=message.seconds, microseconds=message.nanos // 1_000)
    fields.check_duration(value, path, problems, zero=zero)
    return value


def _read_choice(number: int, choices: Mapping[int, _Choice], path: str, problems: fields.Problems) -> _Choice:
    choice = choices.get(number)
    if choice is None:
        problems.add(path, f"{number} is no known value; known are {', '.join(sorted(set(choices.values())))}")
        return choices[0]
    return choice


def _read_settings(settings: pb.Settings, problems: fields.Problems) -> Settings:
    return Settings(
        failure_policy=_read_choice(settings.failure_policy, _POLICIES, "settings.failurePolicy", problems),
        timeout=read_duration(settings.timeout, "settings.timeout", problems) if settings.HasField("timeout") else None,
        default_retry=read_retry(settings.default_retry, "settings.defaultRetry", problems)
        if settings.HasField("default_retry")
        else None,
    )


def _beside(items: Sequence[_Item], ids: Sequence[str]) -> Iterable[tuple[_Item, str]]:
    return zip(items, ids, strict=True) if ids else zip(items, repeat(""))


def _add_node(messages: Any, node: Node, task_id: str) -> None:
    position = node.position
    message = messages.add(
        node_id=node.node_id,
        label=node.label,
        position=None if position is None else pb.Position(x=position.x, y=position.y),
        pool=node.pool,
        priority=node.priority,
        join=_JOIN_NUMBERS[node.join],
        task_id=task_id,
    )
    if node.retry is not None:
        message.retry.CopyFrom(retry_to_proto(node.retry))
    if node.timeout is not None:
        message.timeout.FromTimedelta(node.timeout)
    if node.deadline is not None:
        message.deadline.FromTimedelta(node.deadline)


def _add_edge(messages: Any, edge: Edge, connection_id: str) -> None:
    messages.add(
        edge_id=edge.edge_id,
        source=edge.source,
        target=edge.target,
        condition=edge.condition,
        kind=_KIND_NUMBERS[edge.kind],
        connection_id=connection_id,
    )


def _add_module(messages: Any, module: Module, module_id: str) -> pb.Module:
    message: pb.Module = messages.add(
        node_id=module.node_id,
        class_name=module.class_name,
        module_data=module.module_data,
        target=module.target,
        module_id=module_id,
    )
    return message


def _carried(config: dict[str, Any]) -> dict[str, Any] | None:
    return None if is_deeper(config, CARRIED_DEPTH) else config


def retry_to_proto(retry: Retry) -> pb.Retry:
    message = pb.Retry()
    if retry.max_attempts is not None:
        message.max_attempts = retry.max_attempts
    if retry.backoff_base is not None:
        message.backoff_base_delay.FromTimedelta(retry.backoff_base)
    if retry.backoff_max is not None:
        message.backoff_max_delay.FromTimedelta(retry.backoff_max)
    return message


def _settings_to_proto(settings: Settings) -> pb.Settings:
    message = pb.Settings(failure_policy=pb.Settings.FailurePolicy.Value(settings.failure_policy.value))
    if settings.timeout is not None:
        message.timeout.FromTimedelta(settings.timeout)
    if settings.default_retry is not None:
        message.default_retry.CopyFrom(retry_to_proto(settings.default_retry))
    return message
