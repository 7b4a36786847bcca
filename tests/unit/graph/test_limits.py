"""Both sides of every limit of a graph."""

from __future__ import annotations

import pytest

from tests.builders import a_graph
from tests.graphs_at_limits import LIMITS, deep_data, nodes
from valkyr.graph.findings import Code
from valkyr.graph.limits import Limits
from valkyr.graph.model import Graph, Node
from valkyr.graph.validate import validate


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
