"""Graphs of any size in one respect, small in all others: both sides of every limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.builders import a_graph
from valkyr.graph.limits import DEFAULT_LIMITS
from valkyr.graph.model import Edge, Graph, Module, Node


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
