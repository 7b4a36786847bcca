"""A runner as a program, against an executor that says what the test tells it to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc.aio
import pytest
from structlog.testing import capture_logs

from tests.unit.runner.fakes import eventually
from valkyr.api.executor.v1 import runner_pb2 as pb
from valkyr.api.executor.v1 import runner_pb2_grpc
from valkyr.cli.exits import ExitCode
from valkyr.errors import RunnerReplaced
from valkyr.module import Context, ModuleSpec, spec_of
from valkyr.modules import builtin_modules
from valkyr.runner import grpc_transport
from valkyr.runner import program as runner_program
from valkyr.runner.grpc_transport import GrpcTransport
from valkyr.runner.program import Program, RunnerProgram

PATIENCE = timedelta(seconds=30)


class Executor(runner_pb2_grpc.RunnerServiceServicer):
    """Grants one run at the moment when it is told that the runner drains, and says so only after that."""

    def __init__(self) -> None:
        self.registered: list[pb.RegisterRunnerRequest] = []
        self.reported: list[pb.ReportRunsRequest.Result] = []
        self.asked = asyncio.Event()
        self.told = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.beat = timedelta(seconds=2)

    async def RegisterRunner(self, request: pb.RegisterRunnerRequest, context: Any) -> pb.RegisterRunnerResponse:
        self.registered.append(request)
        response = pb.RegisterRunnerResponse()
        response.lease_duration.FromTimedelta(timedelta(minutes=2))
        response.heartbeat_interval.FromTimedelta(self.beat)
        return response

    async def LeaseRuns(self, request: pb.LeaseRunsRequest, context: Any) -> pb.LeaseRunsResponse:
        if self.told.is_set():
            return pb.LeaseRunsResponse(drain=True)
        self.asked.set()
        await self.may_answer.wait()
        run = pb.LeasedRun(run_id="r", execution_id="e", epoch=1, class_name="NoopModule")
        run.lease_duration.FromTimedelta(timedelta(minutes=2))
        return pb.LeaseRunsResponse(runs=[run])

    async def DrainRunner(self, request: pb.DrainRunnerRequest, context: Any) -> pb.DrainRunnerResponse:
        self.told.set()
        asyncio.get_running_loop().call_later(0.05, self.may_answer.set)
        return pb.DrainRunnerResponse()

    async def HeartbeatRuns(self, request: pb.HeartbeatRunsRequest, context: Any) -> pb.HeartbeatRunsResponse:
        command = pb.HeartbeatRunsResponse.CONTINUE
        answers = [pb.HeartbeatRunsResponse.Answer(command=command) for _ in request.leases]
        return pb.HeartbeatRunsResponse(answers=answers)

    async def ReportRuns(self, request: pb.ReportRunsRequest, context: Any) -> pb.ReportRunsResponse:
        self.reported.extend(request.results)
        accepted = pb.ReportRunsResponse.Answer(outcome=pb.ReportRunsResponse.ACCEPTED)
        return pb.ReportRunsResponse(answers=[accepted] * len(request.results))


@asynccontextmanager
async def a_program(
    executor: Executor, modules: Mapping[str, ModuleSpec] | None = None, *, signals: bool = False, **settings: Any
) -> AsyncIterator[RunnerProgram]:
    server = grpc.aio.server()
    runner_pb2_grpc.add_RunnerServiceServicer_to_server(executor, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    program = RunnerProgram(Program(f"127.0.0.1:{port}", modules or builtin_modules(), **settings))
    running = asyncio.create_task(program.run(signals=signals))
    try:
        async with asyncio.timeout(60):
            await executor.asked.wait()
            yield program
            program.end()
            await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.stop(None)


async def test_what_was_granted_as_the_drain_began_is_released_and_not_left_to_run_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner_program, "TOLD_WITHIN", PATIENCE)
    monkeypatch.setattr(grpc_transport, "LAST_ANSWER", PATIENCE)
    executor = Executor()
    async with a_program(executor):
        pass
    assert [(result.run_id, result.WhichOneof("result")) for result in executor.reported] == [("r", "release")]


class Silent(Executor):
    """Does not answer who registers."""

    async def RegisterRunner(self, request: pb.RegisterRunnerRequest, context: Any) -> pb.RegisterRunnerResponse:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError


async def test_who_is_to_end_does_not_wait_until_an_executor_answers() -> None:
    with capture_logs() as events:
        async with a_program(Silent()):
            pass
    assert [event["event"] for event in events] == ["runner.ended"], "the call was given up, not over"


class Drained(Executor):
    """Grants one run, and says with the next answer that the runner is to drain."""

    async def LeaseRuns(self, request: pb.LeaseRunsRequest, context: Any) -> pb.LeaseRunsResponse:
        if self.asked.is_set():
            return pb.LeaseRunsResponse(drain=True)
        self.may_answer.set()
        return await super().LeaseRuns(request, context)


async def test_who_was_told_to_drain_by_its_executor_and_then_by_a_signal_has_its_grace() -> None:
    """As a pod that is drained and then deleted."""
    executor, may_end, begun = Drained(), asyncio.Event(), asyncio.Event()

    async def long(context: Context) -> None:
        begun.set()
        await may_end.wait()

    with capture_logs() as events:
        async with a_program(executor, {"NoopModule": spec_of("NoopModule", long)}) as program:
            await begun.wait()
            await eventually(lambda: "runner.draining" in {event["event"] for event in events})
            program.end()
            await eventually(executor.told.is_set)
            may_end.set()
            await eventually(lambda: "runner.ended" in {event["event"] for event in events})
    assert [result.WhichOneof("result") for result in executor.reported] == ["success"]
    assert "runner.ends_now" not in {event["event"] for event in events}


async def test_who_runs_unknown_classes_as_if_they_did_nothing_says_that_it_takes_them() -> None:
    trying, other = Executor(), Executor()
    async with a_program(trying, unknown_as_noop=True), a_program(other):
        pass
    assert [request.serves_all for request in trying.registered + other.registered] == [True, False]


async def test_who_was_replaced_ends_though_a_module_blocks_its_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the last resort, whose exit code says why."""
    executor, told, ends = Executor(), threading.Event(), []
    executor.beat = timedelta(milliseconds=5)
    executor.may_answer.set()

    def end_soon(code: int, patience: timedelta) -> None:
        ends.append((code, patience))
        told.set()

    def replaced(*_: object, **__: object) -> None:
        raise RunnerReplaced("another process has registered")

    async def blocking(context: Context) -> None:
        monkeypatch.setattr(GrpcTransport, "heartbeat_runs", replaced)
        assert told.wait(30)

    monkeypatch.setattr(runner_program, "end_soon", end_soon)
    modules = {"NoopModule": spec_of("NoopModule", blocking)}
    with pytest.raises(RunnerReplaced):
        async with a_program(executor, modules, signals=True) as program:
            await eventually(told.is_set)
            program.end()
    assert ends == [(ExitCode.CONFLICT, runner_program.HURRIED)]
    assert not executor.reported
