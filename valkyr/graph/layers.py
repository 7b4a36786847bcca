"""The nodes of a graph in layers: each below all that leads to it, for any graph, with cycles too. Linear time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from valkyr.graph.model import Edge, Graph, Node
from valkyr.graph.shape import Shape, shape_of


@dataclass(frozen=True, slots=True)
class Layers:
    """`rows` from the top down, nodes in file order; nodes without edges stand in `isolated` instead.

    `row_of` is the number of a node's row. `strays` are edges whose source is no node, `repeated` nodes whose id
    another one has.
    """

    rows: Sequence[Sequence[Node]]
    isolated: Sequence[Node]
    outgoing: Mapping[str, Sequence[Edge]]
    incoming: Mapping[str, int]
    row_of: Mapping[str, int]
    strays: Sequence[Edge]
    repeated: int


def layers_of(graph: Graph) -> Layers:
    """A node's layer is the length of the longest way to it; the nodes of a cycle share one."""
    shape = shape_of(graph.nodes, graph.edges)
    depths = _depths(shape)
    outgoing: dict[str, list[Edge]] = {}
    incoming: dict[str, int] = {}
    for edge in graph.edges:
        outgoing.setdefault(edge.source, []).append(edge)
        incoming[edge.target] = incoming.get(edge.target, 0) + 1
    nodes = {node.node_id: node for node in reversed(graph.nodes)}
    rows: list[list[Node]] = [[] for _ in range(max(depths, default=-1) + 1)]
    isolated: list[Node] = []
    for node_id, number in shape.numbers.items():
        connected = node_id in outgoing or node_id in incoming
        (rows[depths[number]] if connected else isolated).append(nodes[node_id])
    return Layers(
        rows=[row for row in rows if row],
        isolated=isolated,
        outgoing=outgoing,
        incoming=incoming,
        row_of={node_id: depths[number] for node_id, number in shape.numbers.items()},
        strays=[edge for edge in graph.edges if edge.source not in shape.numbers],
        repeated=len(graph.nodes) - len(shape.numbers),
    )


def _depths(shape: Shape) -> list[int]:
    depths = [0] * len(shape.numbers)
    for group in ([node] for node in shape.order):
        _lower(group, depths, shape)
    for component in shape.components:
        deepest = max(depths[node] for node in component)
        for node in component:
            depths[node] = deepest
        _lower(component, depths, shape)
    return depths


def _lower(group: Sequence[int], depths: list[int], shape: Shape) -> None:
    """What follows a group of nodes stands below it."""
    members = set(group)
    below = depths[group[0]] + 1
    for node in group:
        for successor in shape.successors[node]:
            if depths[successor] < below and successor not in members:
                depths[successor] = below
