"""Every finding of the validator: when it is there, where it points, and when it is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import a_chain, a_graph
from valkyr.graph.findings import WARNINGS, Code, Finding, Severity
from valkyr.graph.model import Edge, Graph, Module, Node
from valkyr.graph.validate import validate

NUMBER = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
CATALOGUE = {"NoopModule": {"type": "object"}, "Counter": NUMBER}


def with_nodes(*ids: str) -> Graph:
    return Graph(nodes=tuple(Node(node_id) for node_id in ids), modules=tuple(Module(i, "NoopModule") for i in ids))


def with_data(text: str) -> Graph:
    return a_graph("a", modules={"a": Module("a", "Counter", module_data=text)})


def with_config(**config: object) -> Graph:
    return a_graph("a -> b", modules={"b": ("Counter", config)})


def only(graph: Graph, code: Code) -> list[Finding]:
    return [found for found in validate(graph, catalogue=CATALOGUE) if found.code == code]


CASES = {
    "a cycle of two": (a_graph("a -> b -> a"), Code.CYCLE, "edges[1]", ("a", "b")),
    "a cycle behind a start": (a_graph("s -> a -> b -> a"), Code.CYCLE, "edges[2]", ("a", "b")),
    "a self-loop": (a_graph("a -> a"), Code.SELF_LOOP, "edges[0]", ("a",)),
    "an edge from nowhere": (
        replace(a_graph("a -> b"), edges=(Edge("e", "x", "b"),)),
        Code.UNKNOWN_NODE,
        "edges[0].source",
        ("x",),
    ),
    "an edge to nowhere": (
        replace(a_graph("a -> b"), edges=(Edge("e", "a", "B"),)),
        Code.UNKNOWN_NODE,
        "edges[0].target",
        ("B",),
    ),
    "an edge without a source": (
        replace(a_graph("a -> b"), edges=(Edge("e", "", "b"),)),
        Code.UNKNOWN_NODE,
        "edges[0].source",
        ("",),
    ),
    "a module of no node": (
        a_graph("a", modules={"ghost": "NoopModule"}),
        Code.UNKNOWN_NODE,
        "modules[1].nodeId",
        ("ghost",),
    ),
    "a node id twice": (with_nodes("a", "b", "a"), Code.DUPLICATE_NODE_ID, "nodes[2].nodeId", ("a",)),
    "an edge id twice": (
        replace(a_graph("a -> b -> c"), edges=(Edge("e", "a", "b"), Edge("e", "b", "c"))),
        Code.DUPLICATE_EDGE_ID,
        "edges[1].edgeId",
        (),
    ),
    "a second module": (
        replace(with_nodes("a"), modules=(Module("a", "NoopModule"), Module("a", "NoopModule"))),
        Code.DUPLICATE_MODULE,
        "modules[1].nodeId",
        ("a",),
    ),
    "a node without an id": (with_nodes("a", ""), Code.EMPTY_ID, "nodes[1].nodeId", ()),
    "an edge without an id": (
        replace(a_graph("a -> b"), edges=(Edge("", "a", "b"),)),
        Code.EMPTY_ID,
        "edges[0].edgeId",
        (),
    ),
    "a module without a class": (a_graph("a", modules={"a": ""}), Code.EMPTY_ID, "modules[0].className", ("a",)),
    "data that is no JSON": (with_data("{"), Code.BAD_MODULE_DATA, "modules[0].moduleData", ("a",)),
    "data with NaN": (with_data('{"count": NaN}'), Code.BAD_MODULE_DATA, "modules[0].moduleData", ("a",)),
    "data that is an array": (with_data("[]"), Code.BAD_MODULE_DATA, "modules[0].moduleData", ("a",)),
    "data that is null": (with_data("null"), Code.BAD_MODULE_DATA, "modules[0].moduleData", ("a",)),
    "data with NUL": (with_data('{"count": 1, "x": "\\u0000"}'), Code.BAD_MODULE_DATA, "modules[0].moduleData", ("a",)),
    "data against the schema": (with_data('{"count": "x"}'), Code.BAD_MODULE_DATA, "modules[0].moduleData", ("a",)),
    "data that lacks a field": (with_data("{}"), Code.BAD_MODULE_DATA, "modules[0].moduleData", ("a",)),
    "a config against the schema": (
        with_config(count="x"),
        Code.BAD_MODULE_DATA,
        "modules[1].config.count",
        ("b",),
    ),
    "an expression that does not compile": (
        with_config(count="${1 +}"),
        Code.BAD_EXPRESSION,
        "modules[1].config.count",
        ("b",),
    ),
    "a condition that does not compile": (
        a_graph("a -> b", edges={"a->b": {"condition": "1 +"}}),
        Code.BAD_EXPRESSION,
        "edges[0].condition",
        (),
    ),
    "a reference to nowhere": (
        with_config(count='${nodes["x"].outputs}'),
        Code.UNKNOWN_REFERENCE,
        "modules[1].config.count",
        ("b", "x"),
    ),
    "a reference to itself": (
        with_config(count='${nodes["b"].outputs}'),
        Code.UNKNOWN_REFERENCE,
        "modules[1].config.count",
        ("b", "b"),
    ),
    "a condition that names its target": (
        a_graph("a -> b", edges={"a->b": {"condition": 'nodes["b"].outputs == null'}}),
        Code.UNKNOWN_REFERENCE,
        "edges[0].condition",
        ("b",),
    ),
    "a node without edges": (a_graph("a -> b, c"), Code.ORPHAN_NODE, "nodes[2]", ("c",)),
    "a node without a module": (a_graph("a", modules={"a": None}), Code.MISSING_MODULE, "nodes[0]", ("a",)),
    "a module that nobody knows": (
        a_graph("a", modules={"a": "Nope"}),
        Code.UNKNOWN_MODULE,
        "modules[0].className",
        ("a",),
    ),
    "two edges side by side": (a_graph("a -> b, a -> b"), Code.PARALLEL_EDGE, "edges[1]", ("a", "b")),
    "nothing": (Graph(), Code.EMPTY_GRAPH, "nodes", ()),
}


@pytest.mark.parametrize("case", CASES)
def test_a_finding_names_code_place_and_nodes(case: str) -> None:
    graph, code, path, node_ids = CASES[case]
    findings = only(graph, code)
    assert [(found.path, found.node_ids) for found in findings] == [(path, node_ids)]
    assert findings[0].severity is (Severity.WARNING if code in WARNINGS else Severity.ERROR)
    assert findings[0].message
    assert findings[0].hint


def test_every_code_is_in_the_table() -> None:
    assert {case[1] for case in CASES.values()} == set(Code) - {Code.LIMIT_EXCEEDED}


@pytest.mark.parametrize(
    "graph",
    [
        a_graph("a"),
        a_graph("a -> b -> d, a -> c -> d"),
        with_data('{"count": 5, "more": "${not evaluated"}'),
        with_data('{"count": 5, "x": "\\\\u0000"}'),
        with_config(count="${1 + 1}"),
        with_config(count='${nodes["a"].outputs.n}'),
        with_config(count=5, note="$${ is no expression"),
        a_graph("a -> b", edges={"a->b": {"condition": 'nodes["a"].outputs == outputs && trigger.x'}}),
        with_nodes("0"),
    ],
    ids=["one", "diamond", "data", "escaped", "expression", "reference", "literal", "condition", "zero"],
)
def test_what_is_right_has_no_errors(graph: Graph) -> None:
    assert [found for found in validate(graph, catalogue=CATALOGUE) if found.is_error] == []


def test_ids_are_case_sensitive_and_never_trimmed() -> None:
    assert validate(with_nodes("a", "A", " a", "a ", "0", "00")) == [
        found for found in validate(with_nodes("a", "A", " a", "a ", "0", "00")) if found.code == Code.ORPHAN_NODE
    ]
    (found,) = only(replace(with_nodes("a"), edges=(Edge("e", "a", " A "),)), Code.UNKNOWN_NODE)
    assert "did you mean 'a'" in found.hint


def test_a_cycle_is_written_out_with_its_edges() -> None:
    (found,) = only(a_graph("a -> b -> c -> a"), Code.CYCLE)
    assert "a -> b -> c -> a" in found.message
    assert found.edge_ids == ("a->b", "b->c", "c->a")


def test_each_component_has_one_cycle_the_shortest_through_its_first_node() -> None:
    graph = a_graph("a -> b -> c -> d -> a, c -> a, d -> b, x -> y -> x, d -> x, q -> q")
    assert [found.node_ids for found in only(graph, Code.CYCLE)] == [("a", "b", "c"), ("x", "y")]
    assert [found.node_ids for found in only(graph, Code.SELF_LOOP)] == [("q",)]


def test_a_long_cycle_is_cut_in_words_but_not_in_ids() -> None:
    chain = a_chain(10_000)
    (found,) = only(replace(chain, edges=(*chain.edges, Edge("back", "n9999", "n0"))), Code.CYCLE)
    assert len(found.node_ids) == 10_000
    assert "n0 -> n1 -> " in found.message
    assert found.message.endswith("n9999 -> n0")
    assert len(found.message) < 1_000


def test_a_reference_may_be_any_ancestor_and_nothing_else() -> None:
    def names(node_id: str) -> list[Finding]:
        text = "${nodes[" + repr(node_id).replace("'", '"') + "].outputs}"
        graph = a_graph("a -> b -> d, c -> d -> e", modules={"d": ("NoopModule", {"x": [{"y": text}]})})
        return only(graph, Code.UNKNOWN_REFERENCE)

    assert [names(node_id) for node_id in "abc"] == [[], [], []]
    for node_id in "de":
        (found,) = names(node_id)
        assert found.path == "modules[2].config.x[0].y"


def test_in_a_cycle_and_behind_it_the_other_nodes_count_as_ancestors() -> None:
    graph = a_graph(
        "a -> b -> a, b -> c",
        modules={
            "a": ("NoopModule", {"x": '${nodes["b"].outputs}'}),
            "c": ("NoopModule", {"x": '${nodes["a"].outputs}'}),
            "b": ("NoopModule", {"x": '${nodes["c"].outputs}'}),
        },
    )
    assert [found.node_ids for found in only(graph, Code.UNKNOWN_REFERENCE)] == [("b", "c")]


def test_all_findings_come_at_once_errors_first() -> None:
    graph = replace(
        a_graph("a -> b -> a, b -> b, c, d -> e, d -> e", modules={"c": None}),
        nodes=(*a_graph("a, b, c, d, e").nodes, Node("a")),
    )
    findings = validate(graph)
    assert [found.is_error for found in findings] == sorted((found.is_error for found in findings), reverse=True)
    assert {found.code for found in findings} == {
        Code.CYCLE,
        Code.SELF_LOOP,
        Code.DUPLICATE_NODE_ID,
        Code.ORPHAN_NODE,
        Code.MISSING_MODULE,
        Code.PARALLEL_EDGE,
    }


def test_an_expression_excuses_only_the_field_that_it_stands_in() -> None:
    schema = {
        "type": "object",
        "properties": {
            "count": {"type": "integer"},
            "when": {"anyOf": [{"type": "object", "properties": {"at": {"type": "integer"}}}, {"type": "null"}]},
            "method": {"enum": ["GET", "POST"]},
        },
        "required": ["count"],
        "additionalProperties": False,
    }

    def errors(**config: object) -> list[str]:
        graph = a_graph("a", modules={"a": ("M", config)})
        return [found.path for found in validate(graph, catalogue={"M": schema}) if found.is_error]

    assert errors(count="${1}", when={"at": "${2}"}, method="${'GET'}") == []
    assert errors(count="1", when={"at": "2"}, method="PUT") == [
        "modules[0].config.count",
        "modules[0].config.when.at",
        "modules[0].config.method",
    ]
    assert errors(when="${null}") == ["modules[0].config"]
    assert errors(count="${1}", other="${2}") == ["modules[0].config.other"]


def test_without_a_catalogue_no_class_is_unknown_and_no_schema_applies() -> None:
    assert validate(with_data('{"count": "x"}')) == []


def test_a_module_with_ten_thousand_wrong_items_has_a_few_findings() -> None:
    graph = a_graph("a", modules={"a": ("M", {"x": ["no"] * 10_000})})
    schema = {"properties": {"x": {"items": {"type": "integer"}}}}
    assert len(validate(graph, catalogue={"M": schema})) == 10
