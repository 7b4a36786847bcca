"""History over a real channel: diffs, restores, audit events, and the stream of changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from services.graph_store.app import App, open_app
from services.graph_store.settings import GraphStoreSettings
from tests.builders import a_graph
from tests.contract.graph_store.test_errors import ID, a_save, error_of
from tests.postgres import patient
from valkyr.api.common.v1 import common_pb2
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.api.graph.v1.graph_pb2_grpc import GraphStoreServiceStub
from valkyr.errors import (
    Difference,
    InvalidRequest,
    NameTaken,
    RequestIdReused,
    Unavailable,
    VersionConflict,
    VersionNotFound,
    VersionRequired,
    WorkflowNotFound,
)
from valkyr.rpc.channel import open_channel
from valkyr.rpc.graphs import fill_from_graph
from valkyr.rpc.merges import differences_from_proto
from valkyr.rpc.status import from_rpc_error

OTHER = "0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f81"


async def three_versions(stub: GraphStoreServiceStub) -> None:
    """`a -> b`, then `b` is labelled, then `b` is moved."""
    await stub.SaveGraph(a_save(message="first"))
    labelled = a_save(version=1, message="second")
    labelled.nodes[1].label = "B"
    labelled.workflow.description = "about"
    await stub.SaveGraph(labelled)
    labelled.nodes[1].position.x = 5
    labelled.version, labelled.message = 2, "third"
    await stub.SaveGraph(labelled)


async def test_two_versions_are_compared(stub: GraphStoreServiceStub) -> None:
    await three_versions(stub)
    answer = await stub.DiffVersions(pb.DiffVersionsRequest(workflow_id=ID.upper(), from_version=1, to_version=3))
    assert (answer.from_version, answer.to_version, answer.total, answer.layout) == (1, 3, 3, False)
    assert differences_from_proto(answer.differences) == [
        Difference("CHANGED", "NODE", "b", "label", '"b"', '"B"'),
        Difference("CHANGED", "WORKFLOW", "", "description", None, '"about"'),
        Difference("MOVED", "NODE", "b", "position", None, '{"x":5,"y":0}'),
    ]
    latest = await stub.DiffVersions(pb.DiffVersionsRequest(workflow_id=ID))
    assert (latest.from_version, latest.to_version, latest.total, latest.layout) == (2, 3, 1, True)
    first = await stub.DiffVersions(pb.DiffVersionsRequest(workflow_id=ID, to_version=1))
    assert (first.from_version, first.to_version) == (0, 1)
    assert {difference.kind for difference in first.differences} == {
        common_pb2.Difference.ADDED,
        common_pb2.Difference.CHANGED,
    }


async def test_values_of_a_diff_are_whole_and_what_does_not_fit_is_counted(stub: GraphStoreServiceStub) -> None:
    request = a_save(", ".join(f"n{number}" for number in range(100)))
    await stub.SaveGraph(request)
    for letter, version in (("x", 1), ("y", 2)):
        for module in request.modules:
            module.config.update({"key": letter * 100_000})
        request.version = version
        await stub.SaveGraph(request)
    answer = await stub.DiffVersions(pb.DiffVersionsRequest(workflow_id=ID, from_version=2))
    assert answer.total == 100
    assert 60 < len(answer.differences) < 80
    assert answer.differences[0].new == '"' + "y" * 100_000 + '"'


async def test_layouts_and_restores_are_seen_in_the_list_of_versions(stub: GraphStoreServiceStub) -> None:
    await three_versions(stub)
    answer = await stub.RestoreVersion(pb.RestoreVersionRequest(workflow_id=ID, version=1, current_version=3))
    assert (answer.graph.workflow.version, answer.graph.workflow.description, answer.unchanged) == (4, "about", False)
    assert answer.graph.workflow.name == "orders"
    assert [node.label for node in answer.graph.nodes] == ["a", "b"]
    assert (await stub.GetGraph(pb.GetGraphRequest(workflow_id=ID))).graph == answer.graph
    versions = (await stub.ListVersions(pb.ListVersionsRequest(workflow_id=ID))).versions
    assert [(version.version, version.layout, version.restored_from) for version in versions] == [
        (4, False, 1),
        (3, True, 0),
        (2, False, 0),
        (1, False, 0),
    ]
    assert versions[0].message == "restores version 1"
    again = await stub.RestoreVersion(pb.RestoreVersionRequest(workflow_id=ID, version=2, current_version=4))
    assert (again.graph.workflow.version, again.graph.nodes[1].label) == (5, "B")
    unchanged = await stub.RestoreVersion(pb.RestoreVersionRequest(workflow_id=ID, version=5, current_version=5))
    assert (unchanged.unchanged, unchanged.graph) == (True, again.graph)


async def test_a_conflict_tells_of_names_descriptions_and_labels(stub: GraphStoreServiceStub) -> None:
    first = a_save()
    first.workflow.labels["team"] = "a"
    await stub.SaveGraph(first)
    theirs = a_save(version=1)
    theirs.workflow.name, theirs.workflow.description = "renamed", "about"
    theirs.workflow.labels["tier"] = "1"
    await stub.SaveGraph(theirs)
    error = await error_of(stub.SaveGraph(a_save("mine", version=1)))
    assert isinstance(error, VersionConflict)
    assert sorted(error.differences, key=lambda difference: difference.path) == [
        Difference("CHANGED", "WORKFLOW", "", "description", None, '"about"'),
        Difference("CHANGED", "WORKFLOW", "", "labels.team", '"a"', None),
        Difference("CHANGED", "WORKFLOW", "", "labels.tier", None, '"1"'),
        Difference("CHANGED", "WORKFLOW", "", "name", '"orders"', '"renamed"'),
    ]


RESTORE = pb.RestoreVersionRequest(workflow_id=ID, version=1, current_version=2)


def a_restore(**changed: Any) -> pb.RestoreVersionRequest:
    request = pb.RestoreVersionRequest()
    request.CopyFrom(RESTORE)
    request.MergeFrom(pb.RestoreVersionRequest(**changed))
    return request


async def test_restores_that_are_refused(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save())
    await stub.SaveGraph(a_save("b", version=1))
    required = await error_of(stub.RestoreVersion(pb.RestoreVersionRequest(workflow_id=ID, version=1)))
    assert isinstance(required, VersionRequired)
    assert required.details.metadata["currentVersion"] == "2"
    conflict = await error_of(stub.RestoreVersion(a_restore(current_version=1)))
    assert isinstance(conflict, VersionConflict)
    assert (conflict.current_version, bool(conflict.differences)) == (2, True)
    assert isinstance(await error_of(stub.RestoreVersion(a_restore(version=9))), VersionNotFound)
    assert isinstance(await error_of(stub.RestoreVersion(a_restore(workflow_id=OTHER))), WorkflowNotFound)
    assert isinstance(await error_of(stub.RestoreVersion(a_restore(namespace="other"))), WorkflowNotFound)
    await stub.RestoreVersion(a_restore(request_id="r"))
    assert (await stub.RestoreVersion(a_restore(request_id="r"))).graph.workflow.version == 3
    assert isinstance(await error_of(stub.RestoreVersion(a_restore(request_id="r", version=2))), RequestIdReused)


async def test_a_restore_leaves_a_name_that_another_has_taken_meanwhile(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save())
    renamed = a_save("b", version=1)
    renamed.workflow.name = "renamed"
    await stub.SaveGraph(renamed)
    theirs = a_save()
    theirs.workflow.id = OTHER
    await stub.SaveGraph(theirs)
    assert (await stub.RestoreVersion(a_restore())).graph.workflow.name == "renamed"
    back = a_save("b", version=3)
    assert isinstance(await error_of(stub.SaveGraph(back)), NameTaken)


async def test_versions_that_are_not_there_are_not_found(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save())
    for request in (
        pb.DiffVersionsRequest(workflow_id=ID, to_version=2),
        pb.DiffVersionsRequest(workflow_id=ID, from_version=7),
    ):
        error = await error_of(stub.DiffVersions(request))
        assert isinstance(error, VersionNotFound)
        assert error.details.metadata["currentVersion"] == "1"
    for namespace, workflow_id in (("other", ID), ("", OTHER)):
        request = pb.DiffVersionsRequest(namespace=namespace, workflow_id=workflow_id)
        assert isinstance(await error_of(stub.DiffVersions(request)), WorkflowNotFound)


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("DiffVersions", pb.DiffVersionsRequest(workflow_id="x"), "workflowId"),
        ("DiffVersions", pb.DiffVersionsRequest(workflow_id=ID, from_version=-1), "fromVersion"),
        ("DiffVersions", pb.DiffVersionsRequest(workflow_id=ID, to_version=0), "toVersion"),
        ("DiffVersions", pb.DiffVersionsRequest(workflow_id=ID, namespace="a b"), "namespace"),
        ("RestoreVersion", a_restore(workflow_id="x"), "workflowId"),
        ("RestoreVersion", pb.RestoreVersionRequest(workflow_id=ID, current_version=1), "version"),
        ("RestoreVersion", a_restore(version=-1), "version"),
        ("RestoreVersion", a_restore(current_version=-1), "currentVersion"),
        ("RestoreVersion", a_restore(message="x" * 10_001), "message"),
        ("RestoreVersion", a_restore(request_id="x" * 256), "requestId"),
        ("RestoreVersion", a_restore(message="\x00"), "message"),
        ("ListAuditEvents", pb.ListAuditEventsRequest(workflow_id="x"), "workflowId"),
        ("ListAuditEvents", pb.ListAuditEventsRequest(page_size=-1), "pageSize"),
        ("ListAuditEvents", pb.ListAuditEventsRequest(page_token="x"), "pageToken"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_i25_bad_requests_name_their_field(
    stub: GraphStoreServiceStub, method: str, request_: Any, field: str
) -> None:
    error = await error_of(getattr(stub, method)(request_))
    assert isinstance(error, InvalidRequest)
    assert [violation.field for violation in error.details.violations] == [field]


async def test_audit_events_come_in_pages_newest_first(stub: GraphStoreServiceStub) -> None:
    await three_versions(stub)
    other = a_save()
    other.workflow.id, other.workflow.name = OTHER, ""
    await stub.SaveGraph(other)
    request = pb.ListAuditEventsRequest(page_size=2)
    first = await stub.ListAuditEvents(request)
    renamed = a_save(version=3, message="between two pages")
    await stub.SaveGraph(renamed)
    request.page_token = first.next_page_token
    second = await stub.ListAuditEvents(request)
    assert not second.next_page_token
    events = [*first.events, *second.events]
    assert [(event.workflow_id, event.action, event.from_version, event.to_version) for event in events] == [
        (OTHER, "workflow.created", 0, 1),
        (ID, "workflow.saved", 2, 3),
        (ID, "workflow.saved", 1, 2),
        (ID, "workflow.created", 0, 1),
    ]
    assert [event.message for event in events] == ["", "third", "second", "first"]
    assert {event.principal for event in events} == {"tester"}
    assert all(event.id and event.create_time.seconds and event.to_hash for event in events)
    assert events[1].from_hash == events[2].to_hash
    mine = await stub.ListAuditEvents(pb.ListAuditEventsRequest(workflow_id=OTHER))
    assert [event.id for event in mine.events] == [events[0].id]
    assert not (await stub.ListAuditEvents(pb.ListAuditEventsRequest(namespace="other"))).events
    request.workflow_id = ID
    assert isinstance(await error_of(stub.ListAuditEvents(request)), InvalidRequest)  # a token of another list


async def told(stream: Any) -> pb.WatchWorkflowsResponse:
    """The next answer that says something."""
    async with asyncio.timeout(20):
        while True:
            answer: pb.WatchWorkflowsResponse = await stream.read()
            assert answer is not grpc.aio.EOF
            if answer.changes:
                return answer


async def test_changes_are_told_as_they_are_made_and_after_a_break(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save())
    stream = stub.WatchWorkflows(pb.WatchWorkflowsRequest(), timeout=30)
    began = await stream.read()
    assert (list(began.changes), bool(began.resume_token)) == ([], True)
    saved = await stub.SaveGraph(a_save("a -> b -> c", version=1))
    answer = await told(stream)
    (change,) = answer.changes
    assert (change.workflow, change.action, change.principal) == (saved.workflow, "workflow.saved", "tester")
    stream.cancel()
    moved = a_save("a -> b -> c", version=2)
    moved.nodes[0].position.x = 1
    await stub.SaveGraph(moved)
    resumed = stub.WatchWorkflows(pb.WatchWorkflowsRequest(resume_token=answer.resume_token), timeout=30)
    (change,) = (await told(resumed)).changes
    assert (change.workflow.version, change.layout) == (3, True)
    resumed.cancel()
    both = stub.WatchWorkflows(pb.WatchWorkflowsRequest(resume_token=began.resume_token, workflow_ids=[ID]), timeout=30)
    (change,) = (await told(both)).changes
    assert (change.workflow.version, change.layout) == (3, False)
    both.cancel()


async def test_large_changes_come_in_several_answers(stub: GraphStoreServiceStub) -> None:
    began = await stub.WatchWorkflows(pb.WatchWorkflowsRequest(), timeout=30).read()
    for number in range(60):
        request = a_save()
        request.workflow.id, request.workflow.name = f"0198c5a2-7e1c-7f3a-9d52-0c4b7a1e{number:04}", ""
        request.workflow.description = "🙂" * 10_000
        for label in range(64):
            request.workflow.labels[f"{label}" + "k" * 253] = "🙂" * 255
        await stub.SaveGraph(request)
    stream = stub.WatchWorkflows(pb.WatchWorkflowsRequest(resume_token=began.resume_token), timeout=30)
    first = await told(stream)
    assert 20 < len(first.changes) < 60
    assert first.ByteSize() < 12 * 1024 * 1024
    again = stub.WatchWorkflows(pb.WatchWorkflowsRequest(resume_token=first.resume_token), timeout=30)
    for rest in (await told(stream), await told(again)):
        assert len(first.changes) + len(rest.changes) == 60
        assert not {change.workflow.id for change in first.changes} & {change.workflow.id for change in rest.changes}


@pytest.mark.parametrize(
    "token", ["x", "e30", "W10", "W1tdXQ", "W1stMV1d", "W1sxLDJdXQ", "W1sxXSxbMV1d", "W1sxLjVdXQ", "W1t0cnVlXV0", "é"]
)
async def test_i25_a_resume_token_that_is_none_is_refused(stub: GraphStoreServiceStub, token: str) -> None:
    stream = stub.WatchWorkflows(pb.WatchWorkflowsRequest(resume_token=token), timeout=30)
    error = await error_of(stream.read())
    assert isinstance(error, InvalidRequest)
    assert [violation.field for violation in error.details.violations] == ["resumeToken"]


async def test_i25_a_resume_token_of_the_future_is_refused(stub: GraphStoreServiceStub) -> None:
    request = pb.WatchWorkflowsRequest(resume_token="W1s5MDAwMDAwMDAwMDAwMDAwMDAwXV0")
    error = await error_of(stub.WatchWorkflows(request, timeout=30).read())
    assert isinstance(error, InvalidRequest)
    assert "restored" in str(error)


async def test_i25_too_many_workflows_are_not_watched(stub: GraphStoreServiceStub) -> None:
    for ids in (["x"], [ID] * 1_001):
        error = await error_of(stub.WatchWorkflows(pb.WatchWorkflowsRequest(workflow_ids=ids), timeout=30).read())
        assert isinstance(error, InvalidRequest)
        assert error.details.violations[0].field.startswith("workflowIds")


@pytest.fixture
async def restarted(graph_store_database_url: str) -> Callable[[], Any]:
    settings = GraphStoreSettings(database=patient(graph_store_database_url))
    return lambda: open_app(settings)


async def test_i24_a_stream_ends_with_the_service_and_goes_on_at_the_next(restarted: Callable[[], Any]) -> None:
    app: App
    async with restarted() as app:
        channel = open_channel(app.server.address, principal="tester")
        stub = GraphStoreServiceStub(channel)
        stream = stub.WatchWorkflows(pb.WatchWorkflowsRequest(), timeout=30)
        began = await stream.read()
        await stub.SaveGraph(a_save())
        first = await told(stream)
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await stream.read()
    error = from_rpc_error(ended.value)
    assert isinstance(error, Unavailable)
    assert error.details.retry_after is not None
    await channel.close()
    async with restarted() as app:
        channel = open_channel(app.server.address, principal="tester")
        stub = GraphStoreServiceStub(channel)
        await stub.SaveGraph(a_save("c", version=1))
        for token, layout in ((first.resume_token, 2), (began.resume_token, 2)):
            stream = stub.WatchWorkflows(pb.WatchWorkflowsRequest(resume_token=token), timeout=30)
            (change,) = (await told(stream)).changes
            assert change.workflow.version == layout
        await channel.close()


async def test_a_graph_of_ten_thousand_nodes_is_compared_and_restored(stub: GraphStoreServiceStub) -> None:
    request = pb.SaveGraphRequest(workflow=pb.Workflow(id=ID))
    fill_from_graph(request, a_graph(" -> ".join(f"n{number}" for number in range(10_000))))
    await stub.SaveGraph(request, timeout=60)
    for node in request.nodes:
        node.label = "x"
    request.version = 1
    await stub.SaveGraph(request, timeout=60)
    diff = await stub.DiffVersions(pb.DiffVersionsRequest(workflow_id=ID), timeout=60)
    assert (diff.total, len(diff.differences)) == (10_000, 10_000)
    restored = await stub.RestoreVersion(a_restore(), timeout=60)
    assert (restored.graph.workflow.version, restored.graph.nodes[0].label) == (3, "n0")
