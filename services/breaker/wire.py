"""Protobuf <-> the breaker's values, both directions. What cannot be read is InvalidRequest naming the field."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from services.breaker.model.calls import CallOutcome, Key, PermitAnswer, PermitRequest
from services.breaker.model.machine import Deny, Holder, Probe
from services.breaker.model.policy import Policy
from services.breaker.model.states import Answer, Result, State
from services.breaker.model.views import BreakerView
from services.breaker.watch import Batch
from services.chassis.interceptors import namespace_of
from valkyr.api.breaker.v1 import breaker_pb2 as pb
from valkyr.errors import InvalidRequest, LimitExceeded
from valkyr.telemetry import parse_traceparent

MAX_PERMIT_REQUESTS = 1_000
MAX_OUTCOMES = 10_000
MAX_TARGET = 500
MAX_ID = 255
MAX_GENERATION = 2_000_000_000
RUN_ID = "an id of the run, such as a UUID"
REPORT_ID = "an id that no other call has, such as <run id>:<epoch>"
DEFAULT_HOLD = timedelta(minutes=1)
SHORTEST_HOLD = timedelta(seconds=1)
"""A permit that expires at once would let every caller probe."""
LONGEST_HOLD = timedelta(hours=1)


def read_permits(request: pb.AcquirePermitsRequest, principal: str) -> list[PermitRequest]:
    """At most 1,000."""
    namespace = namespace_of(request)
    _check_number(request.requests, "requests", MAX_PERMIT_REQUESTS)
    return [
        PermitRequest(
            key=_key(item, namespace, f"requests[{index}]."),
            holder=Holder(
                _id(item.run_id, f"requests[{index}].runId", RUN_ID), _epoch(item.epoch, f"requests[{index}].epoch")
            ),
            hold=_hold(item, f"requests[{index}].hold"),
            traceparent=_traceparent(item.traceparent),
            principal=principal,
        )
        for index, item in enumerate(request.requests)
    ]


def read_outcomes(request: pb.ReportOutcomesRequest, principal: str) -> list[CallOutcome]:
    """At most 10,000."""
    namespace = namespace_of(request)
    _check_number(request.outcomes, "outcomes", MAX_OUTCOMES)
    for index, item in enumerate(request.outcomes):
        _check_length(item, f"outcomes[{index}].duration")
    return [
        CallOutcome(
            key=_key(item, namespace, f"outcomes[{index}]."),
            result=_result(item.result, f"outcomes[{index}].result"),
            generation=_generation(item.generation, f"outcomes[{index}].generation"),
            report_id=_id(item.report_id, f"outcomes[{index}].reportId", REPORT_ID),
            permit_id=_permit_id(item.permit_id, f"outcomes[{index}].permitId"),
            traceparent=_traceparent(item.traceparent),
            principal=principal,
        )
        for index, item in enumerate(request.outcomes)
    ]


def read_key(request: pb.GetBreakerRequest) -> Key:
    return Key(namespace_of(request), _target(request.target, "target"))


def read_states(states: Sequence[int]) -> list[State]:
    """Of ListBreakers."""
    return [State(_enum_name(pb.Breaker.State, state, f"states[{index}]")) for index, state in enumerate(states)]


def read_prefix(prefix: str) -> str:
    if len(prefix) > MAX_TARGET or "\0" in prefix:
        raise InvalidRequest.of_field(
            "targetPrefix", f"{prefix[:64]!r} begins no target; takes up to {MAX_TARGET} characters without NUL"
        )
    return prefix


def write_permit(request: PermitRequest, answer: PermitAnswer) -> pb.PermitDecision:
    decision = pb.PermitDecision(
        target=request.key.target,
        outcome=pb.PermitDecision.ALLOWED,
        generation=answer.generation,
        episode_id=_text(answer.episode_id),
    )
    match answer.decision:
        case Deny(retry_after):
            decision.outcome = pb.PermitDecision.DENIED
            decision.retry_after.CopyFrom(_duration(retry_after))
        case Probe():
            decision.outcome = pb.PermitDecision.PERMIT
            decision.permit_id = _text(answer.permit_id)
    return decision


def write_answers(answers: Sequence[Answer]) -> list[Any]:
    return [pb.ReportOutcomesResponse.Answer.Value(answer) for answer in answers]


def write_breaker(view: BreakerView, policy: pb.Policy) -> pb.Breaker:
    circuit = view.circuit
    return pb.Breaker(
        namespace=view.key.namespace,
        target=view.key.target,
        state=pb.Breaker.State.Value(circuit.state),
        failure_count=circuit.failure_count,
        success_count=circuit.success_count,
        opened_time=_timestamp(circuit.opened_at),
        next_retry_time=_timestamp(circuit.next_retry_at),
        last_failure_time=_timestamp(circuit.last_failure_at),
        generation=circuit.generation,
        forced=view.forced,
        policy=policy,
        episode_id=_text(circuit.episode_id),
        update_time=_timestamp(view.updated_at),
        permits_in_flight=view.permits_in_flight,
    )


def write_policy(policy: Policy) -> pb.Policy:
    return pb.Policy(
        failure_threshold=policy.failure_threshold,
        timeout_duration=_duration(policy.timeout_duration),
        half_open_permits=policy.half_open_permits,
        half_open_success_threshold=policy.half_open_success_threshold,
        on_unavailable=pb.Policy.OnUnavailable.Value(policy.on_unavailable),
    )


def write_batch(batch: Batch, policy: pb.Policy) -> pb.WatchBreakersResponse:
    return pb.WatchBreakersResponse(
        snapshot=batch.in_snapshot,
        snapshot_complete=batch.is_last,
        breakers=[write_breaker(view, policy) for view in batch.views],
        default_policy=policy,
    )


def _check_number(items: Sequence[Any], path: str, limit: int) -> None:
    if len(items) > limit:
        raise LimitExceeded.of_field(path, f"{len(items):,} in one call, over {limit:,}; send them in several")


def _key(item: Any, namespace: str, path: str) -> Key:
    """With the item's own namespace, if it has one."""
    if item.namespace:
        try:
            namespace = namespace_of(item)
        except InvalidRequest as error:
            described = error.details.violations[0].description
            raise InvalidRequest.of_field(f"{path}namespace", described) from None
    return Key(namespace, _target(item.target, f"{path}target"))


def _target(target: str, path: str) -> str:
    if not target:
        raise InvalidRequest.of_field(path, "is required; takes what is called, such as http:api.stripe.com")
    if len(target) > MAX_TARGET or "\0" in target:
        raise InvalidRequest.of_field(
            path, f"{target[:64]!r} is no target; takes 1 to {MAX_TARGET} characters without NUL, not {len(target):,}"
        )
    return target


def _id(text: str, path: str, takes: str) -> str:
    if not text:
        raise InvalidRequest.of_field(path, f"is required; takes {takes}")
    if len(text) > MAX_ID or not text.isprintable():
        raise InvalidRequest.of_field(
            path, f"{text[:64]!r} is no id; takes {takes}, of 1 to {MAX_ID} printable characters"
        )
    return text


def _epoch(epoch: int, path: str) -> int:
    if epoch < 0:
        raise InvalidRequest.of_field(path, f"{epoch} is negative; takes the number of the run's lease")
    return epoch


def _generation(generation: int, path: str) -> int:
    if not 0 <= generation <= MAX_GENERATION:
        raise InvalidRequest.of_field(path, f"{generation} is no generation; takes the one of the call's decision")
    return generation


def _hold(item: pb.PermitRequest, path: str) -> timedelta:
    if not item.HasField("hold"):
        return DEFAULT_HOLD
    hold = _length(item.hold, path)
    if not SHORTEST_HOLD <= hold <= LONGEST_HOLD:
        raise InvalidRequest.of_field(
            path,
            f"{hold.total_seconds():g}s is not from 1s to 3600s; takes how long the call may take, or nothing for 60s",
        )
    return hold


def _check_length(item: pb.CallOutcome, path: str) -> None:
    if item.HasField("duration") and (length := _length(item.duration, path)) < timedelta():
        raise InvalidRequest.of_field(
            path, f"{length.total_seconds():g}s is negative; takes how long the call took, or nothing"
        )


def _length(sent: Duration, path: str) -> timedelta:
    try:
        length: timedelta = sent.ToTimedelta()
    except (ValueError, OverflowError):
        raise InvalidRequest.of_field(
            path, f"{sent.seconds}s and {sent.nanos}ns is no duration; takes one such as 40s"
        ) from None
    return length


def _permit_id(text: str, path: str) -> UUID | None:
    if not text:
        return None
    try:
        return UUID(text)
    except ValueError:
        raise InvalidRequest.of_field(
            path, f"{text[:64]!r} is no permit; takes the permitId that AcquirePermits answered"
        ) from None


def _result(number: int, path: str) -> Result:
    return Result(_enum_name(pb.CallOutcome.Result, number, path))


def _enum_name(enum: Any, number: int, path: str) -> str:
    """InvalidRequest for 0, which no caller means, and for numbers that this version does not know."""
    known = enum.DESCRIPTOR.values_by_number
    if number == 0 or number not in known:
        names = ", ".join(value.name for key, value in sorted(known.items()) if key)
        raise InvalidRequest.of_field(path, f"{number if number not in known else 'nothing'} is given; takes {names}")
    name: str = known[number].name
    return name


def _traceparent(text: str) -> str:
    """Only telemetry hangs on it: one that is malformed is as if it were absent, as W3C asks for."""
    return text if parse_traceparent(text) is not None else ""


def _text(value: UUID | None) -> str:
    return "" if value is None else str(value)


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def _duration(length: timedelta) -> Duration:
    message = Duration()
    message.FromTimedelta(length)
    return message
