"""A diff and the conflicts of a merge as people read them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings

from tests.builders import a_chain, a_graph
from tests.unit.graph.small_graphs import VERSIONS
from tests.unit.graph.test_document import GRAPHS
from valkyr.graph.conflict_text import conflict_lines, sentence_of
from valkyr.graph.diff import changes_of, diff_graphs, differences_of
from valkyr.graph.diff_text import MAX_VALUE, diff_lines
from valkyr.graph.merge import merge_graphs, merge_workflows
from valkyr.graph.model import Edge, EdgeKind, Graph, Module, Node, Position, Settings, WorkflowInfo

OLD = a_graph(
    "receive -> charge -> ship",
    modules={
        "charge": ("HttpRequestModule", {"url": "http://old", "body": "first\nsecond\nthird\nfourth\nfifth"}),
        "ship": Module("ship", "Mine", module_data='{"to": "here", "n": 1}'),
    },
)
NEW = Graph(
    nodes=(
        replace(OLD.nodes[0], node_id="intake"),
        replace(OLD.nodes[1], label="two\nlines", position=Position(1, 2.5)),
        Node("mail", "日本語 ‮"),
    ),
    edges=(
        replace(OLD.edges[0], source="intake"),
        Edge("charge->mail", "charge", "mail", kind=EdgeKind.FAILURE),
    ),
    modules=(
        replace(OLD.modules[0], node_id="intake"),
        Module("charge", "HttpRequestModule", config={"url": None, "body": "first\nsecond\n3rd\nfourth\nfifth"}),
        Module("mail", "EmailModule", config={"to": "x", "cc": []}),
    ),
    settings=Settings(timeout=timedelta(seconds=30)),
)


def test_a_diff_looks_like_a_diff() -> None:
    named = WorkflowInfo(name="orders"), WorkflowInfo(name="Orders", labels={"team": "a"})
    lines = diff_lines(diff_graphs(OLD, NEW, workflows=named), old="version 3", new="version 4")
    assert "\n".join(lines) == (
        "--- version 3\n"
        "+++ version 4\n"
        "@@ node receive renamed @@\n"
        '-nodeId: "receive"\n'
        '+nodeId: "intake"\n'
        "@@ node charge @@\n"
        '-label: "charge"\n'
        '+label: "two\\nlines"\n'
        "@@ node ship removed @@\n"
        '-nodeId: "ship"\n'
        '-label: "ship"\n'
        "@@ node mail added @@\n"
        '+nodeId: "mail"\n'
        '+label: "日本語 \\u202e"\n'
        "@@ edge charge->ship removed @@\n"
        '-edgeId: "charge->ship"\n'
        '-source: "charge"\n'
        '-target: "ship"\n'
        "@@ edge charge->mail added @@\n"
        '+edgeId: "charge->mail"\n'
        '+source: "charge"\n'
        '+target: "mail"\n'
        '+kind: "FAILURE"\n'
        "@@ module of charge @@\n"
        '-config.url: "http://old"\n'
        "+config.url: null\n"
        " config.body:\n"
        "   first\n"
        "   second\n"
        "-  third\n"
        "+  3rd\n"
        "   fourth\n"
        "   fifth\n"
        "@@ module of ship removed @@\n"
        '-nodeId: "ship"\n'
        '-className: "Mine"\n'
        '-moduleData.to: "here"\n'
        "-moduleData.n: 1\n"
        "@@ module of mail added @@\n"
        '+nodeId: "mail"\n'
        '+className: "EmailModule"\n'
        '+config.to: "x"\n'
        "+config.cc: []\n"
        "@@ the settings @@\n"
        '+timeout: "30s"\n'
        "@@ the workflow @@\n"
        '-name: "orders"\n'
        '+name: "Orders"\n'
        '+labels: {"team": "a"}\n'
        "@@ layout: 1 node moved @@\n"
        " charge: nowhere -> (1, 2.5)"
    )


def test_no_difference_is_no_line_and_another_order_is_one() -> None:
    assert diff_lines(diff_graphs(OLD, OLD)) == []
    diff = diff_graphs(OLD, replace(OLD, nodes=OLD.nodes[::-1], edges=OLD.edges[::-1]))
    assert diff.is_layout
    assert diff_lines(diff)[2:] == ["@@ nodes, edges: in another order @@"]


def test_of_a_long_text_the_lines_that_differ_are_shown_with_those_around() -> None:
    texts = ["\n".join(["one", "two", "three", "four", "five", middle, "seven"]) for middle in ("six", "6")]
    old, new = (a_graph("a", modules={"a": ("M", {"script": text})}) for text in texts)
    assert diff_lines(diff_graphs(old, new))[3:] == [
        " config.script:",
        "   …",
        "   four",
        "   five",
        "-  six",
        "+  6",
        "   seven",
    ]


def test_long_values_are_cut_where_they_differ() -> None:
    same = "x" * 5_000
    old, new = (a_graph("a", modules={"a": ("M", {"text": same + tail})}) for tail in ("one" * 200, "two" * 200))
    removed, added = diff_lines(diff_graphs(old, new))[3:]
    assert "xone" in removed
    assert "xtwo" in added
    assert len(added) < MAX_VALUE + 60
    assert added.endswith(" more)")


def test_ten_thousand_changes_are_cut_and_counted() -> None:
    old = a_chain(10_000)
    new = replace(old, nodes=tuple(replace(n, label="x", position=Position(1, 1)) for n in old.nodes), edges=())
    lines = diff_lines(diff_graphs(old, new), limit=100)
    assert len(lines) < 140
    assert " … 19,966 changes more, in 19,966 parts" in lines
    assert " … 9,980 nodes more" in lines


def test_the_entries_of_an_answer_are_changes_again() -> None:
    diff = diff_graphs(OLD, NEW)
    came = changes_of(differences_of(diff))
    for change, was in zip(came, (*diff.changes, *diff.moves), strict=True):
        assert change == (was if was.path else replace(was, old=change.old, new=change.new))
    cut = replace(differences_of(diff)[0], old='"rece…')
    assert changes_of([cut])[0].old == '"rece…'


def test_conflicts_say_who_did_what() -> None:
    base = a_graph("a -> b", modules={"b": None})
    current = replace(base, nodes=(replace(base.nodes[0], label="x"), base.nodes[1], Node("n", "x")))
    mine = replace(base, nodes=(replace(base.nodes[0], label="y"), base.nodes[1], Node("n", "y")))
    assert conflict_lines(merge_graphs(base, current, mine).conflicts)[:5] == [
        "conflict: node a: both changed label",
        '  base     "a"',
        '  current  "x"',
        '  mine     "y"',
        "conflict: node n: both added it, differently",
    ]
    gone = Graph(base.nodes[:1], (), base.modules)
    more = replace(base, edges=(*base.edges, Edge("e", "b", "a")), modules=(*base.modules, Module("b", "M")))
    relabelled = replace(base, nodes=(base.nodes[0], replace(base.nodes[1], label="x")))
    sentences = [
        [sentence_of(conflict) for conflict in merge_graphs(base, *sides).conflicts]
        for sides in ((more, gone), (gone, more), (relabelled, gone))
    ]
    assert sentences == [
        [
            'edge e: current leads from node "b", which mine removed',
            "module of b: current gave a module to a node that mine removed",
        ],
        [
            'edge e: mine leads from node "b", which current removed',
            "module of b: mine gave a module to a node that current removed",
        ],
        ["node b: mine removed what current changed"],
    ]
    names = (WorkflowInfo(name=name) for name in "abc")
    assert [sentence_of(found) for found in merge_workflows(*names).conflicts] == ["the workflow: both changed name"]


def test_many_conflicts_are_cut_and_counted() -> None:
    base = a_chain(300)
    one, two = (replace(base, nodes=tuple(replace(n, label=label) for n in base.nodes)) for label in "xy")
    lines = conflict_lines(merge_graphs(base, one, two).conflicts, limit=10)
    assert len(lines) == 41
    assert lines[-1] == "… 290 more conflicts"


@given(GRAPHS, GRAPHS)
@settings(max_examples=50, deadline=None)
def test_whatever_graphs_hold_each_line_is_one_line(old: Graph, new: Graph) -> None:
    assert all(line.isprintable() for line in diff_lines(diff_graphs(old, new)))


@given(VERSIONS, VERSIONS, VERSIONS)
@settings(max_examples=50, deadline=None)
def test_every_conflict_has_its_four_lines(base: Graph, current: Graph, mine: Graph) -> None:
    conflicts = merge_graphs(base, current, mine).conflicts
    lines = conflict_lines(conflicts)
    assert len(lines) == 4 * len(conflicts)
    assert all(line.isprintable() for line in lines)
