"""The parts of a graph as they are compared: by kind and id, as the document has them, equal as JSON is equal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum, StrEnum
from typing import Any, TypeVar

import orjson

from valkyr.graph.depths import is_deeper
from valkyr.graph.document import graph_to_document
from valkyr.graph.fields import MAX_READABLE_DEPTH
from valkyr.graph.model import Edge, Graph, Module, Node, Settings, WorkflowInfo

T = TypeVar("T")

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class Part(StrEnum):
    NODE = "NODE"
    EDGE = "EDGE"
    MODULE = "MODULE"
    SETTINGS = "SETTINGS"
    WORKFLOW = "WORKFLOW"


class Absent(Enum):
    """No value, where null is one."""

    ABSENT = "ABSENT"


ABSENT = Absent.ABSENT

Key = tuple[str, int]
"""An id and how many parts with the same one stand before it: 0 in every graph that is valid."""


def keyed_nodes(graph: Graph) -> dict[Key, Node]:
    """The nodes by their ids, in the graph's order."""
    return _keyed(graph.nodes, lambda node: node.node_id)


def keyed_edges(graph: Graph) -> dict[Key, Edge]:
    """The edges by their ids, in the graph's order."""
    return _keyed(graph.edges, lambda edge: edge.edge_id)


def keyed_modules(graph: Graph) -> dict[Key, Module]:
    """The modules by the ids of their nodes, in the graph's order."""
    return _keyed(graph.modules, lambda module: module.node_id)


def node_document(node: Node) -> dict[str, Any]:
    """A node as it stands in the document."""
    document: dict[str, Any] = graph_to_document(Graph(nodes=(node,)))["nodes"][0]
    return document


def edge_document(edge: Edge) -> dict[str, Any]:
    """An edge as it stands in the document."""
    document: dict[str, Any] = graph_to_document(Graph(edges=(edge,)))["edges"][0]
    return document


def settings_document(settings: Settings) -> dict[str, Any]:
    """The settings as they stand in the document, empty where all are the defaults."""
    document: dict[str, Any] = graph_to_document(Graph(settings=settings)).get("settings", {})
    return document


def workflow_document(workflow: WorkflowInfo) -> dict[str, Any]:
    """What a version says beside its graph: name, description and labels. What is empty is left out."""
    named = {"name": workflow.name, "description": workflow.description, "labels": dict(workflow.labels)}
    return {key: value for key, value in named.items() if value}


def equal_modules(one: Module, other: Module) -> bool:
    """Whether both say the same, as JSON: a true in a config is not a 1."""
    if one != other:
        return False
    return one.config is other.config or equal_json(one.config, other.config)


def equal_json(one: Any, other: Any) -> bool:
    """As JSON: true is not 1, and the order of keys is nothing."""
    if one is other:
        return True
    if one is ABSENT or other is ABSENT:
        return False
    if isinstance(one, str) or isinstance(other, str):
        return type(one) is type(other) and bool(one == other)
    return json_bytes(one) == json_bytes(other)


def json_bytes(value: Any) -> bytes:
    """Canonical bytes of a JSON value: sorted keys, no spaces."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def json_text(value: Any) -> str | None:
    """A value as JSON text; None for ABSENT."""
    return None if value is ABSENT else orjson.dumps(value).decode()


def value_of_text(text: str | None) -> Any:
    """The value that `json_text` wrote; text that was cut on its way, and is no JSON any more, as it is."""
    if text is None:
        return ABSENT
    try:
        return orjson.loads(text)
    except ValueError:
        return text


def read_data(module_data: Any) -> dict[str, Any] | None:
    """The object that a `moduleData` holds; None where it holds none, or one that is too deep to be looked into."""
    if not isinstance(module_data, str):
        return None
    try:
        value = orjson.loads(module_data)
    except ValueError:
        return None
    return value if isinstance(value, dict) and not is_deeper(value, MAX_READABLE_DEPTH) else None


def path_of(parent: str, key: str) -> str:
    """The path of a key: `retry.maxAttempts`, or `headers["x.y"]` where it is no plain name."""
    if not _PLAIN_KEY.fullmatch(key):
        return f"{parent}[{json.dumps(key, ensure_ascii=False)}]"
    return f"{parent}.{key}" if parent else key


def keys_of(*objects: Mapping[str, Any]) -> Iterable[str]:
    """The keys of all, each once, in order of appearance."""
    return dict.fromkeys(key for item in objects for key in item)


def _keyed(items: Sequence[T], id_of: Callable[[T], str]) -> dict[Key, T]:
    found = {(id_of(item), 0): item for item in items}
    if len(found) == len(items):
        return found
    found = {}
    seen: dict[str, int] = {}
    for item in items:
        identity = id_of(item)
        seen[identity] = seen.get(identity, -1) + 1
        found[identity, seen[identity]] = item
    return found
