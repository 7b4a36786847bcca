"""The runner protocol over gRPC. Calls of the loop go over one channel; heartbeats, which have a thread of their own,
over another, so that neither waits for the other."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from google.protobuf.timestamp_pb2 import Timestamp

from valkyr.api.executor.v1 import runner_pb2 as pb
from valkyr.api.executor.v1 import runner_pb2_grpc
from valkyr.errors import (
    DeadlineExceeded,
    InvalidRequest,
    RunnerNotRegistered,
    RunnerReplaced,
    Unavailable,
    ValkyrError,
)
from valkyr.rpc.channel import open_blocking_channel, open_channel
from valkyr.rpc.status import rpc_errors
from valkyr.runner.leases import (
    Failure,
    Granted,
    HeartbeatAnswer,
    LeasedRun,
    LeaseRef,
    Release,
    ReportAnswer,
    Result,
    RunResult,
    Snooze,
    Success,
)
from valkyr.telemetry import get_logger

WAIT = timedelta(seconds=20)
"""How long a call for runs waits for some, at most."""

WAITS_PER_LEASE = 4
"""A lease is trusted from when it was asked for: so much of it may have passed when it comes, and no more."""

LATE = timedelta(seconds=5)
"""An answer that comes later than `wait` and this after its call was first sent is too old: its runs are released."""

CALL_TIMEOUT = timedelta(seconds=10)

LAST_ANSWER = timedelta(milliseconds=500)
"""How long a drain waits for the answer to a call for runs: its executor answers at once, another one may not."""

BEATS_PER_LEASE = 3
"""A heartbeat that nobody answers is given up in time for others, which may go to another executor."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Registration:
    """What a runner says of itself. `modules` are ModuleSpec messages of the graph store's catalogue; `serves_all`: it
    takes runs of every class, also of those that it has no module for."""

    namespace: str
    runner_id: str
    incarnation: str
    pool: str
    modules: Sequence[Any]
    capacity: int
    host: str = ""
    version: str = ""
    serves_all: bool = False


@dataclass(frozen=True, slots=True)
class Registered:
    """How long leases last, how often to say that they are held, and how many of an older process this has ended."""

    lease_duration: timedelta
    heartbeat_interval: timedelta
    leases_ended: int


@dataclass(slots=True)
class _Question:
    """A call for runs whose answer has not come: it is repeated until there is one, or it is too old."""

    request_id: str
    max_runs: int
    wait: timedelta
    asked_at: float


class GrpcTransport:
    """valkyr.runner.leases.Transport to executors behind one address. `on_drain` is called, from any thread, when the
    executor says that this runner is to take no more."""

    def __init__(
        self,
        address: str,
        registration: Registration,
        *,
        on_drain: Callable[[], None],
        principal: str | None = None,
        wait: timedelta = WAIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registration = registration
        self._on_drain = on_drain
        self._longest_wait = self._wait = wait
        self._clock = clock
        self._channel: Any = open_channel(address, principal=principal, deadline=CALL_TIMEOUT)
        self._stub = runner_pb2_grpc.RunnerServiceStub(self._channel)
        self._blocking = open_blocking_channel(address, principal=principal)
        self._beating = runner_pb2_grpc.RunnerServiceStub(self._blocking)
        self._longest_beat = CALL_TIMEOUT / 2
        self._question: _Question | None = None
        self._answered = asyncio.Event()
        self._answered.set()
        self._was_away = False
        self._told = threading.Lock()
        self._as_of: datetime | None = None

    async def register(self) -> Registered:
        """Makes the runner known. InvalidRequest, RunnerReplaced, Unavailable."""
        with rpc_errors():
            response = await self._stub.RegisterRunner(self._registering())
        return self._registered(response)

    def _registering(self) -> pb.RegisterRunnerRequest:
        said = self._registration
        return pb.RegisterRunnerRequest(
            **self._who(),
            pool=said.pool,
            modules=said.modules,
            capacity=said.capacity,
            host=said.host,
            version=said.version,
            serves_all=said.serves_all,
        )

    def _registered(self, response: pb.RegisterRunnerResponse) -> Registered:
        """In the thread that has asked."""
        self._was_away = False
        self._hear(response.server_time)
        lasts = response.lease_duration.ToTimedelta()
        self._wait = min(self._longest_wait, lasts / WAITS_PER_LEASE)
        self._longest_beat = min(CALL_TIMEOUT / 2, lasts / BEATS_PER_LEASE)
        return Registered(lasts, response.heartbeat_interval.ToTimedelta(), response.leases_ended)

    async def lease_runs(self, *, max_runs: int) -> Granted:
        self._answered.clear()
        try:
            return await self._ask(max_runs)
        finally:
            self._answered.set()

    async def _ask(self, max_runs: int) -> Granted:
        question = self._question
        if question is None or self._clock() >= self._too_late(question):
            question = self._question = _Question(str(uuid4()), max_runs, self._wait, self._clock())
        request = pb.LeaseRunsRequest(**self._who(), max_runs=question.max_runs, request_id=question.request_id)
        request.wait.FromTimedelta(question.wait)
        try:
            response = await self._call(self._stub.LeaseRuns, request, timeout=question.wait + LATE)
        except (Unavailable, DeadlineExceeded):
            raise
        except ValkyrError:
            self._question = None
            raise
        self._question = None
        in_time = self._hear(response.server_time)
        if response.drain:
            self._on_drain()
        runs = [_leased(run) for run in response.runs]
        start_by = self._too_late(question) if in_time else question.asked_at
        return Granted(runs, asked_at=question.asked_at, start_by=start_by)

    async def report_runs(self, results: Sequence[RunResult]) -> Sequence[ReportAnswer | InvalidRequest]:
        request = pb.ReportRunsRequest(**self._who(), results=[_result(result) for result in results])
        response = await self._call(self._stub.ReportRuns, request, timeout=CALL_TIMEOUT)
        self._hear(response.server_time)
        return [_reported(answer) for answer in response.answers]

    def told(self) -> datetime | None:
        with self._told:
            return self._as_of

    def heartbeat_runs(
        self, leases: Sequence[LeaseRef], *, progress: Mapping[LeaseRef, bytes], as_of: datetime | None
    ) -> Sequence[HeartbeatAnswer]:
        request = pb.HeartbeatRunsRequest(**self._who())
        if as_of is not None:
            request.as_of.FromDatetime(as_of)
        for ref in leases:
            said = progress.get(ref)
            request.leases.add(run_id=ref.run_id, execution_id=ref.execution_id, epoch=ref.epoch, progress=said)
        try:
            response = self._beat(request)
        except RunnerNotRegistered:  # a runner whose slots are full calls for nothing else
            log.warning("runner.registers_again", runner_id=self._registration.runner_id)
            with rpc_errors():
                timeout = self._longest_beat.total_seconds()
                self._registered(self._beating.RegisterRunner(self._registering(), timeout=timeout))
            response = self._beat(request)
        self._hear(response.server_time)
        if response.drain:
            self._on_drain()
        return [HeartbeatAnswer(pb.HeartbeatRunsResponse.Command.Name(answer.command)) for answer in response.answers]

    def _beat(self, request: pb.HeartbeatRunsRequest) -> Any:
        with rpc_errors():
            return self._beating.HeartbeatRuns(request, timeout=self._longest_beat.total_seconds())

    async def drain(self) -> None:
        """Tells the executor to hand out nothing more to this runner. What it had just granted has come when this ends:
        a lease that nobody knows of would have to run out."""
        with rpc_errors():
            await self._stub.DrainRunner(pb.DrainRunnerRequest(**self._who()))
        with suppress(TimeoutError):
            await asyncio.wait_for(self._answered.wait(), LAST_ANSWER.total_seconds())

    async def close(self) -> None:
        await self._channel.close()
        await asyncio.to_thread(self._blocking.close)

    def _who(self) -> dict[str, Any]:
        said = self._registration
        return {"namespace": said.namespace, "runner_id": said.runner_id, "incarnation": said.incarnation}

    async def _call(self, method: Any, request: Any, *, timeout: timedelta) -> Any:
        """Once more after registering where the executor does not know this runner (any more). Where it was away, it
        may have forgotten what it was to hand on of this runner's modules: it is told again first."""
        if self._was_away:
            await self._register_again()
        try:
            with rpc_errors():
                return await method(request, timeout=timeout.total_seconds())
        except Unavailable:
            self._was_away = True
            raise
        except RunnerNotRegistered:
            log.warning("runner.registers_again", runner_id=self._registration.runner_id)
            with _worth_repeating(ValkyrError):
                await self.register()
        with _worth_repeating(RunnerNotRegistered), rpc_errors():
            return await method(request, timeout=timeout.total_seconds())

    async def _register_again(self) -> None:
        """It is registered as it is: what is wrong with that now must not keep it from what it holds."""
        try:
            await self.register()
        except InvalidRequest as refusal:
            self._was_away = False
            log.warning("runner.not_registered_again", error=refusal.message)

    def _too_late(self, question: _Question) -> float:
        return question.asked_at + (question.wait + LATE).total_seconds()

    def _hear(self, server_time: Timestamp) -> bool:
        """Whether it is not long before what was told already: else a heartbeat may have left out what came with it."""
        told = server_time.ToDatetime(tzinfo=UTC)
        with self._told:
            before = self._as_of or told
            self._as_of = max(before, told)
        return before - told <= LATE


@contextmanager
def _worth_repeating(*kinds: type[ValkyrError]) -> Iterator[None]:
    """That a runner is not let in any more is nothing that is wrong with what it calls for. Unavailable."""
    try:
        yield
    except RunnerReplaced:
        raise
    except kinds as error:
        raise Unavailable(f"the runner is not registered, nor let in: {error.message}") from error


def _leased(run: pb.LeasedRun) -> LeasedRun:
    return LeasedRun(
        ref=LeaseRef(run.execution_id, run.run_id, run.epoch),
        attempt=run.attempt,
        node_id=run.node_id,
        class_name=run.class_name,
        config=run.config,
        inputs=run.inputs,
        idempotency_key=run.idempotency_key,
        lease_duration=run.lease_duration.ToTimedelta(),
        timeout=run.timeout.ToTimedelta() if run.HasField("timeout") else None,
        deadline=run.deadline.ToDatetime(tzinfo=UTC) if run.HasField("deadline") else None,
        traceparent=run.traceparent,
        links=tuple(run.links),
        target=run.target,
        progress=run.progress,
    )


def _result(result: RunResult) -> pb.ReportRunsRequest.Result:
    message = pb.ReportRunsRequest.Result(
        run_id=result.ref.run_id,
        execution_id=result.ref.execution_id,
        epoch=result.ref.epoch,
        progress=result.progress,
    )
    _fill(message, result.result)
    if result.duration_ms is not None:
        message.duration.FromMilliseconds(result.duration_ms)
    return message


def _fill(message: pb.ReportRunsRequest.Result, result: Result) -> None:
    match result:
        case Success(outputs=outputs, cost_tokens=cost):
            message.success.outputs = outputs
            if cost is not None:
                message.success.cost_tokens = cost
        case Failure(type=kind, message=text, stack_trace=stack, retry_after=retry_after):
            message.failure.type = kind
            message.failure.message = text
            message.failure.stack_trace = stack
            if retry_after is not None:
                message.failure.retry_after.FromTimedelta(retry_after)
        case Snooze(delay=delay):
            message.snooze.delay.FromTimedelta(delay)
        case Release():
            message.release.SetInParent()


def _reported(answer: pb.ReportRunsResponse.Answer) -> ReportAnswer | InvalidRequest:
    if answer.outcome == pb.ReportRunsResponse.REFUSED:
        return InvalidRequest(answer.problem)
    return ReportAnswer(pb.ReportRunsResponse.Outcome.Name(answer.outcome))
