"""Protobuf answers about diffs, merges, drafts and history -> results of the SDK, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from valkyr.api.common.v1 import common_pb2
from valkyr.api.graph.v1 import graph_pb2
from valkyr.client.graph_results import (
    AuditEvent,
    Draft,
    MergedGraph,
    PublishedDraft,
    RestoredGraph,
    SavedDraft,
    VersionDiff,
    WorkflowChange,
)
from valkyr.client.wire import stored_graph_of, time_of, workflow_of
from valkyr.errors import UnknownMethod
from valkyr.graph.conflicts import Conflict
from valkyr.graph.findings import Finding
from valkyr.rpc.graphs import finding_from_proto, graph_from_proto
from valkyr.rpc.merges import conflicts_from_proto, differences_from_proto


def findings_of(*groups: Iterable[common_pb2.Finding]) -> Sequence[Finding]:
    """The findings of an answer, errors and then warnings."""
    return tuple(finding_from_proto(message) for group in groups for message in group)


def diff_of(message: graph_pb2.DiffVersionsResponse) -> VersionDiff:
    return VersionDiff(
        from_version=message.from_version,
        to_version=message.to_version,
        differences=tuple(differences_from_proto(message.differences)),
        total=message.total,
        layout=message.layout,
    )


def merged_of(message: graph_pb2.MergeGraphResponse) -> MergedGraph:
    return MergedGraph(
        stored=stored_graph_of(message.graph) if message.HasField("graph") else None,
        conflicts=_conflicts_of(message.conflicts),
        total_conflicts=message.total_conflicts,
        findings=findings_of(message.errors, message.warnings),
        current_version=message.current_version,
        both_moved=tuple(message.both_moved),
    )


def restored_of(message: graph_pb2.RestoreVersionResponse) -> RestoredGraph:
    return RestoredGraph(stored_graph_of(message.graph), findings_of(message.warnings), message.unchanged)


def draft_of(message: graph_pb2.Draft) -> Draft:
    workflow, graph = graph_from_proto(message.graph)
    return Draft(
        workflow_id=message.workflow_id,
        workflow=workflow,
        graph=graph,
        base_version=message.base_version,
        revision=message.revision,
        author=message.author,
        created_at=time_of(message, "create_time"),
        updated_at=time_of(message, "update_time"),
        expires_at=time_of(message, "expire_time"),
        current_version=message.current_version,
    )


def saved_draft_of(message: graph_pb2.SaveDraftResponse) -> SavedDraft:
    return SavedDraft(draft_of(message.draft), findings_of(message.errors, message.warnings))


def published_of(message: graph_pb2.PublishDraftResponse) -> PublishedDraft:
    return PublishedDraft(
        stored=stored_graph_of(message.graph),
        warnings=findings_of(message.warnings),
        merged=message.merged,
        unchanged=message.unchanged,
    )


def audit_event_of(message: graph_pb2.AuditEvent) -> AuditEvent:
    return AuditEvent(
        id=message.id,
        workflow_id=message.workflow_id,
        action=message.action,
        principal=message.principal,
        from_version=message.from_version,
        to_version=message.to_version,
        from_hash=message.from_hash,
        to_hash=message.to_hash,
        message=message.message,
        trace_id=message.trace_id,
        created_at=time_of(message, "create_time"),
    )


def change_of(message: graph_pb2.WorkflowChange) -> WorkflowChange:
    return WorkflowChange(workflow_of(message.workflow), message.action, message.principal, message.layout)


def _conflicts_of(messages: Iterable[common_pb2.Conflict]) -> Sequence[Conflict]:
    try:
        return tuple(conflicts_from_proto(messages))
    except ValueError as error:
        hint = "upgrade valkyr to the version of the server"
        raise UnknownMethod(f"the server answered a conflict that is unknown here: {error}", hint=hint) from None
