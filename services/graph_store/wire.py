"""Protobuf <-> the graph store's values, both directions."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from services.chassis.paging import bad_page_token, page_place
from services.graph_store.model import (
    Author,
    SaveCommand,
    SavedVersion,
    StoredVersion,
    StoredWorkflow,
    VersionSummary,
)
from valkyr.api.common.v1 import common_pb2
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.errors import InvalidRequest
from valkyr.graph import fields
from valkyr.graph.findings import Finding
from valkyr.graph.model import Graph, WorkflowInfo
from valkyr.rpc import graphs as graph_wire

MAX_FINDING_BYTES = 6 * 1024 * 1024
"""Of errors, and again of warnings, in the answer to a validation: both together fit into a message."""
MAX_WARNING_BYTES = 1024 * 1024
"""Of warnings beside a saved graph."""
MAX_REQUEST_ID = 255
MAX_NAME = 255
MAX_TEXT = 10_000
MAX_LABELS = 64
MAX_LABEL = 255
MAX_WORKFLOW_IDS = 1_000
MAX_VERSION = 2**31 - 1


def read_save(request: pb.SaveGraphRequest, namespace: str, author: Author) -> SaveCommand:
    """InvalidRequest naming every field that cannot be read."""
    problems = fields.Problems()
    workflow, graph = graph_wire.read_graph(request, problems)
    check_workflow(workflow, problems)
    check_text(request.message, "message", MAX_TEXT, problems)
    check_text(request.request_id, "requestId", MAX_REQUEST_ID, problems)
    problems.raise_if_any()
    return SaveCommand(
        namespace=namespace,
        workflow=workflow,
        graph=graph,
        author=author,
        request_id=request.request_id,
        message=request.message,
        validate_only=request.validate_only,
    )


def read_graph(request: pb.ValidateGraphRequest) -> Graph:
    """InvalidRequest naming every field that cannot be read."""
    problems = fields.Problems()
    workflow, graph = graph_wire.read_graph(request, problems)
    check_workflow(workflow, problems)
    problems.raise_if_any()
    return graph


def read_workflow_id(value: str, path: str = "workflowId") -> str:
    """A UUID in its usual spelling. InvalidRequest."""
    problems = fields.Problems()
    workflow_id = fields.read_uuid(value, path, problems)
    problems.raise_if_any()
    return workflow_id or ""


def read_workflow_ids(values: Sequence[str]) -> dict[str, str]:
    """What was sent -> the UUID in its usual spelling. InvalidRequest."""
    if len(values) > MAX_WORKFLOW_IDS:
        raise InvalidRequest.of_field("workflowIds", f"{len(values):,} are too many; at most {MAX_WORKFLOW_IDS:,}")
    problems = fields.Problems()
    read = {value: fields.read_uuid(value, f"workflowIds[{i}]", problems) or "" for i, value in enumerate(values)}
    problems.raise_if_any()
    return read


def read_version(request: pb.GetGraphRequest) -> int | None:
    """The version asked for, None for the latest. InvalidRequest if there can be no such version."""
    if not request.HasField("version"):
        return None
    if request.version < 1:
        raise InvalidRequest.of_field("version", f"{request.version} is no version; the first one is 1")
    return request.version


def author_of(principal: str, trace_id: str) -> Author:
    """The caller; its name is also the id where it is a UUID."""
    try:
        return Author(principal, str(uuid.UUID(principal)), trace_id)
    except ValueError:
        return Author(principal, None, trace_id)


def write_validation(findings: Sequence[Finding]) -> pb.ValidateGraphResponse:
    return pb.ValidateGraphResponse(
        valid=not any(finding.is_error for finding in findings),
        errors=write_findings([finding for finding in findings if finding.is_error], MAX_FINDING_BYTES),
        warnings=write_findings([finding for finding in findings if not finding.is_error], MAX_FINDING_BYTES),
    )


def write_saved(saved: SavedVersion) -> pb.SaveGraphResponse:
    message = pb.SaveGraphResponse(
        workflow=write_workflow(saved.stored.workflow),
        unchanged=saved.unchanged,
        warnings=write_findings(saved.warnings, MAX_WARNING_BYTES),
    )
    ids = _row_ids(saved.stored)
    graph_wire.fill_from_graph(message, saved.graph, ids=ids)
    graph = saved.graph
    message.node_id_to_task_id.update(
        {node.node_id: task_id for node, task_id in zip(graph.nodes, ids.tasks, strict=True)}
    )
    message.edge_id_to_connection_id.update(
        {edge.edge_id: connection_id for edge, connection_id in zip(graph.edges, ids.connections, strict=True)}
    )
    message.module_id_mapping.update(
        {module.node_id: module_id for module, module_id in zip(graph.modules, ids.modules, strict=True)}
    )
    return message


def write_graph(stored: StoredVersion, graph: Graph, *, expand_config: bool) -> pb.GetGraphResponse:
    message = pb.GetGraphResponse()
    message.graph.workflow.CopyFrom(write_workflow(stored.workflow))
    graph_wire.fill_from_graph(message.graph, graph, ids=_row_ids(stored), expand_config=expand_config)
    return message


def write_workflow(workflow: StoredWorkflow) -> pb.Workflow:
    return pb.Workflow(
        id=workflow.id,
        namespace=workflow.namespace,
        name=workflow.name or "",
        description=workflow.description,
        labels=dict(workflow.labels),
        version=workflow.version,
        content_hash=workflow.content_hash,
        create_time=timestamp(workflow.created_at),
        update_time=timestamp(workflow.updated_at),
        archived=workflow.archived,
    )


def write_versions(versions: Iterable[VersionSummary]) -> list[pb.Version]:
    return [
        pb.Version(
            version=version.version,
            content_hash=version.content_hash,
            create_time=timestamp(version.created_at),
            author=version.author,
            message=version.message,
            node_count=version.node_count,
            edge_count=version.edge_count,
            layout=version.layout,
            restored_from=version.restored_from or 0,
        )
        for version in versions
    ]


def _row_ids(stored: StoredVersion) -> graph_wire.RowIds:
    return graph_wire.RowIds(stored.ids.tasks, stored.ids.connections, stored.ids.modules)


def write_findings(findings: Sequence[Finding], limit: int) -> list[common_pb2.Finding]:
    """As many as `limit` bytes hold; the last then says how many were left out."""
    messages: list[common_pb2.Finding] = []
    size = 0
    for position, finding in enumerate(findings):
        message = graph_wire.finding_to_proto(finding)
        size += message.ByteSize() + 8
        if size > limit:
            left_out = Finding(
                finding.severity,
                "LIMIT_EXCEEDED",
                "",
                f"{len(findings) - position:,} more findings do not fit into the answer",
                "mend these first",
            )
            return [*messages, graph_wire.finding_to_proto(left_out)]
        messages.append(message)
    return messages


def check_workflow(workflow: WorkflowInfo, problems: fields.Problems) -> None:
    """Name, description and labels within their limits."""
    _check_length(workflow.name or "", "workflow.name", MAX_NAME, problems)
    _check_length(workflow.description, "workflow.description", MAX_TEXT, problems)
    if len(workflow.labels) > MAX_LABELS:
        problems.add("workflow.labels", f"{len(workflow.labels)} labels are too many; at most {MAX_LABELS}")
    for key, value in workflow.labels.items():
        if not 0 < len(key) <= MAX_LABEL or len(value) > MAX_LABEL:
            problems.add(
                f"workflow.labels.{fields.shown(key)}",
                f"has a key of {len(key)} characters and a value of {len(value):,}; keys have 1 to {MAX_LABEL}, values"
                f" at most {MAX_LABEL}",
            )


def check_text(value: str, path: str, limit: int, problems: fields.Problems) -> None:
    """Text of at most `limit` characters that can be stored."""
    _check_length(value, path, limit, problems)
    fields.check_text(value, path, problems)


def _check_length(value: str, path: str, limit: int, problems: fields.Problems) -> None:
    if len(value) > limit:
        problems.add(path, f"has {len(value):,} characters; at most {limit:,} are allowed")


def timestamp(moment: datetime) -> Timestamp:
    """A moment on the wire."""
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def read_version_place(request: pb.ListVersionsRequest) -> int | None:
    """The version that the page before ended with, None for the first page. InvalidRequest."""
    match page_place(request):
        case None:
            return None
        case [int(version)] if not isinstance(version, bool) and 0 < version <= MAX_VERSION:
            return version
        case _:
            raise bad_page_token(request.page_token)
