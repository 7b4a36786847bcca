"""Protobuf <-> drafts, merges and archiving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from services.graph_store import wire
from services.graph_store.model import Author, SavedVersion
from services.graph_store.model_drafts import (
    NO_VERSION,
    ArchiveCommand,
    DiscardDraftCommand,
    DraftKey,
    MergeCommand,
    MergedGraph,
    PublishCommand,
    SavedDraft,
    SaveDraftCommand,
)
from valkyr.api.common.v1 import common_pb2
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.errors import InvalidRequest, Violation
from valkyr.graph import fields
from valkyr.graph.conflicts import Conflict
from valkyr.graph.findings import Finding
from valkyr.graph.model import Graph, WorkflowInfo
from valkyr.rpc import graphs as graph_wire
from valkyr.rpc.merges import conflicts_to_proto

MAX_CONFLICT_BYTES = 12 * 1024 * 1024
"""Of conflicts in an answer, which holds no graph then."""
MAX_VALUE_CHARS = 256 * 1024
"""Of one value of a conflict: the largest config by default; in UTF-8 and with its like, three fit into an answer."""
_FINDING_BYTES = wire.MAX_WARNING_BYTES // 2
"""Of errors, and again of warnings, beside a graph."""


def read_merge(request: pb.MergeGraphRequest, namespace: str) -> MergeCommand:
    """InvalidRequest naming every field that cannot be read."""
    problems = fields.Problems()
    workflow_id = _read_id(request.workflow_id, problems)
    workflow, graph = _read_graph(request, "mine", workflow_id, problems)
    given = request.base_version if request.HasField("base_version") else None
    edited = _edited(given, "baseVersion", workflow, "mine.workflow.version", problems)
    if edited is None and given is None:
        problems.add("baseVersion", "is missing; name the version that the graph began as, 0 if it began as nothing")
    problems.raise_if_any()
    said = _said(workflow) if request.mine.HasField("workflow") else None
    return MergeCommand(namespace, workflow_id, edited or NO_VERSION, graph, said)


def write_merged(merged: MergedGraph) -> pb.MergeGraphResponse:
    errors, warnings = write_findings(merged.findings)
    message = pb.MergeGraphResponse(
        conflicts=_write_conflicts(merged.conflicts),
        total_conflicts=len(merged.conflicts),
        errors=errors,
        warnings=warnings,
        current_version=merged.workflow.version,
        both_moved=merged.both_moved,
    )
    if merged.graph is not None and merged.info is not None:
        workflow = merged.workflow
        message.graph.workflow.CopyFrom(graph_wire.workflow_to_proto(merged.info))
        message.graph.workflow.namespace = workflow.namespace
        graph_wire.fill_from_graph(message.graph, merged.graph)
    return message


def read_save_draft(request: pb.SaveDraftRequest, namespace: str, author: Author) -> SaveDraftCommand:
    """InvalidRequest naming every field that cannot be read."""
    problems = fields.Problems()
    workflow_id = _read_id(request.workflow_id, problems)
    workflow, graph = _read_graph(request, "graph", workflow_id, problems)
    revision = _read_revision(request, problems, least=0)
    given = request.base_version if request.HasField("base_version") else None
    base = _edited(given, "baseVersion", workflow, "graph.workflow.version", problems)
    wire.check_text(request.request_id, "requestId", wire.MAX_REQUEST_ID, problems)
    problems.raise_if_any()
    return SaveDraftCommand(
        namespace=namespace,
        workflow_id=workflow_id,
        author=author,
        graph=graph,
        workflow=_said(workflow) if request.graph.HasField("workflow") else None,
        base_version=given if base is None else base,
        revision=revision,
        request_id=request.request_id,
    )


def read_discard(request: pb.DiscardDraftRequest, namespace: str, author: Author) -> DiscardDraftCommand:
    """InvalidRequest naming every field that cannot be read."""
    problems = fields.Problems()
    workflow_id = _read_id(request.workflow_id, problems)
    revision = _read_revision(request, problems, least=1)
    wire.check_text(request.request_id, "requestId", wire.MAX_REQUEST_ID, problems)
    problems.raise_if_any()
    return DiscardDraftCommand(namespace, workflow_id, author, revision, request.request_id)


def write_saved_draft(saved: SavedDraft) -> pb.SaveDraftResponse:
    errors, warnings = write_findings(saved.findings)
    return pb.SaveDraftResponse(draft=write_draft(saved), errors=errors, warnings=warnings)


def write_draft(saved: SavedDraft) -> pb.Draft:
    draft = saved.draft
    message = pb.Draft(
        workflow_id=draft.key.workflow_id,
        base_version=draft.base_version,
        revision=draft.revision,
        author=draft.key.principal,
        create_time=wire.timestamp(draft.created_at),
        update_time=wire.timestamp(draft.updated_at),
        expire_time=wire.timestamp(draft.expires_at),
        current_version=saved.current_version,
    )
    said = replace(draft.workflow, id=draft.key.workflow_id, version=draft.base_version)
    message.graph.workflow.CopyFrom(graph_wire.workflow_to_proto(said))
    message.graph.workflow.namespace = draft.key.namespace
    graph_wire.fill_from_graph(message.graph, saved.graph)
    return message


def read_key(workflow_id: str, namespace: str, author: Author) -> DraftKey:
    """The caller's draft of a workflow. InvalidRequest."""
    return DraftKey(namespace, wire.read_workflow_id(workflow_id), author.principal)


def read_publish(request: pb.PublishDraftRequest, namespace: str, author: Author) -> PublishCommand:
    """InvalidRequest naming every field that cannot be read."""
    problems = fields.Problems()
    workflow_id = _read_id(request.workflow_id, problems)
    revision = _read_revision(request, problems, least=1)
    wire.check_text(request.message, "message", wire.MAX_TEXT, problems)
    wire.check_text(request.request_id, "requestId", wire.MAX_REQUEST_ID, problems)
    problems.raise_if_any()
    return PublishCommand(
        namespace=namespace,
        workflow_id=workflow_id,
        author=author,
        revision=revision,
        request_id=request.request_id,
        message=request.message,
    )


def write_published(saved: SavedVersion) -> pb.PublishDraftResponse:
    return pb.PublishDraftResponse(
        graph=wire.write_graph(saved.stored, saved.graph, expand_config=False).graph,
        warnings=wire.write_findings(saved.warnings, wire.MAX_WARNING_BYTES),
        merged=saved.merged,
        unchanged=saved.unchanged,
    )


def read_archive(
    request: pb.ArchiveWorkflowRequest | pb.UnarchiveWorkflowRequest, namespace: str, author: Author
) -> ArchiveCommand:
    """InvalidRequest naming every field that cannot be read."""
    problems = fields.Problems()
    workflow_id = _read_id(request.workflow_id, problems)
    wire.check_text(request.reason, "reason", wire.MAX_TEXT, problems)
    wire.check_text(request.request_id, "requestId", wire.MAX_REQUEST_ID, problems)
    problems.raise_if_any()
    return ArchiveCommand(
        namespace=namespace,
        workflow_id=workflow_id,
        author=author,
        archived=isinstance(request, pb.ArchiveWorkflowRequest),
        reason=request.reason,
        request_id=request.request_id,
    )


def write_findings(findings: Sequence[Finding]) -> tuple[list[common_pb2.Finding], list[common_pb2.Finding]]:
    """Errors and warnings, as many as fit beside a graph."""
    errors = [finding for finding in findings if finding.is_error]
    warnings = [finding for finding in findings if not finding.is_error]
    return wire.write_findings(errors, _FINDING_BYTES), wire.write_findings(warnings, _FINDING_BYTES)


def _read_id(value: str, problems: fields.Problems) -> str:
    return fields.read_uuid(value, "workflowId", problems) or ""


def _read_revision(
    request: pb.SaveDraftRequest | pb.PublishDraftRequest | pb.DiscardDraftRequest,
    problems: fields.Problems,
    *,
    least: int,
) -> int | None:
    if not request.HasField("revision"):
        return None
    if request.revision < least:
        problems.add("revision", f"{request.revision} is no revision of a draft; the first one is 1")
    return request.revision


def _read_graph(
    request: pb.MergeGraphRequest | pb.SaveDraftRequest, field: str, workflow_id: str, problems: fields.Problems
) -> tuple[WorkflowInfo, Graph]:
    """The graph of a request's field, with the field before the paths of its problems."""
    if not request.HasField(field):  # type: ignore[arg-type]
        problems.add(field, "is missing; send the graph, `{}` for an empty one")
        return WorkflowInfo(), Graph()
    found = fields.Problems()
    workflow, graph = graph_wire.read_graph(getattr(request, field), found)
    wire.check_workflow(workflow, found)
    if workflow.id is not None and workflow_id and workflow.id != workflow_id:
        found.add("workflow.id", f"{workflow.id} is not workflowId {workflow_id}; give one of them")
    try:
        found.raise_if_any()
    except InvalidRequest as error:
        problems.add_all(Violation(f"{field}.{each.field}", each.description) for each in error.details.violations)
    return workflow, graph


def _edited(
    outer: int | None, outer_path: str, workflow: WorkflowInfo, inner_path: str, problems: fields.Problems
) -> int | None:
    """The version that a graph began as; 0 says nothing. One that is no version, or two that differ, is a problem."""
    inner = workflow.version
    if outer is not None and outer < 0:
        problems.add(outer_path, f"{outer} is no version; the first one is 1")
    if outer and inner and outer != inner:
        problems.add(outer_path, f"{outer} differs from {inner_path} {inner}; give one of them")
    return outer or inner or None


def _said(workflow: WorkflowInfo) -> WorkflowInfo:
    """Name, description and labels alone."""
    return replace(workflow, id=None, version=None)


def _write_conflicts(conflicts: Sequence[Conflict]) -> list[common_pb2.Conflict]:
    messages: list[common_pb2.Conflict] = []
    size = 0
    for conflict in conflicts:
        [message] = conflicts_to_proto([conflict])
        for side in ("base", "current", "mine"):
            text = getattr(message, side)
            if len(text) > MAX_VALUE_CHARS:
                setattr(message, side, text[: MAX_VALUE_CHARS - 1] + "…")
        size += message.ByteSize() + 8
        if size > MAX_CONFLICT_BYTES:
            break
        messages.append(message)
    return messages
