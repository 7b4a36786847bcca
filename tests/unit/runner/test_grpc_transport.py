"""The runner protocol over a real channel, against an executor that says what the test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc.aio
import pytest

from valkyr.api.executor.v1 import runner_pb2 as pb
from valkyr.api.executor.v1 import runner_pb2_grpc
from valkyr.errors import InvalidRequest, RunnerNotRegistered, RunnerReplaced, Unavailable, ValkyrError
from valkyr.rpc.status import to_grpc_status
from valkyr.runner.grpc_transport import LATE, WAIT, GrpcTransport, Registration
from valkyr.runner.leases import LeaseRef, ReportAnswer, RunResult, Success

A_REPORT = [RunResult(LeaseRef("e", "r", 1), Success(b"{}"))]


class Executor(runner_pb2_grpc.RunnerServiceServicer):
    """Leases last as long as the test says; a call for runs fails as often as it says, then brings one."""

    def __init__(self, lease: timedelta, failures: int = 0) -> None:
        self.lease = lease
        self.failures = failures
        self.asked: list[pb.LeaseRunsRequest] = []
        self.registrations = 0
        self.refuses_again = False
        self.refusals: list[ValkyrError] = []
        self.forgot = 0
        self.beats: list[float] = []

    async def RegisterRunner(self, request: pb.RegisterRunnerRequest, context: Any) -> pb.RegisterRunnerResponse:
        self.registrations += 1
        if self.registrations > 1 and self.refuses_again:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "modules[0].configSchema: is none")
        if self.registrations > 1 and self.refusals:
            await _abort(context, self.refusals.pop())
        response = pb.RegisterRunnerResponse()
        response.lease_duration.FromTimedelta(self.lease)
        response.heartbeat_interval.FromTimedelta(self.lease / 4)
        return response

    async def LeaseRuns(self, request: pb.LeaseRunsRequest, context: Any) -> pb.LeaseRunsResponse:
        self.asked.append(request)
        if self.failures:
            self.failures -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        return pb.LeaseRunsResponse(runs=[pb.LeasedRun(run_id="r", execution_id="e", epoch=1)])

    async def HeartbeatRuns(self, request: pb.HeartbeatRunsRequest, context: Any) -> pb.HeartbeatRunsResponse:
        self.beats.append(context.time_remaining())
        await self._perhaps_forgotten(context)
        return pb.HeartbeatRunsResponse()

    async def ReportRuns(self, request: pb.ReportRunsRequest, context: Any) -> pb.ReportRunsResponse:
        await self._perhaps_forgotten(context)
        accepted = pb.ReportRunsResponse.Answer(outcome=pb.ReportRunsResponse.ACCEPTED)
        refused = pb.ReportRunsResponse.Answer(outcome=pb.ReportRunsResponse.REFUSED, problem="too large")
        answers = [refused if result.run_id == "large" else accepted for result in request.results]
        return pb.ReportRunsResponse(answers=answers)

    async def _perhaps_forgotten(self, context: Any) -> None:
        if self.forgot:
            self.forgot -= 1
            await _abort(context, RunnerNotRegistered("nobody has registered as r1"))


async def _abort(context: Any, error: ValkyrError) -> None:
    status = to_grpc_status(error)
    await context.abort(status.code, status.details, status.trailing_metadata)


@asynccontextmanager
async def transport_to(executor: Executor, clock: Callable[[], float]) -> AsyncIterator[GrpcTransport]:
    server = grpc.aio.server()
    runner_pb2_grpc.add_RunnerServiceServicer_to_server(executor, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    said = Registration("default", "r1", "00000000-0000-7000-8000-000000000000", "default", [], 10)
    transport = GrpcTransport(f"127.0.0.1:{port}", said, on_drain=lambda: None, clock=clock)
    try:
        yield transport
    finally:
        await transport.close()
        await server.stop(None)


@pytest.mark.parametrize(
    ("lease", "wait"),
    [(timedelta(minutes=2), WAIT), (timedelta(seconds=4), timedelta(seconds=1))],
    ids=["a long lease", "a short lease"],
)
async def test_i12_a_call_waits_for_a_fraction_of_a_lease_since_that_counts_from_the_call(
    lease: timedelta, wait: timedelta
) -> None:
    executor = Executor(lease)
    async with transport_to(executor, lambda: 100.0) as transport:
        await transport.register()
        granted = await transport.lease_runs(max_runs=5)
    assert [request.wait.ToTimedelta() for request in executor.asked] == [wait]
    assert granted.asked_at == 100.0
    assert granted.start_by == 100.0 + (wait + LATE).total_seconds()


async def test_a_call_whose_answer_was_lost_is_repeated_as_it_was_and_counts_from_the_first() -> None:
    executor, now = Executor(timedelta(minutes=2), failures=1), [100.0]
    async with transport_to(executor, lambda: now[0]) as transport:
        await transport.register()
        with pytest.raises(Unavailable):
            await transport.lease_runs(max_runs=5)
        now[0] += 10
        granted = await transport.lease_runs(max_runs=3)
    first, again = executor.asked
    assert (first.request_id, first.max_runs) == (again.request_id, again.max_runs)
    assert granted.asked_at == 100.0


async def test_a_call_that_is_too_old_to_be_repeated_is_asked_anew() -> None:
    executor, now = Executor(timedelta(minutes=2), failures=1), [100.0]
    async with transport_to(executor, lambda: now[0]) as transport:
        await transport.register()
        with pytest.raises(Unavailable):
            await transport.lease_runs(max_runs=5)
        now[0] += (WAIT + LATE).total_seconds()
        granted = await transport.lease_runs(max_runs=3)
    assert len({request.request_id for request in executor.asked}) == 2
    assert granted.asked_at == now[0]


@pytest.mark.parametrize("refused", [False, True], ids=["heard", "refused"])
async def test_an_executor_that_was_away_is_told_again_what_this_runner_can_run(refused: bool) -> None:
    executor = Executor(timedelta(minutes=2), failures=1)
    executor.refuses_again = refused
    async with transport_to(executor, lambda: 100.0) as transport:
        await transport.register()
        with pytest.raises(Unavailable):
            await transport.lease_runs(max_runs=5)
        await transport.lease_runs(max_runs=5)
        await transport.lease_runs(max_runs=5)
    assert executor.registrations == 2, "once for each time that it was away"


@pytest.mark.parametrize(
    ("lease", "longest"),
    [(timedelta(minutes=2), timedelta(seconds=5)), (timedelta(seconds=12), timedelta(seconds=4))],
    ids=["a long lease", "a short lease"],
)
async def test_a_heartbeat_that_nobody_answers_is_given_up_while_the_lease_lasts(
    lease: timedelta, longest: timedelta
) -> None:
    executor = Executor(lease)
    async with transport_to(executor, lambda: 100.0) as transport:
        await transport.register()
        await asyncio.to_thread(transport.heartbeat_runs, [], progress={}, as_of=None)
    [left] = executor.beats
    assert longest / 4 < timedelta(seconds=left) < longest * 1.1


async def test_a_result_that_is_refused_is_answered_beside_those_that_are_not() -> None:
    executor = Executor(timedelta(minutes=2))
    async with transport_to(executor, lambda: 100.0) as transport:
        await transport.register()
        large = RunResult(LeaseRef("e", "large", 1), Success(b"{}"))
        refused, accepted = await transport.report_runs([large, *A_REPORT])
    assert accepted is ReportAnswer.ACCEPTED
    assert isinstance(refused, InvalidRequest)
    assert str(refused) == "too large"


async def test_who_was_forgotten_registers_and_says_it_again() -> None:
    executor = Executor(timedelta(minutes=2))
    async with transport_to(executor, lambda: 100.0) as transport:
        await transport.register()
        executor.forgot = 1
        assert await transport.report_runs(A_REPORT) == [ReportAnswer.ACCEPTED]
    assert executor.registrations == 2


async def test_who_is_not_let_in_again_may_repeat_what_it_had_to_say() -> None:
    executor = Executor(timedelta(minutes=2))
    executor.refuses_again = True
    async with transport_to(executor, lambda: 100.0) as transport:
        await transport.register()
        executor.forgot = 1
        with pytest.raises(Unavailable, match="configSchema: is none"):
            await transport.report_runs(A_REPORT)


async def test_who_was_forgotten_twice_may_repeat_what_it_had_to_say() -> None:
    executor = Executor(timedelta(minutes=2))
    async with transport_to(executor, lambda: 100.0) as transport:
        await transport.register()
        executor.forgot = 2
        with pytest.raises(Unavailable, match="nobody has registered"):
            await transport.report_runs(A_REPORT)
        assert await transport.report_runs(A_REPORT) == [ReportAnswer.ACCEPTED]


async def test_who_was_forgotten_and_is_replaced_repeats_nothing() -> None:
    executor = Executor(timedelta(minutes=2))
    async with transport_to(executor, lambda: 100.0) as transport:
        await transport.register()
        executor.forgot, executor.refusals = 1, [RunnerReplaced("another process has registered")]
        with pytest.raises(RunnerReplaced):
            await transport.report_runs(A_REPORT)


async def test_a_heartbeat_of_who_was_forgotten_registers_and_is_sent_again() -> None:
    executor = Executor(timedelta(minutes=2))
    async with transport_to(executor, lambda: 100.0) as transport:
        await transport.register()
        executor.forgot = 1
        await asyncio.to_thread(transport.heartbeat_runs, [], progress={}, as_of=None)
    assert (executor.registrations, len(executor.beats)) == (2, 2)
