"""A node under another id, all else equal: one entry, and its modules and edges go with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from tests.builders import a_chain, a_fan, a_graph
from tests.unit.graph.small_graphs import DRAFTS, VERSIONS
from tests.unit.graph.test_diff import apply, parts_of, rename, same, unique
from valkyr.graph.diff import Change, ChangeKind, GraphDiff, Part, diff_graphs
from valkyr.graph.document import canonical_bytes
from valkyr.graph.model import Graph, Position

OLD = a_graph("a -> b -> c, a -> c", modules={"b": ("Mine", {"x": 1})})


def renamed(graph: Graph, names: dict[str, str], *, edges: dict[str, str] | None = None) -> Graph:
    """The graph under other ids; `edges` are new ids of edges."""
    return replace(
        graph,
        nodes=tuple(replace(node, node_id=names.get(node.node_id, node.node_id)) for node in graph.nodes),
        edges=tuple(
            replace(
                edge,
                edge_id=(edges or {}).get(edge.edge_id, edge.edge_id),
                source=names.get(edge.source, edge.source),
                target=names.get(edge.target, edge.target),
            )
            for edge in graph.edges
        ),
        modules=tuple(replace(m, node_id=names.get(m.node_id, m.node_id)) for m in graph.modules),
    )


def of_node(old: str, new: str) -> Change:
    return Change(ChangeKind.RENAMED, Part.NODE, old, "nodeId", old, new)


def of_edge(old: str, new: str) -> Change:
    return Change(ChangeKind.RENAMED, Part.EDGE, old, "edgeId", old, new)


def test_a_renamed_node_is_one_entry_where_its_edges_kept_their_ids() -> None:
    assert diff_graphs(OLD, renamed(OLD, {"b": "x"})) == GraphDiff((of_node("b", "x"),))


def test_edges_whose_ids_follow_their_ends_are_renamed_with_it() -> None:
    new = renamed(OLD, {"b": "x"}, edges={"a->b": "a->x", "b->c": "x->c"})
    assert diff_graphs(OLD, new).changes == (of_node("b", "x"), of_edge("a->b", "a->x"), of_edge("b->c", "x->c"))


def test_all_nodes_and_edges_may_be_renamed_at_once() -> None:
    for graph in (OLD, a_chain(50), a_fan(20), a_graph("a -> b, c -> d")):
        nodes = {node.node_id: f"new {node.node_id}" for node in graph.nodes}
        edges = {edge.edge_id: f"new {edge.edge_id}" for edge in graph.edges}
        diff = diff_graphs(graph, renamed(graph, nodes, edges=edges))
        assert {change.id: change.new for change in diff.changes if change.part is Part.NODE} == nodes
        assert {change.id: change.new for change in diff.changes if change.part is Part.EDGE} == edges
        assert not diff.reordered


@pytest.mark.parametrize(
    "change",
    [
        lambda graph: replace(graph, nodes=(graph.nodes[0], replace(graph.nodes[1], label="B"), graph.nodes[2])),
        lambda graph: replace(
            graph, nodes=(graph.nodes[0], replace(graph.nodes[1], position=Position(1, 1)), graph.nodes[2])
        ),
        lambda graph: replace(graph, edges=graph.edges[1:]),
        lambda graph: replace(graph, modules=(graph.modules[0], graph.modules[2])),
        lambda graph: replace(
            graph, modules=(graph.modules[0], replace(graph.modules[1], config={"x": True}), graph.modules[2])
        ),
    ],
    ids=["a label", "a position", "an edge fewer", "no module", "a true for a 1"],
)
def test_a_node_of_which_more_than_the_id_changed_is_removed_and_added(change) -> None:  # type: ignore[no-untyped-def]
    kinds = [found.kind for found in diff_graphs(OLD, change(renamed(OLD, {"b": "x"}))).changes if found.part == "NODE"]
    assert kinds == [ChangeKind.REMOVED, ChangeKind.ADDED]


def test_a_changed_condition_of_an_edge_is_told_beside_the_rename_of_its_end() -> None:
    new = renamed(OLD, {"b": "x"})
    new = replace(new, edges=(replace(new.edges[0], condition="true"), *new.edges[1:]))
    wanted = Change(ChangeKind.CHANGED, Part.EDGE, "a->b", "condition", new="true")
    assert diff_graphs(OLD, new).changes == (of_node("b", "x"), wanted)


def test_twins_of_which_one_went_and_two_came_are_not_guessed() -> None:
    old, new = a_graph("a, b", nodes={"b": {"label": "x"}}), a_graph("a, c, d", nodes={k: {"label": "x"} for k in "cd"})
    assert not [found for found in diff_graphs(old, new).changes if found.kind is ChangeKind.RENAMED]


def test_parallel_edges_are_told_apart_by_what_they_say() -> None:
    old = a_graph("a -> b, a -> b", edges={"a->b#2": {"kind": "FAILURE"}})
    new = renamed(old, {}, edges={"a->b": "one", "a->b#2": "two"})
    assert diff_graphs(old, new).changes == (of_edge("a->b", "one"), of_edge("a->b#2", "two"))


@given(VERSIONS)
@settings(max_examples=150, deadline=None)
def test_new_ids_for_everything_are_renames_and_nothing_else(graph: Graph) -> None:
    graph = replace(graph, modules=tuple(m for m in graph.modules if m.node_id in {n.node_id for n in graph.nodes}))
    known = {node.node_id for node in graph.nodes}
    graph = replace(graph, edges=tuple(e for e in graph.edges if {e.source, e.target} <= known))
    nodes = {node.node_id: node.node_id.upper() for node in graph.nodes}
    diff = diff_graphs(graph, renamed(graph, nodes))
    assert {change.kind for change in diff.changes} <= {ChangeKind.RENAMED}
    assert len(diff.changes) == len(nodes)


@given(VERSIONS, VERSIONS)
@settings(max_examples=200, deadline=None)
def test_the_old_graph_with_its_renames_and_changes_made_is_the_new_one(old: Graph, new: Graph) -> None:
    old, new = unique(old), unique(new)
    diff = diff_graphs(old, new)
    parts = rename(parts_of(old), diff)
    for change in (*diff.changes, *diff.moves):
        apply(parts, change)
    wanted = parts_of(new)
    assert parts.keys() == wanted.keys()
    assert all(same(parts[key], wanted[key]) for key in wanted)


@given(DRAFTS, DRAFTS)
@settings(max_examples=200, deadline=None)
def test_a_diff_is_empty_for_the_same_document_and_for_no_other(old: Graph, new: Graph) -> None:
    assert bool(diff_graphs(old, new)) is (canonical_bytes(old) != canonical_bytes(new))
    assert not diff_graphs(new, replace(new))
