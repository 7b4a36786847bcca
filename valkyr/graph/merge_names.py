"""Nodes and edges that both renamed: without a conflict each would come out of a merge twice, under both ids."""

from __future__ import annotations

from collections.abc import Iterator

from valkyr.graph.conflicts import Conflict, ConflictKind
from valkyr.graph.model import Graph
from valkyr.graph.parts import Part
from valkyr.graph.renames import find_renames


def renamed_twice(base: Graph, current: Graph, mine: Graph) -> Iterator[Conflict]:
    """BOTH_CHANGED of `nodeId` or `edgeId`, for what has two new ids."""
    theirs, ours = find_renames(base, current), find_renames(base, mine)
    for part, path, names, others in (
        (Part.NODE, "nodeId", theirs.nodes, ours.nodes),
        (Part.EDGE, "edgeId", theirs.edges, ours.edges),
    ):
        for old, new in names.items():
            other = others.get(old, new)
            if other != new:
                yield Conflict(ConflictKind.BOTH_CHANGED, part, old, path, old, new, other)
