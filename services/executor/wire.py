"""Protobuf <-> the executor's values, both directions. What cannot be read is InvalidRequest naming the field."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from services.executor.model import AttemptView, ExecutionView, RunView, StartRequest
from services.executor.watch import Watched
from services.executor.watch_one import WatchedOne
from valkyr.api.executor.v1 import executor_pb2 as pb
from valkyr.errors import InvalidRequest, LimitExceeded
from valkyr.flow.events import EndExecution, PauseExecution, Request, Resolution, Resolve, ResumeExecution
from valkyr.flow.facts import QuarantineRecord
from valkyr.flow.states import Ending, ExecutionState, RunState
from valkyr.rpc.resolutions import read_inputs, read_outputs, read_reason
from valkyr.rpc.values import fill_value, value_to_plain

MAX_REQUEST_ID = 255
MAX_WATCHED = 10_000
MAX_NODE_ID = 512
LONGEST_UUID = 64
"""Characters of a spelling: with hyphens anywhere there are spellings of any length, and read ones are kept."""
MAX_WAIT = timedelta(seconds=60)
DEFAULT_WAIT = timedelta(seconds=20)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXECUTION_STATES = dict(pb.Execution.State.items())
_TRIGGER_TYPES = dict(pb.Execution.TriggerType.items())
_TRIGGER_NAMES = {number: name for name, number in _TRIGGER_TYPES.items()}
# The same few are sent again and again: the workflow of starts, the execution that is waited for.
_uuid_of = lru_cache(maxsize=1_000)(UUID)
_RESUME_TOKEN = re.compile(r"[0-9]{1,18}")


def read_uuid(text: str, path: str) -> UUID:
    """Any spelling of a UUID."""
    try:
        return _uuid_of(text) if len(text) <= LONGEST_UUID else UUID("")
    except ValueError:
        what = "is required" if not text else f"{text[:64]!r} is no UUID"
        raise InvalidRequest.of_field(path, f"{what}; takes one such as 01920000-0000-7000-8000-000000000000") from None


def read_start(
    request: pb.StartExecutionRequest,
    *,
    namespace: str,
    principal: str,
    traceparent: str,
    payload_limit: int,
    path: str = "",
) -> StartRequest:
    """`path` is the prefix of field names in errors: `executions[3].`."""
    payload = _read_payload(request, path, payload_limit)
    trigger = _TRIGGER_NAMES.get(request.trigger_type)
    if trigger is None:
        trigger = _enum_name(pb.Execution.TriggerType, request.trigger_type, path + "triggerType")
    version = request.version if request.HasField("version") else None
    if version is not None and version < 1:
        raise InvalidRequest.of_field(path + "version", f"{version} is no version; the first is 1")
    if not -100 <= request.priority <= 100:
        raise InvalidRequest.of_field(path + "priority", f"{request.priority} is not from -100 to 100")
    workflow_id = read_uuid(request.workflow_id, path + "workflowId")
    return StartRequest(
        namespace=namespace,
        workflow_id=workflow_id,
        version=version,
        trigger_type="MANUAL" if trigger == "TRIGGER_TYPE_UNSPECIFIED" else trigger,
        payload=payload,
        request_id=read_request_id(request.request_id, path + "requestId"),
        request_hash=_hash_of(workflow_id, version, trigger, payload, request.priority, *_said(request, "deadline")),
        priority=request.priority,
        principal=principal,
        traceparent=traceparent,
        deadline=_read_deadline(request, path + "deadline"),
    )


def _said(request: Any, field: str) -> list[str]:
    """A field for a hash, if it was said: a request without it has the hash that it always had."""
    return [getattr(request, field).ToJsonString()] if request.HasField(field) else []


def _read_deadline(request: Any, path: str) -> datetime | None:
    if not request.HasField("deadline"):
        return None
    try:
        deadline: datetime = request.deadline.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidRequest.of_field(path, "is no time; takes one such as 2026-01-31T12:00:00Z") from None
    return deadline


def read_cancel(request: pb.CancelExecutionRequest, principal: str) -> EndExecution:
    execution_id, asked = _read_intervention(request, principal)
    return EndExecution(execution_id, Ending.CANCEL, asked)


def read_pause(request: pb.PauseExecutionRequest, principal: str) -> PauseExecution:
    return PauseExecution(*_read_intervention(request, principal))


def read_resume(request: pb.ResumeExecutionRequest, principal: str) -> ResumeExecution:
    return ResumeExecution(*_read_intervention(request, principal))


def _read_intervention(request: Any, principal: str) -> tuple[UUID, Request]:
    execution_id = read_uuid(request.execution_id, "executionId")
    reason = read_reason(request.reason)
    asked = Request(principal, reason, read_request_id(request.request_id, "requestId"), _hash_of(execution_id, reason))
    return execution_id, asked


def read_requeue(request: pb.RequeueRunRequest, principal: str) -> Resolve:
    inputs = _text_of(read_inputs(request.inputs)) if request.HasField("inputs") else None
    deadline = _read_deadline(request, "deadline")
    asked = (inputs, request.new_key, *_said(request, "deadline"))
    base = _read_resolution(request, Resolution.REQUEUED, principal, asked)
    return replace(base, inputs=inputs, new_key=request.new_key, deadline=deadline, force=request.force)


def read_completion(request: pb.CompleteRunManuallyRequest, principal: str) -> Resolve:
    outputs = _text_of(read_outputs(request))
    return replace(_read_resolution(request, Resolution.FIXED, principal, (outputs,)), outputs=outputs)


def read_discard(request: pb.DiscardRunRequest, principal: str) -> Resolve:
    return _read_resolution(request, Resolution.DISCARDED, principal, ())


def _read_resolution(request: Any, resolution: Resolution, principal: str, asked: Sequence[object]) -> Resolve:
    execution_id = read_uuid(request.execution_id, "executionId")
    run = read_uuid(request.run_id, "runId")
    number = request.quarantine_number
    if number < 1:
        raise InvalidRequest.of_field("quarantineNumber", f"{number} is no quarantine; ListRuns shows the run's number")
    reason = read_reason(request.reason, required=resolution is Resolution.DISCARDED)
    return Resolve(
        execution_id,
        run,
        number,
        resolution,
        Request(
            principal,
            reason,
            read_request_id(request.request_id, "requestId"),
            _hash_of(execution_id, run, number, reason, *asked),
        ),
    )


def _text_of(plain: Any) -> str:
    # Sorted: protobuf keeps no order of fields, and the same content is to have the same hash.
    return orjson.dumps(plain, option=orjson.OPT_SORT_KEYS).decode()


def _read_payload(request: pb.StartExecutionRequest, path: str, limit: int) -> str | None:
    if not request.HasField("payload"):
        return None
    # Sorted: protobuf keeps no order of fields, and the same payload is to have the same hash.
    text = orjson.dumps(value_to_plain(request.payload, path + "payload"), option=orjson.OPT_SORT_KEYS)
    if len(text) > limit:
        raise LimitExceeded.of_field(
            path + "payload", f"{len(text)} bytes of JSON, over {limit}; store it elsewhere and send where it is"
        )
    return text.decode()


def _hash_of(*parts: object) -> bytes:
    plain = [part if part is None or isinstance(part, UUID) else str(part) for part in parts]
    return hashlib.sha256(orjson.dumps(plain)).digest()


def read_request_id(text: str, path: str) -> str | None:
    if not text:
        return None
    if len(text) > MAX_REQUEST_ID or not text.isprintable():
        raise InvalidRequest.of_field(
            path, f"{text[:64]!r} is no request id; takes up to {MAX_REQUEST_ID} printable characters, a UUID say"
        )
    return text


def read_wait(request: pb.WaitExecutionRequest) -> timedelta:
    if not request.HasField("timeout"):
        return DEFAULT_WAIT
    try:
        timeout: timedelta = request.timeout.ToTimedelta()
    except (ValueError, OverflowError):
        raise InvalidRequest.of_field("timeout", "is no duration; takes one such as 20s") from None
    if timeout < timedelta():
        raise InvalidRequest.of_field("timeout", f"{timeout.total_seconds():g}s is negative")
    return min(timeout, MAX_WAIT)


def read_watch(request: pb.WatchExecutionsRequest, namespace: str) -> Watched:
    if len(request.execution_ids) > MAX_WATCHED:
        raise LimitExceeded.of_field("executionIds", f"{len(request.execution_ids)} ids, over {MAX_WATCHED}")
    if request.until_settled and not request.execution_ids:
        raise InvalidRequest.of_field("untilSettled", "needs executionIds: name the executions to wait for")
    return Watched(
        namespace=namespace,
        ids=tuple(dict.fromkeys(read_ids(request.execution_ids))),
        workflow_id=read_uuid(request.workflow_id, "workflowId") if request.workflow_id else None,
        since=_read_resume_token(request.resume_token),
        include_outputs=request.include_outputs,
        until_settled=request.until_settled,
    )


def read_watch_of_one(request: pb.WatchExecutionRequest, namespace: str) -> WatchedOne:
    after = request.after_revision if request.HasField("after_revision") else None
    if after is not None and after < 0:
        raise InvalidRequest.of_field(
            "afterRevision", f"{after} is no revision; take that of the last execution seen, or leave it out"
        )
    return WatchedOne(namespace, read_uuid(request.execution_id, "executionId"), after)


def read_run_or_node(request: pb.GetRunRequest) -> tuple[UUID | None, str | None]:
    """Which run is asked for: (run id, None) or (None, node id)."""
    if request.run_id and request.node_id:
        raise InvalidRequest.of_field("nodeId", f"{request.node_id[:64]!r} beside runId; name the run by one of them")
    if not request.run_id and not request.node_id:
        raise InvalidRequest.of_field("runId", "name the run by runId or by nodeId; ListRuns shows both")
    if request.run_id:
        return read_uuid(request.run_id, "runId"), None
    if len(request.node_id) > MAX_NODE_ID or "\0" in request.node_id:
        raise InvalidRequest.of_field(
            "nodeId", f"{request.node_id[:64]!r} is no node id; takes up to {MAX_NODE_ID} characters without NUL"
        )
    return None, request.node_id


def read_ids(texts: Iterable[str]) -> list[UUID]:
    return [read_uuid(text, f"executionIds[{index}]") for index, text in enumerate(texts)]


def resume_token(seen_to: int | None) -> str:
    return "" if seen_to is None else str(seen_to)


def _read_resume_token(token: str) -> int | None:
    if not token:
        return None
    if _RESUME_TOKEN.fullmatch(token) is None:
        raise InvalidRequest.of_field(
            "resumeToken", f"{token[:64]!r} was not given out by WatchExecutions; leave it empty to begin now"
        )
    return int(token)


def read_execution_states(values: Sequence[int]) -> list[ExecutionState]:
    names = (_enum_name(pb.Execution.State, value, f"states[{index}]") for index, value in enumerate(values))
    return [ExecutionState(_named_state(name, index)) for index, name in enumerate(names)]


def read_run_states(values: Sequence[int]) -> list[RunState]:
    names = (_enum_name(pb.Run.State, value, f"states[{index}]") for index, value in enumerate(values))
    return [RunState(_named_state(name, index)) for index, name in enumerate(names)]


def _named_state(name: str, index: int) -> str:
    if name == "STATE_UNSPECIFIED":
        raise InvalidRequest.of_field(f"states[{index}]", "STATE_UNSPECIFIED is no state; leave it out")
    return name


def _enum_name(enum: Any, number: int, path: str) -> str:
    try:
        name: str = enum.Name(number)
    except ValueError:
        raise InvalidRequest.of_field(path, f"{number} is unknown; takes one of {', '.join(enum.keys())}") from None
    return name


def write_execution(view: ExecutionView) -> pb.Execution:
    """Made for every execution that starts and for every change that is watched: what is empty is not touched."""
    message = pb.Execution(
        id=str(view.id),
        namespace=view.namespace,
        workflow_id=str(view.workflow_id),
        version=view.version,
        state=_EXECUTION_STATES[view.state],
        trigger_type=_TRIGGER_TYPES[view.trigger_type],
        revision=view.revision,
        priority=view.priority,
        trace_id=view.trace_id,
        created_by=view.created_by,
    )
    write_time(message.create_time, view.created_at)
    if view.started_at is not None:
        write_time(message.start_time, view.started_at)
    if view.finished_at is not None:
        write_time(message.finish_time, view.finished_at)
    if view.error_type or view.error_message or view.deadline or view.cancel_requested or view.paused_at:
        _write_trouble(message, view)
    if view.run_counts:
        message.run_counts.update(view.run_counts)
    if view.trigger_payload is not None:
        fill_value(message.trigger_payload, orjson.loads(view.trigger_payload))
    if view.outputs is not None:
        message.outputs.SetInParent()
        fields = message.outputs.fields
        for node, text in view.outputs.items():
            fill_value(fields[node], orjson.loads(text))
        message.omitted_outputs.extend(view.omitted_outputs)
    return message


def _write_trouble(message: pb.Execution, view: ExecutionView) -> None:
    """What went wrong, and what ended it, will end it or holds it up."""
    message.error_type = view.error_type or ""
    message.error_message = view.error_message or ""
    if view.deadline is not None:
        write_time(message.deadline, view.deadline)
    if view.cancel_requested:
        message.cancel_requested = True
        message.cancelled_by = view.cancelled_by
        message.cancel_reason = view.cancel_reason
    if view.paused_at is not None:
        write_time(message.pause_time, view.paused_at)
        message.paused_by = view.paused_by
        message.pause_reason = view.pause_reason


def write_run(view: RunView) -> pb.Run:
    message = pb.Run(
        id=str(view.id),
        execution_id=str(view.execution_id),
        node_id=view.node_id,
        map_index=view.map_index,
        task_id=str(view.task_id) if view.task_id else "",
        state=pb.Run.State.Value(view.state),
        parked_by=view.parked_by or "",
        attempt=view.attempt,
        target=view.target or "",
        pool=view.pool,
        class_name=view.class_name,
        error=view.error or "",
        error_type=view.error_type or "",
        leased_by=view.leased_by or "",
        lease_until=_timestamp(view.lease_until),
        heartbeat_time=_timestamp(view.heartbeat_at),
        retry_after=_timestamp(view.retry_after),
        start_time=_timestamp(view.started_at),
        finish_time=_timestamp(view.finished_at),
        duration_ms=view.duration_ms or 0,
        cost_tokens=view.cost_tokens or 0.0,
        idempotency_key=view.idempotency_key or "",
        quarantine_number=view.quarantine_number,
        attempts=[_attempt(attempt) for attempt in view.attempts],
        episode_id=str(view.episode_id) if view.episode_id else "",
        deadline=_timestamp(view.deadline),
        failures=view.failures,
        lost_leases=view.lost_leases,
        parked_time=_timestamp(view.parked_at),
        parked_duration=_duration(view.parked_for),
        quarantines=[_quarantine(record) for record in view.quarantines],
    )
    if view.reused_from is not None:
        message.reused_from.execution_id, message.reused_from.run_id = map(str, view.reused_from)
    if view.outputs is not None:
        fill_value(message.outputs, orjson.loads(view.outputs))
    if view.inputs is not None:
        fill_value(message.inputs, orjson.loads(view.inputs))
    return message


def _quarantine(record: QuarantineRecord) -> pb.Quarantine:
    resolved_in = (record.resolution_traceparent or "").split("-")
    return pb.Quarantine(
        quarantine_number=record.quarantine_number,
        failure_type=record.failure_type,
        error_type=record.error_type,
        error=record.error or "",
        quarantine_time=_timestamp(record.quarantined_at),
        resolution=record.resolution,
        resolved_by=record.resolved_by or "",
        resolved_time=_timestamp(record.resolved_at),
        reason=record.reason or "",
        resolution_trace_id=resolved_in[1] if len(resolved_in) == 4 else "",
    )


def _duration(value: timedelta) -> Duration | None:
    if not value:
        return None
    duration = Duration()
    duration.FromTimedelta(value)
    return duration


def _attempt(view: AttemptView) -> pb.Attempt:
    return pb.Attempt(
        attempt=view.attempt,
        outcome=view.outcome,
        runner_id=view.runner_id,
        start_time=_timestamp(view.started_at),
        finish_time=_timestamp(view.finished_at),
        error=view.error,
        stack_trace=view.stack_trace,
    )


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    timestamp = Timestamp()
    write_time(timestamp, moment)
    return timestamp


def write_time(timestamp: Timestamp, moment: datetime) -> None:
    """In place: half the work of making one to be copied."""
    since = moment - _EPOCH
    timestamp.seconds = since.days * 86_400 + since.seconds
    timestamp.nanos = since.microseconds * 1_000
