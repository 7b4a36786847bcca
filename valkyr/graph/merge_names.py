"""Nodes and edges that got new ids: one that both renamed would come out of a merge twice, under both ids; one that the
other removed would come back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

from valkyr.graph.conflicts import Conflict, ConflictKind
from valkyr.graph.model import Graph
from valkyr.graph.parts import Part
from valkyr.graph.renames import find_renames


def conflicts_of_names(base: Graph, current: Graph, mine: Graph) -> Iterator[Conflict]:
    """BOTH_CHANGED of `nodeId` or `edgeId`, for what has two new ids; CHANGED_AND_REMOVED, for what one renamed and the
    other removed."""
    theirs, ours = find_renames(base, current), find_renames(base, mine)
    yield from _conflicts(Part.NODE, "nodeId", theirs.nodes, ours.nodes, _node_ids(current), _node_ids(mine))
    yield from _conflicts(Part.EDGE, "edgeId", theirs.edges, ours.edges, _edge_ids(current), _edge_ids(mine))


def _conflicts(
    part: Part, path: str, theirs: Mapping[str, str], ours: Mapping[str, str], current: Set[str], mine: Set[str]
) -> Iterator[Conflict]:
    for old, new in theirs.items():
        if old not in ours and old not in mine:
            yield Conflict(ConflictKind.CHANGED_AND_REMOVED, part, old, path, old, new, None)
        elif ours.get(old, new) != new:
            yield Conflict(ConflictKind.BOTH_CHANGED, part, old, path, old, new, ours[old])
    for old, new in ours.items():
        if old not in theirs and old not in current:
            yield Conflict(ConflictKind.CHANGED_AND_REMOVED, part, old, path, old, None, new)


def _node_ids(graph: Graph) -> Set[str]:
    return {node.node_id for node in graph.nodes}


def _edge_ids(graph: Graph) -> Set[str]:
    return {edge.edge_id for edge in graph.edges}
