"""A graph as arrays, made once per version: what the engine looks at while an execution runs.

Nodes and edges are known by their index in the saved order. Expressions come in as compiled callables, so that this
stays free of any expression language.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Protocol

from valkyr.graph.model import Dedupe, Edge, EdgeKind, Graph, Join, Module, Retry, Settings


class Control(StrEnum):
    """Nodes that are decided by the engine itself and never leased."""

    PASS_THROUGH = "PASS_THROUGH"
    DELAY = "DELAY"


@dataclass(frozen=True, slots=True)
class Sight:
    """What an expression sees. `nodes` maps an ancestor's id to {"outputs": ..., "error": ...}, null or a value."""

    trigger: Any = None
    execution: Mapping[str, Any] = field(default_factory=dict)
    nodes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    outputs: Any = None
    error: Any = None
    # The evaluator's own: what it keeps between the evaluations of one walk.
    memory: Any = None


class Condition(Protocol):
    """A compiled condition. `holds` raises CannotEvaluate."""

    @property
    def references(self) -> frozenset[str]: ...

    def holds(self, sight: Sight) -> bool: ...


class Template(Protocol):
    """A compiled config. `resolve` raises CannotEvaluate; without expressions it returns the same value every time."""

    @property
    def references(self) -> frozenset[str]: ...

    @property
    def constant(self) -> bool: ...

    def resolve(self, sight: Sight) -> Any: ...


@dataclass(frozen=True, slots=True)
class PlannedEdge:
    index: int
    edge_id: str
    source: int
    target: int
    kind: EdgeKind
    condition: Condition | None
    # Nodes, beside the source, whose outputs the condition may ask for.
    needs: frozenset[int]


@dataclass(frozen=True, slots=True)
class PlannedNode:
    index: int
    node_id: str
    class_name: str
    control: Control | None
    join: Join
    pool: str
    priority: int
    timeout: timedelta | None
    # From when a run leaves PENDING.
    deadline: timedelta | None
    retry: Retry | None
    # Empty where it is known only with the resolved config, or where there is none.
    target: str
    config: Template
    # Nodes whose outputs the config may ask for.
    needs: frozenset[int]
    incoming: tuple[int, ...]
    outgoing: tuple[int, ...]
    # Where its module has the success of an equal run reused.
    dedupe: Dedupe | None = None

    @property
    def decided_first(self) -> bool:
        """Whether the engine decides about its READY runs before anybody may lease them."""
        return self.control is not None or self.dedupe is not None


@dataclass(frozen=True, slots=True)
class Plan:
    nodes: tuple[PlannedNode, ...]
    edges: tuple[PlannedEdge, ...]
    roots: tuple[int, ...]
    leaves: tuple[int, ...]
    settings: Settings
    index_of: Mapping[str, int]
    # Roots that the engine decides itself.
    control_roots: tuple[int, ...]
    # Nodes whose outputs a condition or a control node's config may ask for.
    watched: frozenset[int]
    # Whether carrying outcomes through the graph evaluates any expression.
    evaluates: bool


# From the author's text to a compiled form; both raise whatever the expression language raises for bad text.
CompileCondition = Callable[[str], Condition]
CompileConfig = Callable[[Module | None], Template]
# What the module calls, as far as it is known before its config is resolved; else empty.
TargetOf = Callable[[Module | None, Template], str]
# What the class of a module says of equal runs.
DedupeOf = Callable[[str], Dedupe | None]


def _said_target(module: Module | None, _config: Template) -> str:
    return module.target if module else ""


def _never(_class_name: str) -> None:
    return None


def make_plan(
    graph: Graph,
    *,
    compile_condition: CompileCondition,
    compile_config: CompileConfig,
    control_of: Callable[[str], Control | None],
    target_of: TargetOf = _said_target,
    dedupe_of: DedupeOf = _never,
) -> Plan:
    """The plan of a valid graph; KeyError for one that validate() would refuse.

    `control_of` says which class names the engine decides itself; the empty name is a node without a module.
    """
    index_of = {node.node_id: index for index, node in enumerate(graph.nodes)}
    edges = tuple(_plan_edge(i, edge, index_of, compile_condition) for i, edge in enumerate(graph.edges))
    nodes = _plan_nodes(
        graph,
        edges,
        index_of,
        compile_config=compile_config,
        control_of=control_of,
        target_of=target_of,
        dedupe_of=dedupe_of,
    )
    roots = tuple(node.index for node in nodes if not node.incoming)
    return Plan(
        nodes=nodes,
        edges=edges,
        roots=roots,
        leaves=tuple(node.index for node in nodes if not node.outgoing),
        settings=graph.settings,
        index_of=index_of,
        control_roots=tuple(root for root in roots if nodes[root].control is not None),
        watched=_watched(nodes, edges),
        evaluates=any(edge.condition for edge in edges)
        or any(node.control is not None and not node.config.constant for node in nodes),
    )


def _plan_nodes(
    graph: Graph,
    edges: Sequence[PlannedEdge],
    index_of: Mapping[str, int],
    *,
    compile_config: CompileConfig,
    control_of: Callable[[str], Control | None],
    target_of: TargetOf,
    dedupe_of: DedupeOf,
) -> tuple[PlannedNode, ...]:
    incoming: list[list[int]] = [[] for _ in graph.nodes]
    outgoing: list[list[int]] = [[] for _ in graph.nodes]
    for edge in edges:
        outgoing[edge.source].append(edge.index)
        incoming[edge.target].append(edge.index)
    modules = {module.node_id: module for module in graph.modules}
    nodes = []
    for index, node in enumerate(graph.nodes):
        module = modules.get(node.node_id)
        class_name = module.class_name if module else ""
        config, control = compile_config(module), control_of(class_name)
        nodes.append(
            PlannedNode(
                index=index,
                node_id=node.node_id,
                class_name=class_name,
                control=control,
                join=node.join,
                pool=node.pool,
                priority=node.priority,
                timeout=node.timeout,
                deadline=node.deadline,
                retry=node.retry,
                target=target_of(module, config),
                config=config,
                needs=frozenset(index_of[name] for name in config.references),
                incoming=tuple(incoming[index]),
                outgoing=tuple(outgoing[index]),
                dedupe=dedupe_of(class_name) if control is None else None,
            )
        )
    return tuple(nodes)


def _watched(nodes: Sequence[PlannedNode], edges: Sequence[PlannedEdge]) -> frozenset[int]:
    by_conditions = {need for edge in edges if edge.condition for need in (*edge.needs, edge.source)}
    by_control = {need for node in nodes if node.control for need in node.needs}
    return frozenset(by_conditions | by_control)


def _plan_edge(index: int, edge: Edge, index_of: Mapping[str, int], compile_condition: CompileCondition) -> PlannedEdge:
    condition = compile_condition(edge.condition) if edge.condition else None
    source = index_of[edge.source]
    needs = frozenset(index_of[name] for name in condition.references) - {source} if condition else frozenset()
    return PlannedEdge(
        index=index,
        edge_id=edge.edge_id,
        source=source,
        target=index_of[edge.target],
        kind=edge.kind,
        condition=condition,
        needs=needs,
    )
