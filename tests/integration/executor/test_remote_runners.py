"""RunnerService over a real channel: a runner by hand, call by call, against an executor that runs nothing itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import pytest

from services.executor.reaper import end_older_incarnations
from tests.builders import a_chain, a_graph
from tests.executor_stack import Stack
from tests.integration.executor.conftest import OpenStack
from valkyr.api.executor.v1 import runner_pb2 as pb
from valkyr.api.executor.v1 import runner_pb2_grpc
from valkyr.api.graph.v1.graph_pb2 import Dedupe, ModuleSpec
from valkyr.client import ReusedRun
from valkyr.errors import (
    InvalidRequest,
    RunnerNotFound,
    RunnerNotRegistered,
    RunnerReplaced,
    UnknownMethod,
    ValkyrError,
)
from valkyr.rpc.channel import open_channel
from valkyr.rpc.status import rpc_errors

CLASSES = ("NoopModule", "LogModule")
BY_HAND = {"concurrency": 0, "lease": {"heartbeat_interval": timedelta(seconds=15)}}
"""Settings of a pool that runs nothing itself. Nobody here sends heartbeats while a call waits: after three of these
nothing would be leased to it, but no call waits for so long."""

CONTINUE, CANCEL, LOST = (pb.HeartbeatRunsResponse.Command.Value(name) for name in ("CONTINUE", "CANCEL", "LEASE_LOST"))
ACCEPTED, LEASE_LOST, ALREADY, REFUSED = (
    pb.ReportRunsResponse.Outcome.Value(name) for name in ("ACCEPTED", "LEASE_LOST", "ALREADY_REPORTED", "REFUSED")
)


class ByHand:
    """One process of a runner, whose every call is the test's."""

    def __init__(self, stub: Any, runner_id: str = "r1", *, namespace: str = "", pool: str = "default") -> None:
        self._stub = stub
        self._pool = pool
        self.who = {"namespace": namespace, "runner_id": runner_id, "incarnation": str(uuid4())}

    async def _call(self, rpc: str, request: Any) -> Any:
        with rpc_errors():
            return await getattr(self._stub, rpc)(request)

    async def register(
        self,
        *,
        classes: tuple[str, ...] = CLASSES,
        capacity: int = 100,
        specs: Sequence[ModuleSpec] = (),
        serves_all: bool = False,
    ) -> pb.RegisterRunnerResponse:
        modules = [*specs, *(ModuleSpec(class_name=name) for name in classes)]
        return await self._call(
            "RegisterRunner",
            pb.RegisterRunnerRequest(
                **self.who, pool=self._pool, modules=modules, capacity=capacity, serves_all=serves_all
            ),
        )

    async def lease(
        self, max_runs: int = 100, *, wait: float = 5, request_id: str | None = None
    ) -> pb.LeaseRunsResponse:
        request = pb.LeaseRunsRequest(**self.who, max_runs=max_runs, request_id=request_id or str(uuid4()))
        request.wait.FromTimedelta(timedelta(seconds=wait))
        return await self._call("LeaseRuns", request)

    async def beat(
        self, *runs: pb.LeasedRun, as_of: datetime | None = None, progress: bytes | None = None
    ) -> list[int]:
        request = pb.HeartbeatRunsRequest(
            **self.who,
            leases=[
                pb.HeartbeatRunsRequest.Lease(
                    run_id=run.run_id, execution_id=run.execution_id, epoch=run.epoch, progress=progress
                )
                for run in runs
            ],
        )
        if as_of is not None:
            request.as_of.FromDatetime(as_of)
        response = await self._call("HeartbeatRuns", request)
        return [answer.command for answer in response.answers]

    async def report(self, *results: pb.ReportRunsRequest.Result) -> list[int]:
        response = await self._call("ReportRuns", pb.ReportRunsRequest(**self.who, results=results))
        return [answer.outcome for answer in response.answers]

    async def drain(self) -> pb.Runner:
        return (await self._call("DrainRunner", pb.DrainRunnerRequest(**self.who))).runner


def about(run: pb.LeasedRun, **result: Any) -> pb.ReportRunsRequest.Result:
    return pb.ReportRunsRequest.Result(run_id=run.run_id, execution_id=run.execution_id, epoch=run.epoch, **result)


def done(run: pb.LeasedRun, outputs: bytes = b'{"ok":true}') -> pb.ReportRunsRequest.Result:
    return about(run, success=pb.ReportRunsRequest.Success(outputs=outputs))


@pytest.fixture
async def stack(make_stack: OpenStack) -> AsyncIterator[Stack]:
    """Nothing runs but what the test leases."""
    async with make_stack(runner=BY_HAND) as stack:
        yield stack


@pytest.fixture
async def runner(stub: Any) -> ByHand:
    made = ByHand(stub)
    await made.register()
    return made


async def test_a_chain_is_run_by_hand_step_by_step(stack: Stack, runner: ByHand) -> None:
    execution_id = await stack.start(a_chain(3))
    for step in range(3):
        [run] = (await runner.lease()).runs
        assert (run.attempt, run.epoch, run.class_name) == (1, 1, "NoopModule"), step
        assert await runner.beat(run) == [CONTINUE]
        assert await runner.report(done(run)) == [ACCEPTED]
    assert (await stack.wait(execution_id)).state == "SUCCESS"


async def test_a_waiting_call_is_answered_as_soon_as_there_is_work(stack: Stack, runner: ByHand) -> None:
    waiting = asyncio.create_task(runner.lease(wait=30))
    await stack.until(
        "SELECT last_seen_at > registered_at FROM executor.runner WHERE runner_id = 'r1'", what="the call waits"
    )
    await stack.start(a_graph("a"))
    async with asyncio.timeout(10):
        assert len((await waiting).runs) == 1


async def test_a_module_that_was_registered_over_the_network_dedupes(stack: Stack, runner: ByHand) -> None:
    spec = ModuleSpec(class_name="Remote", dedupe=Dedupe(scope=Dedupe.WORKFLOW))
    await runner.register(specs=[spec])
    workflow_id = await stack.save(a_graph("a", modules={"a": ("Remote", {})}))
    first = (await stack.client.executions.start(workflow_id)).id
    [run] = (await runner.lease()).runs
    assert await runner.report(done(run, b'{"by":"the first"}')) == [ACCEPTED]
    await stack.wait(first)
    second = (await stack.client.executions.start(workflow_id)).id
    assert (await stack.wait(second)).outputs == {"a": {"by": "the first"}}
    found = (await stack.runs(second))["a"]
    assert found.reused_from == ReusedRun(first, run.run_id)
    assert found.idempotency_key == run.idempotency_key
    assert list((await runner.lease(wait=0)).runs) == []


async def test_who_was_silent_while_his_call_waited_is_handed_nothing_until_he_is_heard_of(
    stack: Stack, runner: ByHand
) -> None:
    """It may be frozen, or cut off: what it were given would stand still until its lease runs out."""
    heard = "SELECT last_seen_at > now() - interval '30 s' FROM executor.runner WHERE runner_id = 'r1'"
    silence = "UPDATE executor.runner SET last_seen_at = now() - interval '1 minute' WHERE runner_id = 'r1'"
    await stack.sql.execute(silence)
    waiting = asyncio.create_task(runner.lease(wait=30))
    await stack.until(heard, what="the call waits")
    await stack.sql.execute(silence)
    execution_id = await stack.start(a_graph("a"))
    async with asyncio.timeout(20):
        answer = await waiting
    assert (list(answer.runs), answer.drain) == ([], False)
    row = await stack.row(execution_id, "a")
    assert (row["state"], row["attempt"], row["lost_leases"]) == ("READY", 0, 0)
    [run] = (await runner.lease()).runs
    assert run.attempt == 1
    await stack.sql.execute(silence)
    waiting = asyncio.create_task(runner.lease(wait=30))
    await stack.until(heard, what="the call waits")
    await stack.sql.execute(silence)
    assert await runner.beat(run) == [CONTINUE]
    await stack.start(a_graph("b"))
    async with asyncio.timeout(20):
        assert [run.node_id for run in (await waiting).runs] == ["b"]


async def test_a_call_that_waits_is_answered_when_the_executor_is_to_stop(stack: Stack, runner: ByHand) -> None:
    waiting = asyncio.create_task(runner.lease(wait=30))
    await stack.until("SELECT last_seen_at > registered_at FROM executor.runner WHERE runner_id = 'r1'")
    await stack.app.parts.drain()
    async with asyncio.timeout(10):
        answer = await waiting
        again = await runner.lease(wait=30)
    assert [(list(said.runs), said.drain) for said in (answer, again)] == [([], False)] * 2, "another may have some"


async def test_a_call_without_work_answers_empty_at_the_end_of_its_wait(runner: ByHand) -> None:
    answer = await runner.lease(wait=0.2)
    assert (list(answer.runs), answer.drain) == ([], False)


async def test_i06_who_reports_under_an_epoch_that_is_over_changes_nothing(stack: Stack, runner: ByHand) -> None:
    execution_id = await stack.start(a_graph("a"))
    [run] = (await runner.lease()).runs
    stale = pb.LeasedRun(run_id=run.run_id, execution_id=run.execution_id, epoch=run.epoch + 1)
    assert await runner.report(done(stale), done(run)) == [LEASE_LOST, ACCEPTED]
    assert await runner.report(done(run, b'{"other":1}')) == [ALREADY]
    assert (await stack.wait(execution_id)).outputs == {"a": {"ok": True}}
    assert await runner.beat(run) == [LOST]


async def test_a_repeated_request_brings_the_same_runs_and_leases_no_others(stack: Stack, runner: ByHand) -> None:
    for _ in range(3):
        await stack.start(a_graph("a"))
    first = await runner.lease(2, request_id="q1")
    again = await runner.lease(2, request_id="q1")
    assert first == again
    assert len(first.runs) == 2
    await runner.report(done(first.runs[0]))
    assert list((await runner.lease(2, request_id="q1")).runs) == [first.runs[1]], "what has ended since is left out"
    assert len((await runner.lease(2, request_id="q2")).runs) == 1


async def test_a_request_id_that_comes_again_much_later_asks_anew(stack: Stack, runner: ByHand) -> None:
    await stack.start(a_graph("a"))
    [first] = (await runner.lease(request_id="q", wait=5)).runs
    await stack.start(a_graph("b"))
    given = "UPDATE executor.runner SET leased_at = leased_at - interval '9 s' WHERE runner_id = 'r1'"
    await stack.sql.execute("UPDATE executor.run SET started_at = started_at - interval '9 s' WHERE state = 'LEASED'")
    await stack.sql.execute(given)
    assert [run.run_id for run in (await runner.lease(request_id="q", wait=60)).runs] == [first.run_id]
    await stack.sql.execute(given)
    assert [run.node_id for run in (await runner.lease(request_id="q", wait=5)).runs] == ["b"]


async def test_a_call_that_waits_is_answered_when_its_runner_is_told_to_drain(runner: ByHand, stack: Stack) -> None:
    waiting = asyncio.create_task(runner.lease(wait=30))
    await stack.until("SELECT last_seen_at > registered_at FROM executor.runner WHERE runner_id = 'r1'")
    await runner.drain()
    async with asyncio.timeout(10):
        answer = await waiting
    assert (list(answer.runs), answer.drain) == ([], True)


async def test_a_runner_that_serves_all_is_handed_classes_that_nobody_has_written(
    stack: Stack, stub: Any, runner: ByHand
) -> None:
    trying = ByHand(stub, "trying")
    assert (await trying.register(serves_all=True)).runner.serves_all
    await stack.start(a_graph("a", modules={"a": "NotWrittenYet"}))
    assert not (await runner.lease(wait=0)).runs
    assert [run.class_name for run in (await trying.lease()).runs] == ["NotWrittenYet"]


async def test_i12_a_draining_runner_is_handed_nothing(stack: Stack, runner: ByHand) -> None:
    waiting = asyncio.create_task(runner.lease(wait=30))
    await stack.until("SELECT last_seen_at > registered_at FROM executor.runner WHERE runner_id = 'r1'")
    assert (await runner.drain()).state == pb.Runner.DRAINING
    await stack.start(a_graph("a"))
    answer = await waiting
    assert (list(answer.runs), answer.drain) == ([], True)
    assert (await runner.lease(wait=5)).drain
    assert await stack.sql.fetchval("SELECT count(*) FROM executor.run WHERE state = 'LEASED'") == 0


async def test_a_new_incarnation_ends_the_leases_of_the_older_one_and_shuts_it_out(
    stack: Stack, stub: Any, runner: ByHand
) -> None:
    execution_id = await stack.start(a_graph("a"))
    [run] = (await runner.lease()).runs
    newer = ByHand(stub)
    assert (await newer.register()).leases_ended == 1
    for call in (runner.lease(), runner.beat(run), runner.report(done(run)), runner.register()):
        with pytest.raises(RunnerReplaced, match="another process has registered as runner 'r1'"):
            await call
    row = await stack.row(execution_id, "a")
    assert (row["state"], row["lost_leases"], row["failures"]) == ("READY", 1, 0)


async def test_a_process_that_was_replaced_does_not_put_its_modules_in_place_of_the_newer_ones(
    stack: Stack, stub: Any, runner: ByHand
) -> None:
    await runner.register(specs=[ModuleSpec(class_name="Remote", description="older")])
    await ByHand(stub).register(specs=[ModuleSpec(class_name="Remote", description="newer")])
    with pytest.raises(RunnerReplaced):
        await runner.register(specs=[ModuleSpec(class_name="Remote", description="older")])
    said = "SELECT description FROM graph_store.module_spec WHERE class_name = 'Remote'"
    assert await stack.sql.fetchval(said) == "newer"


async def test_who_says_of_a_module_what_is_refused_does_not_take_the_place_of_another(
    stack: Stack, stub: Any, runner: ByHand
) -> None:
    await stack.start(a_graph("a"))
    [run] = (await runner.lease()).runs
    spec = ModuleSpec(class_name="Remote")
    spec.config_schema["type"] = "none"
    with pytest.raises(InvalidRequest, match="configSchema"):
        await ByHand(stub).register(specs=[spec])
    assert await runner.beat(run) == [CONTINUE]


async def test_a_runner_with_the_id_of_an_executor_ends_none_of_its_leases_nor_it_any_of_the_runners(
    make_stack: OpenStack,
) -> None:
    async with make_stack() as stack, open_channel(stack.app.server.address, principal="runner") as channel:
        graph = a_graph("a, b", modules={"a": "HeldModule"}, nodes={"b": {"pool": "gpu"}})
        execution_id = await stack.start(graph)
        await stack.until("SELECT count(*) = 1 FROM executor.run WHERE state = 'LEASED'", what="the own pool holds one")
        runner = ByHand(runner_pb2_grpc.RunnerServiceStub(channel), "runner-one", pool="gpu")
        assert (await runner.register()).leases_ended == 0
        [run] = (await runner.lease()).runs
        parts = stack.app.parts
        again = replace(parts.lease, incarnation=uuid4())
        assert await end_older_incarnations(parts.session, parts.progress, again) == 1, "its own"
        assert (await stack.row(execution_id, "a"))["lost_leases"] == 1
        assert await runner.beat(run) == [CONTINUE]


async def test_who_has_not_registered_is_told_to(stub: Any) -> None:
    with pytest.raises(RunnerNotRegistered, match="no runner 'r1' has registered"):
        await ByHand(stub).lease()
    with pytest.raises(RunnerNotFound):
        await ByHand(stub).drain()


async def test_a_lease_that_a_heartbeat_leaves_out_goes_back_only_as_of_what_the_runner_knew(
    stack: Stack, runner: ByHand
) -> None:
    execution_id = await stack.start(a_graph("a, b"))
    runs = {run.node_id: run for run in (await runner.lease()).runs}
    leased_at = (await stack.row(execution_id, "a"))["started_at"].astimezone(UTC)
    assert await runner.beat(runs["a"]) == [CONTINUE], "nothing is given back without as_of"
    assert await runner.beat(runs["a"], as_of=leased_at + timedelta(seconds=9)) == [CONTINUE]
    assert (await stack.row(execution_id, "b"))["state"] == "LEASED"
    await stack.sql.execute("UPDATE executor.run SET started_at = started_at - interval '20 s'")
    await runner.beat(runs["a"], as_of=leased_at - timedelta(seconds=15))
    assert (await stack.row(execution_id, "b"))["state"] == "LEASED", "the list may be older than the lease"
    await runner.beat(runs["a"], as_of=leased_at - timedelta(seconds=5))
    row = await stack.row(execution_id, "b")
    assert (row["state"], row["lost_leases"], row["failures"], row["epoch"]) == ("READY", 0, 0, 2)
    assert (await stack.row(execution_id, "a"))["state"] == "LEASED"


async def test_a_process_that_serves_two_namespaces_holds_what_it_holds_in_each(
    stack: Stack, stub: Any, runner: ByHand
) -> None:
    """Its heartbeats name the leases of one namespace at a time."""
    await stack.start(a_graph("a"))
    [run] = (await runner.lease()).runs
    elsewhere = ByHand(stub, namespace="other")
    elsewhere.who["incarnation"] = runner.who["incarnation"]
    await elsewhere.register()
    held = {
        namespace: [row.leases for row in (await stub.ListRunners(pb.ListRunnersRequest(namespace=namespace))).runners]
        for namespace in ("default", "other")
    }
    assert held == {"default": [1, 0], "other": [0, 0]}
    await stack.sql.execute("UPDATE executor.run SET started_at = started_at - interval '1 minute'")
    assert await elsewhere.beat(as_of=datetime.now(UTC)) == []
    assert await runner.beat(run, as_of=datetime.now(UTC)) == [CONTINUE]


async def test_i06_a_cancelled_run_is_told_at_the_next_heartbeat(stack: Stack, runner: ByHand) -> None:
    execution_id = await stack.start(a_graph("a"))
    [run] = (await runner.lease()).runs
    await stack.client.executions.cancel(execution_id)
    assert await runner.beat(run) == [CANCEL]
    failed = pb.ReportRunsRequest.Failure(type="CANCELLED", message="stopped")
    assert await runner.report(about(run, failure=failed)) == [ACCEPTED]
    assert (await stack.wait(execution_id)).state == "CANCELLED"


async def test_failure_snooze_and_release_do_what_they_say(stack: Stack, runner: ByHand) -> None:
    execution_id = await stack.start(a_graph("fails, naps, untouched"))
    runs = {run.node_id: run for run in (await runner.lease()).runs}
    snooze, failure = pb.ReportRunsRequest.Snooze(), pb.ReportRunsRequest.Failure(message="oops", stack_trace="line 1")
    snooze.delay.FromSeconds(3600)
    failure.retry_after.FromSeconds(3600)  # its back-off alone might be over already: full jitter begins at nothing
    answers = await runner.report(
        about(runs["fails"], failure=failure),
        about(runs["naps"], snooze=snooze),
        about(runs["untouched"], release=pb.ReportRunsRequest.Release()),
    )
    assert answers == [ACCEPTED] * 3
    rows = {name: await stack.row(execution_id, name) for name in runs}
    assert {name: (row["state"], row["failures"], row["lost_leases"]) for name, row in rows.items()} == {
        "fails": ("READY", 1, 0),
        "naps": ("READY", 0, 0),
        "untouched": ("READY", 0, 0),
    }
    [again] = (await runner.lease(wait=0)).runs
    assert (again.node_id, again.attempt, again.epoch) == ("untouched", 2, 2)


@pytest.mark.parametrize(
    ("outputs", "problem"),
    [
        pytest.param(b"{", "is no JSON", id="no JSON"),
        pytest.param(b'{"x": NaN}', "is no JSON", id="NaN"),
        pytest.param(b'"' + b"x" * (1024 * 1024) + b'"', "over 1048576", id="too large"),
        pytest.param(b"[" * 65 + b"]" * 65, "deeper than 64", id="too deep"),
        pytest.param(rb'{"x": "a\u0000b"}', "NUL", id="NUL"),
    ],
)
async def test_i25_what_cannot_be_stored_is_refused_for_that_result_alone(
    stack: Stack, stub: Any, runner: ByHand, outputs: bytes, problem: str
) -> None:
    await stack.start(a_graph("a, b"))
    first, second = (await runner.lease()).runs
    response = await stub.ReportRuns(pb.ReportRunsRequest(**runner.who, results=[done(first, outputs), done(second)]))
    assert [answer.outcome for answer in response.answers] == [REFUSED, ACCEPTED]
    assert problem in response.answers[0].problem
    assert "results[0].success.outputs" in response.answers[0].problem


async def test_i25_a_result_that_cannot_be_read_is_refused_alone(stack: Stack, stub: Any, runner: ByHand) -> None:
    await stack.start(a_graph("a, b"))
    first, second = (await runner.lease()).runs
    for_ever, nameless = done(first), pb.ReportRunsRequest.Result(run_id="x", success=pb.ReportRunsRequest.Success())
    for_ever.duration.seconds = 2**62
    response = await stub.ReportRuns(pb.ReportRunsRequest(**runner.who, results=[for_ever, nameless, done(second)]))
    assert [answer.outcome for answer in response.answers] == [REFUSED, REFUSED, ACCEPTED]
    assert "results[0].duration: is no duration that fits" in response.answers[0].problem
    assert "results[1].executionId" in response.answers[1].problem


@pytest.mark.parametrize("progress", [b"{", b'"' + b"x" * (64 * 1024) + b'"'], ids=["no JSON", "too large"])
async def test_progress_that_cannot_be_stored_costs_no_lease(
    stack: Stack, runner: ByHand, caplog: pytest.LogCaptureFixture, progress: bytes
) -> None:
    await stack.start(a_graph("a"))
    [run] = (await runner.lease()).runs
    await runner.beat(run, progress=b"1")
    assert await runner.beat(run, progress=progress) == [CONTINUE]
    assert "progress.ignored" in caplog.text
    await runner.report(about(run, release=pb.ReportRunsRequest.Release()))
    assert (await runner.lease()).runs[0].progress == b"1"


async def test_what_a_runner_says_is_neither_compressed_nor_has_much_metadata(stack: Stack, runner: ByHand) -> None:
    """What is sent small must not unfold here; what is refused leaves the connection as it was."""
    await stack.start(a_graph("a"))
    [run] = (await runner.lease()).runs
    report = pb.ReportRunsRequest(**runner.who, results=[done(run, b'"' + b"x" * 100_000 + b'"')])
    compression = grpc.Compression.Gzip
    async with grpc.aio.insecure_channel(stack.app.server.address, compression=compression) as channel:
        with pytest.raises(UnknownMethod), rpc_errors():
            await runner_pb2_grpc.RunnerServiceStub(channel).ReportRuns(report)
    async with grpc.aio.insecure_channel(stack.app.server.address) as channel:
        plain = runner_pb2_grpc.RunnerServiceStub(channel)
        with pytest.raises(ValkyrError), rpc_errors():
            await plain.ReportRuns(report, metadata=(("big", "x" * 9000),))
        [answer] = (await plain.ReportRuns(report)).answers
    assert answer.outcome == ACCEPTED


async def test_progress_is_handed_to_the_next_attempt(stack: Stack, runner: ByHand) -> None:
    await stack.start(a_graph("a"))
    [run] = (await runner.lease()).runs
    assert run.progress == b""
    await runner.beat(run, progress=b'{"page":3}')
    await runner.report(about(run, release=pb.ReportRunsRequest.Release()))
    [again] = (await runner.lease()).runs
    assert again.progress == b'{"page":3}'
    await runner.report(about(again, release=pb.ReportRunsRequest.Release(), progress=b'{"page":4}'))
    [last] = (await runner.lease()).runs
    assert last.progress == b'{"page":4}'


@pytest.mark.parametrize("statement", ["holding.heartbeat_runs", "progress.note_progress"])
async def test_a_deadlock_costs_neither_a_heartbeat_nor_progress(
    stack: Stack, runner: ByHand, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    await stack.start(a_graph("a"))
    [run] = (await runner.lease()).runs
    module, name = statement.split(".")
    where = import_module(f"services.executor.{module}")
    good, deadlocks = getattr(where, name), iter([True])

    async def deadlocked_once(*arguments: Any, **more: Any) -> Any:
        if next(deadlocks, False):
            raise asyncpg.DeadlockDetectedError
        return await good(*arguments, **more)

    monkeypatch.setattr(where, name, deadlocked_once)
    assert await runner.beat(run, progress=b"1") == [CONTINUE]
    assert await runner.report(about(run, release=pb.ReportRunsRequest.Release(), progress=b"2")) == [ACCEPTED]
    assert next(deadlocks, None) is None
    assert (await runner.lease()).runs[0].progress == b"2"


async def test_a_runner_is_handed_what_is_of_its_namespace_its_pool_and_its_classes(stack: Stack, stub: Any) -> None:
    await stack.start(a_graph("a", modules={"a": ("FailModule", {})}))
    mine = await stack.start(a_graph("b", nodes={"b": {"pool": "gpu"}}))
    await stack.start(a_graph("c"))
    strangers = [ByHand(stub, "s1", namespace="other"), ByHand(stub, "s2", namespace="other", pool="gpu")]
    for stranger in strangers:
        await stranger.register()
        assert not (await stranger.lease(wait=0)).runs
    own = ByHand(stub, "own", pool="gpu")
    await own.register()
    assert [run.execution_id for run in (await own.lease(wait=0)).runs] == [mine]


async def test_i06_nobody_speaks_of_leases_in_another_namespace(stack: Stack, stub: Any, runner: ByHand) -> None:
    execution_id = await stack.start(a_graph("a"))
    [run] = (await runner.lease()).runs
    stranger = ByHand(stub, "r1", namespace="other")
    await stranger.register()
    before = dict(await stack.row(execution_id, "a"))
    assert await stranger.beat(run, progress=b'"mine now"') == [LOST]
    assert await stranger.report(done(run), about(run, progress=b"1", release=pb.ReportRunsRequest.Release())) == [
        LEASE_LOST,
        LEASE_LOST,
    ]
    assert dict(await stack.row(execution_id, "a")) == before
    assert await runner.report(done(run)) == [ACCEPTED]
    assert await stranger.report(done(run)) == [LEASE_LOST]


async def test_runners_are_listed_with_what_they_hold(stack: Stack, stub: Any, runner: ByHand) -> None:
    await ByHand(stub, "r2", pool="gpu").register(capacity=7)
    await ByHand(stub, "r3", namespace="other").register()
    await stack.start(a_graph("a, b"))
    await runner.lease()
    pages: list[str] = []
    token = ""
    while not pages or token:
        page = await stub.ListRunners(pb.ListRunnersRequest(page_size=1, page_token=token))
        pages += [row.runner_id for row in page.runners]
        token = page.next_page_token
    assert pages == ["r1", "runner-one", "r2"], "by pool and id"
    shown = {row.runner_id: row for row in (await stub.ListRunners(pb.ListRunnersRequest())).runners}
    assert (shown["r1"].leases, shown["r1"].pool, shown["r1"].state) == (2, "default", pb.Runner.ACTIVE)
    assert (shown["r2"].leases, shown["r2"].capacity) == (0, 7)


async def test_a_runner_with_the_id_of_an_executor_is_not_lost_between_two_pages(stack: Stack, stub: Any) -> None:
    """Executors serve all namespaces, and stand in the lists of each: an id may come twice."""
    await ByHand(stub, "runner-one").register()
    pages, token = [], ""
    while not pages or token:
        page = await stub.ListRunners(pb.ListRunnersRequest(page_size=1, page_token=token))
        pages += [(row.runner_id, row.capacity) for row in page.runners]
        token = page.next_page_token
    whole = (await stub.ListRunners(pb.ListRunnersRequest())).runners
    assert pages == [(row.runner_id, row.capacity) for row in whole] == [("runner-one", 0), ("runner-one", 100)]


async def test_a_runner_that_does_not_call_is_lost_and_after_a_day_forgotten_unless_it_holds_something(
    stack: Stack, stub: Any, runner: ByHand
) -> None:
    await ByHand(stub, "r2").register()
    await stack.start(a_graph("a"))
    await runner.lease()

    async def listed_after(silence: str) -> dict[str, str]:
        await stack.sql.execute("UPDATE executor.runner SET last_seen_at = now() - $1::text::interval", silence)
        await stack.app.parts.look_after_runners()
        listed = (await stub.ListRunners(pb.ListRunnersRequest())).runners
        return {row.runner_id: pb.Runner.State.Name(row.state) for row in listed}

    assert await listed_after("10 minutes") == {"r1": "LOST", "r2": "LOST", "runner-one": "ACTIVE"}
    assert await listed_after("23 hours") == {"r1": "LOST", "r2": "LOST", "runner-one": "ACTIVE"}
    assert await listed_after("25 hours") == {"r1": "LOST", "runner-one": "ACTIVE"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"runner_id": ""}, "runnerId: is required", id="no id"),
        pytest.param({"runner_id": "a b"}, "runnerId: 'a b' is no runner id", id="odd id"),
        pytest.param({"incarnation": "x"}, "incarnation: 'x' is no UUID", id="odd incarnation"),
        pytest.param({"capacity": 0}, "capacity: 0 is not from 1", id="no room"),
        pytest.param({"modules": [ModuleSpec()]}, r"modules\[0\].className: is required", id="no class"),
        pytest.param({"modules": [ModuleSpec(class_name="x" * 256)]}, "256 characters, over 255", id="long class"),
    ],
)
async def test_i25_a_registration_that_cannot_be_read_names_field_value_and_mend(
    stub: Any, change: dict[str, Any], said: str
) -> None:
    good = {"runner_id": "r", "incarnation": str(uuid4()), "capacity": 1}
    with pytest.raises(InvalidRequest, match=said), rpc_errors():
        await stub.RegisterRunner(pb.RegisterRunnerRequest(**{**good, **change}))
