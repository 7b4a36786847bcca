"""Graphs drawn for a terminal: small ones whole, large ones with what is left out counted."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given, settings

from tests.builders import a_chain, a_fan, a_graph
from tests.unit.graph.small_graphs import DRAFTS
from tests.unit.graph.test_document import GRAPHS
from tests.unit.graph.test_real_graphs import INDEX, read
from valkyr.graph.drawing import MAX_LINES, drawing_lines
from valkyr.graph.layers import layers_of
from valkyr.graph.model import Edge, FailurePolicy, Graph, Join, Node, Retry, Settings
from valkyr.graph.one_line import cells, cut, one_line, value_text


def test_a_graph_is_drawn_layer_by_layer() -> None:
    graph = a_graph(
        "receive -> check -> charge -> ship, check -> refuse, charge -> refuse, note",
        modules={"receive": None, "charge": ("HttpRequestModule", {})},
        nodes={
            "charge": {"label": "Charge the card", "retry": Retry(5), "timeout": timedelta(seconds=30)},
            "refuse": {"join": Join.ANY, "pool": "slow", "priority": -3, "deadline": timedelta(hours=1)},
        },
        edges={
            "check->charge": {"condition": "outputs.total > 0"},
            "charge->refuse": {"kind": "FAILURE"},
            "charge->ship": {"kind": "ALWAYS"},
        },
        settings=Settings(FailurePolicy.FAIL_FAST, timedelta(minutes=5), Retry(1)),
    )
    assert "\n".join(drawing_lines(graph)) == (
        "6 nodes, 5 edges, 4 layers; FAIL_FAST; timeout 300s; 1 attempt\n"
        "layer 1\n"
        "  ○ receive\n"
        "    └─▶ check\n"
        "layer 2\n"
        "  ● check  [NoopModule]\n"
        "    ├─▶ charge  if outputs.total > 0\n"
        "    └─▶ refuse\n"
        "layer 3\n"
        '  ● charge  "Charge the card"  [HttpRequestModule]  timeout 30s  5 attempts\n'
        "    ├─▶ ship  always\n"
        "    └─▶ refuse  on failure\n"
        "layer 4  (2)\n"
        "  ● ship  [NoopModule]\n"
        "  ● refuse  [NoopModule]  any of 2  pool slow  priority -3  deadline 3600s\n"
        "isolated, run at the start\n"
        "  ● note  [NoopModule]"
    )


def test_what_is_wrong_with_a_graph_is_drawn_too() -> None:
    graph = a_graph("a -> b -> c -> b, a -> a")
    graph = replace(
        graph, nodes=(*graph.nodes, Node("a", "again")), edges=(*graph.edges, Edge("1", "c", "x"), Edge("2", "y", "a"))
    )
    assert "\n".join(drawing_lines(graph)) == (
        "4 nodes, 6 edges, 2 layers, 1 with an id that another has\n"
        "layer 1\n"
        "  ● a  [NoopModule]  all of 2\n"
        "    ├─▶ b\n"
        "    └─▶ a  (to itself)\n"
        "layer 2  (2)\n"
        "  ● b  [NoopModule]  all of 2\n"
        "    └─▶ c  (in a cycle)\n"
        "  ● c  [NoopModule]\n"
        "    ├─▶ b  (in a cycle)\n"
        "    └─▶ x  (no such node)\n"
        "edges from no node\n"
        "    y └─▶ a"
    )
    assert drawing_lines(Graph()) == ["0 nodes, 0 edges, 0 layers"]


def test_labels_and_ids_of_any_kind_stay_on_their_line() -> None:
    graph = Graph(
        (Node(" ", ""), Node("0", "one\n\n  two\r\n"), Node("i" * 305, "漢字" * 100), Node("x\x1b[2J\u202e", "e\u0301"))
    )
    assert drawing_lines(graph, width=70)[2:] == [
        '  ○ " "',
        '  ○ 0  "one ⏎ two"',
        f'  ○ {"i" * 59}…  "漢…',
        '  ○ x\\x1b[2J\\u202e  "e\u0301"',
    ]


LARGE: dict[str, Any] = {
    "a chain": lambda: a_chain(10_000),
    "a fan": lambda: a_fan(9_998),
    "no edges": lambda: Graph(tuple(Node(str(number)) for number in range(10_000))),
    "all with all": lambda: Graph(
        tuple(Node(str(number)) for number in range(446)),
        tuple(Edge(f"{a}-{b}", str(a), str(b)) for a in range(223) for b in range(223, 446)),
    ),
    "a cycle": lambda: replace(a_chain(10_000), edges=(*a_chain(10_000).edges, Edge("back", "n9999", "n0"))),
    "dangling": lambda: Graph((Node("a"),), tuple(Edge(str(number), "x", "a") for number in range(50_000))),
}


@pytest.mark.parametrize("case", LARGE)
def test_the_largest_graphs_do_not_drown_anybody(case: str) -> None:
    graph = LARGE[case]()
    lines = drawing_lines(graph)
    assert len(lines) <= MAX_LINES
    assert sum(line.lstrip().startswith(("●", "○")) for line in lines) + left_out(lines, "node") == len(graph.nodes)
    assert any("…" in line for line in lines)


def left_out(lines: list[str], what: str) -> int:
    return sum(int(found.replace(",", "")) for line in lines for found in re.findall(rf"… .*?([\d,]+) {what}", line))


def test_of_a_long_chain_the_beginning_and_the_end_are_shown() -> None:
    lines = drawing_lines(a_chain(10_000))
    assert "… 9,940 layers left out, with 9,940 nodes" in lines
    assert lines[-1] == "  ● n9999  [NoopModule]"


@pytest.mark.parametrize("entry", INDEX, ids=lambda entry: entry["file"].removesuffix(".json"))
def test_real_graphs_are_drawn_with_every_node_or_the_number_of_those_left_out(entry: dict[str, Any]) -> None:
    graph = read(entry)
    for width, limit in ((100, MAX_LINES), (30, 60)):
        lines = drawing_lines(graph, width=width, limit=limit)
        assert len(lines) <= max(limit, 130)
        assert all(cells(line) <= width and line.isprintable() for line in lines)
        drawn = sum(line.lstrip().startswith(("●", "○")) for line in lines)
        distinct = len({node.node_id for node in graph.nodes})
        assert drawn + left_out(lines, "node") == distinct if width == 100 else drawn <= distinct


@given(GRAPHS | DRAFTS)
@settings(max_examples=100, deadline=None)
def test_any_graph_has_its_drawing_with_all_nodes_and_edges(graph: Graph) -> None:
    lines = drawing_lines(graph)
    assert all(line.isprintable() and cells(line) <= 100 for line in lines)
    assert sum("─▶" in line for line in lines) >= len(graph.edges)
    layers = layers_of(graph)
    assert sum(len(row) for row in layers.rows) + len(layers.isolated) == len({node.node_id for node in graph.nodes})
    for edge in graph.edges:
        if edge.source in layers.row_of and edge.target in layers.row_of:
            back = layers.row_of[edge.target] < layers.row_of[edge.source]
            assert not back


def test_widths_are_those_of_a_terminal() -> None:
    assert [cells(text) for text in ("abc", "漢字", "e\u0301", "", "ﾊﾝ")] == [3, 4, 1, 0, 2]
    assert [cut("漢字漢字", width) for width in (8, 7, 6, 1)] == ["漢字漢字", "漢字漢…", "漢字…", "…"]
    assert one_line("a\tb\n\nc") == "a\\tb ⏎ c"
    assert orjson.loads(value_text("\x7f\u202e\n")) == "\x7f\u202e\n"
    assert value_text("\x7f").isprintable()
