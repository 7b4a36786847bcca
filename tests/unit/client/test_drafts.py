"""client.graphs.drafts: kept with errors and all, published whole or refused with all that is wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.builders import a_graph
from valkyr import errors
from valkyr.api.common.v1 import common_pb2
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.client import Client
from valkyr.graph.model import WorkflowInfo
from valkyr.rpc.graphs import graph_to_proto

W = "0198c0de-0000-7000-8000-000000000001"
A_GRAPH = a_graph("a -> b")
A_CYCLE = a_graph("a -> b -> a")
A_WARNING = common_pb2.Finding(severity=common_pb2.Finding.WARNING, code="ORPHAN_NODE")
AN_ERROR = common_pb2.Finding(severity=common_pb2.Finding.ERROR, code="CYCLE")


def a_draft(*, base: int = 5, current: int = 5) -> pb.Draft:
    graph = graph_to_proto(A_CYCLE, WorkflowInfo(name="orders", description="what it does"))
    draft = pb.Draft(workflow_id=W, graph=graph, base_version=base, revision=2, author="ada", current_version=current)
    draft.expire_time.FromDatetime(datetime(2026, 12, 24, tzinfo=UTC))
    return draft


async def test_a_draft_may_hold_errors_and_is_answered_with_its_findings(script: Any, client: Client) -> None:
    answer = pb.SaveDraftResponse(draft=a_draft(), errors=[AN_ERROR], warnings=[A_WARNING])
    script.answer("SaveDraft", answer)
    saved = await client.graphs.drafts.save(W, A_CYCLE, base_version=5, revision=1)
    assert [finding.code for finding in saved.findings] == ["CYCLE", "ORPHAN_NODE"]
    draft = saved.draft
    assert (draft.graph, draft.workflow.name, draft.base_version, draft.revision) == (A_CYCLE, "orders", 5, 2)
    assert draft.expires_at == datetime(2026, 12, 24, tzinfo=UTC)
    (request,) = script.requests("SaveDraft")
    assert (request.workflow_id, request.base_version, request.revision) == (W, 5, 1)
    assert not request.graph.HasField("workflow")


async def test_a_document_says_base_and_name_of_its_draft(script: Any, client: Client) -> None:
    script.answer("SaveDraft", pb.SaveDraftResponse(draft=a_draft()))
    await client.graphs.drafts.save(W, {"workflow": {"name": "orders", "version": 4}, "nodes": [{"nodeId": "a"}]})
    (request,) = script.requests("SaveDraft")
    assert (request.base_version, request.graph.workflow.name, request.graph.workflow.version) == (4, "orders", 0)
    assert not request.HasField("revision")


async def test_a_stale_draft_names_the_revision_that_is_there(script: Any, client: Client) -> None:
    script.answer("SaveDraft", errors.DraftConflict("stale", metadata={"currentRevision": "4"}))
    with pytest.raises(errors.DraftConflict) as caught:
        await client.graphs.drafts.save(W, A_GRAPH, revision=2)
    assert caught.value.current_revision == 4


async def test_a_draft_is_read_and_discarded(script: Any, client: Client) -> None:
    script.answer("GetDraft", pb.GetDraftResponse(draft=a_draft()))
    script.answer("DiscardDraft", pb.DiscardDraftResponse(), errors.DraftNotFound("none"))
    assert (await client.graphs.drafts.get(W)).workflow.description == "what it does"
    await client.graphs.drafts.discard(W, revision=3)
    (request,) = script.requests("DiscardDraft")
    assert (request.revision, bool(request.request_id)) == (3, True)
    with pytest.raises(errors.DraftNotFound):
        await client.graphs.drafts.discard(W)


async def test_a_draft_is_saved_once_however_often_it_is_sent(script: Any, client: Client) -> None:
    script.answer("SaveDraft", errors.Unavailable("away"), pb.SaveDraftResponse(draft=a_draft()))
    await client.graphs.drafts.save(W, A_GRAPH)
    first, again = script.requests("SaveDraft")
    assert first == again
    assert first.request_id


async def test_a_change_of_unknown_outcome_says_by_what_it_is_repeated(script: Any, client: Client) -> None:
    for_long = errors.Unavailable("away", retry_after=timedelta(hours=1))
    script.answer("ArchiveWorkflow", errors.Unavailable("away"), for_long)
    with pytest.raises(errors.Unavailable) as caught:
        await client.graphs.archive(W)
    assert len(script.requests("ArchiveWorkflow")) == 2
    assert caught.value.details.metadata["requestId"] == script.requests("ArchiveWorkflow")[0].request_id


async def test_a_draft_is_published_once_however_often_it_is_sent(script: Any, client: Client) -> None:
    graph = graph_to_proto(A_GRAPH, WorkflowInfo(id=W, version=7))
    answer = pb.PublishDraftResponse(graph=graph, warnings=[A_WARNING], merged=True)
    script.answer("PublishDraft", errors.Unavailable("away"), answer)
    published = await client.graphs.drafts.publish(W, revision=2, message="why")
    assert (published.stored.workflow.version, published.merged, published.unchanged) == (7, True, False)
    first, again = script.requests("PublishDraft")
    assert first == again
    assert (first.revision, first.message, bool(first.request_id)) == (2, "why", True)


async def test_a_refused_draft_brings_all_its_findings(script: Any, client: Client) -> None:
    script.answer("PublishDraft", errors.InvalidGraph("1 error"))
    script.answer("GetDraft", pb.GetDraftResponse(draft=a_draft()))
    script.answer("ValidateGraph", pb.ValidateGraphResponse(errors=[AN_ERROR], warnings=[A_WARNING]))
    with pytest.raises(errors.InvalidGraph) as caught:
        await client.graphs.drafts.publish(W)
    assert [finding.code for finding in caught.value.findings] == ["CYCLE", "ORPHAN_NODE"]


async def test_a_refused_draft_that_others_overtook_brings_the_findings_of_the_merge(
    script: Any, client: Client
) -> None:
    script.answer("PublishDraft", errors.MergeConflict("1 error", metadata={"currentVersion": "7", "errors": "1"}))
    script.answer("GetDraft", pb.GetDraftResponse(draft=a_draft(base=5, current=7)))
    script.answer("MergeGraph", pb.MergeGraphResponse(graph=graph_to_proto(A_CYCLE), errors=[AN_ERROR]))
    with pytest.raises(errors.MergeConflict) as caught:
        await client.graphs.drafts.publish(W)
    assert [finding.code for finding in caught.value.findings] == ["CYCLE"]
    (request,) = script.requests("MergeGraph")
    assert (request.base_version, request.mine.workflow.name) == (5, "orders")


async def test_a_merge_conflict_that_did_not_fit_is_brought_whole(script: Any, client: Client) -> None:
    first = errors.Disagreement("BOTH_CHANGED", "NODE", "a", "label", None, '"A"', '"B"')
    metadata = {"currentVersion": "7", "total": "2", "truncated": "true"}
    script.answer("PublishDraft", errors.MergeConflict("no", metadata=metadata, disagreements=[first]))
    script.answer("GetDraft", pb.GetDraftResponse(draft=a_draft(base=5, current=7)))
    kinds = common_pb2.Conflict
    conflicts = [
        kinds(kind=kinds.BOTH_CHANGED, part=common_pb2.Difference.NODE, id=name, path="label") for name in "ab"
    ]
    script.answer("MergeGraph", pb.MergeGraphResponse(conflicts=conflicts, total_conflicts=2))
    with pytest.raises(errors.MergeConflict) as caught:
        await client.graphs.drafts.publish(W)
    assert [conflict.id for conflict in caught.value.disagreements] == ["a", "b"]
    assert not caught.value.is_truncated
    assert caught.value.current_version == 7


async def test_a_merge_conflict_stays_as_it_came_where_the_draft_cannot_be_read(script: Any, client: Client) -> None:
    first = errors.Disagreement("BOTH_CHANGED", "NODE", "a", "label")
    metadata = {"currentVersion": "7", "total": "2", "truncated": "true"}
    script.answer("PublishDraft", errors.MergeConflict("no", metadata=metadata, disagreements=[first]))
    script.answer("GetDraft", errors.DraftNotFound("gone"))
    with pytest.raises(errors.MergeConflict) as caught:
        await client.graphs.drafts.publish(W)
    assert list(caught.value.disagreements) == [first]
    assert caught.value.is_truncated


async def test_a_document_of_another_namespace_is_refused_before_any_call(script: Any, address: str) -> None:
    document = {"namespace": "shop", "workflow": {"version": 1}, "nodes": [{"nodeId": "a"}]}
    async with Client(address, namespace="default") as client:
        with pytest.raises(errors.InvalidRequest, match="namespace"):
            await client.graphs.drafts.save(W, document)
        with pytest.raises(errors.InvalidRequest, match="namespace"):
            await client.graphs.merge(W, document)
    assert not script.received
