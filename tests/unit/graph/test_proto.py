"""Graphs as protobuf: nothing is lost, and what cannot be read is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf import json_format
from hypothesis import given, settings

from tests.unit.graph.test_document import GRAPHS
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.errors import InvalidRequest
from valkyr.graph.findings import Code, finding
from valkyr.graph.model import Graph, Module, Node, WorkflowInfo
from valkyr.rpc.graphs import (
    RowIds,
    fill_from_graph,
    finding_from_proto,
    finding_to_proto,
    graph_from_proto,
    graph_to_proto,
)

INFO = WorkflowInfo("0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80", "name", "about", {"k": "v"}, 7)


@settings(max_examples=150, deadline=None)
@given(GRAPHS)
def test_a_graph_survives_the_wire(graph: Graph) -> None:
    message = pb.Graph.FromString(graph_to_proto(graph, INFO).SerializeToString())
    assert graph_from_proto(message) == (INFO, graph)


def test_stored_ids_stand_beside_what_they_are_of() -> None:
    message = pb.SaveGraphResponse()
    fill_from_graph(message, Graph((Node("a"),), (), (Module("a", "M"),)), ids=RowIds(["t"], [], ["m"]))
    assert (message.nodes[0].task_id, message.modules[0].module_id) == ("t", "m")


def test_expanded_configs_stand_beside_their_data_and_can_be_sent_back() -> None:
    data = '{"url":"${x}","big":9007199254740993}'
    graph = Graph((Node("a"),), (), (Module("a", "M", module_data=data), Module("b", "M", config={"y": "${1}"})))
    message = pb.Graph()
    fill_from_graph(message, graph, expand_config=True)
    expanded = json_format.MessageToDict(message.modules[0])
    assert expanded["config"] == {"url": "$${x}", "big": "9007199254740993"}
    assert expanded["moduleData"] == data
    assert graph_from_proto(message)[1] == graph


def request(change: Callable[[pb.SaveGraphRequest], object]) -> pb.SaveGraphRequest:
    made = pb.SaveGraphRequest(
        nodes=[pb.Node(node_id="a"), pb.Node(node_id="b")],
        edges=[pb.Edge(edge_id="e", source="a", target="b")],
        modules=[pb.Module(node_id="a", class_name="M")],
    )
    change(made)
    return made


def set_config(made: pb.SaveGraphRequest, value: object) -> None:
    made.modules[0].config.update({"x": value})


BAD: dict[str, tuple[Callable[[pb.SaveGraphRequest], object], str, str]] = {
    "NUL in a node id": (lambda r: setattr(r.nodes[0], "node_id", "\x00"), "nodes[0].nodeId", "NUL"),
    "NUL in a label": (lambda r: setattr(r.nodes[1], "label", "a\x00b"), "nodes[1].label", "NUL"),
    "NUL in a pool": (lambda r: setattr(r.nodes[1], "pool", "\x00"), "nodes[1].pool", "NUL"),
    "NUL in an edge id": (lambda r: setattr(r.edges[0], "edge_id", "\x00"), "edges[0].edgeId", "NUL"),
    "NUL in a condition": (lambda r: setattr(r.edges[0], "condition", "\x00"), "edges[0].condition", "NUL"),
    "NUL in a class": (lambda r: setattr(r.modules[0], "class_name", "\x00"), "modules[0].className", "NUL"),
    "NUL in data": (lambda r: setattr(r.modules[0], "module_data", "\x00"), "modules[0].moduleData", "NUL"),
    "NUL in a target": (lambda r: setattr(r.modules[0], "target", "\x00"), "modules[0].target", "NUL"),
    "NUL in a config": (lambda r: set_config(r, "\x00"), "modules[0].config.x", "NUL"),
    "NUL in the name": (lambda r: setattr(r.workflow, "name", "\x00"), "workflow.name", "NUL"),
    "NUL in the description": (lambda r: setattr(r.workflow, "description", "\x00"), "workflow.description", "NUL"),
    "NUL in a label of the workflow": (lambda r: r.workflow.labels.update({"k": "\x00"}), "workflow.labels.k", "NUL"),
    "NaN as a position": (lambda r: setattr(r.nodes[0].position, "x", float("nan")), "nodes[0].position.x", "finite"),
    "infinity as a position": (lambda r: setattr(r.nodes[0].position, "y", 1e999), "nodes[0].position.y", "finite"),
    "NaN in a config": (lambda r: set_config(r, float("nan")), "modules[0].config.x", "JSON number"),
    "2^53 in a config": (lambda r: set_config(r, 2.0**53), "modules[0].config.x", "send it as a string"),
    "an id that is no UUID": (lambda r: setattr(r.workflow, "id", "42"), "workflow.id", "not a UUID"),
    "a negative timeout": (lambda r: setattr(r.nodes[0].timeout, "seconds", -1), "nodes[0].timeout", "more than zero"),
    "a timeout of zero": (lambda r: r.nodes[0].timeout.SetInParent(), "nodes[0].timeout", "more than zero"),
    "an endless deadline": (lambda r: setattr(r.nodes[0].deadline, "seconds", 2**62), "nodes[0].deadline", "at most"),
    "mixed signs": (lambda r: (setattr(r.nodes[0].timeout, "seconds", 1), setattr(r.nodes[0].timeout, "nanos", -1)), "nodes[0].timeout", "microsecond"),  # noqa: E501
    "a billion nanos": (lambda r: setattr(r.nodes[0].timeout, "nanos", 10**9), "nodes[0].timeout", "out of range"),
    "a negative back-off": (
        lambda r: setattr(r.nodes[0].retry.backoff_base_delay, "seconds", -1),
        "nodes[0].retry.backoffBaseDelay",
        "zero or more",
    ),
    "no attempts": (lambda r: setattr(r.nodes[0].retry, "max_attempts", 0), "nodes[0].retry.maxAttempts", "at least 1"),
    "an unknown join": (lambda r: setattr(r.nodes[0], "join", 9), "nodes[0].join", "ALL, ANY"),
    "an unknown kind": (lambda r: setattr(r.edges[0], "kind", 9), "edges[0].kind", "SUCCESS"),
    "an unknown policy": (lambda r: setattr(r.settings, "failure_policy", 9), "settings.failurePolicy", "FAIL_FAST"),
    "a priority too high": (lambda r: setattr(r.nodes[0], "priority", 101), "nodes[0].priority", "-100 to 100"),
    "a priority too low": (lambda r: setattr(r.nodes[0], "priority", -101), "nodes[0].priority", "-100 to 100"),
    "a negative version": (lambda r: setattr(r, "version", -1), "version", "first one is 1"),
    "two versions": (lambda r: (setattr(r, "version", 1), setattr(r.workflow, "version", 2)), "version", "differs"),
    "data that differs from the config": (
        lambda r: (set_config(r, 1), setattr(r.modules[0], "module_data", "{}")),
        "modules[0].config",
        "differs",
    ),
    "data that is no JSON beside a config": (
        lambda r: (set_config(r, 1), setattr(r.modules[0], "module_data", "[" * 5000)),
        "modules[0].config",
        "differs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_i25_what_cannot_be_read_is_named(case: str) -> None:
    change, path, said = BAD[case]
    with pytest.raises(InvalidRequest) as caught:
        graph_from_proto(request(change))
    (violation,) = caught.value.details.violations
    assert violation.field == path
    assert said in violation.description


@pytest.mark.parametrize("priority", [-100, 0, 100])
def test_priorities_at_their_bounds_are_read(priority: int) -> None:
    _, graph = graph_from_proto(request(lambda r: setattr(r.nodes[0], "priority", priority)))
    assert graph.nodes[0].priority == priority


def test_one_of_two_versions_is_enough_and_zero_is_none() -> None:
    assert graph_from_proto(request(lambda r: setattr(r, "version", 3)))[0].version == 3
    assert graph_from_proto(request(lambda r: setattr(r.workflow, "version", 3)))[0].version == 3
    assert graph_from_proto(request(lambda r: setattr(r, "version", 0)))[0].version is None


def test_a_finding_survives_the_wire() -> None:
    for code in Code:
        made = finding(code, "nodes[1]", "says", "mend", node_ids=("a",), edge_ids=("e", "f"))
        assert finding_from_proto(finding_to_proto(made)) == made
