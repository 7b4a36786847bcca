"""What differs between two graphs: a table of changes, and the laws that hold for any two."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given, settings

from tests.builders import a_graph
from tests.unit.graph.test_document import GRAPHS
from valkyr.errors import Difference
from valkyr.graph.diff import ABSENT, Change, ChangeKind, GraphDiff, Part, diff_graphs, differences_of
from valkyr.graph.document import graph_to_document
from valkyr.graph.model import FailurePolicy, Graph, Join, Module, Node, Position, Retry, Settings

OLD = a_graph(
    "a -> b",
    modules={
        "a": ("HttpRequestModule", {"url": "http://x", "headers": {"x.y": "1"}, "expect": [200, 201], "body": None}),
        "b": Module("b", "Mine", module_data='{"n": 1, "deep": {"m": [1, {"k": 1}]}}'),
    },
)


def changed(part: Part, found: str, path: str, old: Any = ABSENT, new: Any = ABSENT) -> Change:
    return Change(ChangeKind.CHANGED, part, found, path, old, new)


def with_node(**fields: Any) -> Graph:
    return replace(OLD, nodes=(OLD.nodes[0], replace(OLD.nodes[1], **fields)))


def with_config(**fields: Any) -> Graph:
    module = OLD.modules[0]
    return replace(OLD, modules=(replace(module, config={**(module.config or {}), **fields}), OLD.modules[1]))


def with_data(text: str) -> Graph:
    return replace(OLD, modules=(OLD.modules[0], replace(OLD.modules[1], module_data=text)))


NODE, EDGE, MODULE, SETTINGS, WORKFLOW = Part
CHANGES: dict[str, tuple[Graph, list[Change]]] = {
    "a label": (with_node(label="B"), [changed(NODE, "b", "label", "b", "B")]),
    "a label taken away": (with_node(label=""), [changed(NODE, "b", "label", "b")]),
    "a join": (with_node(join=Join.ANY), [changed(NODE, "b", "join", new="ANY")]),
    "a new retry": (
        with_node(retry=Retry(3, timedelta(seconds=1))),
        [
            changed(NODE, "b", "retry", new={"maxAttempts": 3, "backoffBaseDelay": "1s"}),
        ],
    ),
    "an edge's end": (
        replace(OLD, edges=(replace(OLD.edges[0], target="a", condition="true"),)),
        [changed(EDGE, "a->b", "target", "b", "a"), changed(EDGE, "a->b", "condition", new="true")],
    ),
    "a value in a config": (with_config(url="http://y"), [changed(MODULE, "a", "config.url", "http://x", "http://y")]),
    "a key that is no name": (
        with_config(headers={"x.y": "2"}),
        [changed(MODULE, "a", 'config.headers["x.y"]', "1", "2")],
    ),
    "an item of a list": (with_config(expect=[200, 204]), [changed(MODULE, "a", "config.expect[1]", 201, 204)]),
    "a list of another length": (with_config(expect=[200]), [changed(MODULE, "a", "config.expect", [200, 201], [200])]),
    "true for 1": (with_config(body=True), [changed(MODULE, "a", "config.body", None, True)]),
    "a key with null": (with_config(more=None), [changed(MODULE, "a", "config.more", new=None)]),
    "a value in moduleData": (
        with_data('{"deep": {"m": [1, {"k": true}]}, "n": 1}'),
        [changed(MODULE, "b", "moduleData.deep.m[1].k", 1, True)],
    ),
    "moduleData spelled otherwise": (
        with_data('{"n":1,"deep":{"m":[1,{"k":1}]}}'),
        [changed(MODULE, "b", "moduleData", OLD.modules[1].module_data, '{"n":1,"deep":{"m":[1,{"k":1}]}}')],
    ),
    "moduleData too deep to be looked into": (
        with_data('{"n":' + "[" * 300 + "]" * 300 + "}"),
        [changed(MODULE, "b", "moduleData", OLD.modules[1].module_data, '{"n":' + "[" * 300 + "]" * 300 + "}")],
    ),
    "another class": (
        replace(OLD, modules=(replace(OLD.modules[0], class_name="Mine"), OLD.modules[1])),
        [changed(MODULE, "a", "className", "HttpRequestModule", "Mine")],
    ),
    "settings": (
        replace(OLD, settings=Settings(FailurePolicy.FAIL_FAST, None, Retry(2))),
        [
            changed(SETTINGS, "", "failurePolicy", new="FAIL_FAST"),
            changed(SETTINGS, "", "defaultRetry", new={"maxAttempts": 2}),
        ],
    ),
    "a part for another": (
        replace(OLD, nodes=(OLD.nodes[0], Node("c")), edges=(), modules=OLD.modules[:1]),
        [
            Change(ChangeKind.REMOVED, NODE, "b", old={"nodeId": "b", "label": "b"}),
            Change(ChangeKind.ADDED, NODE, "c", new={"nodeId": "c"}),
            Change(ChangeKind.REMOVED, EDGE, "a->b", old={"edgeId": "a->b", "source": "a", "target": "b"}),
            Change(ChangeKind.REMOVED, MODULE, "b", old=graph_to_document(OLD)["modules"][1]),
        ],
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_each_change_has_its_part_its_path_and_both_values(case: str) -> None:
    new, changes = CHANGES[case]
    assert diff_graphs(OLD, new) == GraphDiff(tuple(changes))


def test_a_true_where_there_was_a_1_is_a_change() -> None:
    one, true = with_config(body=1), with_config(body=True)
    assert diff_graphs(one, true).changes == (changed(MODULE, "a", "config.body", 1, True),)


def test_where_a_node_stands_is_kept_apart_from_what_it_does() -> None:
    moved = Position(1, 2.5)
    assert diff_graphs(OLD, with_node(position=moved)) == GraphDiff(
        moves=(Change(ChangeKind.MOVED, NODE, "b", "position", ABSENT, {"x": 1, "y": 2.5}),)
    )
    both = diff_graphs(with_node(position=moved), with_node(position=Position(1, 3), label="B"))
    assert both.changes == (changed(NODE, "b", "label", "b", "B"),)
    assert [move.new for move in both.moves] == [{"x": 1, "y": 3}]


def test_another_order_is_no_change_but_is_told() -> None:
    assert diff_graphs(OLD, replace(OLD, nodes=OLD.nodes[::-1])) == GraphDiff(reordered=(NODE,))
    longer = replace(OLD, nodes=(Node("first"), *OLD.nodes))
    assert diff_graphs(OLD, longer).reordered == ()


def test_entries_travel_as_json_text_with_the_moves_last() -> None:
    new = replace(with_node(label="ü", position=Position(0, 0)), edges=())
    assert differences_of(diff_graphs(OLD, new)) == [
        Difference("CHANGED", "NODE", "b", "label", '"b"', '"ü"'),
        Difference("REMOVED", "EDGE", "a->b"),
        Difference("MOVED", "NODE", "b", "position", None, '{"x":0,"y":0}'),
    ]


@given(GRAPHS)
@settings(max_examples=50)
def test_a_graph_does_not_differ_from_itself(graph: Graph) -> None:
    graph = unique(graph)
    assert not diff_graphs(graph, graph)


@given(GRAPHS, GRAPHS)
@settings(max_examples=150)
def test_the_old_graph_with_all_changes_made_is_the_new_one(old: Graph, new: Graph) -> None:
    old, new = unique(old), unique(new)
    diff = diff_graphs(old, new)
    parts = rename(parts_of(old), diff)
    for change in (*diff.changes, *diff.moves):
        apply(parts, change)
    wanted = parts_of(new)
    assert parts.keys() == wanted.keys()
    assert all(same(parts[key], wanted[key]) for key in wanted)
    backwards = diff_graphs(new, old)
    assert len(backwards.changes) == len(diff.changes)
    assert bool(diff) is not same(graph_to_document(old), graph_to_document(new))


def unique(graph: Graph) -> Graph:
    """Without what has an id that was there before, and with data in every moduleData: as versions are."""
    nodes = {node.node_id: node for node in graph.nodes}
    edges = {edge.edge_id: edge for edge in graph.edges}
    modules = {module.node_id: module for module in graph.modules}
    data = {
        key: module
        if module.module_data is None
        else replace(module, module_data=orjson.dumps({module.module_data: [module.module_data]}).decode())
        for key, module in modules.items()
    }
    return replace(graph, nodes=tuple(nodes.values()), edges=tuple(edges.values()), modules=tuple(data.values()))


def parts_of(graph: Graph) -> dict[tuple[str, str], dict[str, Any]]:
    """What a graph holds by part and id, with the data of moduleData."""
    document = graph_to_document(graph)
    parts = {("NODE", item["nodeId"]): item for item in document.get("nodes", ())}
    parts |= {("EDGE", item["edgeId"]): item for item in document.get("edges", ())}
    parts |= {("MODULE", item["nodeId"]): read(item) for item in document.get("modules", ())}
    return parts | {("SETTINGS", ""): dict(document.get("settings", {}))}


def read(module: dict[str, Any]) -> dict[str, Any]:
    return {**module, "moduleData": orjson.loads(module["moduleData"])} if "moduleData" in module else module


def rename(parts: dict[tuple[str, str], dict[str, Any]], diff: GraphDiff) -> dict[tuple[str, str], dict[str, Any]]:
    """The parts under their new ids: a node's modules and the ends of its edges go with it."""
    names = {(change.part.value, change.id): change.new for change in diff.changes if change.kind is ChangeKind.RENAMED}
    renamed = {}
    for (part, found), item in parts.items():
        name = names.get(("NODE" if part == "MODULE" else part, found), found)
        key = "edgeId" if part == "EDGE" else "nodeId"
        ends = {end: names.get(("NODE", item[end]), item[end]) for end in ("source", "target") if part == "EDGE"}
        renamed[part, name] = item | ends | ({} if part == "SETTINGS" else {key: name})
    return renamed


def apply(parts: dict[tuple[str, str], dict[str, Any]], change: Change) -> None:
    key = (change.part.value, change.id)
    if change.kind is ChangeKind.RENAMED:
        return
    if change.kind is ChangeKind.REMOVED:
        assert same(read(change.old), parts.pop(key))
    elif change.kind is ChangeKind.ADDED:
        assert key not in parts
        parts[key] = read(change.new) if change.part is MODULE else change.new
    else:
        parts[key] = orjson.loads(orjson.dumps(parts[key]))
        write(parts[key], steps_of(change.path), change)


def write(holder: Any, steps: list[Any], change: Change) -> None:
    for step in steps[:-1]:
        holder = holder[step]
    old, new = (
        orjson.loads(value) if steps == ["moduleData"] and isinstance(value, str) else value
        for value in (change.old, change.new)
    )
    if old is ABSENT:
        assert steps[-1] not in holder
    else:
        assert same(holder[steps[-1]], old)
    if new is ABSENT:
        del holder[steps[-1]]
    else:
        holder[steps[-1]] = new


def steps_of(path: str) -> list[Any]:
    """`a.b["c.d"][2]` as ["a", "b", "c.d", 2]."""
    steps: list[Any] = []
    rest = "." + path
    while rest:
        if rest[0] == ".":
            name = rest[1:].split(".")[0].split("[")[0]
            steps.append(name)
            rest = rest[1 + len(name) :]
        else:
            step, end = json.JSONDecoder().raw_decode(rest, 1)
            steps.append(step)
            rest = rest[end + 1 :]
    return steps


def same(one: Any, other: Any) -> bool:
    return orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)
