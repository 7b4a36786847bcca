"""Runs whose target is held back: a real breaker, real executors, PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog

from services.breaker import app as breaker_app
from services.breaker import watch as breaker_watch
from services.executor.breakers import mirror as mirrors
from services.executor.breakers import wiring
from services.executor.gateways import BreakerGateway
from services.executor.probes import NOT_HERE
from services.executor.targets import BreakerNews, PermitDecision, PermitRequest
from tests.breaker_lab import (
    NOT_SOON,
    TARGET_NAME,
    BreakerLab,
    calls,
    hold_for,
    open_breaker,
    parked,
    retry_is_due,
)
from tests.breaker_modules import TARGET
from tests.builders import a_graph
from tests.counted_session import CountedSession
from tests.executor_lab import end_loop
from tests.executor_modules import GATES
from tests.executor_stack import MODULES, Stack, add_executor, eventually, open_stack, until_true
from tests.integration.executor.test_outbox import ToldDlq, outbox_of
from tests.integration.executor.test_parking import park
from tests.integration.executor.test_remote_runners import ByHand, done
from valkyr.api.executor.v1.runner_pb2_grpc import RunnerServiceStub
from valkyr.errors import Internal, Unavailable
from valkyr.graph.model import Graph, Module
from valkyr.rpc.channel import open_channel

EAGER = {"max_attempts": 1000, "backoff_base_ms": 1, "backoff_max_ms": 20}
RUNNER = {"modules": (*MODULES, "tests.breaker_modules"), "retry": EAGER}

Open = Callable[..., AbstractAsyncContextManager[tuple[Stack, BreakerLab]]]


@pytest.fixture(autouse=True)
def target() -> None:
    TARGET.reset()


@asynccontextmanager
async def _open(
    url: str, home: Path, *, runner: dict[str, Any] | None = None, names: Sequence[str] = ("one",), **breaker: Any
) -> AsyncIterator[tuple[Stack, BreakerLab]]:
    async with open_breaker(url, **breaker) as lab:
        settings = {"runner": {**RUNNER, **(runner or {})}, "breaker": lab.address}
        async with open_stack(url, home, names=names, **settings) as stack:
            yield stack, lab


@pytest.fixture
def opened(migrated_database_url: Callable[..., str], tmp_path: Path) -> Open:
    """`async with opened(timeout_duration=..., runner={...}) as (stack, breaker):`"""
    return partial(_open, migrated_database_url("graph_store", "executor", "breaker"), tmp_path)


async def held(stack: Stack, target: str = TARGET_NAME, *, executor: int = 0) -> None:
    """Waits until the executor knows that the target is held back."""
    mirror = stack.executors[executor].parts.breakers.mirror
    await until_true(lambda: not mirror.closed("default", target), "the mirror knows of the trip")


async def test_i17_an_executor_hears_of_a_trip_without_a_look(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told of it: nobody waits for the time of the next look."""
    for module in (breaker_app, breaker_watch):
        monkeypatch.setattr(module, "LOOK_INTERVAL_HEARING", timedelta(hours=1))
    async with opened(timeout_duration=NOT_SOON) as (stack, breaker):
        mirror = stack.app.parts.breakers.mirror
        await until_true(lambda: not mirror.away, "the executor watches")
        await breaker.trip()
        await held(stack)


async def test_i17_failing_calls_open_the_breaker_and_probes_bring_everything_back(opened: Open) -> None:
    async with opened() as (stack, breaker):
        TARGET.up = False
        nodes = [f"n{number}" for number in range(8)]
        execution = await stack.start(calls(*nodes))
        await parked(stack, execution, 8)
        assert await breaker.state() in ("OPEN", "HALF_OPEN")
        TARGET.up = True
        assert (await stack.wait(execution)).state == "SUCCESS"
        await eventually(lambda: _is(breaker, "CLOSED"), "the breaker has closed")
        rows = await stack.sql.fetch("SELECT parked_by, parked_ms, retry_after, target FROM executor.run")
        assert {(row["parked_by"], row["retry_after"], row["target"]) for row in rows} == {(None, None, TARGET_NAME)}
        assert all(row["parked_ms"] > 0 for row in rows)


async def _is(breaker: BreakerLab, state: str) -> bool:
    return await breaker.state() == state


async def test_i19_a_parked_run_burns_no_attempt_and_holds_no_slot(opened: Open) -> None:
    async with opened(timeout_duration=NOT_SOON, runner={"concurrency": 1}) as (stack, breaker):
        await breaker.trip()
        await held(stack)
        execution = await stack.start(calls("a", "b"))
        await parked(stack, execution, 2)
        row = await stack.row(execution, "a")
        assert (row["attempt"], row["epoch"], row["failures"], row["lost_leases"]) == (0, 0, 0, 0)
        assert row["episode_id"] == UUID((await breaker.get()).episode_id)
        minutes_left = "SELECT extract(epoch FROM retry_after - now()) / 60 FROM executor.run WHERE id = $1"
        assert 58 < await stack.sql.fetchval(minutes_left, row["id"]) <= 60
        assert TARGET.calls.total() == 0
        assert (await stack.run(a_graph("x -> y -> z"))).state == "SUCCESS"


async def test_i17_a_target_read_from_the_resolved_config_is_held_back_too(opened: Open) -> None:
    async with opened(timeout_duration=NOT_SOON) as (stack, breaker):
        await breaker.trip("http:api.example.com")
        await held(stack, "http:api.example.com")
        graph = a_graph("a", modules={"a": ("HttpRequestModule", {"url": "https://${trigger.host}/"})})
        execution = await stack.start(graph, payload={"host": "api.example.com"})
        await parked(stack, execution, 1)
        assert (await stack.row(execution, "a"))["target"] == "http:api.example.com"


async def test_i17_no_more_probes_are_in_flight_than_the_policy_permits_over_all_executors(opened: Open) -> None:
    async with opened(half_open_permits=2, half_open_success_threshold=2, names=("one", "two")) as (stack, breaker):
        await breaker.trip()
        for executor in range(2):
            await held(stack, executor=executor)
        TARGET.answers.clear()
        execution = await stack.start(calls(*(f"n{number}" for number in range(20))))
        await until_true(lambda: TARGET.in_flight == 2, "two probes are under way")
        await parked(stack, execution, 18)
        leased = await stack.sql.fetch("SELECT permit_id, attempt FROM executor.run WHERE state = 'LEASED'")
        assert len({row["permit_id"] for row in leased} - {None}) == 2
        # Refused: the others have asked, or were asked for, and wait.
        await stack.until("SELECT bool_and(attempt = 0) FROM executor.run WHERE state = 'PARKED'")
        assert TARGET.most == 2
        TARGET.answers.set()
        assert (await stack.wait(execution)).state == "SUCCESS"
        assert sum(TARGET.calls.values()) == 20


async def test_a_probe_that_fails_is_a_real_attempt_and_the_others_wait_on(opened: Open) -> None:
    async with opened() as (stack, breaker):
        await breaker.trip()
        await held(stack)
        TARGET.up = False
        execution = await stack.start(calls("a", "b", "c"))
        await until_true(lambda: TARGET.calls.total() >= 3, "three probes have failed")
        generation = (await breaker.get()).generation
        assert generation >= 5  # open, half open, open, ...: each probe's failure opened it anew
        TARGET.up = True
        assert (await stack.wait(execution)).state == "SUCCESS"
        failures = await stack.sql.fetchval("SELECT sum(failures) FROM executor.run")
        assert failures == TARGET.calls.total() - 3


async def test_runs_parked_before_the_executor_was_restarted_come_back(opened: Open) -> None:
    async with opened(names=(), timeout_duration=NOT_SOON) as (stack, breaker):
        settings = {"runner": RUNNER, "breaker": breaker.address}
        async with add_executor(stack, name="one", **settings):
            await breaker.trip()
            await held(stack)
            execution = await stack.start(calls("a", "b"))
            await parked(stack, execution, 2)
        assert TARGET.calls.total() == 0
        await retry_is_due(stack)
        async with add_executor(stack, name="one", **settings):
            assert (await stack.wait(execution)).state == "SUCCESS"
            assert (await stack.row(execution, "a"))["attempt"] == 1


async def test_i17_an_executor_hears_of_the_breakers_before_it_leases_what_waits_for_it(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = BreakerGateway.watch

    async def from_far_away(gateway: BreakerGateway) -> AsyncIterator[BreakerNews]:
        await asyncio.sleep(0.4)
        async with aclosing(watch(gateway)) as news:  # type: ignore[type-var]
            async for message in news:
                yield message

    monkeypatch.setattr(BreakerGateway, "watch", from_far_away)
    monkeypatch.setattr(wiring, "FIRST_LOOK", NOT_SOON)
    monkeypatch.setattr(mirrors, "FIRST_NEWS", NOT_SOON)
    async with opened(names=(), timeout_duration=NOT_SOON) as (stack, breaker):
        await breaker.trip()
        idle = {**RUNNER, "concurrency": 0}
        async with add_executor(stack, name="idle", runner=idle, breaker=breaker.address):
            execution = await stack.start(calls("a"))
        async with add_executor(stack, name="one", runner=RUNNER, breaker=breaker.address):
            await parked(stack, execution, 1)
            assert TARGET.calls.total() == 0


async def test_i17_a_probe_cut_off_by_a_restart_gives_its_permit_back(opened: Open) -> None:
    async with opened(names=()) as (stack, breaker):
        settings = {"runner": RUNNER, "breaker": breaker.address}
        TARGET.answers.clear()
        async with add_executor(stack, name="one", **settings):
            await breaker.trip()
            await held(stack)
            execution = await stack.start(calls("a", "b"))
            await until_true(lambda: TARGET.in_flight == 1, "the only permit is in use")
        TARGET.answers.set()
        async with add_executor(stack, name="one", **settings):
            assert (await stack.wait(execution)).state == "SUCCESS"


async def test_runs_parked_before_the_breaker_was_restarted_come_back(opened: Open) -> None:
    async with opened(timeout_duration=NOT_SOON) as (stack, breaker):
        await breaker.trip()
        await held(stack)
        execution = await stack.start(calls("a", "b"))
        await parked(stack, execution, 2)
        await breaker.stop()
        await until_true(lambda: stack.app.parts.breakers.mirror.away, "the breaker is away")
        await retry_is_due(stack)
        await breaker.start()
        await until_true(lambda: not stack.app.parts.breakers.mirror.away, "the breaker is back")
        assert (await stack.wait(execution)).state == "SUCCESS"
        await eventually(lambda: _is(breaker, "CLOSED"), "a probe has closed it")


async def test_i16_with_the_breaker_away_runs_go_on_and_parked_ones_come_back_when_due(opened: Open) -> None:
    async with opened(timeout_duration=NOT_SOON) as (stack, breaker):
        await breaker.trip()
        await held(stack)
        execution = await stack.start(calls("a", "b"))
        await parked(stack, execution, 2)
        await breaker.stop()
        assert (await stack.run(calls("other", target="test:other"))).state == "SUCCESS"
        await until_true(lambda: stack.app.parts.breakers.mirror.away, "the breaker is away")
        await stack.sql.execute("UPDATE executor.run SET retry_after = now() + interval '1 s' WHERE state = 'PARKED'")
        hold_for(stack, timedelta(seconds=1))
        assert (await stack.wait(execution)).state == "SUCCESS"
        assert not stack.app.parts.health.problems


async def test_i16_an_executor_that_never_met_a_breaker_runs_everything(
    migrated_database_url: Callable[..., str], tmp_path: Path
) -> None:
    url = migrated_database_url("graph_store", "executor")
    async with open_stack(url, tmp_path, runner=RUNNER, breaker="127.0.0.1:1") as stack:
        assert (await stack.run(calls("a"))).state == "SUCCESS"


async def test_i17_a_policy_that_denies_holds_runs_back_while_the_breaker_is_away(opened: Open) -> None:
    async with opened(on_unavailable="DENY") as (stack, breaker):
        await breaker.stop()
        await until_true(lambda: stack.app.parts.breakers.mirror.away, "the breaker is away")
        execution = await stack.start(calls("a"))
        await parked(stack, execution, 1)
        assert (await stack.run(a_graph("free"))).state == "SUCCESS"
        assert TARGET.calls.total() == 0
        await breaker.start()
        assert (await stack.wait(execution)).state == "SUCCESS"


class _Overtaken:
    """Leave is given, and then the first run that got it is changed before it can be leased."""

    def __init__(self, stack: Stack, change: str) -> None:
        self._stack = stack
        self._permits = stack.app.parts.breakers.gateway
        self._change = change
        self.given: list[PermitDecision] = []

    async def acquire_permits(self, requests: Sequence[PermitRequest]) -> list[PermitDecision]:
        decisions = await self._permits.acquire_permits(requests)
        for request, decision in zip(requests, decisions, strict=True):
            if decision.permit_id is not None and not self.given:
                self.given.append(decision)
                async with self._stack.app.parts.session.transaction() as tx:
                    await tx.execute(
                        f"UPDATE executor.run SET {self._change} WHERE id = $1 AND $2::uuid IS NOT NULL",
                        request.run_id,
                        decision.permit_id,
                    )
        return decisions


async def test_a_permit_whose_run_is_gone_is_given_back_and_the_next_run_probes(opened: Open) -> None:
    async with opened() as (stack, breaker):
        taken = _Overtaken(stack, "state = 'CANCELLED', parked_by = NULL")
        stack.app.parts.probes._permits = taken
        await breaker.trip()
        await held(stack)
        await stack.start(calls("a", "b"))
        await stack.until("SELECT count(*) = 1 FROM executor.run WHERE state = 'SUCCESS'", what="the other has run")
        assert len(taken.given) == 1
        assert TARGET.calls.total() == 1
        await eventually(lambda: _is(breaker, "CLOSED"), "its probe has closed the breaker")


async def test_i17_a_permit_under_which_another_replica_leased_the_run_stays_with_it(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened() as (stack, breaker):
        leased = """state = 'LEASED', parked_by = NULL, epoch = epoch + 1, attempt = attempt + 1, permit_id = $2,
            leased_by = 'another', runner_id = 'another', lease_until = now() + interval '1 h', started_at = now()"""
        parts = stack.app.parts
        taken = _Overtaken(stack, leased)
        parts.probes._permits = taken
        give_back, given_back = parts.probes._give_back, []

        async def noted(unused: Any) -> None:
            await give_back(unused)
            given_back.append(unused)

        monkeypatch.setattr(parts.probes, "_give_back", noted)
        await breaker.trip()
        await held(stack)
        await stack.start(calls("a", "b"))
        await until_true(lambda: given_back, "what was not used has been seen to")
        await parts.breakers.outcomes.step()
        assert (await breaker.get()).permits_in_flight == 1
        assert TARGET.calls.total() == 0


class _Broken:
    """Answers nothing that anybody could use, so often, and then as it should."""

    def __init__(self, permits: Any, times: int) -> None:
        self._permits = permits
        self.times = times
        self.asked: list[UUID] = []

    async def acquire_permits(self, requests: Sequence[PermitRequest]) -> list[PermitDecision]:
        self.asked += [request.run_id for request in requests]
        if self.times:
            self.times -= 1
            raise Internal("what nobody foresaw")
        decisions: list[PermitDecision] = await self._permits.acquire_permits(requests)
        return decisions


async def test_i19_a_parked_run_past_its_deadline_is_quarantined_as_held_back_by_its_breaker(opened: Open) -> None:
    async with opened(timeout_duration=NOT_SOON) as (stack, breaker):
        await breaker.trip()
        await held(stack)
        graph = calls("a")
        limited = replace(graph, nodes=tuple(replace(node, deadline=NOT_SOON) for node in graph.nodes))
        execution = await stack.start(limited)
        await parked(stack, execution, 1)
        await stack.pass_deadlines()
        assert (await stack.wait(execution)).state == "FAILED"
        row = await stack.row(execution, "a")
        assert (row["state"], row["attempt"], TARGET.calls.total()) == ("QUARANTINED", 0, 0)
        dlq = ToldDlq()
        assert await outbox_of(stack, dlq).step() is None
        [letter] = dlq.letters["a"]
        assert letter.row.record.failure_type == "CIRCUIT_BREAKER"
        assert letter.row.target == TARGET_NAME
        assert letter.row.episode_id == UUID((await breaker.get()).episode_id)
        assert list(letter.attempts) == []


async def test_runs_are_parked_many_at_a_time_however_little_room_there_is(opened: Open) -> None:
    runner = {"concurrency": 2, "poll_interval": NOT_SOON}
    async with opened(timeout_duration=NOT_SOON, runner=runner) as (stack, breaker):
        await breaker.trip()
        await held(stack)
        dispatcher = stack.app.parts.dispatcher
        counted = CountedSession(dispatcher._session)
        dispatcher._session = counted  # type: ignore[assignment]
        nodes = [f"n{number}" for number in range(1_000)]
        well = {f"w{number}": Module(f"w{number}", "CallModule", target="test:well") for number in range(20)}
        ill = {node: Module(node, "CallModule", target=TARGET_NAME) for node in nodes}
        execution = await stack.start(a_graph(", ".join([*ill, *well]), modules={**ill, **well}))
        await parked(stack, execution, 1_000)
        await stack.until("SELECT count(*) = 20 FROM executor.run WHERE state = 'SUCCESS'")
        assert counted.statements < 300, "it took a transaction for every two of them"
        assert TARGET.most <= 2


async def test_runs_whose_target_is_known_from_their_config_alone_are_parked_many_at_a_time(opened: Open) -> None:
    runner = {"concurrency": 2, "poll_interval": NOT_SOON}
    async with opened(timeout_duration=NOT_SOON, runner=runner) as (stack, breaker):
        await breaker.trip("http:api.example.com")
        await held(stack, "http:api.example.com")
        sizes: list[int] = []
        dispatcher = stack.app.parts.dispatcher
        lease_in = dispatcher._lease_in

        async def noted(tx: Any, **options: int) -> Any:
            batch = await lease_in(tx, **options)
            sizes.append(len(batch.parked))
            return batch

        dispatcher._lease_in = noted  # type: ignore[method-assign]
        nodes = [f"n{number}" for number in range(100)]
        modules = dict.fromkeys(nodes, ("HttpRequestModule", {"url": "https://${trigger.host}/"}))
        execution = await stack.start(a_graph(", ".join(nodes), modules=modules), payload={"host": "api.example.com"})
        await parked(stack, execution, 100)
        assert max(sizes) >= 90


async def test_a_step_that_parks_a_long_queue_ends_now_and_then(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.executor.dispatcher.TURN", 0.0)
    runner = {"concurrency": 2, "poll_interval": NOT_SOON}
    async with opened(timeout_duration=NOT_SOON, runner=runner) as (stack, breaker):
        await breaker.trip()
        await held(stack)
        dispatcher = stack.app.parts.dispatcher
        lease_all, answers = dispatcher._lease_all, []

        async def noted() -> timedelta | None:
            answers.append(await lease_all())
            return answers[-1]

        dispatcher._lease_all = noted  # type: ignore[method-assign]
        execution = await stack.start(calls(*(f"n{number}" for number in range(600))))
        await parked(stack, execution, 600)
        assert timedelta() in answers


async def test_a_target_that_this_pool_cannot_probe_keeps_no_other_from_it(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.executor.probes.PERMITS", 1)
    async with opened(timeout_duration=NOT_SOON, runner={"poll_interval": NOT_SOON}) as (stack, breaker):
        mirror, probes = stack.app.parts.breakers.mirror, stack.app.parts.probes
        later = f"{TARGET_NAME} later"
        for target in (TARGET_NAME, later):
            await breaker.trip(target)
            await held(stack, target)
        elsewhere = await parked_elsewhere(stack)
        await parked(stack, await stack.start(calls("a", target=later)), 1)
        for target in (TARGET_NAME, later):
            mirror.hold(("default", target), timedelta())
        await probes.step()
        await probes.step()
        assert timedelta() < probes._not_here(TARGET_KEY) <= NOT_HERE
        assert mirror.wait("default", later) > timedelta(minutes=1), "leave was asked for, and refused"
        await park(stack, elsewhere, "p", due=-1, target=TARGET_NAME)
        await probes.step()
        assert await stack.sql.fetchval("SELECT retry_after < now() FROM executor.run WHERE node_id = 'p'"), "moved"


async def test_a_breaker_that_cannot_answer_fails_no_loop_and_burns_no_attempt(opened: Open) -> None:
    async with opened() as (stack, breaker):
        probes = stack.app.parts.probes
        broken = _Broken(stack.app.parts.breakers.gateway, times=1)
        probes._permits = broken
        await breaker.trip()
        await held(stack)
        with structlog.testing.capture_logs() as events:
            execution = await stack.start(calls("a"))
            assert (await stack.wait(execution)).state == "SUCCESS"
        assert (await stack.row(execution, "a"))["attempt"] == 1
        told = [event["event"] for event in events]
        assert "permits.not_answered" in told
        assert "loop.failing" not in told
        assert told.count("run.parked") == 1


async def test_a_probe_does_not_wait_behind_a_long_queue_of_other_runs(opened: Open) -> None:
    async with opened(timeout_duration=NOT_SOON, runner={"concurrency": 2}) as (stack, breaker):
        await breaker.trip()
        await held(stack)
        held_back = await stack.start(calls("a"))
        await parked(stack, held_back, 1)
        nodes = [f"w{number}" for number in range(800)]
        graph = a_graph(", ".join(nodes), modules={node: ("WorkModule", {"milliseconds": 20}) for node in nodes})
        queue = await stack.start(graph)
        await retry_is_due(stack)
        hold_for(stack, timedelta())
        assert (await stack.wait(held_back)).state == "SUCCESS"
        open_runs = "SELECT open_runs FROM executor.workflow_execution WHERE id = $1"
        left = await stack.sql.fetchval(open_runs, UUID(queue))
        assert left > 0, "the queue was drained before the probe"
        await stack.until(f"SELECT ({open_runs}) < $2", UUID(queue), left, what="the queue goes on")


TARGET_KEY = ("default", TARGET_NAME)
PARKED_BEHIND_A_FULL_POOL = [
    pytest.param(1, 1, 1, id="the only slot"),
    pytest.param(2, 3, 1, id="never the whole pool"),
    pytest.param(4, 1, 1, id="as many as there are probes"),
    pytest.param(4, 3, 2, id="no more than two"),
]


async def a_full_pool(stack: Stack, slots: int) -> None:
    """Runs that hold every slot until the gate is opened."""
    nodes = [f"h{number}" for number in range(slots)]
    await stack.start(a_graph(", ".join(nodes), modules=dict.fromkeys(nodes, "HeldModule")))
    await until_true(lambda: GATES.running == slots, "the pool is full")


def a_queue() -> Graph:
    """Runs that nothing keeps from running, but for room."""
    nodes = [f"q{number}" for number in range(20)]
    return a_graph(", ".join(nodes), modules=dict.fromkeys(nodes, "BriefModule"))


async def parked_elsewhere(stack: Stack) -> str:
    """An execution with a run that is parked for the target and that this pool cannot take."""
    execution = await stack.start(a_graph("p", nodes={"p": {"pool": "elsewhere"}}))
    await park(stack, execution, "p", due=-1, target=TARGET_NAME)
    return execution


@pytest.mark.parametrize(("slots", "probes", "free"), PARKED_BEHIND_A_FULL_POOL)
async def test_slots_are_left_free_for_probes_that_are_due_and_only_until_leave_was_asked(
    opened: Open, slots: int, probes: int, free: int
) -> None:
    runner = {"concurrency": slots, "poll_interval": NOT_SOON}
    async with opened(timeout_duration=NOT_SOON, half_open_permits=3, runner=runner) as (stack, breaker):
        parts = stack.app.parts
        await breaker.trip()
        await held(stack)
        await parked(stack, await stack.start(calls(*(f"n{number}" for number in range(probes)))), probes)
        await a_full_pool(stack, slots)
        queue = await stack.start(a_queue())
        parts.breakers.mirror.hold(TARGET_KEY, timedelta())
        await parts.probes.step()
        assert parts.breakers.turn.waiting == free
        GATES.open.set()
        assert (await stack.wait(queue)).state == "SUCCESS"
        mirror = parts.breakers.mirror
        await until_true(lambda: mirror.wait(*TARGET_KEY) > timedelta(minutes=1), "leave is asked for, and refused")
        await until_true(lambda: parts.breakers.turn.waiting == 0, "no slot is left free")


async def test_a_probe_that_this_pool_cannot_take_leaves_no_slot_idle(opened: Open) -> None:
    runner = {"concurrency": 1, "poll_interval": NOT_SOON}
    async with opened(timeout_duration=NOT_SOON, runner=runner) as (stack, breaker):
        parts = stack.app.parts
        await breaker.trip()
        await held(stack)
        await parked_elsewhere(stack)
        await a_full_pool(stack, 1)
        queue = await stack.start(a_queue())
        await end_loop("probes")
        parts.breakers.mirror.hold(TARGET_KEY, timedelta())
        assert await parts.probes.step() == NOT_HERE
        GATES.open.set()
        assert (await stack.wait(queue)).state == "SUCCESS"


async def test_probes_that_cannot_be_looked_for_leave_no_slot_idle(opened: Open) -> None:
    runner = {"concurrency": 1, "poll_interval": NOT_SOON}
    async with opened(timeout_duration=NOT_SOON, runner=runner) as (stack, breaker):
        parts = stack.app.parts
        await breaker.trip()
        await held(stack)
        await parked(stack, await stack.start(calls("a")), 1)
        await a_full_pool(stack, 1)
        queue = await stack.start(a_queue())
        parts.breakers.mirror.hold(TARGET_KEY, timedelta())
        await parts.probes.step()
        parts.probes._session = _Away()  # type: ignore[assignment]
        with pytest.raises(Unavailable):
            await parts.probes.step()
        GATES.open.set()
        assert (await stack.wait(queue)).state == "SUCCESS"


class _Away:
    """A session without a database."""

    def reading(self) -> Any:
        raise Unavailable("the database is away")


async def test_an_executor_without_slots_asks_for_no_leave(opened: Open) -> None:
    async with opened(timeout_duration=NOT_SOON, runner={"concurrency": 0}) as (stack, breaker):
        parts = stack.app.parts
        await breaker.trip()
        await held(stack)
        await park(stack, await stack.start(calls("a")), "a", due=-1, target=TARGET_NAME)
        await end_loop("probes")
        parts.breakers.mirror.hold(TARGET_KEY, timedelta())
        counted = CountedSession(parts.session)
        parts.probes._session = counted  # type: ignore[assignment]
        assert await parts.probes.step() is None, "it would look again at once, for ever"
        assert counted.statements == 1


async def test_two_thousand_parked_runs_come_back_in_a_few_statements(opened: Open) -> None:
    async with opened(runner={"concurrency": 0}) as (stack, _):
        await end_loop("probes")
        execution = await stack.start(calls(*(f"n{number}" for number in range(2_000))))
        await stack.sql.execute(
            """UPDATE executor.run SET state = 'PARKED', parked_by = 'BREAKER', parked_at = now() - interval '1 s',
               target = $1, retry_after = now() + interval '1 hour'""",
            TARGET_NAME,
        )
        probes = stack.app.parts.probes
        counting = CountedSession(probes._session)
        probes._session = counting  # type: ignore[assignment]
        await probes.step()
        assert set((await stack.states(execution)).values()) == {"READY"}
        assert counting.statements <= 8
        assert await stack.sql.fetchval("SELECT min(parked_ms) >= 1000 AND max(attempt) = 0 FROM executor.run")


async def test_a_probe_does_not_wait_behind_a_long_queue_of_other_runs_that_a_remote_runner_takes(
    opened: Open,
) -> None:
    async with opened(runner={"concurrency": 0}) as (stack, breaker):
        channel = open_channel(stack.app.server.address, principal="runner")
        try:
            runner = ByHand(RunnerServiceStub(channel))
            await runner.register(classes=("CallModule", "NoopModule"))
            await breaker.trip()
            await held(stack)
            held_back = await stack.start(calls("a"))
            await park(stack, held_back, "a", due=-1, target=TARGET_NAME)
            await stack.start(a_graph(", ".join(f"w{number}" for number in range(1000))))
            taken = [(await runner.lease(1)).runs[0]]
            while taken[-1].class_name != "CallModule":
                await runner.report(done(taken[-1]))
                taken += (await runner.lease(1)).runs
            assert len(taken) < 1000, "the queue was drained before the probe"
            await runner.report(done(taken[-1]))
            assert (await stack.wait(held_back)).state == "SUCCESS"
        finally:
            await channel.close()


@asynccontextmanager
async def remote(stack: Stack, *namespaces: str) -> AsyncIterator[list[ByHand]]:
    """Runners that take calls, one in each namespace."""
    channel = open_channel(stack.app.server.address, principal="runner")
    try:
        runners = [ByHand(RunnerServiceStub(channel), namespace=namespace) for namespace in namespaces]
        for runner in runners:
            await runner.register(classes=("CallModule",))
        yield runners
    finally:
        await channel.close()


async def due_for_a_remote_runner(stack: Stack, breaker: BreakerLab) -> str:
    """An execution with a run that is parked, and leave for it to be had."""
    await breaker.trip()
    await held(stack)
    execution = await stack.start(calls("a"))
    await park(stack, execution, "a", due=-1, target=TARGET_NAME)
    mirror = stack.app.parts.breakers.mirror
    await until_true(lambda: mirror.wait(*TARGET_KEY) == timedelta(), "the target is due")
    return execution


async def test_no_runner_is_handed_the_probe_of_another_namespace(opened: Open) -> None:
    async with opened(runner={"concurrency": 0}) as (stack, breaker), remote(stack, "", "other") as (runner, stranger):
        execution = await due_for_a_remote_runner(stack, breaker)
        assert list((await stranger.lease(wait=0)).runs) == []
        row = await stack.row(execution, "a")
        assert (row["state"], row["attempt"], row["lost_leases"]) == ("PARKED", 0, 0)
        assert (await breaker.get()).permits_in_flight == 0
        [run] = (await runner.lease()).runs
        assert run.execution_id == execution


async def _drains(stack: Stack) -> None:
    await stack.sql.execute("UPDATE executor.runner SET draining = true WHERE runner_id = 'r1'")


async def _is_gone(stack: Stack) -> None:
    for lane in stack.app.parts.lending._lanes.values():
        for caller in lane._callers.waiting:
            caller.answer.cancel()


@pytest.mark.parametrize("becomes", [_drains, _is_gone])
async def test_i17_leave_goes_back_where_whoever_it_was_asked_for_takes_nothing_any_more(
    opened: Open, monkeypatch: pytest.MonkeyPatch, becomes: Callable[[Stack], Awaitable[None]]
) -> None:
    """Else nobody might try the target before the time is over for which the leave was held."""
    async with opened(runner={"concurrency": 0}) as (stack, breaker), remote(stack, "") as [runner]:
        execution = await due_for_a_remote_runner(stack, breaker)
        acquire = BreakerGateway.acquire_permits

        async def acquired(gateway: BreakerGateway, requests: Sequence[PermitRequest]) -> list[PermitDecision]:
            decisions = await acquire(gateway, requests)
            assert [decision.allowed for decision in decisions] == [True]
            await becomes(stack)
            return decisions

        monkeypatch.setattr(BreakerGateway, "acquire_permits", acquired)
        await asyncio.gather(runner.lease(wait=1), return_exceptions=True)

        async def gone_back() -> bool:
            return (await breaker.get()).permits_in_flight == 0

        await eventually(gone_back, "the leave has gone back")
        assert (await stack.row(execution, "a"))["attempt"] == 0
