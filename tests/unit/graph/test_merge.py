"""The three-way merge: a table of what goes together and of what does not, each both ways round."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.builders import a_chain, a_graph
from valkyr.graph.conflicts import Conflict, ConflictKind
from valkyr.graph.findings import Code
from valkyr.graph.merge import Merge, merge_graphs, merge_workflows
from valkyr.graph.model import (
    Edge,
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
from valkyr.graph.parts import ABSENT, Part, edge_document, node_document

CONFIG = {"url": "http://x", "headers": {"a": "1", "b": "2"}, "expect": [200]}
BASE = a_graph(
    "a -> b -> c",
    modules={
        "a": ("HttpRequestModule", CONFIG),
        "b": Module("b", "Mine", module_data='{"n": 1, "deep": {"m": [1], "k": 2}}'),
    },
    nodes={"a": {"position": Position(0, 0)}},
)
NODE, EDGE, MODULE, SETTINGS, WORKFLOW = Part


def node(node_id: str, **fields: Any) -> Graph:
    """The base with fields of a node replaced."""
    return replace(BASE, nodes=tuple(replace(n, **fields) if n.node_id == node_id else n for n in BASE.nodes))


def edge(edge_id: str, **fields: Any) -> Graph:
    return replace(BASE, edges=tuple(replace(e, **fields) if e.edge_id == edge_id else e for e in BASE.edges))


def module(node_id: str, **fields: Any) -> Graph:
    return replace(BASE, modules=tuple(replace(m, **fields) if m.node_id == node_id else m for m in BASE.modules))


def config(**fields: Any) -> Graph:
    return module("a", config={**CONFIG, **fields})


def without(node_id: str) -> Graph:
    """The base without a node, its module and its edges."""
    return Graph(
        tuple(n for n in BASE.nodes if n.node_id != node_id),
        tuple(e for e in BASE.edges if node_id not in (e.source, e.target)),
        tuple(m for m in BASE.modules if m.node_id != node_id),
    )


def plus(*, nodes: tuple[Node, ...] = (), edges: tuple[Edge, ...] = (), modules: tuple[Module, ...] = ()) -> Graph:
    return Graph(BASE.nodes + nodes, BASE.edges + edges, BASE.modules + modules)


TOGETHER: dict[str, tuple[Graph, Graph, Graph]] = {
    "two fields of one node": (node("b", label="B"), node("b", priority=2), node("b", label="B", priority=2)),
    "two fields of a retry that both added": (
        node("b", retry=Retry(3)),
        node("b", retry=Retry(None, timedelta(seconds=1))),
        node("b", retry=Retry(3, timedelta(seconds=1))),
    ),
    "the same change": (node("b", label="B"), node("b", label="B"), node("b", label="B")),
    "two keys of a config": (config(url="http://y"), config(more=1), config(url="http://y", more=1)),
    "two keys deep in a config": (
        config(headers={"a": "1", "b": "3"}),
        config(headers={"b": "2"}),
        config(headers={"b": "3"}),
    ),
    "two keys of a moduleData": (
        module("b", module_data='{"n":2,"deep":{"m":[1],"k":2}}'),
        module("b", module_data='{"n":1,"deep":{"m":[1,2],"k":2}}'),
        module("b", module_data='{"n":2,"deep":{"m":[1,2],"k":2}}'),
    ),
    "a moduleData that one only spelled otherwise": (
        module("b", module_data='{"n":1,"deep":{"m":[1],"k":2}}'),
        module("b", module_data='{"n": 5}'),
        module("b", module_data='{"n": 5}'),
    ),
    "the end of an edge and its condition": (
        edge("b->c", target="a"),
        edge("b->c", condition="true"),
        edge("b->c", target="a", condition="true"),
    ),
    "a removed node and a change elsewhere": (
        without("a"),
        node("c", label="C"),
        replace(without("a"), nodes=(BASE.nodes[1], replace(BASE.nodes[2], label="C"))),
    ),
    "a removed node that was only moved": (without("a"), node("a", position=Position(5, 5)), without("a")),
    "the same node removed by both": (without("c"), without("c"), without("c")),
    "two settings": (
        replace(BASE, settings=Settings(FailurePolicy.FAIL_FAST)),
        replace(BASE, settings=Settings(timeout=timedelta(seconds=9))),
        replace(BASE, settings=Settings(FailurePolicy.FAIL_FAST, timedelta(seconds=9))),
    ),
}


def same_conflicts(merge: Merge, swapped: Merge) -> bool:
    turned = [replace(found, current=found.mine, mine=found.current) for found in swapped.conflicts]
    return sorted(map(repr, merge.conflicts)) == sorted(map(repr, turned))


@pytest.mark.parametrize("case", TOGETHER)
def test_changes_in_different_places_both_stand(case: str) -> None:
    current, mine, wanted = TOGETHER[case]
    for merge in (merge_graphs(BASE, current, mine), merge_graphs(BASE, mine, current)):
        assert merge.graph == wanted
        assert not merge.conflicts
        assert not merge.both_moved


def test_both_additions_are_there_the_current_ones_first() -> None:
    current = plus(nodes=(Node("x"),), edges=(Edge("c->x", "c", "x"),))
    mine = plus(nodes=(Node("y"), Node("z")), modules=(Module("y", "Mine"),))
    merged = merge_graphs(BASE, current, mine).graph
    assert merged is not None
    assert [found.node_id for found in merged.nodes] == ["a", "b", "c", "x", "y", "z"]
    assert [found.edge_id for found in merged.edges] == ["a->b", "b->c", "c->x"]
    assert [found.node_id for found in merged.modules] == ["a", "b", "c", "y"]


def test_an_addition_stays_behind_what_it_was_put_behind() -> None:
    current = replace(BASE, nodes=(Node("first"), BASE.nodes[0], Node("x"), *BASE.nodes[1:]))
    mine = replace(BASE, nodes=(*BASE.nodes[::-1], Node("y")))
    for merge in (merge_graphs(BASE, current, mine), merge_graphs(BASE, mine, current)):
        assert merge.graph is not None
        assert [found.node_id for found in merge.graph.nodes] == ["first", "c", "b", "a", "x", "y"]


def clash(kind: ConflictKind, part: Part, identity: str, path: str = "", *values: Any) -> Conflict:
    return Conflict(kind, part, identity, path, *values)


B = node_document(BASE.nodes[1])
BOTH_CHANGED, BOTH_ADDED, CHANGED_AND_REMOVED, EDGE_TO_REMOVED, MODULE_OF_REMOVED = ConflictKind
MINE_B = '{"n": 1, "deep": {"m": [1], "k": 2}}'
CONFLICTS: dict[str, tuple[Graph, Graph, list[Conflict]]] = {
    "one field": (
        node("b", label="B"),
        node("b", label=""),
        [clash(BOTH_CHANGED, NODE, "b", "label", "b", "B", ABSENT)],
    ),
    "a field within a retry": (
        node("b", retry=Retry(3)),
        node("b", retry=Retry(4, timedelta(seconds=1))),
        [clash(BOTH_CHANGED, NODE, "b", "retry.maxAttempts", ABSENT, 3, 4)],
    ),
    "a join that one took back": (
        node("b", join=Join.ANY, label="x"),
        node("b", label="y"),
        [clash(BOTH_CHANGED, NODE, "b", "label", "b", "x", "y")],
    ),
    "one key deep in a config": (
        config(headers={"a": "1", "b": "3"}),
        config(headers={"a": "1", "b": "4"}),
        [clash(BOTH_CHANGED, MODULE, "a", "config.headers.b", "2", "3", "4")],
    ),
    "a true and a 1": (config(x=1), config(x=True), [clash(BOTH_CHANGED, MODULE, "a", "config.x", ABSENT, 1, True)]),
    "a list is one value": (
        config(expect=[200, 201]),
        config(expect=[204]),
        [clash(BOTH_CHANGED, MODULE, "a", "config.expect", [200], [200, 201], [204])],
    ),
    "one key of a moduleData": (
        module("b", module_data='{"n": 2, "deep": {"m": [1], "k": 2}}'),
        module("b", module_data='{"n": 3, "deep": {"m": [1], "k": 2}}'),
        [clash(BOTH_CHANGED, MODULE, "b", "moduleData.n", 1, 2, 3)],
    ),
    "a moduleData whose digits would be lost": (
        module("b", module_data='{"n": 123456789012345678901}'),
        module("b", module_data='{"m": 1}'),
        [clash(BOTH_CHANGED, MODULE, "b", "moduleData", MINE_B, '{"n": 123456789012345678901}', '{"m": 1}')],
    ),
    "a moduleData for which there are two configs": (
        module("b", module_data=None, config={"k": 1}),
        module("b", module_data=None, config={"k": 2}),
        [clash(BOTH_CHANGED, MODULE, "b", "config.k", ABSENT, 1, 2)],
    ),
    "a moduleData against a config, where there was neither": (
        module("c", module_data="{}"),
        module("c", config={"k": 2}),
        [clash(BOTH_CHANGED, MODULE, "c", "config", ABSENT, ABSENT, {"k": 2})],
    ),
    "the same id for two nodes": (
        plus(nodes=(Node("x", "one"),)),
        plus(nodes=(Node("x", "two"),)),
        [clash(BOTH_ADDED, NODE, "x", "", ABSENT, {"nodeId": "x", "label": "one"}, {"nodeId": "x", "label": "two"})],
    ),
    "the same id for two edges": (
        plus(edges=(Edge("e", "a", "c"),)),
        plus(edges=(Edge("e", "a", "b"),)),
        [
            clash(
                BOTH_ADDED,
                EDGE,
                "e",
                "",
                ABSENT,
                edge_document(Edge("e", "a", "c")),
                edge_document(Edge("e", "a", "b")),
            )
        ],
    ),
    "a node changed and removed": (
        node("b", label="B"),
        without("b"),
        [clash(CHANGED_AND_REMOVED, NODE, "b", "", B, {**B, "label": "B"}, ABSENT)],
    ),
    "an edge changed and removed": (
        edge("a->b", condition="true"),
        replace(BASE, edges=BASE.edges[1:]),
        [
            clash(
                CHANGED_AND_REMOVED,
                EDGE,
                "a->b",
                "",
                edge_document(BASE.edges[0]),
                {**edge_document(BASE.edges[0]), "condition": "true"},
                ABSENT,
            )
        ],
    ),
    "a new edge to a node that is gone": (
        plus(nodes=(Node("x"),), edges=(Edge("x->b", "x", "b"),)),
        without("b"),
        [clash(EDGE_TO_REMOVED, EDGE, "x->b", "target", ABSENT, "b")],
    ),
    "an edge led from a node that is gone": (
        edge("b->c", source="a"),
        Graph(BASE.nodes[1:], BASE.edges[1:], BASE.modules[1:]),
        [clash(EDGE_TO_REMOVED, EDGE, "b->c", "source", "b", "a")],
    ),
    "settings": (
        replace(BASE, settings=Settings(timeout=timedelta(seconds=1))),
        replace(BASE, settings=Settings(timeout=timedelta(seconds=2))),
        [clash(BOTH_CHANGED, SETTINGS, "", "timeout", ABSENT, "1s", "2s")],
    ),
}


@pytest.mark.parametrize("case", CONFLICTS)
def test_what_cannot_both_be_is_a_conflict_with_its_place_and_all_three_values(case: str) -> None:
    current, mine, conflicts = CONFLICTS[case]
    merge = merge_graphs(BASE, current, mine)
    assert list(merge.conflicts) == conflicts
    assert merge.graph is None
    assert not merge.is_valid
    assert same_conflicts(merge, merge_graphs(BASE, mine, current))


@pytest.mark.parametrize("edge", [None, Edge("e", "a", "d")], ids=["both added it", "both led it elsewhere"])
def test_an_edge_that_is_disputed_already_is_one_conflict_from_both_sides(edge: Edge | None) -> None:
    base = replace(a_graph("a, b, c, d"), edges=() if edge is None else (edge,))
    current = replace(base, edges=(Edge("e", "a", "b"),))
    nodes = tuple(node for node in base.nodes if node.node_id != "b")
    modules = tuple(module for module in base.modules if module.node_id != "b")
    mine = replace(base, nodes=nodes, edges=(Edge("e", "a", "c"),), modules=modules)
    for sides in ((current, mine), (mine, current)):
        kinds = [conflict.kind for conflict in merge_graphs(base, *sides).conflicts]
        assert kinds == [BOTH_ADDED if edge is None else BOTH_CHANGED]


def test_a_node_that_both_renamed_does_not_come_out_twice() -> None:
    base = a_graph("a -> b")
    one, two = a_graph("x -> b"), a_graph("y -> b")
    one, two = (replace(graph, nodes=(replace(graph.nodes[0], label="a"), graph.nodes[1])) for graph in (one, two))
    assert merge_graphs(base, one, two).conflicts == (
        clash(BOTH_CHANGED, NODE, "a", "nodeId", "a", "x", "y"),
        clash(BOTH_CHANGED, EDGE, "a->b", "edgeId", "a->b", "x->b", "y->b"),
    )
    assert merge_graphs(base, one, one).graph == one
    assert merge_graphs(base, one, base).graph == one


def test_a_node_that_one_renamed_and_the_other_removed_does_not_come_back() -> None:
    base = a_graph("a, charge")
    renamed = replace(a_graph("a, card"), nodes=(Node("a", "a"), Node("card", "charge")))
    removed = a_graph("a")
    assert merge_graphs(base, renamed, removed).conflicts == (
        clash(CHANGED_AND_REMOVED, NODE, "charge", "nodeId", "charge", "card", None),
    )
    assert merge_graphs(base, removed, renamed).conflicts == (
        clash(CHANGED_AND_REMOVED, NODE, "charge", "nodeId", "charge", None, "card"),
    )


def test_an_edge_that_one_renamed_and_the_other_removed_does_not_come_back() -> None:
    base = a_graph("a -> b")
    renamed = replace(base, edges=(replace(base.edges[0], edge_id="other"),))
    removed = replace(base, edges=())
    assert merge_graphs(base, renamed, removed).conflicts == (
        clash(CHANGED_AND_REMOVED, EDGE, "a->b", "edgeId", "a->b", "other", None),
    )


def test_what_one_renamed_and_the_other_used_is_a_conflict() -> None:
    base = a_graph("a -> b")
    mine = replace(a_graph("x -> b"), nodes=(Node("x", "a"), Node("b", "b")))
    changed = replace(base, modules=(replace(base.modules[0], class_name="Mine"), base.modules[1]))
    kinds = [(found.kind, found.part, found.id) for found in merge_graphs(base, changed, mine).conflicts]
    assert kinds == [(CHANGED_AND_REMOVED, MODULE, "a")]


def test_a_module_for_a_node_that_the_other_removed_is_a_conflict() -> None:
    base = a_graph("a -> b", modules={"b": None})
    current = replace(base, modules=(*base.modules, Module("b", "Mine")))
    mine = Graph(base.nodes[:1], (), base.modules)
    given = {"nodeId": "b", "className": "Mine"}
    assert merge_graphs(base, current, mine).conflicts == (clash(MODULE_OF_REMOVED, MODULE, "b", "", ABSENT, given),)
    assert merge_graphs(base, mine, current).conflicts == (
        clash(MODULE_OF_REMOVED, MODULE, "b", "", ABSENT, ABSENT, given),
    )


def test_where_both_moved_a_node_mine_stands_and_it_is_told() -> None:
    current, mine = node("a", position=Position(1, 1)), node("a", position=Position(2, 2), label="A")
    merge = merge_graphs(BASE, current, mine)
    assert merge.graph == mine
    assert merge.both_moved == ("a",)
    assert merge_graphs(BASE, mine, current).graph == node("a", position=Position(1, 1), label="A")


def test_a_node_that_both_added_at_different_places_is_one_node() -> None:
    current, mine = plus(nodes=(Node("x", position=Position(1, 1)),)), plus(nodes=(Node("x"),))
    merge = merge_graphs(BASE, current, mine)
    assert (merge.graph, merge.both_moved) == (mine, ("x",))


def test_two_edges_that_make_a_cycle_together_are_no_conflict_but_found() -> None:
    base = a_graph("a, b")
    current, mine = a_graph("a -> b"), a_graph("b -> a")
    merge = merge_graphs(base, replace(base, edges=current.edges), replace(base, edges=mine.edges))
    assert merge.graph is not None
    assert [finding.code for finding in merge.findings if finding.is_error] == [Code.CYCLE]
    assert not merge.is_valid


def test_a_reference_to_a_node_that_the_other_took_out_of_the_way_is_found() -> None:
    current = replace(BASE, edges=BASE.edges[:1])
    mine = module("c", config={"x": '${nodes["a"].outputs}'})
    assert merge_graphs(BASE, BASE, mine).is_valid
    merge = merge_graphs(BASE, current, mine)
    assert [finding.code for finding in merge.findings if finding.is_error] == [Code.UNKNOWN_REFERENCE]


def test_the_catalogue_is_asked_about_what_was_merged() -> None:
    schema = {"HttpRequestModule": {"maxProperties": 4}}
    merge = merge_graphs(BASE, config(one=1), config(two=2), catalogue=schema)
    assert [finding.code for finding in merge.findings if finding.is_error] == [Code.BAD_MODULE_DATA]


def test_an_edge_into_nowhere_that_stood_in_a_draft_is_for_the_validator() -> None:
    mine = replace(without("b"), edges=BASE.edges)
    merge = merge_graphs(BASE, node("c", label="C"), mine)
    assert not merge.conflicts
    assert [finding.code for finding in merge.findings if finding.is_error] == [Code.UNKNOWN_NODE] * 2


def test_what_is_said_beside_the_graph_is_merged_label_by_label() -> None:
    base = WorkflowInfo(id="1", name="orders", description="x", labels={"team": "a", "tier": "1"}, version=3)
    current = replace(base, labels={"team": "b", "tier": "1"}, version=4)
    mine = replace(base, name="Orders", labels={"team": "a", "new": "y"})
    merged = merge_workflows(base, current, mine)
    assert merged.workflow == replace(current, name="Orders", labels={"team": "b", "new": "y"})
    clashing = merge_workflows(base, replace(base, name="One"), replace(base, name="Two", labels={}))
    assert clashing.workflow is None
    assert clashing.conflicts == (clash(BOTH_CHANGED, WORKFLOW, "", "name", "orders", "One", "Two"),)


def test_labels_that_one_took_away_altogether_do_not_go_against_one_that_the_other_added() -> None:
    base = WorkflowInfo(labels={"team": "a"})
    merged = merge_workflows(base, replace(base, labels={}), replace(base, labels={"team": "a", "new": "y"}))
    assert merged.workflow == replace(base, labels={"new": "y"})


def test_ten_thousand_conflicts_are_all_told() -> None:
    base = a_chain(10_000)
    one, two = (replace(base, nodes=tuple(replace(n, label=label) for n in base.nodes)) for label in "xy")
    assert len(merge_graphs(base, one, two).conflicts) == 10_000
