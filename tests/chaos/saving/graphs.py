"""The saves that are struck: of every kind that takes other statements, and no two of the same content."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from tests.builders import a_graph
from valkyr.graph.model import Graph, Position


class Kind(StrEnum):
    """What a save does to what is stored."""

    CREATE = "creates, without an id"
    CREATE_WITH_ID = "creates, with an id"
    CHANGE = "inserts, updates and deletes rows of every table"
    LAYOUT = "moves nodes"
    DESCRIBE = "changes the description alone"
    UNCHANGED = "changes nothing"

    @property
    def creates(self) -> bool:
        return self in (Kind.CREATE, Kind.CREATE_WITH_ID)


def graph_number(number: int) -> Graph:
    """From any to any other, nodes, edges and modules are added, changed and removed."""
    only = [f"n{number}.{place}" for place in range(1 + number % 4)]
    return a_graph(
        ", ".join(f"a -> {name} -> b" for name in only),
        nodes={"a": {"label": f"at {number}"}},
        modules={"a": ("TransformModule", {"output": {"number": number}}), only[0]: None},
        edges={f"a->{only[-1]}": {"edge_id": "always there", "condition": f"{number} == {number}"}},
    )


def moved(graph: Graph, number: int) -> Graph:
    """The same but for where its nodes are drawn."""
    nodes = tuple(replace(node, position=Position(float(number), float(i))) for i, node in enumerate(graph.nodes))
    return replace(graph, nodes=nodes)
