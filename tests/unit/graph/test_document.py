"""Documents: one canonical form, read strictly, every problem with its path."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import a_graph
from valkyr.errors import InvalidRequest
from valkyr.graph.document import (
    canonical_bytes,
    content_hash,
    envelope_from_document,
    graph_from_canonical,
    graph_from_document,
    graph_to_document,
    workflow_from_document,
)
from valkyr.graph.model import (
    Edge,
    EdgeKind,
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

TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=12)
DURATIONS = st.timedeltas(timedelta(microseconds=1), timedelta(days=3650))
RETRIES = st.builds(
    Retry,
    st.none() | st.integers(1, 2**31 - 1),
    st.none() | st.timedeltas(timedelta(), timedelta(days=9)),
    st.none() | st.timedeltas(timedelta(), timedelta(days=9)),
)
NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False).filter(
    lambda number: not number.is_integer()
)
JSON = st.recursive(
    st.none() | st.booleans() | TEXTS | NUMBERS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
NODES = st.builds(
    Node,
    TEXTS,
    TEXTS,
    st.none()
    | st.builds(Position, *[st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)] * 2),
    st.none() | RETRIES,
    st.none() | DURATIONS,
    st.none() | DURATIONS,
    TEXTS.map(lambda pool: pool or "default"),
    st.integers(-100, 100),
    st.sampled_from(Join),
)
EDGES = st.builds(Edge, TEXTS, TEXTS, TEXTS, TEXTS, st.sampled_from(EdgeKind))
MODULES = st.builds(
    lambda node_id, class_name, data, target: Module(node_id, class_name, *data, target),
    TEXTS,
    TEXTS,
    st.just((None, None))
    | st.tuples(TEXTS.filter(bool), st.none())
    | st.tuples(st.none(), st.dictionaries(TEXTS, JSON, max_size=3)),
    TEXTS,
)
GRAPHS = st.builds(
    Graph,
    st.lists(NODES, max_size=4).map(tuple),
    st.lists(EDGES, max_size=4).map(tuple),
    st.lists(MODULES, max_size=4).map(tuple),
    st.builds(Settings, st.sampled_from(FailurePolicy), st.none() | DURATIONS, st.none() | RETRIES),
)


@settings(max_examples=200, deadline=None)
@given(GRAPHS)
def test_a_graph_survives_its_document(graph: Graph) -> None:
    document = orjson.loads(canonical_bytes(graph))
    assert graph_from_document(document) == graph
    assert graph_from_canonical(document) == graph
    assert canonical_bytes(graph_from_document(graph_to_document(graph))) == canonical_bytes(graph)


def test_defaults_are_left_out() -> None:
    graph = Graph((Node("a"), Node("b")), (Edge("e", "a", "b"),), (Module("a", "NoopModule"),))
    assert graph_to_document(graph) == {
        "nodes": [{"nodeId": "a"}, {"nodeId": "b"}],
        "edges": [{"edgeId": "e", "source": "a", "target": "b"}],
        "modules": [{"nodeId": "a", "className": "NoopModule"}],
    }
    assert graph_to_document(Graph()) == {}


def test_spelling_does_not_change_the_hash_and_content_does() -> None:
    one = {"nodes": [{"nodeId": "a", "position": {"x": 1, "y": 2.0}, "timeout": "PT1M30S", "join": "ALL"}]}
    other = {"nodes": [{"timeout": "90s", "position": {"y": 2, "x": 1.0}, "nodeId": "a", "label": ""}], "edges": []}
    assert content_hash(graph_from_document(one)) == content_hash(graph_from_document(other))
    assert content_hash(a_graph("a -> b")) != content_hash(a_graph("b -> a"))


def test_whole_positions_are_integers_in_the_document() -> None:
    (node,) = graph_to_document(Graph((Node("a", position=Position(120.0, -0.5)),)))["nodes"]
    assert orjson.dumps(node["position"]) == b'{"x":120,"y":-0.5}'


BAD = {
    "no object": ([], "", "expected an object"),
    "unknown key": ({"node": []}, "node", "did you mean nodes?"),
    "unknown key of a node": ({"nodes": [{"nodeid": "a"}]}, "nodes[0].nodeid", "did you mean nodeId?"),
    "key that is no string": ({"nodes": [{1: "a"}]}, "nodes[0]", "not a string"),
    "nodes that are no list": ({"nodes": {}}, "nodes", "expected a list"),
    "node that is no object": ({"nodes": ["a"]}, "nodes[0]", "expected an object"),
    "id that is a number": ({"nodes": [{"nodeId": 0}]}, "nodes[0].nodeId", "put it in quotes"),
    "NUL": ({"nodes": [{"nodeId": "a\x00"}]}, "nodes[0].nodeId", "NUL"),
    "lone surrogate": ({"nodes": [{"nodeId": "a", "label": "\ud800"}]}, "nodes[0].label", "surrogate"),
    "position with NaN": ({"nodes": [{"position": {"x": float("nan")}}]}, "nodes[0].position.x", "not a finite number"),
    "position too large": ({"nodes": [{"position": {"y": 10**400}}]}, "nodes[0].position.y", "not a finite number"),
    "position that is text": ({"nodes": [{"position": {"x": "1"}}]}, "nodes[0].position.x", "expected a number"),
    "priority too high": ({"nodes": [{"priority": 101}]}, "nodes[0].priority", "-100 to 100"),
    "priority too low": ({"nodes": [{"priority": -101}]}, "nodes[0].priority", "-100 to 100"),
    "priority that is true": ({"nodes": [{"priority": True}]}, "nodes[0].priority", "whole number"),
    "no duration": ({"nodes": [{"timeout": "soon"}]}, "nodes[0].timeout", "no duration"),
    "negative duration": ({"nodes": [{"timeout": "-5s"}]}, "nodes[0].timeout", "more than zero"),
    "no time at all": ({"nodes": [{"deadline": "PT0S"}]}, "nodes[0].deadline", "more than zero"),
    "nanoseconds": ({"nodes": [{"timeout": "0.000000001s"}]}, "nodes[0].timeout", "microsecond"),
    "eleven years": ({"settings": {"timeout": "P4000D"}}, "settings.timeout", "days"),
    "no attempts": ({"nodes": [{"retry": {"maxAttempts": 0}}]}, "nodes[0].retry.maxAttempts", "at least 1"),
    "join that is not there": ({"nodes": [{"join": "any"}]}, "nodes[0].join", "ALL, ANY"),
    "kind that is not there": ({"edges": [{"kind": "MAYBE"}]}, "edges[0].kind", "SUCCESS, FAILURE, ALWAYS"),
    "policy that is not there": ({"settings": {"failurePolicy": "X"}}, "settings.failurePolicy", "FAIL_FAST"),
    "data as an object": ({"modules": [{"moduleData": {}}]}, "modules[0].moduleData", "`config`"),
    "config as text": ({"modules": [{"config": "{}"}]}, "modules[0].config", "expected an object"),
    "config with NaN": ({"modules": [{"config": {"x": [float("inf")]}}]}, "modules[0].config.x[0]", "finite"),
    "config with 2^53": ({"modules": [{"config": {"x": 2**53}}]}, "modules[0].config.x", "send it as a string"),
    "config with a set": ({"modules": [{"config": {"x": {1}}}]}, "modules[0].config.x", "nothing that JSON can hold"),
    "config with a number as key": ({"modules": [{"config": {"x": {1: 2}}}]}, "modules[0].config.x", "not a string"),
    "data and another config": (
        {"modules": [{"moduleData": "{}", "config": {"x": 1}}]},
        "modules[0].config",
        "differs from moduleData",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_is_named(case: str) -> None:
    document, path, said = BAD[case]
    with pytest.raises(InvalidRequest) as caught:
        graph_from_document(document)  # type: ignore[arg-type]
    assert path in [violation.field for violation in caught.value.details.violations]
    assert said in str([violation.description for violation in caught.value.details.violations])


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        graph_from_document({"nodes": [{"nodeId": 1, "priority": 500}], "edges": 5, "x": 1})
    assert [violation.field for violation in caught.value.details.violations] == [
        "x",
        "nodes[0].priority",
        "nodes[0].nodeId",
        "edges",
    ]
    assert "(and 3 more)" in str(caught.value)


def test_a_config_of_any_depth_is_refused_and_crashes_nothing() -> None:
    value: dict[str, Any] = {}
    for _ in range(100_000):
        value = {"x": value}
    with pytest.raises(InvalidRequest, match="nested deeper"):
        graph_from_document({"modules": [{"config": value}]})


def test_data_and_config_that_mean_the_same_are_accepted() -> None:
    data = '{"a": "${x} and $${y}", "big": 9007199254740993, "n": 1.0, "l": [true, null, 1.5]}'
    config = {"a": "$${x} and $$${y}", "big": "9007199254740993", "n": 1, "l": [True, None, 1.5]}
    (module,) = graph_from_document({"modules": [{"nodeId": "a", "moduleData": data, "config": config}]}).modules
    assert (module.module_data, module.config) == (data, None)


def test_the_workflow_beside_the_graph() -> None:
    workflow = {"id": "{0198C5A2-7E1C-7F3A-9D52-0C4B7A1E6F80}", "name": "n", "description": "d", "labels": {"k": "v"}}
    expected = WorkflowInfo("0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80", "n", "d", {"k": "v"}, 5)
    assert workflow_from_document({"workflow": {**workflow, "version": 5}, "version": 5}) == expected
    assert workflow_from_document({"workflow": workflow, "version": 5}) == expected
    assert workflow_from_document({"workflow": workflow, "version": 0}) == replace(expected, version=None)
    assert workflow_from_document({}) == WorkflowInfo()


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"workflow": {"version": 4}, "version": 5}, "version"),
        ({"workflow": {"id": "42"}}, "workflow.id"),
        ({"workflow": {"labels": {"a": 1}}}, "workflow.labels.a"),
        ({"workflow": {"titel": "x"}}, "workflow.titel"),
        ({"version": "5"}, "version"),
        ({"version": -1}, "version"),
        ({"workflow": {"version": -1}}, "workflow.version"),
    ],
)
def test_a_workflow_that_cannot_be_read_is_named(document: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        workflow_from_document(document)
    assert path in [violation.field for violation in caught.value.details.violations]


@pytest.mark.parametrize(
    ("document", "namespace", "message"),
    [
        ({}, "", ""),
        ({"namespace": "shop", "message": "why"}, "shop", "why"),
        ({"workflow": {"namespace": "shop"}}, "shop", ""),
        ({"namespace": "shop", "workflow": {"namespace": "shop"}}, "shop", ""),
    ],
)
def test_a_file_may_name_its_namespace_and_a_message(document: dict[str, Any], namespace: str, message: str) -> None:
    envelope = envelope_from_document(document)
    assert (envelope.namespace, envelope.message) == (namespace, message)


def test_a_file_that_names_two_namespaces_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"namespace: 'a' differs from workflow\.namespace 'b'"):
        envelope_from_document({"namespace": "a", "workflow": {"namespace": "b"}})
    with pytest.raises(InvalidRequest, match="message: expected a string"):
        envelope_from_document({"message": 1})
