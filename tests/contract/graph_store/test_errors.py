"""Every documented error of GraphStoreService, provoked over a real channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from tests.builders import a_graph
from valkyr.api.common.v1 import common_pb2
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.api.graph.v1.graph_pb2_grpc import GraphStoreServiceStub
from valkyr.errors import (
    Difference,
    InvalidGraph,
    InvalidRequest,
    LimitExceeded,
    NameTaken,
    RequestIdReused,
    ValkyrError,
    VersionConflict,
    VersionNotFound,
    VersionRequired,
    WorkflowNotFound,
)
from valkyr.rpc.graphs import fill_from_graph
from valkyr.rpc.status import from_rpc_error

ID = "0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80"


def a_save(arrows: str = "a -> b", **fields: Any) -> pb.SaveGraphRequest:
    request = pb.SaveGraphRequest(workflow=pb.Workflow(id=ID, name="orders"), **fields)
    fill_from_graph(request, a_graph(arrows))
    return request


def example(**fields: Any) -> pb.FindWorkflowsRequest:
    return json_format.ParseDict({"example": fields}, pb.FindWorkflowsRequest())


async def error_of(call: Any) -> ValkyrError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    trailers = sum(len(key) + len(value) for key, value in caught.value.trailing_metadata() or ())
    assert trailers < 6 * 1024
    assert caught.value.code() is not grpc.StatusCode.INTERNAL
    return from_rpc_error(caught.value)


async def test_version_required(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save())
    error = await error_of(stub.SaveGraph(a_save("b")))
    assert isinstance(error, VersionRequired)
    assert error.details.metadata["currentVersion"] == "1"
    assert error.hint


async def test_version_conflict(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save())
    await stub.SaveGraph(a_save("b", version=1))
    error = await error_of(stub.SaveGraph(a_save("c", version=1)))
    assert isinstance(error, VersionConflict)
    assert error.current_version == 2


async def test_a_version_conflict_says_what_the_others_have_changed(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save("a -> b -> c"))
    theirs = a_save("a -> b, d", version=1)
    theirs.nodes[0].label = "Ä"
    theirs.modules[0].config.update({"key": "x" * 300})
    theirs.nodes[1].position.x = 5
    await stub.SaveGraph(theirs)
    error = await error_of(stub.SaveGraph(a_save("mine", version=1)))
    assert isinstance(error, VersionConflict)
    assert (error.current_version, error.is_truncated) == (2, False)
    assert list(error.differences) == [
        Difference("CHANGED", "NODE", "a", "label", '"a"', '"Ä"'),
        Difference("REMOVED", "NODE", "c"),
        Difference("ADDED", "NODE", "d"),
        Difference("REMOVED", "EDGE", "b->c"),
        Difference("CHANGED", "MODULE", "a", "config", None, '{"key":"' + "x" * 191 + "…"),
        Difference("REMOVED", "MODULE", "c"),
        Difference("ADDED", "MODULE", "d"),
        Difference("MOVED", "NODE", "b", "position", None, '{"x":5,"y":0}'),
    ]


async def test_of_five_thousand_differences_the_first_fit_into_the_trailers(stub: GraphStoreServiceStub) -> None:
    request = a_save(", ".join(f"n{number}" for number in range(5_000)))
    await stub.SaveGraph(request)
    request.version = 1
    for node in request.nodes:
        node.label = "🙂" * 250
    await stub.SaveGraph(request)
    error = await error_of(stub.SaveGraph(a_save("mine", version=1)))
    assert isinstance(error, VersionConflict)
    assert (error.current_version, error.is_truncated, error.details.metadata["total"]) == (2, True, "5000")
    assert error.hint
    assert [found.id for found in error.differences] == [f"n{number}" for number in range(len(error.differences))]
    assert error.differences
    assert all(len(found.new or "") == 200 for found in error.differences)


async def test_a_conflict_over_a_version_that_never_was_has_no_differences(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save())
    error = await error_of(stub.SaveGraph(a_save("b", version=7)))
    assert isinstance(error, VersionConflict)
    assert (error.current_version, list(error.differences)) == (1, [])


async def test_two_versions_that_differ(stub: GraphStoreServiceStub) -> None:
    request = a_save(version=1)
    request.workflow.version = 2
    error = await error_of(stub.SaveGraph(request))
    assert isinstance(error, InvalidRequest)
    assert error.details.violations[0].field == "version"
    request.workflow.version = 1
    assert (await stub.SaveGraph(request)).workflow.version == 1


async def test_name_taken(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save())
    request = a_save()
    request.workflow.id = ""
    assert isinstance(await error_of(stub.SaveGraph(request)), NameTaken)


async def test_request_id_reused(stub: GraphStoreServiceStub) -> None:
    first = await stub.SaveGraph(a_save(request_id="r"))
    assert await stub.SaveGraph(a_save(request_id="r")) == first
    assert isinstance(await error_of(stub.SaveGraph(a_save("c", request_id="r"))), RequestIdReused)


async def test_invalid_graph_names_the_first_findings(stub: GraphStoreServiceStub) -> None:
    arrows = "\n".join(f"a{number} -> a{number}" for number in range(500))
    error = await error_of(stub.SaveGraph(a_save(arrows)))
    assert isinstance(error, InvalidGraph)
    assert (error.details.metadata["total"], error.details.metadata["truncated"]) == ("500", "true")
    assert error.details.violations[0].field == "edges[0]"
    assert error.details.violations[0].description.startswith("SELF_LOOP: ")
    assert "ValidateGraph" in error.hint
    request = pb.ValidateGraphRequest()
    fill_from_graph(request, a_graph(arrows))
    answer = await stub.ValidateGraph(request)
    assert (answer.valid, len(answer.errors), len(answer.warnings)) == (False, 500, 0)


async def test_workflow_and_version_not_found(stub: GraphStoreServiceStub) -> None:
    assert isinstance(await error_of(stub.GetGraph(pb.GetGraphRequest(workflow_id=ID))), WorkflowNotFound)
    assert isinstance(await error_of(stub.ListVersions(pb.ListVersionsRequest(workflow_id=ID))), WorkflowNotFound)
    await stub.SaveGraph(a_save())
    error = await error_of(stub.GetGraph(pb.GetGraphRequest(workflow_id=ID, version=2)))
    assert isinstance(error, VersionNotFound)
    elsewhere = pb.GetGraphRequest(workflow_id=ID, namespace="elsewhere")
    assert isinstance(await error_of(stub.GetGraph(elsewhere)), WorkflowNotFound)


async def test_a_graph_that_could_not_be_read_again_is_refused(stub: GraphStoreServiceStub) -> None:
    request = pb.SaveGraphRequest()
    for number in range(69):
        request.nodes.add(node_id=f"n{number}")
        request.modules.add(node_id=f"n{number}", class_name="M", module_data='{"x":"%s"}' % ("y" * 242_500))
    error = await error_of(stub.SaveGraph(request))
    assert isinstance(error, LimitExceeded)
    assert "fit into a message" in str(error)
    del request.modules[63:]
    saved = await stub.SaveGraph(request)
    assert len((await stub.GetGraph(pb.GetGraphRequest(workflow_id=saved.workflow.id))).graph.modules) == 63


def deep(request: pb.SaveGraphRequest) -> None:
    value = request.modules[0].config
    for _ in range(60):
        value = value.fields["x"].struct_value
    value.SetInParent()


def many_labels(request: pb.SaveGraphRequest) -> None:
    request.workflow.labels.update({str(number): "" for number in range(65)})


BAD_SAVES: dict[str, tuple[Callable[[pb.SaveGraphRequest], object], str | None, str]] = {
    "a namespace with a slash": (
        lambda r: setattr(r, "namespace", "a/b"),
        "namespace",
        "'a/b' is no namespace; takes 1 to 255 of letters",
    ),
    "an id that is no UUID": (
        lambda r: setattr(r.workflow, "id", "42"),
        "workflow.id",
        "'42' is not a UUID, such as 0198",
    ),
    "a negative version": (lambda r: setattr(r, "version", -1), "version", "-1 is no version; the first one is 1"),
    "NUL in a node id": (
        lambda r: setattr(r.nodes[0], "node_id", "a\x00"),
        "nodes[0].nodeId",
        "'a\\x00' holds a NUL character, which cannot be stored; remove it",
    ),
    "NUL in the message": (lambda r: setattr(r, "message", "\x00"), "message", "'\\x00' holds a NUL character"),
    "NUL in the request id": (lambda r: setattr(r, "request_id", "\x00"), "requestId", "'\\x00' holds a NUL character"),
    "a long request id": (
        lambda r: setattr(r, "request_id", "x" * 256),
        "requestId",
        "has 256 characters; at most 255 are allowed",
    ),
    "a long name": (
        lambda r: setattr(r.workflow, "name", "x" * 256),
        "workflow.name",
        "has 256 characters; at most 255 are allowed",
    ),
    "a long description": (
        lambda r: setattr(r.workflow, "description", "x" * 10_001),
        "workflow.description",
        "has 10,001 characters; at most 10,000 are allowed",
    ),
    "a long message": (
        lambda r: setattr(r, "message", "x" * 10_001),
        "message",
        "has 10,001 characters; at most 10,000 are allowed",
    ),
    "many labels": (many_labels, "workflow.labels", "65 labels are too many; at most 64"),
    "a label without a key": (
        lambda r: r.workflow.labels.update({"": "x"}),
        "workflow.labels.''",
        "has a key of 0 characters and a value of 1; keys have 1 to 255",
    ),
    "a priority out of range": (
        lambda r: setattr(r.nodes[0], "priority", 101),
        "nodes[0].priority",
        "101 is out of range; a priority is from -100 to 100",
    ),
    "an unknown join": (
        lambda r: setattr(r.nodes[0], "join", 7),
        "nodes[0].join",
        "7 is no known value; known are ALL, ANY",
    ),
    "a negative timeout": (
        lambda r: setattr(r.nodes[0].timeout, "seconds", -3),
        "nodes[0].timeout",
        "-3s is not more than zero",
    ),
    "a position of NaN": (
        lambda r: setattr(r.nodes[0].position, "x", float("nan")),
        "nodes[0].position.x",
        "nan is not a finite number; give one",
    ),
    "a number of 2^53": (
        lambda r: r.modules[0].config.update({"n": 2.0**53}),
        "modules[0].config.n",
        "9007199254740992 is an integer of magnitude 2^53 or more, which loses digits; send it as a string",
    ),
    "a config too deep for the wire": (deep, None, ""),
}


@pytest.mark.parametrize("case", BAD_SAVES)
async def test_i25_a_request_that_cannot_be_read_is_invalid_argument_and_stores_nothing(
    stub: GraphStoreServiceStub, case: str
) -> None:
    change, path, said = BAD_SAVES[case]
    request = a_save()
    change(request)
    error = await error_of(stub.SaveGraph(request))
    assert isinstance(error, InvalidRequest)
    if path is not None:
        (description,) = [bad.description for bad in error.details.violations if bad.field == path]
        assert said in description
    assert len((await stub.FindWorkflows(pb.FindWorkflowsRequest())).workflows) == 0


@pytest.mark.parametrize(
    ("method", "request_", "path", "said"),
    [
        ("GetGraph", pb.GetGraphRequest(), "workflowId", "'' is not a UUID, such as 0198"),
        ("GetGraph", pb.GetGraphRequest(workflow_id=ID, version=0), "version", "0 is no version; the first one is 1"),
        ("GetGraph", pb.GetGraphRequest(workflow_id=ID, version=-1), "version", "-1 is no version; the first one is 1"),
        (
            "ResolveVersions",
            pb.ResolveVersionsRequest(workflow_ids=[ID, "x"]),
            "workflowIds[1]",
            "'x' is not a UUID, such as 0198",
        ),
        (
            "ResolveVersions",
            pb.ResolveVersionsRequest(workflow_ids=[ID] * 1_001),
            "workflowIds",
            "1,001 are too many; at most 1,000",
        ),
        ("ListVersions", pb.ListVersionsRequest(workflow_id="x"), "workflowId", "'x' is not a UUID"),
        (
            "ListVersions",
            pb.ListVersionsRequest(workflow_id=ID, page_size=1_001),
            "pageSize",
            "1001 is not from 1 to 1000",
        ),
        ("ListVersions", pb.ListVersionsRequest(workflow_id=ID, page_size=-1), "pageSize", "-1 is not from 1 to 1000"),
        (
            "ListVersions",
            pb.ListVersionsRequest(workflow_id=ID, page_token="!"),
            "pageToken",
            "'!' was not given out for this list; take nextPageToken",
        ),
        (
            "ListVersions",
            pb.ListVersionsRequest(workflow_id=ID, page_token="WyJ2ZXJzaW9uIiwiMSJd"),
            "pageToken",
            "was not given out for this list",
        ),
        (
            "ListVersions",
            pb.ListVersionsRequest(workflow_id=ID, page_token="WyJ2ZXJzaW9uIiwxZTQwXQ"),
            "pageToken",
            "was not given out for this list",
        ),
        ("FindWorkflows", example(id="x"), "example.id", "'x' is not a UUID"),
        ("FindWorkflows", example(name="\x00"), "example.name", "holds a NUL character"),
        ("FindWorkflows", example(name="x" * 10_001), "example.name", "has 10001 characters"),
        ("FindWorkflows", example(nodes=[{"nodeID": "x"}]), "example.nodes[0].nodeID", 'did you mean "nodeId"?'),
        ("FindWorkflows", example(version="5.5"), "example.version", "'5.5' is not an integer"),
        ("FindWorkflows", pb.FindWorkflowsRequest(order_by="nam"), "orderBy", 'did you mean "name"?'),
        (
            "FindWorkflows",
            pb.FindWorkflowsRequest(matcher=common_pb2.Matcher(ignored_paths=["nope"])),
            "matcher.ignoredPaths[0]",
            "names no field",
        ),
        (
            "FindWorkflows",
            pb.FindWorkflowsRequest(time_ranges=[common_pb2.TimeRange(field="createTime")]),
            "timeRanges[0]",
            "neither startTime nor endTime",
        ),
        ("FindWorkflows", pb.FindWorkflowsRequest(page_size=10**6), "pageSize", "1000000 is not from 1 to 1000"),
        (
            "FindWorkflows",
            pb.FindWorkflowsRequest(page_token="WyJ2ZXJzaW9uIiwxXQ"),
            "pageToken",
            "was not given out for this list",
        ),
        (
            "ValidateGraph",
            pb.ValidateGraphRequest(nodes=[pb.Node(priority=500)]),
            "nodes[0].priority",
            "500 is out of range; a priority is from -100 to 100",
        ),
        ("ValidateGraph", pb.ValidateGraphRequest(namespace="ä"), "namespace", "'ä' is no namespace; takes 1 to 255"),
    ],
)
async def test_i25_reads_name_what_cannot_be_read(
    stub: GraphStoreServiceStub, method: str, request_: Any, path: str, said: str
) -> None:
    error = await error_of(getattr(stub, method)(request_))
    assert isinstance(error, InvalidRequest)
    assert [violation.field for violation in error.details.violations] == [path]
    assert said in error.details.violations[0].description


async def test_values_at_their_limits_are_saved(stub: GraphStoreServiceStub) -> None:
    request = a_save(request_id="x" * 255, message="x" * 10_000)
    request.workflow.name = "n" * 255
    request.workflow.description = "d" * 10_000
    request.workflow.labels.update({f"{number:0255}": "v" * 255 for number in range(64)})
    request.nodes[0].node_id = request.edges[0].source = request.modules[0].node_id = "🙂" * 512
    request.edges[0].edge_id = "🙂" * 512
    request.nodes[0].label = "🙂" * 1_000
    request.namespace = "n" * 255
    saved = await stub.SaveGraph(request)
    assert await stub.SaveGraph(request) == saved
    for size in (1, 1_000):
        found = await stub.FindWorkflows(pb.FindWorkflowsRequest(namespace="n" * 255, page_size=size))
        assert len(found.workflows) == 1
    assert not (await stub.ResolveVersions(pb.ResolveVersionsRequest(workflow_ids=[ID] * 1_000))).versions
