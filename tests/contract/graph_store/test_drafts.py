"""Drafts over a real channel: what their RPCs answer, and every error that they document."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from services.graph_store.app import App
from tests.builders import a_graph
from tests.contract.graph_store.test_errors import ID, a_save, error_of
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.api.graph.v1.graph_pb2_grpc import GraphStoreServiceStub
from valkyr.client import Client
from valkyr.errors import (
    DraftConflict,
    DraftNotFound,
    InvalidGraph,
    InvalidRequest,
    LimitExceeded,
    MergeConflict,
    NameTaken,
    RequestIdReused,
    VersionNotFound,
    WorkflowArchived,
    WorkflowNotFound,
)
from valkyr.rpc.channel import open_channel
from valkyr.rpc.graphs import fill_from_graph


def a_draft(arrows: str, *, workflow: pb.Workflow | None = None, **fields: Any) -> pb.SaveDraftRequest:
    """It says nothing of its workflow unless told to."""
    request = pb.SaveDraftRequest(workflow_id=ID, graph=pb.Graph(workflow=workflow), **fields)
    fill_from_graph(request.graph, a_graph(arrows))
    return request


def a_publish(**fields: Any) -> pb.PublishDraftRequest:
    return pb.PublishDraftRequest(workflow_id=ID, **fields)


GET = pb.GetDraftRequest(workflow_id=ID)


def ids(graph: pb.Graph) -> set[str]:
    return {node.node_id for node in graph.nodes}


@pytest.fixture
async def other(app: App) -> AsyncIterator[GraphStoreServiceStub]:
    """Calls as another principal."""
    channel = open_channel(app.server.address, principal="other")
    try:
        yield GraphStoreServiceStub(channel)
    finally:
        await channel.close()


async def latest(stub: GraphStoreServiceStub) -> pb.Graph:
    answer: pb.GetGraphResponse = await stub.GetGraph(pb.GetGraphRequest(workflow_id=ID))
    return answer.graph


async def test_a_draft_is_read_as_it_was_saved(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save("a"))
    said = pb.Workflow(id=ID, name="renamed", description="what it is", labels={"team": "x"})
    saved = (await stub.SaveDraft(a_draft("a -> b", workflow=said))).draft
    read = (await stub.GetDraft(GET)).draft
    assert read == saved
    assert (read.workflow_id, read.base_version, read.revision, read.author) == (ID, 1, 1, "tester")
    assert read.current_version == 1
    said.version, said.namespace = 1, "default"
    assert read.graph.workflow == said
    assert ids(read.graph) == {"a", "b"}
    kept = read.expire_time.ToDatetime() - read.update_time.ToDatetime()
    assert kept == timedelta(days=90)


async def test_a_draft_with_errors_is_kept_and_they_are_told(stub: GraphStoreServiceStub) -> None:
    answer = await stub.SaveDraft(a_draft("a -> b -> a, lonely"))
    assert [found.code for found in answer.errors] == ["CYCLE"]
    assert "ORPHAN_NODE" in [found.code for found in answer.warnings]
    assert ids((await stub.GetDraft(GET)).draft.graph) == {"a", "b", "lonely"}


async def test_a_draft_never_touches_the_published_graph(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save("a"))
    before = await latest(stub)
    await stub.SaveDraft(a_draft("b", workflow=pb.Workflow(name="renamed")))
    assert await latest(stub) == before


async def test_each_principal_has_a_draft_of_its_own(stub: GraphStoreServiceStub, other: GraphStoreServiceStub) -> None:
    await stub.SaveDraft(a_draft("mine"))
    assert isinstance(await error_of(other.GetDraft(GET)), DraftNotFound)
    await other.SaveDraft(a_draft("theirs"))
    assert ids((await stub.GetDraft(GET)).draft.graph) == {"mine"}
    await other.DiscardDraft(pb.DiscardDraftRequest(workflow_id=ID))
    assert (await stub.GetDraft(GET)).draft.revision == 1


async def test_a_draft_of_another_namespace_is_another(stub: GraphStoreServiceStub) -> None:
    await stub.SaveDraft(a_draft("a"))
    error = await error_of(stub.GetDraft(pb.GetDraftRequest(workflow_id=ID, namespace="other")))
    assert isinstance(error, DraftNotFound)


async def test_what_a_draft_begins_as(stub: GraphStoreServiceStub) -> None:
    assert (await stub.SaveDraft(a_draft("x"))).draft.base_version == 0
    await stub.DiscardDraft(pb.DiscardDraftRequest(workflow_id=ID))
    await stub.SaveGraph(a_save("a"))
    await stub.SaveGraph(a_save("b", version=1))
    assert (await stub.SaveDraft(a_draft("x"))).draft.base_version == 2, "the current one"
    assert (await stub.SaveDraft(a_draft("x", base_version=1))).draft.base_version == 1, "as said"
    assert (await stub.SaveDraft(a_draft("y"))).draft.base_version == 1, "that of the one before"
    named = pb.Workflow(version=2)
    assert (await stub.SaveDraft(a_draft("y", workflow=named))).draft.base_version == 2, "as the graph says"
    assert (await stub.SaveDraft(a_draft("y", base_version=0))).draft.base_version == 0, "nothing"


async def test_without_a_workflow_it_is_described_as_before(stub: GraphStoreServiceStub) -> None:
    first = a_save("a")
    first.workflow.description = "first"
    await stub.SaveGraph(first)
    second = a_save("b", version=1)
    second.workflow.description = "second"
    await stub.SaveGraph(second)
    assert (await stub.SaveDraft(a_draft("x", base_version=1))).draft.graph.workflow.description == "first"
    said = pb.Workflow(name="orders", description="mine")
    await stub.SaveDraft(a_draft("x", workflow=said))
    workflow = (await stub.SaveDraft(a_draft("y"))).draft.graph.workflow
    assert (workflow.name, workflow.description) == ("orders", "mine")


async def test_a_stale_revision_is_a_conflict(stub: GraphStoreServiceStub) -> None:
    await stub.SaveDraft(a_draft("a", revision=0))
    await stub.SaveDraft(a_draft("b", revision=1))
    for revision in (0, 1, 3):
        error = await error_of(stub.SaveDraft(a_draft("c", revision=revision)))
        assert isinstance(error, DraftConflict)
        assert error.current_revision == 2
    assert (await stub.SaveDraft(a_draft("c"))).draft.revision == 3


async def test_a_save_that_is_sent_again_is_answered_with_what_it_made(stub: GraphStoreServiceStub) -> None:
    await stub.SaveDraft(a_draft("a"))
    first = await stub.SaveDraft(a_draft("b", revision=1))
    again = await stub.SaveDraft(a_draft("b", revision=1))
    assert again == first


async def test_the_draft_after_a_discarded_one_has_another_revision(stub: GraphStoreServiceStub) -> None:
    await stub.SaveDraft(a_draft("a"))
    await stub.DiscardDraft(pb.DiscardDraftRequest(workflow_id=ID))
    error = await error_of(stub.SaveDraft(a_draft("b", revision=1)))
    assert isinstance(error, DraftConflict)
    assert error.current_revision == 0
    await stub.SaveDraft(a_draft("from another window"))
    assert isinstance(await error_of(stub.SaveDraft(a_draft("b", revision=1))), DraftConflict)


async def test_workflows_and_versions_that_are_not_there(stub: GraphStoreServiceStub) -> None:
    assert isinstance(await error_of(stub.SaveDraft(a_draft("a", base_version=1))), WorkflowNotFound)
    await stub.SaveGraph(a_save("a"))
    assert isinstance(await error_of(stub.SaveDraft(a_draft("a", base_version=2))), VersionNotFound)


async def test_there_is_no_draft(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save("a"))
    assert isinstance(await error_of(stub.GetDraft(GET)), DraftNotFound)
    assert isinstance(await error_of(stub.DiscardDraft(pb.DiscardDraftRequest(workflow_id=ID))), DraftNotFound)
    assert isinstance(await error_of(stub.PublishDraft(a_publish())), DraftNotFound)
    await stub.SaveDraft(a_draft("a"))
    await stub.DiscardDraft(pb.DiscardDraftRequest(workflow_id=ID))
    assert isinstance(await error_of(stub.GetDraft(GET)), DraftNotFound)
    assert isinstance(await error_of(stub.DiscardDraft(pb.DiscardDraftRequest(workflow_id=ID))), DraftNotFound)


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (pb.SaveDraftRequest(workflow_id="x", graph=pb.Graph()), ["workflowId"]),
        (pb.SaveDraftRequest(workflow_id=ID), ["graph"]),
        (pb.SaveDraftRequest(workflow_id=ID, graph=pb.Graph(), base_version=-1), ["baseVersion"]),
        (pb.SaveDraftRequest(workflow_id=ID, graph=pb.Graph(), revision=-1), ["revision"]),
        (
            pb.SaveDraftRequest(workflow_id=ID, graph=pb.Graph(workflow=pb.Workflow(name="n" * 256))),
            ["graph.workflow.name"],
        ),
        (
            pb.SaveDraftRequest(workflow_id=ID, graph=pb.Graph(workflow=pb.Workflow(version=2)), base_version=1),
            ["baseVersion"],
        ),
    ],
    ids=["id", "no graph", "negative base", "negative revision", "long name", "two versions"],
)
async def test_what_cannot_be_read_is_named(
    stub: GraphStoreServiceStub, request_: pb.SaveDraftRequest, fields: list[str]
) -> None:
    error = await error_of(stub.SaveDraft(request_))
    assert isinstance(error, InvalidRequest)
    assert [each.field for each in error.details.violations] == fields
    assert isinstance(await error_of(stub.PublishDraft(a_publish(revision=0))), InvalidRequest)


async def test_a_config_that_can_be_sent_can_be_read_again_or_is_refused(stub: GraphStoreServiceStub) -> None:
    def nested(levels: int) -> pb.SaveDraftRequest:
        request = a_draft("a")
        value: dict[str, Any] = {}
        for _ in range(levels - 1):
            value = {"k": value}
        request.graph.modules[0].config.update(value)
        return request

    await stub.SaveDraft(nested(32))
    assert (await stub.GetDraft(GET)).draft.graph.modules[0].config
    assert isinstance(await error_of(stub.SaveDraft(nested(33))), LimitExceeded)


async def test_a_draft_that_does_not_fit_into_an_answer_is_refused(stub: GraphStoreServiceStub) -> None:
    request = a_draft("a")
    request.graph.modules[0].module_data = "x" * (15 * 1024 * 1024)
    assert isinstance(await error_of(stub.SaveDraft(request)), LimitExceeded)
    request.graph.modules[0].module_data = "x" * (14 * 1024 * 1024)
    assert (await stub.SaveDraft(request)).errors
    assert (await stub.GetDraft(GET)).draft.graph.modules[0].module_data.startswith("xxx")


async def test_publishing_saves_and_leaves_no_draft(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save("a"))
    await stub.SaveDraft(a_draft("a -> b, lonely", workflow=pb.Workflow(name="renamed", description="new")))
    published = await stub.PublishDraft(a_publish(message="why"))
    assert (published.graph.workflow.version, published.merged, published.unchanged) == (2, False, False)
    assert (published.graph.workflow.name, published.graph.workflow.description) == ("renamed", "new")
    assert published.graph == await latest(stub)
    assert [found.code for found in published.warnings] == ["ORPHAN_NODE"]
    assert isinstance(await error_of(stub.GetDraft(GET)), DraftNotFound)
    [version, _] = (await stub.ListVersions(pb.ListVersionsRequest(workflow_id=ID))).versions
    assert (version.author, version.message) == ("tester", "why")


async def test_publishing_creates_a_workflow_that_was_not_there(stub: GraphStoreServiceStub) -> None:
    await stub.SaveDraft(a_draft("a", workflow=pb.Workflow(name="orders")))
    published = await stub.PublishDraft(a_publish())
    assert (published.graph.workflow.id, published.graph.workflow.version) == (ID, 1)
    assert published.graph.workflow.name == "orders"


async def test_a_draft_without_a_name_keeps_the_workflows(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save("a"))
    await stub.SaveDraft(a_draft("b", workflow=pb.Workflow(description="new")))
    assert (await stub.PublishDraft(a_publish())).graph.workflow.name == "orders"


async def test_where_others_have_saved_since_both_changes_are_published(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save("a"))
    await stub.SaveDraft(a_draft("a, mine"))
    await stub.SaveGraph(a_save("a, theirs", version=1))
    assert (await stub.GetDraft(GET)).draft.current_version == 2
    published = await stub.PublishDraft(a_publish())
    assert (published.graph.workflow.version, published.merged) == (3, True)
    assert ids(published.graph) == {"a", "mine", "theirs"}


async def test_a_workflow_that_was_made_meanwhile_is_merged_from_nothing(
    stub: GraphStoreServiceStub, other: GraphStoreServiceStub
) -> None:
    await stub.SaveDraft(a_draft("a, mine", workflow=pb.Workflow(name="orders")))
    await other.SaveGraph(a_save("a, theirs"))
    published = await stub.PublishDraft(a_publish())
    assert (published.graph.workflow.version, ids(published.graph)) == (2, {"a", "mine", "theirs"})


async def test_where_both_changed_the_same_the_draft_is_kept(stub: GraphStoreServiceStub) -> None:
    await _clashing(stub)
    error = await error_of(stub.PublishDraft(a_publish()))
    assert isinstance(error, MergeConflict)
    assert error.current_version == 2
    [clash] = error.disagreements
    assert (clash.kind, clash.part, clash.id, clash.path) == ("BOTH_CHANGED", "NODE", "a", "label")
    assert (clash.base, clash.current, clash.mine) == ('"a"', '"theirs"', '"mine"')
    assert (await stub.GetDraft(GET)).draft.revision == 1
    assert (await latest(stub)).workflow.version == 2


async def test_a_conflict_too_large_for_the_refusal_is_asked_for(app: App, stub: GraphStoreServiceStub) -> None:
    long = "\u6f22" * 190
    await stub.SaveGraph(a_save(long))
    for label, call in (("mine", "SaveDraft"), ("theirs", "SaveGraph")):
        request: Any = a_draft(long) if call == "SaveDraft" else a_save(long, version=1)
        node = (request.graph if call == "SaveDraft" else request).nodes[0]
        node.label = label + "\U0001f600" * 900
        await getattr(stub, call)(request)
    error = await error_of(stub.PublishDraft(a_publish()))
    assert isinstance(error, MergeConflict)
    assert (list(error.disagreements), error.is_truncated) == ([], True), "it fits: the test proves nothing"
    async with Client(app.server.address, principal="tester") as client:
        with pytest.raises(MergeConflict) as caught:
            await client.graphs.drafts.publish(ID)
    assert [clash.id for clash in caught.value.disagreements] == [long]


async def test_a_draft_that_says_how_both_go_together_is_published(stub: GraphStoreServiceStub) -> None:
    await _clashing(stub)
    await stub.SaveDraft(a_draft("a, both", base_version=2))
    published = await stub.PublishDraft(a_publish())
    assert (published.graph.workflow.version, published.merged) == (3, False)


async def _clashing(stub: GraphStoreServiceStub) -> None:
    """Draft and version 2 have given node `a` another label."""
    await stub.SaveGraph(a_save("a"))
    draft = a_draft("a")
    draft.graph.nodes[0].label = "mine"
    await stub.SaveDraft(draft)
    theirs = a_save("a", version=1)
    theirs.nodes[0].label = "theirs"
    await stub.SaveGraph(theirs)


async def test_i03_a_draft_with_errors_is_not_published_and_kept(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save("a, b, c"))
    await stub.SaveDraft(a_draft("a -> b, b -> a, c"))
    error = await error_of(stub.PublishDraft(a_publish(request_id="r")))
    assert isinstance(error, InvalidGraph)
    assert (await stub.GetDraft(GET)).draft.revision == 1
    assert (await latest(stub)).workflow.version == 1
    await stub.SaveDraft(a_draft("a -> b, c"))
    assert (await stub.PublishDraft(a_publish(request_id="r"))).graph.workflow.version == 2


async def test_i03_what_makes_a_cycle_with_what_others_saved_is_not_published_and_kept(
    stub: GraphStoreServiceStub,
) -> None:
    await stub.SaveGraph(a_save("a, b, c"))
    await stub.SaveDraft(a_draft("a -> b, c"))
    await stub.SaveGraph(a_save("b -> a, c", version=1))
    error = await error_of(stub.PublishDraft(a_publish(request_id="r")))
    assert isinstance(error, MergeConflict)
    assert (error.current_version, list(error.disagreements)) == (2, [])
    assert [violation.description.partition(":")[0] for violation in error.details.violations] == ["CYCLE"]
    assert "CYCLE" in error.message
    assert (await stub.GetDraft(GET)).draft.revision == 1
    assert (await latest(stub)).workflow.version == 2
    await stub.SaveDraft(a_draft("b -> a, c, mine", base_version=2))
    assert (await stub.PublishDraft(a_publish(request_id="r"))).graph.workflow.version == 3


@pytest.mark.parametrize("stale", [False, True], ids=["current base", "merged"])
async def test_a_draft_that_says_nothing_new_makes_no_version(stub: GraphStoreServiceStub, stale: bool) -> None:
    await stub.SaveGraph(a_save("a"))
    await stub.SaveDraft(a_draft("a"))
    if stale:
        await stub.SaveGraph(a_save("a, theirs", version=1))
    published = await stub.PublishDraft(a_publish())
    assert (published.unchanged, published.graph.workflow.version) == (True, 1 + stale)
    assert isinstance(await error_of(stub.GetDraft(GET)), DraftNotFound)
    audited = (await stub.ListAuditEvents(pb.ListAuditEventsRequest(workflow_id=ID))).events
    assert audited[0].action == "draft.discarded"


async def test_publishing_another_revision_than_is_there(stub: GraphStoreServiceStub) -> None:
    await stub.SaveDraft(a_draft("a"))
    await stub.SaveDraft(a_draft("b"))
    error = await error_of(stub.PublishDraft(a_publish(revision=1)))
    assert isinstance(error, DraftConflict)
    assert error.current_revision == 2
    assert (await stub.PublishDraft(a_publish(revision=2))).graph.workflow.version == 1


async def test_a_repeated_publish_gets_the_first_answer(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save("a"))
    await stub.SaveDraft(a_draft("a, mine"))
    await stub.SaveGraph(a_save("a, theirs", version=1))
    first = await stub.PublishDraft(a_publish(request_id="r"))
    await stub.SaveDraft(a_draft("something else"))
    await stub.SaveGraph(a_save("later", version=3))
    assert await stub.PublishDraft(a_publish(request_id="r")) == first
    assert ids((await stub.GetDraft(GET)).draft.graph) == {"something else"}
    error = await error_of(stub.PublishDraft(a_publish(request_id="r", message="another")))
    assert isinstance(error, RequestIdReused)


async def test_a_repeated_save_of_a_draft_gets_the_first_answer(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save("a"))
    request = a_draft("a -> b -> a", request_id="r")
    first = await stub.SaveDraft(request)
    await stub.SaveDraft(a_draft("later"))
    await stub.SaveGraph(a_save("b", version=1))
    again = await stub.SaveDraft(request)
    assert again == first
    assert (await stub.GetDraft(GET)).draft.revision == 2, "nothing was saved anew"
    await stub.DiscardDraft(pb.DiscardDraftRequest(workflow_id=ID))
    assert await stub.SaveDraft(request) == first
    assert isinstance(await error_of(stub.GetDraft(GET)), DraftNotFound)
    error = await error_of(stub.SaveDraft(a_draft("another", request_id="r")))
    assert isinstance(error, RequestIdReused)


async def test_a_repeated_discard_is_answered_once_more(stub: GraphStoreServiceStub) -> None:
    await stub.SaveDraft(a_draft("a"))
    request = pb.DiscardDraftRequest(workflow_id=ID, request_id="r")
    await stub.DiscardDraft(request)
    await stub.SaveDraft(a_draft("b"))
    await stub.DiscardDraft(request)
    assert ids((await stub.GetDraft(GET)).draft.graph) == {"b"}
    other = pb.DiscardDraftRequest(workflow_id=ID, request_id="r", revision=3)
    assert isinstance(await error_of(stub.DiscardDraft(other)), RequestIdReused)


async def test_discarding_another_revision_than_is_there(stub: GraphStoreServiceStub) -> None:
    await stub.SaveDraft(a_draft("a"))
    await stub.SaveDraft(a_draft("b"))
    error = await error_of(stub.DiscardDraft(pb.DiscardDraftRequest(workflow_id=ID, revision=1)))
    assert isinstance(error, DraftConflict)
    assert error.current_revision == 2
    await stub.DiscardDraft(pb.DiscardDraftRequest(workflow_id=ID, revision=2))
    assert isinstance(await error_of(stub.GetDraft(GET)), DraftNotFound)


async def test_another_principals_publish_with_the_same_request_id_is_another_request(
    stub: GraphStoreServiceStub, other: GraphStoreServiceStub
) -> None:
    await stub.SaveDraft(a_draft("a"))
    await other.SaveDraft(a_draft("b"))
    await stub.PublishDraft(a_publish(request_id="r"))
    assert isinstance(await error_of(other.PublishDraft(a_publish(request_id="r"))), RequestIdReused)


async def test_a_name_that_is_taken_keeps_the_draft(stub: GraphStoreServiceStub) -> None:
    request = a_save("a")
    request.workflow.id = ""
    holder = await stub.SaveGraph(request)
    await stub.SaveDraft(a_draft("a", workflow=pb.Workflow(name="orders")))
    error = await error_of(stub.PublishDraft(a_publish(request_id="r")))
    assert isinstance(error, NameTaken)
    assert error.details.metadata["workflowId"] == holder.workflow.id
    assert (await stub.GetDraft(GET)).draft.revision == 1


async def test_an_archived_workflow_has_drafts_but_they_are_not_published(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save("a"))
    await stub.ArchiveWorkflow(pb.ArchiveWorkflowRequest(workflow_id=ID))
    await stub.SaveDraft(a_draft("a, b"))
    assert isinstance(await error_of(stub.PublishDraft(a_publish())), WorkflowArchived)
    await stub.UnarchiveWorkflow(pb.UnarchiveWorkflowRequest(workflow_id=ID))
    assert (await stub.PublishDraft(a_publish())).graph.workflow.version == 2


async def test_i04_every_change_of_a_draft_is_audited(stub: GraphStoreServiceStub) -> None:
    await stub.SaveGraph(a_save("a"))
    await stub.SaveDraft(a_draft("b"))
    await stub.SaveDraft(a_draft("c"))
    await stub.DiscardDraft(pb.DiscardDraftRequest(workflow_id=ID))
    await stub.SaveDraft(a_draft("d"))
    await stub.PublishDraft(a_publish(message="why"))
    events = (await stub.ListAuditEvents(pb.ListAuditEventsRequest(workflow_id=ID))).events
    assert [event.action for event in events] == [
        "workflow.published", "draft.saved", "draft.discarded", "draft.saved", "draft.saved", "workflow.created",
    ]  # fmt: skip
    published, saved, discarded, second, first, created = events
    assert (published.from_version, published.to_version, published.message) == (1, 2, "why")
    assert (published.from_hash, published.to_hash) == (created.to_hash, saved.to_hash)
    assert (first.from_hash, second.from_hash, second.to_hash) == ("", first.to_hash, discarded.from_hash)
    assert (discarded.to_hash, saved.from_hash, saved.to_version) == ("", "", 0)
    assert {event.principal for event in events} == {"tester"}
