"""Both sides of every limit of a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.builders import a_graph
from valkyr.graph.findings import Code
from valkyr.graph.limits import DEFAULT_LIMITS, Limits
from valkyr.graph.model import Edge, Graph, Module, Node
from valkyr.graph.validate import validate


def nodes(count: int) -> Graph:
    return Graph(nodes=tuple(Node(str(number)) for number in range(count)))


def edges(count: int) -> Graph:
    """Between 250 nodes on each side."""
    ids = [f"{side}{number}" for side in "ab" for number in range(250)]
    pairs = ((f"a{i}", f"b{j}") for i in range(250) for j in range(250))
    made = tuple(Edge(str(k), *pair) for k, pair in zip(range(count), pairs, strict=False))
    return Graph(nodes=tuple(Node(node_id) for node_id in ids), edges=made)


def module_data(size: int) -> Graph:
    return a_graph("a", modules={"a": Module("a", "M", module_data='{"x":"' + "y" * (size - 8) + '"}')})


def module_data_of_two_byte_characters(size: int) -> Graph:
    return a_graph("a", modules={"a": Module("a", "M", module_data='{"x":"' + "y" * (size % 2) + "é" * ((size - 8) // 2) + '"}')})  # fmt: skip  # noqa: E501


def config(size: int) -> Graph:
    return a_graph("a", modules={"a": ("M", {"x": "y" * (size - 8)})})


def nested(depth: int) -> Any:
    value: Any = {}
    for level in range(depth - 1):
        value = [value] if level % 2 else {"x": value}
    return {"x": value} if isinstance(value, list) else value


def deep_config(depth: int) -> Graph:
    value: Any = {}
    for _ in range(depth - 1):
        value = {"x": value}
    return a_graph("a", modules={"a": ("M", value)})


def deep_data(depth: int) -> Graph:
    return a_graph("a", modules={"a": Module("a", "M", module_data='{"x":' * (depth - 1) + "{}" + "}" * (depth - 1))})


def label(size: int) -> Graph:
    return Graph(nodes=(Node("a", "ü" * size),))


def node_id(size: int) -> Graph:
    return Graph(nodes=(Node("ü" * size),))


def edge_id(size: int) -> Graph:
    return replace(a_graph("a -> b"), edges=(Edge("x" * size, "a", "b"),))


def class_name(size: int) -> Graph:
    return a_graph("a", modules={"a": "M" * size})


def target(size: int) -> Graph:
    return a_graph("a", modules={"a": Module("a", "NoopModule", target="t" * size)})


def pool(size: int) -> Graph:
    return Graph(nodes=(Node("a", pool="p" * size),))


def condition(size: int) -> Graph:
    return a_graph("a -> b", edges={"a->b": {"condition": "'" + "x" * (size - 7) + "'!='' "}})


def template(size: int) -> Graph:
    return a_graph("a", modules={"a": ("M", {"x": "${'" + "x" * (size - 2) + "'}"})})


LIMITS: dict[str, tuple[Callable[[int], Graph], int, str]] = {
    "nodes": (nodes, DEFAULT_LIMITS.nodes, "nodes"),
    "edges": (edges, DEFAULT_LIMITS.edges, "edges"),
    "moduleData": (module_data, DEFAULT_LIMITS.config_bytes, "modules[0].moduleData"),
    "moduleData in UTF-8": (module_data_of_two_byte_characters, DEFAULT_LIMITS.config_bytes, "modules[0].moduleData"),
    "config": (config, DEFAULT_LIMITS.config_bytes, "modules[0].config"),
    "depth of a config": (deep_config, DEFAULT_LIMITS.config_depth, "modules[0].config"),
    "depth of moduleData": (deep_data, DEFAULT_LIMITS.json_depth, "modules[0].moduleData"),
    "label": (label, DEFAULT_LIMITS.label_chars, "nodes[0].label"),
    "node id": (node_id, DEFAULT_LIMITS.id_chars, "nodes[0].nodeId"),
    "edge id": (edge_id, DEFAULT_LIMITS.id_chars, "edges[0].edgeId"),
    "class name": (class_name, DEFAULT_LIMITS.id_chars, "modules[0].className"),
    "target": (target, DEFAULT_LIMITS.target_chars, "modules[0].target"),
    "pool": (pool, DEFAULT_LIMITS.id_chars, "nodes[0].pool"),
    "condition": (condition, DEFAULT_LIMITS.expression_bytes, "edges[0].condition"),
    "expression in a config": (template, DEFAULT_LIMITS.expression_bytes, "modules[0].config.x"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_value_at_its_limit_passes_and_one_over_it_does_not(name: str) -> None:
    make, limit, path = LIMITS[name]
    assert [found for found in validate(make(limit)) if found.is_error] == []
    errors = [found for found in validate(make(limit + 1)) if found.is_error]
    assert [(found.code, found.path) for found in errors] == [(Code.LIMIT_EXCEEDED, path)]
    assert f"{limit:,}" in errors[0].message


def test_limits_can_be_set() -> None:
    (error,) = [found for found in validate(nodes(3), limits=Limits(nodes=2)) if found.is_error]
    assert error.message == "the graph has 3 nodes; at most 2 are allowed"


def test_expressions_are_counted_once_per_text() -> None:
    def graph(*texts: str) -> Graph:
        return a_graph("a -> b", modules={"a": ("M", {"x": list(texts)})}, edges={"a->b": {"condition": "true"}})

    def errors(made: Graph) -> list[tuple[str, str]]:
        findings = validate(made, limits=Limits(expressions=3))
        return [(found.code, found.path) for found in findings if found.is_error]

    assert errors(graph("${1}", "${1}", "${2}")) == []
    assert errors(graph("${1} ${2}", "${1} ${2}")) == []
    assert errors(graph("${1}", "${2}", "${3}", "${4}")) == [(Code.LIMIT_EXCEEDED, "modules[0].config.x[2]")]
    assert errors(graph("${1} ${2} ${3}")) == [(Code.LIMIT_EXCEEDED, "modules[0].config.x[0]")]


def test_a_hundred_thousand_nodes_are_refused_without_being_looked_at() -> None:
    graph = Graph(nodes=tuple(Node("same") for _ in range(100_000)))
    assert [found.code for found in validate(graph)] == [Code.LIMIT_EXCEEDED]


@pytest.mark.parametrize("depth", [1_000, 100_000])
def test_data_of_any_depth_is_refused_and_crashes_nothing(depth: int) -> None:
    (found,) = [found for found in validate(deep_data(depth)) if found.is_error]
    assert found.code == Code.LIMIT_EXCEEDED
