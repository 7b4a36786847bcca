"""Protobuf <-> the dead letter queue's values, both directions. What cannot be read is InvalidRequest naming it."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from services.chassis.interceptors import namespace_of
from services.dlq.model import (
    Event,
    Filters,
    Letter,
    Operator,
    Quarantined,
    Refused,
    Resolution,
    ResolveCommand,
    Resolved,
)
from valkyr import telemetry
from valkyr.api.dlq.v1 import dlq_pb2 as pb
from valkyr.errors import InvalidRequest, LimitExceeded
from valkyr.graph.depths import is_deeper
from valkyr.rpc.resolutions import read_inputs, read_outputs, read_reason
from valkyr.rpc.values import plain_to_value

MAX_ENTRIES = 500
MAX_BATCH_BYTES = 8 * 1024 * 1024
MAX_REQUEST_ID = 255
MAX_TARGET = 500
"""Characters that are kept of a target: what an entry of an index holds."""
MAX_FILTERS = 100
MAX_SHOWN = 6 * 1024 * 1024
"""Of inputs, and of config, as a Value: both fit into a message. What takes more is shown as JSON text."""
MAX_SHOWN_DEPTH = 200
"""What is deeper is shown as JSON text, whole."""
MAX_SHOWN_ITEMS = 100_000
"""Counted by commas: a Value of more takes a second to make, and other calls wait meanwhile."""


def read_entries(request: pb.QuarantineRunsRequest) -> tuple[list[tuple[int, Event]], list[tuple[int, str]]]:
    """What can be stored, each with the sender's id; and what never can be, each with why. LimitExceeded."""
    count, size = len(request.entries), sum(_payload_size(entry.quarantine) for entry in request.entries)
    if count > MAX_ENTRIES:
        raise LimitExceeded.of_field("entries", f"{count} entries, over {MAX_ENTRIES}; send them in several calls")
    # One alone may be larger: it could not be sent otherwise.
    if count > 1 and size > MAX_BATCH_BYTES:
        raise LimitExceeded.of_field(
            "entries", f"{size:,} bytes of payload, over {MAX_BATCH_BYTES:,}; send fewer at once"
        )
    events: list[tuple[int, Event]] = []
    refused: list[tuple[int, str]] = []
    for entry in request.entries:
        try:
            events.append((entry.id, _read_event(entry)))
        except InvalidRequest as error:
            refused.append((entry.id, error.message))
    return events, refused


def _payload_size(message: pb.Quarantine) -> int:
    """Counted as the sender can count it, without what is around it: else a batch could fit there and not here."""
    return len(message.inputs) + len(message.config) + sum(len(attempt.stack_trace) for attempt in message.attempts)


def _read_event(entry: pb.QuarantineRunsRequest.Entry) -> Event:
    match entry.WhichOneof("event"):
        case "quarantine":
            return _read_quarantine(entry.quarantine)
        case "resolved":
            return _read_resolved(entry.resolved)
    raise InvalidRequest.of_field("event", "is required; takes `quarantine` or `resolved`")


def _read_quarantine(message: pb.Quarantine) -> Quarantined:
    span = telemetry.parse_traceparent(message.traceparent)
    return Quarantined(
        namespace=namespace_of(message),
        run_id=read_uuid(message.run_id, "runId"),
        execution_id=read_uuid(message.execution_id, "executionId"),
        quarantine_number=_read_number(message.quarantine_number),
        task_id=read_uuid(message.task_id, "taskId") if message.task_id else None,
        node_id=_storable(message.node_id),
        workflow_id=read_uuid(message.workflow_id, "workflowId") if message.workflow_id else None,
        version=message.version,
        class_name=_storable(message.class_name),
        failure_type=_name_of(pb.DeadLetter.FailureType, message.failure_type),
        failure_reason=_storable(message.failure_reason),
        error_type=_storable(message.error_type),
        inputs=_read_json(message.inputs, "inputs"),
        config=_read_json(message.config, "config"),
        attempts=orjson.dumps([_attempt(attempt) for attempt in message.attempts]).decode(),
        stack_traces=orjson.dumps([_storable(attempt.stack_trace) for attempt in message.attempts]).decode(),
        target=_storable(message.target)[:MAX_TARGET],
        episode_id=_storable(message.episode_id),
        traceparent="" if span is None else message.traceparent,
        trace_id="" if span is None else f"{span.trace_id:032x}",
        quarantined_at=_read_time(message, "quarantined_time"),
        idempotency_key=_storable(message.idempotency_key),
    )


def _read_resolved(message: pb.Resolved) -> Resolved:
    name = _name_of(pb.DeadLetter.Resolution, message.resolution)
    if name not in ("REQUEUED", "FIXED", "DISCARDED"):
        raise InvalidRequest.of_field("resolution", f"{name} is no end; takes REQUEUED, FIXED or DISCARDED")
    return Resolved(
        namespace=namespace_of(message),
        run_id=read_uuid(message.run_id, "runId"),
        execution_id=read_uuid(message.execution_id, "executionId"),
        quarantine_number=_read_number(message.quarantine_number),
        resolution=Resolution(name),
        resolved_by=_storable(message.resolved_by),
        reason=_storable(message.reason),
        resolved_at=_read_time(message, "resolved_time"),
    )


def _read_number(number: int) -> int:
    if number < 1:
        raise InvalidRequest.of_field("quarantineNumber", f"{number} is no quarantine; the first one is 1")
    return number


def _read_json(content: bytes, path: str) -> str | None:
    """Kept to the letter; None if absent."""
    if not content:
        return None
    try:
        orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest.of_field(path, f"{content[:64]!r} is no JSON: {error}") from None
    return content.decode()


def _attempt(attempt: pb.Attempt) -> dict[str, Any]:
    return {
        "attempt": attempt.attempt,
        "outcome": _storable(attempt.outcome),
        "runnerId": _storable(attempt.runner_id),
        "startTime": _read_time(attempt, "start_time"),
        "finishTime": _read_time(attempt, "finish_time"),
        "error": _storable(attempt.error),
    }


def _read_time(message: Any, name: str) -> datetime | None:
    if not message.HasField(name):
        return None
    try:
        moment: datetime = getattr(message, name).ToDatetime(UTC)
    except (ValueError, OverflowError):
        first, *others = name.split("_")
        path = first + "".join(part.title() for part in others)
        raise InvalidRequest.of_field(path, "is no time from the year 1 to 9999") from None
    return moment


def _storable(text: str) -> str:
    """What a module said may hold anything; PostgreSQL holds no NUL."""
    return text.replace("\x00", "\\u0000")


def read_uuid(text: str, path: str) -> str:
    """The UUID in its usual spelling, whatever spelling it came in."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        what = "is required" if not text else f"{text[:64]!r} is no UUID"
        raise InvalidRequest.of_field(path, f"{what}; takes one such as 01920000-0000-7000-8000-000000000000") from None


def read_requeue(request: pb.RequeueDeadLetterRequest, operator: Operator) -> ResolveCommand:
    content: dict[str, Any] = {"newKey": request.new_key}
    if request.HasField("inputs"):
        content["inputs"] = read_inputs(request.inputs)
    deadline = _read_time(request, "deadline")
    if deadline is not None:
        content["deadline"] = deadline
    command = _command(request, operator, Resolution.REQUEUED, content, force=request.force)
    return replace(command, deadline=deadline)


def read_fix(request: pb.FixDeadLetterRequest, operator: Operator) -> ResolveCommand:
    return _command(request, operator, Resolution.FIXED, {"outputs": read_outputs(request)})


def read_discard(request: pb.DiscardDeadLetterRequest, operator: Operator) -> ResolveCommand:
    return _command(request, operator, Resolution.DISCARDED, {})


def _command(
    request: Any, operator: Operator, resolution: Resolution, content: dict[str, Any], *, force: bool = False
) -> ResolveCommand:
    letter_id = read_uuid(request.dead_letter_id, "deadLetterId")
    reason = read_reason(request.reason, required=resolution is Resolution.DISCARDED)
    if len(request.request_id) > MAX_REQUEST_ID or not request.request_id.isprintable():
        raise InvalidRequest.of_field(
            "requestId",
            f"{request.request_id[:64]!r} is no request id; takes up to {MAX_REQUEST_ID} printable characters",
        )
    # Sorted: protobuf keeps no order of fields, and the same content is to have the same hash.
    text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    said = orjson.dumps([letter_id, resolution, reason, force])
    return ResolveCommand(
        namespace=namespace_of(request),
        letter_id=letter_id,
        resolution=resolution,
        content=text.decode(),
        reason=reason,
        request_hash=hashlib.sha256(said + text).digest(),
        operator=operator,
        request_id=request.request_id,
        force=force,
    )


def read_filters(request: pb.ListDeadLettersRequest) -> Filters:
    """What holds beside the example, whatever the matcher says."""
    filters: dict[str, str | list[str] | None] = {
        "execution_id": read_uuid(request.execution_id, "executionId") if request.execution_id else None,
        "workflow_id": read_uuid(request.workflow_id, "workflowId") if request.workflow_id else None,
        "run_id": read_uuid(request.run_id, "runId") if request.run_id else None,
        "target": request.target or None,
        "resolution": _read_names(pb.DeadLetter.Resolution, request.resolutions, "resolutions"),
        "failure_type": _read_names(pb.DeadLetter.FailureType, request.failure_types, "failureTypes"),
    }
    if "\x00" in request.target:
        raise InvalidRequest.of_field("target", f"{request.target[:64]!r} holds a NUL character; no target does")
    return {name: wanted for name, wanted in filters.items() if wanted}


def _read_names(enum: Any, numbers: Iterable[int], path: str) -> list[str]:
    names = []
    for index, number in enumerate(dict.fromkeys(numbers)):
        if number == 0 or number not in enum.values():
            known = ", ".join(name for name, value in enum.items() if value)
            raise InvalidRequest.of_field(f"{path}[{index}]", f"{number} is none of {known}")
        names.append(enum.Name(number))
    return names


def write_letter(letter: Letter) -> pb.DeadLetter:
    """Whole; inputs and config only if the letter has them."""
    return pb.DeadLetter(
        id=letter.id,
        namespace=letter.namespace,
        run_id=letter.run_id,
        execution_id=letter.execution_id,
        task_id=letter.task_id or "",
        node_id=letter.node_id,
        workflow_id=letter.workflow_id or "",
        version=letter.version,
        class_name=letter.class_name,
        quarantine_number=letter.quarantine_number,
        failure_type=_number_of(pb.DeadLetter.FailureType, letter.failure_type),
        failure_reason=letter.failure_reason,
        original_inputs=_shown_json(letter.inputs),
        original_config=_shown_json(letter.config),
        attempts=_attempts(letter),
        target=letter.target,
        episode_id=letter.episode_id,
        trace_id=letter.trace_id,
        quarantined_time=timestamp_of(letter.quarantined_at),
        resolution=_number_of(pb.DeadLetter.Resolution, letter.resolution),
        reviewed_by=letter.reviewed_by,
        resolved_time=timestamp_of(letter.resolved_at),
        notes=letter.notes,
        requeue_count=letter.requeue_count,
        previous_id=letter.previous_id or "",
        idempotency_key=letter.idempotency_key,
        resolved_by=letter.resolved_by,
        resolution_reason=letter.resolution_reason,
        error_type=letter.error_type,
        requested_resolution=_number_of(pb.DeadLetter.Resolution, letter.requested_resolution or ""),
        traceparent=letter.traceparent,
        refused=None if letter.refused is None else _refused(letter.refused),
        resolved_here=letter.resolution is not Resolution.PENDING and letter.intent_id is not None,
    )


def _refused(refused: Refused) -> pb.DeadLetter.Refused:
    return pb.DeadLetter.Refused(
        resolution=_number_of(pb.DeadLetter.Resolution, refused.resolution),
        requested_by=refused.requested_by,
        problem=refused.problem,
        refused_time=timestamp_of(refused.refused_at),
    )


def _attempts(letter: Letter) -> Iterable[pb.Attempt]:
    traces = orjson.loads(letter.stack_traces)
    for index, attempt in enumerate(orjson.loads(letter.attempts)):
        yield pb.Attempt(
            attempt=attempt["attempt"],
            outcome=attempt["outcome"],
            runner_id=attempt["runnerId"],
            start_time=timestamp_of(moment_of(attempt["startTime"])),
            finish_time=timestamp_of(moment_of(attempt["finishTime"])),
            error=attempt["error"],
            stack_trace=traces[index] if index < len(traces) else "",
        )


def _shown_json(text: str | None) -> Value | None:
    """As a Value; as its text where a Value would not fit into a message."""
    if text is None:
        return None
    if text.count(",") > MAX_SHOWN_ITEMS:
        return Value(string_value=text)
    try:
        # Not orjson: an integer of any size is to be shown digit by digit.
        plain = json.loads(text)
    except RecursionError:
        return Value(string_value=text)
    value = Value() if is_deeper(plain, MAX_SHOWN_DEPTH) else plain_to_value(plain)
    return value if value.HasField("kind") and value.ByteSize() <= MAX_SHOWN else Value(string_value=text)


def moment_of(text: str | None) -> datetime | None:
    """Of an ISO 8601 text."""
    return None if text is None else datetime.fromisoformat(text)


def timestamp_of(moment: datetime | None) -> Timestamp | None:
    """None stays None: the field is then absent."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def _name_of(enum: Any, number: int) -> str:
    """A newer sender may know more names: their numbers are kept."""
    return enum.Name(number) if number in enum.values() else str(number)


def _number_of(enum: Any, name: str) -> Any:
    if name.isdecimal():
        return int(name)
    return enum.Value(name) if name else 0
