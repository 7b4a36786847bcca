"""Diff and merge of the forty-one real graphs: two people who edit different ends of one, and the same end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.graph.test_real_graphs import INDEX, read
from tests.unit.graph.test_renames import renamed
from valkyr.graph.diff import ChangeKind, Part, diff_graphs
from valkyr.graph.diff_text import diff_lines
from valkyr.graph.merge import merge_graphs
from valkyr.graph.model import Edge, Graph, Module, Node
from valkyr.graph.validate import validate

every_graph = pytest.mark.parametrize("entry", INDEX, ids=lambda entry: entry["file"].removesuffix(".json"))


def relabelled(graph: Graph, index: int, label: str) -> Graph:
    nodes = [replace(node, label=label) if at == index else node for at, node in enumerate(graph.nodes)]
    return replace(graph, nodes=tuple(nodes))


@every_graph
def test_edits_of_both_ends_go_together_and_a_new_node_with_its_edge_too(entry: dict[str, Any]) -> None:
    base = read(entry)
    if not base.nodes:
        return
    last = base.nodes[-1].node_id
    current = relabelled(base, 0, "by the other")
    mine = replace(
        base,
        nodes=(*base.nodes, Node("new node")),
        edges=(*base.edges, Edge("new edge", last, "new node")),
        modules=(*base.modules, Module("new node", "NoopModule")),
    )
    merge = merge_graphs(base, current, mine)
    assert merge.graph == replace(mine, nodes=(*current.nodes, mine.nodes[-1]))
    assert list(merge.findings) == validate(merge.graph)
    changes = diff_graphs(base, merge.graph).changes
    assert [(change.kind, change.part) for change in changes] == [
        (ChangeKind.CHANGED, Part.NODE),
        (ChangeKind.ADDED, Part.NODE),
        (ChangeKind.ADDED, Part.EDGE),
        (ChangeKind.ADDED, Part.MODULE),
    ]
    assert all(line.isprintable() for line in diff_lines(diff_graphs(base, merge.graph)))


@every_graph
def test_one_label_for_two_people_is_one_conflict(entry: dict[str, Any]) -> None:
    base = read(entry)
    if base.nodes:
        merge = merge_graphs(base, relabelled(base, 0, "one"), relabelled(base, 0, "two"))
        assert [(found.part, found.id, found.path) for found in merge.conflicts] == [
            (Part.NODE, base.nodes[0].node_id, "label")
        ]


@every_graph
def test_a_renamed_node_is_recognised_in_it(entry: dict[str, Any]) -> None:
    base = read(entry)
    counts: dict[str, int] = {}
    for node in base.nodes:
        counts[node.node_id] = counts.get(node.node_id, 0) + 1
    for node_id in [node.node_id for node in base.nodes if counts[node.node_id] == 1][:5]:
        diff = diff_graphs(base, renamed(base, {node_id: "another id"}))
        assert [(change.kind, change.old, change.new) for change in diff.changes] == [
            (ChangeKind.RENAMED, node_id, "another id")
        ]
        assert not diff.reordered
