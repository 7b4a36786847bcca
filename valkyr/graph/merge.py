"""The three-way merge of graphs: what two people made of the same base, in one graph, or where they do not agree.

Parts are merged by id and field by field, so that changes in different places both stand. Positions never conflict:
where both moved a node, mine stands, and `both_moved` tells. A merge without conflicts is validated, as the changes of
two people may each be right and still make a cycle together. Linear time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from valkyr.graph.conflicts import Conflict, ConflictKind
from valkyr.graph.document import graph_from_canonical, module_to_document
from valkyr.graph.findings import Finding, has_errors
from valkyr.graph.limits import DEFAULT_LIMITS, Limits
from valkyr.graph.merge_fields import MergedFields, merge_fields
from valkyr.graph.merge_names import conflicts_of_names
from valkyr.graph.merge_order import merged_order
from valkyr.graph.model import Edge, Graph, Module, Node, Settings, WorkflowInfo
from valkyr.graph.parts import (
    ABSENT,
    Key,
    Part,
    edge_document,
    equal_modules,
    keyed_edges,
    keyed_modules,
    keyed_nodes,
    node_document,
    settings_document,
    workflow_document,
)
from valkyr.graph.validate import validate

__all__ = ["Conflict", "ConflictKind", "Merge", "WorkflowMerge", "merge_graphs", "merge_unchecked", "merge_workflows"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Merge:
    """`graph` is None where there are conflicts. `findings` are those of the merged graph, errors first.

    `both_moved` are the ids of nodes that both moved to different places: mine stands.
    """

    graph: Graph | None
    conflicts: tuple[Conflict, ...] = ()
    findings: tuple[Finding, ...] = ()
    both_moved: tuple[str, ...] = ()

    @property
    def is_valid(self) -> bool:
        """Whether it can be saved: neither conflicts nor errors."""
        return self.graph is not None and not has_errors(list(self.findings))


@dataclass(frozen=True, slots=True)
class WorkflowMerge:
    """What is said beside the graph, merged. None where there are conflicts."""

    workflow: WorkflowInfo | None
    conflicts: tuple[Conflict, ...] = ()


def merge_graphs(
    base: Graph,
    current: Graph,
    mine: Graph,
    *,
    catalogue: Mapping[str, Any] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Merge:
    """The graph with the changes that `current` and `mine` made to `base`. `catalogue`, `limits`: see `validate`."""
    merge = merge_unchecked(base, current, mine)
    if merge.graph is None:
        return merge
    return replace(merge, findings=tuple(validate(merge.graph, catalogue=catalogue, limits=limits)))


def merge_unchecked(base: Graph, current: Graph, mine: Graph) -> Merge:
    """As `merge_graphs`, without findings: what was merged is yet to be validated.

    Graphs with errors, such as drafts, are merged as well: of parts with the same id the first with the first.
    """
    sides = (base, current, mine)
    nodes = _merged(_NODES, *(keyed_nodes(side) for side in sides))
    edges = _merged(_EDGES, *(keyed_edges(side) for side in sides))
    modules = _merged(_MODULES, *(keyed_modules(side) for side in sides))
    settings = _merged_settings(*(side.settings for side in sides))
    removals = _Removals([{node.node_id for node in side.nodes} for side in sides], {key[0] for key in nodes.items})
    conflicts = (
        *conflicts_of_names(base, current, mine),
        *nodes.conflicts,
        *edges.conflicts,
        *modules.conflicts,
        *settings.conflicts,
        *_edges_to_removed_nodes(edges, removals),
        *_modules_of_removed_nodes(modules, removals),
    )
    if conflicts:
        return Merge(None, conflicts, both_moved=tuple(nodes.both_moved))
    graph = Graph(
        tuple(nodes.items.values()),
        tuple(edges.items.values()),
        tuple(modules.items.values()),
        graph_from_canonical({"settings": settings.document}).settings,
    )
    return Merge(graph, both_moved=tuple(nodes.both_moved))


def merge_workflows(base: WorkflowInfo, current: WorkflowInfo, mine: WorkflowInfo) -> WorkflowMerge:
    """Name, description and labels (each by itself) with the changes of both; id and version are the current ones."""
    # Labels that all were taken away are none, not a value that has gone.
    documents = ({**workflow_document(side), "labels": dict(side.labels)} for side in (base, current, mine))
    merged = merge_fields(Part.WORKFLOW, "", **dict(zip(("base", "current", "mine"), documents, strict=True)))
    if merged.conflicts:
        return WorkflowMerge(None, tuple(merged.conflicts))
    said = merged.document
    described = {"description": said.get("description", ""), "labels": said.get("labels", {})}
    return WorkflowMerge(replace(current, name=said.get("name"), **described))


@dataclass(frozen=True, slots=True)
class _Kind(Generic[T]):
    """How parts of a kind are told apart, and turned into documents and back."""

    part: Part
    equal: Callable[[T, T], bool]
    document_of: Callable[[T], dict[str, Any]]
    read: Callable[[dict[str, Any]], T]
    without_place: Callable[[T], T] = lambda item: item


@dataclass(frozen=True, slots=True)
class _Merged(Generic[T]):
    """The merged parts in their order; those that are `disputed` stand as one of the sides has them."""

    base: Mapping[Key, T]
    current: Mapping[Key, T]
    mine: Mapping[Key, T]
    items: dict[Key, T] = field(default_factory=dict)
    conflicts: list[Conflict] = field(default_factory=list)
    disputed: set[Key] = field(default_factory=set)
    both_moved: list[str] = field(default_factory=list)

    def settled(self) -> Iterator[tuple[Key, T]]:
        """The parts that no conflict is about."""
        return ((key, item) for key, item in self.items.items() if key not in self.disputed)


_NODES: _Kind[Node] = _Kind(
    Part.NODE,
    lambda one, other: one == other,
    node_document,
    lambda document: graph_from_canonical({"nodes": [document]}).nodes[0],
    lambda node: replace(node, position=None),
)
_EDGES: _Kind[Edge] = _Kind(
    Part.EDGE,
    lambda one, other: one == other,
    edge_document,
    lambda document: graph_from_canonical({"edges": [document]}).edges[0],
)
_MODULES: _Kind[Module] = _Kind(
    Part.MODULE,
    equal_modules,
    module_to_document,
    lambda document: graph_from_canonical({"modules": [document]}).modules[0],
)


def _merged(kind: _Kind[T], base: Mapping[Key, T], current: Mapping[Key, T], mine: Mapping[Key, T]) -> _Merged[T]:
    result = _Merged(base, current, mine)
    for key in dict.fromkeys((*base, *current, *mine)):
        item = _merged_part(kind, key, result)
        if item is not None:
            result.items[key] = item
    order = merged_order(list(base), list(current), list(mine), result.items)
    ordered = {key: result.items[key] for key in order}
    return replace(result, items=ordered)


def _merged_part(kind: _Kind[T], key: Key, result: _Merged[T]) -> T | None:
    base, current, mine = result.base.get(key), result.current.get(key), result.mine.get(key)
    if _same(kind, current, mine) or _same(kind, base, current):
        return mine
    if _same(kind, base, mine):
        return current
    if base is None or current is None or mine is None:
        return _whole_part(kind, key, result)
    documents = {"base": base, "current": current, "mine": mine}
    merged = merge_fields(kind.part, key[0], **{name: kind.document_of(item) for name, item in documents.items()})
    if merged.both_moved:
        result.both_moved.append(key[0])
    if merged.conflicts:
        result.conflicts.extend(merged.conflicts)
        result.disputed.add(key)
        return mine
    return kind.read(merged.document)


def _whole_part(kind: _Kind[T], key: Key, result: _Merged[T]) -> T | None:
    """A part that both added, differently, or that one changed and the other removed."""
    base, current, mine = (side.get(key) for side in (result.base, result.current, result.mine))
    still = mine if current is None else current
    if base is None and current is not None and mine is not None:
        if kind.equal(kind.without_place(current), kind.without_place(mine)):
            result.both_moved.append(key[0])
            return mine
    elif base is not None and still is not None and kind.equal(kind.without_place(base), kind.without_place(still)):
        # It was only moved: who removed it knew all that it does.
        return None
    values = [ABSENT if side is None else kind.document_of(side) for side in (base, current, mine)]
    reason = ConflictKind.BOTH_ADDED if base is None else ConflictKind.CHANGED_AND_REMOVED
    result.conflicts.append(Conflict(reason, kind.part, key[0], "", *values))
    result.disputed.add(key)
    return mine if mine is not None else current


def _same(kind: _Kind[T], one: T | None, other: T | None) -> bool:
    if one is None or other is None:
        return one is other
    return one is other or kind.equal(one, other)


def _merged_settings(base: Settings, current: Settings, mine: Settings) -> MergedFields:
    documents = {"base": base, "current": current, "mine": mine}
    return merge_fields(Part.SETTINGS, "", **{name: settings_document(side) for name, side in documents.items()})


class _Removals:
    """Which side removed a node. `sides`: node ids of base, current and mine; `merged`: of what they make."""

    def __init__(self, sides: Sequence[set[str]], merged: set[str]) -> None:
        base, current, mine = sides
        self.by_current = (base & mine) - merged
        self.by_mine = (base & current) - merged


def _edges_to_removed_nodes(edges: _Merged[Edge], removals: _Removals) -> Iterator[Conflict]:
    """Of edges that who removed the node has not; where both have it, it is an error for the validator to find."""
    gone = removals.by_current | removals.by_mine
    for key, edge in edges.settled():
        if edge.source not in gone and edge.target not in gone:
            continue
        for end in ("source", "target"):
            node_id = getattr(edge, end)
            base, current, mine = (_end(side.get(key), end) for side in (edges.base, edges.current, edges.mine))
            conflict = Conflict(ConflictKind.EDGE_TO_REMOVED_NODE, Part.EDGE, key[0], end, base)
            if node_id in removals.by_current and current != node_id:
                yield replace(conflict, mine=node_id)
            elif node_id in removals.by_mine and mine != node_id:
                yield replace(conflict, current=node_id)


def _modules_of_removed_nodes(modules: _Merged[Module], removals: _Removals) -> Iterator[Conflict]:
    for key, module in modules.settled():
        conflict = Conflict(ConflictKind.MODULE_OF_REMOVED_NODE, Part.MODULE, key[0])
        if module.node_id in removals.by_current and key not in modules.current:
            yield replace(conflict, mine=module_to_document(module))
        elif module.node_id in removals.by_mine and key not in modules.mine:
            yield replace(conflict, current=module_to_document(module))


def _end(edge: Edge | None, end: str) -> Any:
    return ABSENT if edge is None else getattr(edge, end)
