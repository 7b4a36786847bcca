"""client.graphs: versions, diffs, merges, restores, archiving, the audit and the watch."""

from __future__ import annotations

from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest

from tests.builders import a_graph
from valkyr import errors
from valkyr.api.common.v1 import common_pb2
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.client import Client
from valkyr.errors import Difference
from valkyr.graph.conflicts import Conflict, ConflictKind
from valkyr.graph.model import WorkflowInfo
from valkyr.graph.parts import ABSENT, Part
from valkyr.rpc.graphs import graph_to_proto

W = "0198c0de-0000-7000-8000-000000000001"
A_GRAPH = a_graph("a -> b")
STORED = graph_to_proto(A_GRAPH, WorkflowInfo(id=W, name="orders", version=7))
A_WARNING = common_pb2.Finding(severity=common_pb2.Finding.WARNING, code="ORPHAN_NODE")
AN_ERROR = common_pb2.Finding(severity=common_pb2.Finding.ERROR, code="CYCLE")


async def test_versions_say_what_is_layout_and_what_was_restored(script: Any, client: Client) -> None:
    versions = [pb.Version(version=3, restored_from=1), pb.Version(version=2, layout=True)]
    script.answer("ListVersions", pb.ListVersionsResponse(versions=versions))
    found = await client.graphs.versions(W).all()
    assert [(version.version, version.layout, version.restored_from) for version in found] == [
        (3, False, 1),
        (2, True, 0),
    ]


async def test_a_diff_of_two_versions_has_its_entries_and_their_number(script: Any, client: Client) -> None:
    kinds = common_pb2.Difference
    entry = kinds(kind=kinds.CHANGED, part=kinds.NODE, id="a", path="label", new='"A"')
    script.answer(
        "DiffVersions",
        pb.DiffVersionsResponse(from_version=2, to_version=3, differences=[entry], total=9, layout=False),
    )
    diff = await client.graphs.diff(W, 2)
    assert list(diff.differences) == [Difference("CHANGED", "NODE", "a", "label", None, '"A"')]
    assert (diff.from_version, diff.to_version, diff.total, diff.layout) == (2, 3, 9, False)
    (request,) = script.requests("DiffVersions")
    assert request.from_version == 2
    assert not request.HasField("to_version")


async def test_a_merge_without_conflicts_is_a_graph_with_findings(script: Any, client: Client) -> None:
    script.answer(
        "MergeGraph",
        pb.MergeGraphResponse(graph=STORED, warnings=[A_WARNING], current_version=7, both_moved=["a"]),
        pb.MergeGraphResponse(graph=STORED, errors=[AN_ERROR], current_version=7),
    )
    merged = await client.graphs.merge(W, A_GRAPH, base_version=5)
    assert merged.is_valid
    assert merged.stored is not None
    assert (merged.stored.graph, merged.stored.workflow.version, merged.both_moved) == (A_GRAPH, 7, ("a",))
    assert not (await client.graphs.merge(W, A_GRAPH, base_version=5)).is_valid
    assert script.requests("MergeGraph")[0].base_version == 5


async def test_a_merge_with_conflicts_has_no_graph(script: Any, client: Client) -> None:
    kinds = common_pb2.Conflict
    entry = kinds(kind=kinds.BOTH_CHANGED, part=common_pb2.Difference.NODE, id="a", path="label", current='"A"')
    script.answer("MergeGraph", pb.MergeGraphResponse(conflicts=[entry], total_conflicts=4, current_version=7))
    merged = await client.graphs.merge(W, A_GRAPH, base_version=5)
    assert merged.stored is None
    assert not merged.is_valid
    assert merged.conflicts == (Conflict(ConflictKind.BOTH_CHANGED, Part.NODE, "a", "label", ABSENT, "A", ABSENT),)
    assert merged.total_conflicts == 4


async def test_a_conflict_of_a_kind_that_is_unknown_here_says_what_to_do(script: Any, client: Client) -> None:
    script.answer("MergeGraph", pb.MergeGraphResponse(conflicts=[common_pb2.Conflict(kind=99)]))  # type: ignore[arg-type]
    with pytest.raises(errors.UnknownMethod) as caught:
        await client.graphs.merge(W, A_GRAPH, base_version=5)
    assert "upgrade" in caught.value.hint


async def test_a_merge_takes_base_and_description_from_the_document(script: Any, client: Client) -> None:
    script.answer("MergeGraph", pb.MergeGraphResponse(graph=STORED))
    nodes = [{"nodeId": "a"}]
    await client.graphs.merge(W, {"workflow": {"version": 4, "name": "orders"}, "nodes": nodes})
    await client.graphs.merge(W, {"workflow": {"version": 4}, "nodes": nodes})
    described, silent = script.requests("MergeGraph")
    assert (described.base_version, described.mine.workflow.name, described.mine.workflow.version) == (4, "orders", 0)
    assert not silent.mine.workflow.name


async def test_a_document_that_says_nothing_of_its_workflow_sends_none(script: Any, client: Client) -> None:
    script.answer("MergeGraph", pb.MergeGraphResponse(graph=STORED))
    await client.graphs.merge(W, {"workflow": {"version": 4}, "nodes": [{"nodeId": "a"}]})
    (request,) = script.requests("MergeGraph")
    assert not request.mine.HasField("workflow")


async def test_a_merge_of_nothing_that_is_known_is_refused_before_any_call(script: Any, client: Client) -> None:
    with pytest.raises(errors.InvalidRequest, match="base_version"):
        await client.graphs.merge(W, A_GRAPH)
    with pytest.raises(errors.InvalidRequest, match="the document says version 4, and 5 was given"):
        await client.graphs.merge(W, {"workflow": {"version": 4}}, base_version=5)
    assert not script.received


async def test_a_restore_is_safe_to_repeat_and_says_what_it_replaces(script: Any, client: Client) -> None:
    answer = pb.RestoreVersionResponse(graph=STORED, warnings=[A_WARNING], unchanged=True)
    script.answer("RestoreVersion", errors.Unavailable("away"), answer)
    restored = await client.graphs.restore(W, 3, current_version=6, message="undo")
    assert restored.stored.workflow.version == 7
    assert restored.unchanged
    assert [warning.code for warning in restored.warnings] == ["ORPHAN_NODE"]
    first, again = script.requests("RestoreVersion")
    assert first == again
    assert (first.version, first.current_version, first.message, bool(first.request_id)) == (3, 6, "undo", True)


async def test_a_restore_that_the_catalogue_refuses_brings_the_findings_of_that_version(
    script: Any, client: Client
) -> None:
    script.answer("RestoreVersion", errors.InvalidGraph("no"))
    script.answer("GetGraph", pb.GetGraphResponse(graph=STORED))
    script.answer("ValidateGraph", pb.ValidateGraphResponse(errors=[AN_ERROR]))
    with pytest.raises(errors.InvalidGraph) as caught:
        await client.graphs.restore(W, 3, current_version=6)
    assert [finding.code for finding in caught.value.findings] == ["CYCLE"]
    assert script.requests("GetGraph")[0].version == 3
    assert [node.node_id for node in script.requests("ValidateGraph")[0].nodes] == ["a", "b"]


async def test_i02_a_restore_over_a_stale_version_brings_the_whole_diff(script: Any, client: Client) -> None:
    metadata = {"currentVersion": "9", "total": "2", "truncated": "true"}
    script.answer("RestoreVersion", errors.VersionConflict("stale", metadata=metadata))
    kinds = common_pb2.Difference
    entries = [kinds(kind=kinds.ADDED, part=kinds.NODE, id=name) for name in "ab"]
    script.answer("DiffVersions", pb.DiffVersionsResponse(differences=entries, total=2))
    with pytest.raises(errors.VersionConflict) as caught:
        await client.graphs.restore(W, 3, current_version=6)
    assert [difference.id for difference in caught.value.differences] == ["a", "b"]
    (asked,) = script.requests("DiffVersions")
    assert (asked.from_version, asked.to_version) == (6, 9)


async def test_archiving_and_back_say_why_and_are_safe_to_repeat(script: Any, client: Client) -> None:
    archived = pb.Workflow(id=W, version=7, archived=True)
    script.answer("ArchiveWorkflow", pb.ArchiveWorkflowResponse(workflow=archived))
    script.answer("UnarchiveWorkflow", pb.UnarchiveWorkflowResponse(workflow=pb.Workflow(id=W, version=7)))
    assert (await client.graphs.archive(W, reason="closed")).archived
    assert not (await client.graphs.unarchive(W, reason="open")).archived
    for rpc, reason in (("ArchiveWorkflow", "closed"), ("UnarchiveWorkflow", "open")):
        (request,) = script.requests(rpc)
        assert (request.workflow_id, request.reason, bool(request.request_id)) == (W, reason, True)


async def test_the_audit_comes_in_pages(script: Any, client: Client) -> None:
    event = pb.AuditEvent(
        id="e1", workflow_id=W, action="workflow.saved", principal="ada", from_version=6, to_version=7
    )
    event.create_time.FromSeconds(1_700_000_000)
    script.answer(
        "ListAuditEvents",
        pb.ListAuditEventsResponse(events=[event], next_page_token="more"),
        pb.ListAuditEventsResponse(events=[pb.AuditEvent(id="e0", action="workflow.created")]),
    )
    first, last = await client.graphs.audit(W).all()
    assert (first.action, first.principal, first.from_version, first.to_version) == ("workflow.saved", "ada", 6, 7)
    assert first.created_at is not None
    assert last.id == "e0"
    assert [request.page_token for request in script.requests("ListAuditEvents")] == ["", "more"]


async def test_resolved_versions_say_which_workflows_are_archived(script: Any, client: Client) -> None:
    script.answer("ResolveVersions", pb.ResolveVersionsResponse(versions={"w1": 3}, archived_ids=["w1"]))
    assert (await client.graphs.resolve(["w1"])).archived_ids == ("w1",)


def changes(token: str, *versions: int) -> pb.WatchWorkflowsResponse:
    told = [
        pb.WorkflowChange(workflow=pb.Workflow(id=W, version=version), action="workflow.saved") for version in versions
    ]
    return pb.WatchWorkflowsResponse(changes=told, resume_token=token)


async def test_a_watch_goes_on_behind_its_last_token_where_a_stream_broke(script: Any, client: Client) -> None:
    script.answer(
        "WatchWorkflows",
        [changes("t0"), changes("t1", 1, 2), errors.Unavailable("restarting")],
        [changes("t1"), changes("t2", 3)],
    )
    tokens: list[str] = []
    seen = []
    async with aclosing(client.graphs.watch([W], on_token=tokens.append)) as watch:
        async for change in watch:
            seen.append((change.workflow.version, list(tokens)))
            if change.workflow.version == 3:
                break
    assert seen == [(1, ["t0"]), (2, ["t0"]), (3, ["t0", "t1", "t1"])]
    first, again = script.requests("WatchWorkflows")[:2]
    assert (list(first.workflow_ids), first.resume_token, again.resume_token) == ([W], "", "t1")


async def test_a_watch_begins_where_another_ended(script: Any, client: Client) -> None:
    script.answer("WatchWorkflows", [changes("t8", 8)])
    async with aclosing(client.graphs.watch(resume_token="t7")) as watch:
        change = await anext(watch)
    assert (change.workflow.version, change.action) == (8, "workflow.saved")
    assert script.requests("WatchWorkflows")[0].resume_token == "t7"


async def test_a_watch_of_a_token_that_is_none_is_refused_at_once(script: Any, client: Client) -> None:
    script.answer("WatchWorkflows", errors.InvalidRequest.of_field("resumeToken", "is no token"))
    with pytest.raises(errors.InvalidRequest, match="resumeToken"):
        await anext(client.graphs.watch(resume_token="nonsense"))
    assert len(script.requests("WatchWorkflows")) == 1


async def test_i24_a_watch_whose_server_is_gone_says_so_after_its_patience(nowhere: str) -> None:
    async with Client(nowhere) as client:
        with pytest.raises(errors.Unavailable):
            await anext(client.graphs.watch(patience=timedelta(seconds=0.2)))
