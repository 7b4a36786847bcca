"""Protobuf <-> diffs, restores, audit events and changes of workflows."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import orjson

from services.chassis.paging import bad_page_token, page_place
from services.graph_store import wire
from services.graph_store.model import Author, SavedVersion
from services.graph_store.model_history import (
    Batch,
    Change,
    DiffedVersions,
    Position,
    RecordedEvent,
    RestoreCommand,
    Snapshot,
    Watched,
)
from valkyr.api.common.v1 import common_pb2
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.errors import InvalidRequest
from valkyr.graph import fields
from valkyr.rpc.merges import diff_to_proto

MAX_DIFF_BYTES = 14 * 1024 * 1024
"""Of differences in one answer: the rest of it is little."""
MAX_BIGINT = 2**63 - 1
MAX_OPEN = 100_000
"""Transactions in a token, more than any PostgreSQL has open."""


def read_diffed(request: pb.DiffVersionsRequest) -> tuple[str, int | None, int | None]:
    """The workflow, and the versions from and to. InvalidRequest."""
    problems = fields.Problems()
    workflow_id = fields.read_uuid(request.workflow_id, "workflowId", problems)
    first = request.from_version if request.HasField("from_version") else None
    second = request.to_version if request.HasField("to_version") else None
    if first is not None and first < 0:
        problems.add("fromVersion", f"{first} is no version; the first one is 1, and 0 is the empty graph before it")
    if second is not None and second < 1:
        problems.add("toVersion", f"{second} is no version; the first one is 1")
    problems.raise_if_any()
    return workflow_id or "", first, second


def write_diff(diffed: DiffedVersions) -> pb.DiffVersionsResponse:
    """As many of the differences as fit."""
    every = diff_to_proto(diffed.diff)
    fitting: list[common_pb2.Difference] = []
    size = 0
    for difference in every:
        size += difference.ByteSize() + 8
        if size > MAX_DIFF_BYTES:
            break
        fitting.append(difference)
    return pb.DiffVersionsResponse(
        from_version=diffed.from_version,
        to_version=diffed.to_version,
        differences=fitting,
        total=len(every),
        layout=diffed.diff.is_layout,
    )


def read_restore(request: pb.RestoreVersionRequest, namespace: str, author: Author) -> RestoreCommand:
    """InvalidRequest naming every field that cannot be read."""
    problems = fields.Problems()
    workflow_id = fields.read_uuid(request.workflow_id, "workflowId", problems)
    current = request.current_version if request.HasField("current_version") else None
    for path, version in (("version", request.version), ("currentVersion", current)):
        if version is not None and version < 1:
            problems.add(path, f"{version} is no version; the first one is 1")
    wire.check_text(request.message, "message", wire.MAX_TEXT, problems)
    wire.check_text(request.request_id, "requestId", wire.MAX_REQUEST_ID, problems)
    problems.raise_if_any()
    return RestoreCommand(
        namespace=namespace,
        workflow_id=workflow_id or "",
        version=request.version,
        current_version=current,
        author=author,
        request_id=request.request_id,
        message=request.message,
    )


def write_restored(saved: SavedVersion) -> pb.RestoreVersionResponse:
    return pb.RestoreVersionResponse(
        graph=wire.write_graph(saved.stored, saved.graph, expand_config=False).graph,
        warnings=wire.write_findings(saved.warnings, wire.MAX_WARNING_BYTES),
        unchanged=saved.unchanged,
    )


def read_event_place(request: pb.ListAuditEventsRequest) -> int | None:
    """The number of the event that the page before ended with, None for the first page. InvalidRequest."""
    match page_place(request):
        case None:
            return None
        case [int(number)] if not isinstance(number, bool) and 0 <= number <= MAX_BIGINT:
            return number
        case _:
            raise bad_page_token(request.page_token)


def write_events(events: Sequence[RecordedEvent]) -> list[pb.AuditEvent]:
    return [
        pb.AuditEvent(
            id=event.id,
            workflow_id=event.workflow_id or "",
            action=event.action,
            principal=event.principal,
            from_version=event.from_version or 0,
            to_version=event.to_version or 0,
            from_hash=event.from_hash or "",
            to_hash=event.to_hash or "",
            message=event.message,
            trace_id=event.trace_id,
            create_time=wire.timestamp(event.created_at),
        )
        for event in events
    ]


def read_watch(request: pb.WatchWorkflowsRequest, namespace: str) -> Watched:
    """InvalidRequest."""
    workflow_ids = list(dict.fromkeys(wire.read_workflow_ids(request.workflow_ids).values()))
    since = _read_position(request.resume_token) if request.resume_token else None
    return Watched(namespace, workflow_ids, since)


def write_batch(batch: Batch) -> pb.WatchWorkflowsResponse:
    return pb.WatchWorkflowsResponse(
        changes=[_change(change) for change in batch.changes], resume_token=resume_token(batch.position)
    )


def resume_token(position: Position) -> str:
    """`[seen]` or `[seen, towards, place]`, a snapshot being its top and how far below it what was open is."""
    said: list[Any] = [_packed(position.seen)]
    if position.towards is not None:
        said += [_packed(position.towards), list(position.place)]
    return base64.urlsafe_b64encode(orjson.dumps(said)).decode().rstrip("=")


def _read_position(token: str) -> Position:
    try:
        match orjson.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)):
            case [list(seen)]:
                return Position(_unpacked(seen))
            case [list(seen), list(towards), [written_in, number]]:
                return Position(_unpacked(seen), _unpacked(towards), (_counted(written_in), _counted(number)))
    except (binascii.Error, ValueError):
        pass
    raise InvalidRequest.of_field(
        "resumeToken", f"{fields.shown(token)} was not given out by this service; take resumeToken of an answer"
    )


def _packed(snapshot: Snapshot) -> list[int]:
    return [snapshot.top, *(snapshot.top - number for number in snapshot.open)]


def _unpacked(packed: Sequence[Any]) -> Snapshot:
    """ValueError for what is none."""
    if not 0 < len(packed) <= MAX_OPEN:
        raise ValueError
    top, *below = map(_counted, packed)
    if not all(0 < number <= top for number in below):
        raise ValueError
    return Snapshot(top, tuple(top - number for number in below))


def _counted(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_BIGINT:
        raise ValueError
    return value


def _change(change: Change) -> pb.WorkflowChange:
    return pb.WorkflowChange(
        workflow=wire.write_workflow(change.workflow),
        action=change.action,
        principal=change.principal,
        layout=change.layout,
    )
