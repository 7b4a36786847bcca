"""Protobuf <-> what runners say and are told. What cannot be read is InvalidRequest naming the field; what cannot be
stored of one result is refused for that one alone."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from google.protobuf.duration_pb2 import Duration

from services.executor.callers import Asked
from services.executor.holding import Beat, Held
from services.executor.lending import Lent
from services.executor.reporting import Ended
from services.executor.runner_rows import RunnerRow, RunnerSaid
from services.executor.wire import read_request_id, read_uuid, write_time
from valkyr.api.executor.v1 import runner_pb2 as pb
from valkyr.errors import InvalidRequest, LimitExceeded
from valkyr.flow.results import Failure, FailureType, Release, Result, Snooze, Success
from valkyr.graph.depths import is_deeper
from valkyr.runner.leases import HeartbeatAnswer, LeasedRun, ReportAnswer
from valkyr.runner.outcomes import storable
from valkyr.stored_json import has_nul

MAX_RUNNER_ID = 200
MAX_POOL = 255
MAX_MODULES = 1_000
MAX_CLASS_NAME = 255
MAX_CAPACITY = 10_000
MAX_LEASES = 10_000
MAX_RUNS = 1_000
MAX_RESULTS = 1_000
MAX_WAIT = timedelta(seconds=60)
LATE = timedelta(seconds=5)
"""A call is repeated so long after its `wait` at most."""

MAX_PROGRESS = 64 * 1024
MAX_OUTPUTS = 1024 * 1024
MAX_DEPTH = 64
MAX_MESSAGE = 64 * 1024
"""Characters that are kept of a failure's message, the first, and of its stack trace, the last."""

LONGEST_DELAY = timedelta(days=365)
_RUNNER_ID = re.compile(r"[A-Za-z0-9._-]{1,200}")
_REPORTABLE = frozenset(FailureType) - {FailureType.RUNNER_LOST}
_COMMANDS: Mapping[HeartbeatAnswer, Any] = {
    answer: pb.HeartbeatRunsResponse.Command.Value(answer.value) for answer in HeartbeatAnswer
}
_OUTCOMES: Mapping[ReportAnswer, Any] = {
    answer: pb.ReportRunsResponse.Outcome.Value(answer.value) for answer in ReportAnswer
}


def read_runner_id(text: str) -> str:
    if _RUNNER_ID.fullmatch(text) is None:
        what = f"{text[:64]!r} is no runner id" if text else "is required"
        raise InvalidRequest.of_field(
            "runnerId", f"{what}; takes 1 to {MAX_RUNNER_ID} of letters, digits, '.', '_' and '-'"
        )
    return text


def read_incarnation(text: str) -> UUID:
    return read_uuid(text, "incarnation")


def read_registration(request: pb.RegisterRunnerRequest, namespace: str) -> RunnerSaid:
    """What the runner says of itself; the specs of its modules are the catalogue's."""
    if len(request.modules) > MAX_MODULES:
        raise LimitExceeded.of_field("modules", f"{len(request.modules)} modules, over {MAX_MODULES}")
    if not 1 <= request.capacity <= MAX_CAPACITY:
        raise InvalidRequest.of_field("capacity", f"{request.capacity} is not from 1 to {MAX_CAPACITY}")
    if len(request.pool) > MAX_POOL or "\0" in request.pool:
        raise InvalidRequest.of_field("pool", f"{request.pool[:64]!r} is no pool; takes up to {MAX_POOL} characters")
    names = [module.class_name for module in request.modules]
    for place, name in enumerate(names):
        if not name or "\0" in name:
            raise InvalidRequest.of_field(f"modules[{place}].className", "is required; takes the class that nodes name")
        if len(name) > MAX_CLASS_NAME:
            raise LimitExceeded.of_field(
                f"modules[{place}].className", f"{name[:64]!r}... has {len(name)} characters, over {MAX_CLASS_NAME}"
            )
    return RunnerSaid(
        namespace=namespace,
        runner_id=read_runner_id(request.runner_id),
        incarnation=read_incarnation(request.incarnation),
        pool=request.pool or "default",
        class_names=tuple(sorted(set(names))),
        capacity=request.capacity,
        host=_shown(request.host),
        version=_shown(request.version),
        serves_all=request.serves_all,
    )


def read_lease(request: pb.LeaseRunsRequest, namespace: str) -> Asked:
    if not 1 <= request.max_runs <= MAX_RUNS:
        raise InvalidRequest.of_field("maxRuns", f"{request.max_runs} is not from 1 to {MAX_RUNS}")
    wait = read_duration(request.wait, "wait") if request.HasField("wait") else timedelta()
    if not timedelta() <= wait <= MAX_WAIT:
        raise InvalidRequest.of_field("wait", f"{wait.total_seconds():g} s is not from 0 to 60 s")
    return Asked(
        namespace,
        read_runner_id(request.runner_id),
        read_incarnation(request.incarnation),
        request.max_runs,
        wait,
        read_request_id(request.request_id, "requestId") or "",
        wait + LATE,
    )


def read_beat(request: pb.HeartbeatRunsRequest, namespace: str) -> Beat:
    if len(request.leases) > MAX_LEASES:
        raise LimitExceeded.of_field(
            "leases", f"{len(request.leases)} leases, over {MAX_LEASES}; send them in several, without asOf"
        )
    return Beat(
        namespace,
        read_runner_id(request.runner_id),
        read_incarnation(request.incarnation),
        [_held(lease, f"leases[{place}]") for place, lease in enumerate(request.leases)],
        _read_time(request.as_of, "asOf") if request.HasField("as_of") else None,
    )


def _held(lease: pb.HeartbeatRunsRequest.Lease, path: str) -> Held:
    """A lease goes on whatever is said of its progress: one that is refused for that would run out."""
    progress, problem = None, ""
    if lease.HasField("progress"):
        problem = _problem_of_json(lease.progress, MAX_PROGRESS)
        if problem:
            problem = f"{path}.progress: {problem}"
        else:
            progress = lease.progress.decode()
    return Held(
        read_uuid(lease.execution_id, f"{path}.executionId"),
        read_uuid(lease.run_id, f"{path}.runId"),
        lease.epoch,
        progress,
        problem,
    )


def read_results(request: pb.ReportRunsRequest) -> list[Ended | str]:
    """Each as it is, or why it cannot be stored."""
    if len(request.results) > MAX_RESULTS:
        raise LimitExceeded.of_field("results", f"{len(request.results)} results, over {MAX_RESULTS}; send several")
    return [_ended(result, f"results[{place}]") for place, result in enumerate(request.results)]


def _ended(result: pb.ReportRunsRequest.Result, path: str) -> Ended | str:
    duration = None
    try:
        execution_id = read_uuid(result.execution_id, f"{path}.executionId")
        run_id = read_uuid(result.run_id, f"{path}.runId")
        what = _result_of(result, path)
        if result.HasField("duration"):
            lasted = read_duration(result.duration, f"{path}.duration")
            duration = max(0, min(2**31 - 1, int(lasted.total_seconds() * 1000)))
    except InvalidRequest as refusal:
        return refusal.message
    progress = None
    if result.HasField("progress"):
        problem = _problem_of_json(result.progress, MAX_PROGRESS)
        if problem:
            return f"{path}.progress: {problem}"
        progress = result.progress.decode()
    return Ended(execution_id, run_id, result.epoch, what, duration, progress)


def _result_of(result: pb.ReportRunsRequest.Result, path: str) -> Result:
    match result.WhichOneof("result"):
        case "success":
            return _success(result.success, f"{path}.success")
        case "failure":
            return _failure(result.failure, f"{path}.failure")
        case "snooze":
            delay = read_duration(result.snooze.delay, f"{path}.snooze.delay")
            if not timedelta() < delay <= LONGEST_DELAY:
                raise InvalidRequest.of_field(f"{path}.snooze.delay", f"{delay} is not above 0 and up to 365 days")
            return Snooze(delay)
        case "release":
            return Release()
    raise InvalidRequest.of_field(path, "says nothing; takes one of success, failure, snooze and release")


def _success(success: pb.ReportRunsRequest.Success, path: str) -> Success:
    outputs = success.outputs or b"{}"
    problem = _problem_of_json(outputs, MAX_OUTPUTS)
    if problem:
        raise InvalidRequest.of_field(f"{path}.outputs", problem)
    cost = success.cost_tokens if success.HasField("cost_tokens") else None
    if cost is not None and not (math.isfinite(cost) and cost >= 0):
        raise InvalidRequest.of_field(f"{path}.costTokens", f"{cost} is no number of tokens")
    return Success(outputs, cost)


def _failure(failure: pb.ReportRunsRequest.Failure, path: str) -> Failure:
    try:
        kind = FailureType(failure.type or FailureType.TRANSIENT)
    except ValueError:
        kind = FailureType.RUNNER_LOST
    if kind not in _REPORTABLE:
        raise InvalidRequest.of_field(
            f"{path}.type", f"{failure.type[:64]!r} is none of {', '.join(sorted(_REPORTABLE))}"
        )
    retry_after = None
    if failure.HasField("retry_after"):
        retry_after = min(max(timedelta(), read_duration(failure.retry_after, f"{path}.retryAfter")), LONGEST_DELAY)
    stack = storable(failure.stack_trace)[-MAX_MESSAGE:]
    return Failure(kind, storable(failure.message, MAX_MESSAGE), stack, retry_after)


def _problem_of_json(content: bytes, limit: int) -> str:
    """What is wrong with it, if anything is."""
    if len(content) > limit:
        return f"{len(content)} bytes, over {limit}; store it elsewhere and say where it is"
    try:
        plain = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        return f"is no JSON: {error}"
    if is_deeper(plain, MAX_DEPTH):
        return f"is nested deeper than {MAX_DEPTH} levels; flatten it"
    if has_nul(content):
        return "contains a NUL character (\\u0000), which cannot be stored; leave it out"
    return ""


def read_duration(duration: Duration, path: str) -> timedelta:
    try:
        return duration.ToTimedelta()
    except (ValueError, OverflowError):
        raise InvalidRequest.of_field(path, "is no duration that fits; takes one such as 30s") from None


def _read_time(stamp: Any, path: str) -> datetime:
    try:
        read: datetime = stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidRequest.of_field(path, "is no time; takes one such as 2026-01-31T12:00:00Z") from None
    return read


def _shown(text: str) -> str:
    return storable(text, 255)


def write_runner(row: RunnerRow, *, lost: bool) -> pb.Runner:
    state = pb.Runner.LOST if lost else pb.Runner.DRAINING if row.draining else pb.Runner.ACTIVE
    said = row.said
    runner = pb.Runner(
        runner_id=said.runner_id,
        pool=said.pool,
        state=state,
        incarnation=str(said.incarnation),
        class_names=said.class_names,
        capacity=said.capacity,
        leases=row.leases,
        host=said.host,
        version=said.version,
        serves_all=said.serves_all,
    )
    write_time(runner.register_time, row.registered_at)
    write_time(runner.last_seen_time, row.last_seen_at)
    return runner


def write_lent(lent: Lent) -> pb.LeaseRunsResponse:
    response = pb.LeaseRunsResponse(runs=[_leased(run) for run in lent.runs], drain=lent.drain)
    write_time(response.server_time, lent.at)
    return response


def _leased(run: LeasedRun) -> pb.LeasedRun:
    message = pb.LeasedRun(
        run_id=run.ref.run_id,
        execution_id=run.ref.execution_id,
        epoch=run.ref.epoch,
        attempt=run.attempt,
        node_id=run.node_id,
        class_name=run.class_name,
        config=run.config,
        inputs=run.inputs,
        idempotency_key=run.idempotency_key,
        progress=run.progress,
        traceparent=run.traceparent,
        links=run.links,
        target=run.target,
    )
    message.lease_duration.FromTimedelta(run.lease_duration)
    if run.deadline is not None:
        write_time(message.deadline, run.deadline)
    if run.timeout is not None:
        message.timeout.FromTimedelta(run.timeout)
    return message


def write_beaten(
    beat: Beat, answers: Sequence[HeartbeatAnswer], *, now: datetime, drain: bool
) -> pb.HeartbeatRunsResponse:
    response = pb.HeartbeatRunsResponse(
        answers=[
            pb.HeartbeatRunsResponse.Answer(run_id=str(lease.run_id), epoch=lease.epoch, command=_COMMANDS[answer])
            for lease, answer in zip(beat.leases, answers, strict=True)
        ],
        drain=drain,
    )
    write_time(response.server_time, now)
    return response


def write_reported(
    request: pb.ReportRunsRequest, answers: Sequence[ReportAnswer | str], now: datetime
) -> pb.ReportRunsResponse:
    """A text instead of an answer is why it was refused."""
    response = pb.ReportRunsResponse()
    for result, answer in zip(request.results, answers, strict=True):
        said = response.answers.add(run_id=result.run_id, epoch=result.epoch)
        if isinstance(answer, ReportAnswer):
            said.outcome = _OUTCOMES[answer]
        else:
            said.outcome, said.problem = pb.ReportRunsResponse.REFUSED, answer
    write_time(response.server_time, now)
    return response
