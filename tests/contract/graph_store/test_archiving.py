"""ArchiveWorkflow and UnarchiveWorkflow over a real channel: what is refused then, what is not, and every error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.graph_store.test_errors import ID, a_save, error_of
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.api.graph.v1.graph_pb2_grpc import GraphStoreServiceStub
from valkyr.errors import InvalidRequest, RequestIdReused, WorkflowArchived, WorkflowNotFound

OTHER = "0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f81"


def archive(**fields: Any) -> pb.ArchiveWorkflowRequest:
    return pb.ArchiveWorkflowRequest(**{"workflow_id": ID, **fields})


def unarchive(**fields: Any) -> pb.UnarchiveWorkflowRequest:
    return pb.UnarchiveWorkflowRequest(**{"workflow_id": ID, **fields})


async def events(stub: GraphStoreServiceStub) -> list[pb.AuditEvent]:
    return list((await stub.ListAuditEvents(pb.ListAuditEventsRequest(workflow_id=ID))).events)


async def test_it_is_archived_and_back_as_it_was(stub: GraphStoreServiceStub) -> None:
    before = (await stub.SaveGraph(a_save())).workflow
    archived = (await stub.ArchiveWorkflow(archive())).workflow
    before.archived = True
    assert archived == before
    before.archived = False
    assert (await stub.UnarchiveWorkflow(unarchive())).workflow == before
    assert (await stub.SaveGraph(a_save("c", version=1))).workflow.version == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda stub: stub.SaveGraph(a_save("c", version=1)),
        lambda stub: stub.SaveGraph(a_save("c", version=1, validate_only=True)),
        lambda stub: stub.SaveGraph(a_save(version=1)),
        lambda stub: stub.SaveGraph(a_save("c", version=9)),
        lambda stub: stub.RestoreVersion(pb.RestoreVersionRequest(workflow_id=ID, version=1, current_version=2)),
    ],
    ids=["save", "validate only", "unchanged", "stale", "restore"],
)
async def test_nothing_is_saved_to_an_archived_one(
    stub: GraphStoreServiceStub, call: Callable[[GraphStoreServiceStub], Any]
) -> None:
    await stub.SaveGraph(a_save())
    await stub.SaveGraph(a_save("b", version=1))
    await stub.ArchiveWorkflow(archive())
    error = await error_of(call(stub))
    assert isinstance(error, WorkflowArchived)
    assert error.details.metadata["workflowId"] == ID
    assert "unarchive" in error.hint
    assert (await stub.GetGraph(pb.GetGraphRequest(workflow_id=ID))).graph.workflow.version == 2


async def test_all_of_it_can_still_be_read(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save())
    await stub.ArchiveWorkflow(archive())
    assert (await stub.GetGraph(pb.GetGraphRequest(workflow_id=ID))).graph.workflow.archived
    assert (await stub.ListVersions(pb.ListVersionsRequest(workflow_id=ID))).versions
    [found] = (await stub.FindWorkflows(pb.FindWorkflowsRequest())).workflows
    assert found.archived
    example = pb.FindWorkflowsRequest()
    example.example.update({"archived": False})
    assert not (await stub.FindWorkflows(example)).workflows


async def test_resolving_tells_which_are_archived(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save())
    request = a_save()
    request.workflow.MergeFrom(pb.Workflow(id=OTHER, name="other"))
    await stub.SaveGraph(request)
    await stub.ArchiveWorkflow(archive())
    spelled = ID.upper()
    answer = await stub.ResolveVersions(pb.ResolveVersionsRequest(workflow_ids=[spelled, OTHER]))
    assert dict(answer.versions) == {spelled: 1, OTHER: 1}
    assert list(answer.archived_ids) == [spelled]
    assert not answer.missing_ids


async def test_one_that_is_archived_stays_so_and_there_is_nothing_to_audit(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save())
    await stub.UnarchiveWorkflow(unarchive())
    first = await stub.ArchiveWorkflow(archive(reason="not needed"))
    assert await stub.ArchiveWorkflow(archive(reason="again")) == first
    assert [event.action for event in await events(stub)] == ["workflow.archived", "workflow.created"]


async def test_i04_it_is_audited_with_the_reason(stub: GraphStoreServiceStub) -> None:
    saved = (await stub.SaveGraph(a_save())).workflow
    await stub.ArchiveWorkflow(archive(reason="not needed"))
    await stub.UnarchiveWorkflow(unarchive(reason="needed"))
    unarchived, archived, _ = await events(stub)
    assert (archived.action, archived.message, archived.principal) == ("workflow.archived", "not needed", "tester")
    assert (unarchived.action, unarchived.message) == ("workflow.unarchived", "needed")
    for event in (archived, unarchived):
        assert (event.from_version, event.to_version) == (1, 1)
        assert event.from_hash == event.to_hash == saved.content_hash


async def test_a_repeated_request_gets_the_first_answer_whatever_has_come_since(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save())
    first = await stub.ArchiveWorkflow(archive(request_id="r"))
    await stub.UnarchiveWorkflow(unarchive(request_id="r"))
    await stub.SaveGraph(a_save("c", version=1))
    assert await stub.ArchiveWorkflow(archive(request_id="r")) == first
    assert not (await stub.GetGraph(pb.GetGraphRequest(workflow_id=ID))).graph.workflow.archived
    error = await error_of(stub.ArchiveWorkflow(archive(request_id="r", reason="another")))
    assert isinstance(error, RequestIdReused)


async def test_a_repeated_save_is_answered_though_the_workflow_was_archived_since(stub: GraphStoreServiceStub) -> None:
    first = await stub.SaveGraph(a_save(request_id="r"))
    await stub.ArchiveWorkflow(archive())
    again = await stub.SaveGraph(a_save(request_id="r"))
    assert (again.workflow.version, again.nodes) == (first.workflow.version, first.nodes)


async def test_what_is_not_there_cannot_be_archived(stub: GraphStoreServiceStub) -> None:
    assert isinstance(await error_of(stub.ArchiveWorkflow(archive())), WorkflowNotFound)
    assert isinstance(await error_of(stub.UnarchiveWorkflow(unarchive())), WorkflowNotFound)
    await stub.SaveGraph(a_save())
    assert isinstance(await error_of(stub.ArchiveWorkflow(archive(namespace="other"))), WorkflowNotFound)


async def test_what_cannot_be_read_is_named(stub: GraphStoreServiceStub) -> None:
    error = await error_of(stub.ArchiveWorkflow(archive(workflow_id="x", reason="\0", request_id="r" * 256)))
    assert isinstance(error, InvalidRequest)
    assert [each.field for each in error.details.violations] == ["workflowId", "reason", "requestId"]
