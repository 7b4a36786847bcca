"""The own pool: how many run at once, who comes first, how it drains, and what becomes of leases that nobody keeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from services.chassis.settings import SettingsError
from services.executor.breakers.mirror import Mirror
from services.executor.handoff import Handoff
from services.executor.runner_id import kept_runner_id
from services.executor.signals import Readiness
from tests.builders import a_chain, a_fan, a_graph
from tests.executor_lab import DONE, Lab, NotingPool
from tests.executor_modules import GATES
from tests.executor_stack import Stack, add_executor, until_true
from tests.integration.executor.conftest import OpenStack
from tests.unit.executor.breakers import Silent
from valkyr.client import ExecutionState, Start
from valkyr.flow.ids import run_id
from valkyr.flow.results import Lost, Omitted, Release
from valkyr.graph.model import Graph
from valkyr.runner.leases import HeartbeatAnswer, LeaseRef


@pytest.fixture
async def idle(make_stack: OpenStack) -> AsyncIterator[Stack]:
    """A stack whose executor leases nothing."""
    async with make_stack(runner={"concurrency": 0}) as stack:
        yield stack


def all_of(class_name: str, arrows: str) -> Graph:
    return a_graph(arrows, modules={node.node_id: class_name for node in a_graph(arrows).nodes})


LEASED = "SELECT count(*) FROM executor.run WHERE state = 'LEASED'"


async def test_i13_no_more_modules_run_at_once_than_the_concurrency(make_stack: OpenStack) -> None:
    async with make_stack(runner={"concurrency": 7}) as stack:
        fan = await stack.save(all_of("BriefModule", "\n".join(f"s -> m{i} -> e" for i in range(120))))
        many = await stack.save(all_of("BriefModule", "a -> b -> c"))
        one, *rest = await stack.client.executions.start_many([Start(fan), *[Start(many)] * 60])
        for execution in (one, *rest):
            assert (await stack.wait(execution.id)).state is ExecutionState.SUCCESS

        assert 1 < GATES.most <= 7
        assert GATES.started.total() == 122 + 180
        await until_true(lambda: stack.app.parts.worker.room() == 7, "all room is free again")
        assert stack.app.parts.worker.live == {}


async def test_i13_as_many_are_leased_as_there_is_room_and_the_rest_stays_ready(make_stack: OpenStack) -> None:
    async with make_stack(runner={"concurrency": 5}) as stack:
        execution_id = await stack.start(all_of("HeldModule", ", ".join(f"n{i}" for i in range(12))))
        await until_true(lambda: GATES.running == 5, "five run")
        assert await stack.sql.fetchval(LEASED) == 5
        assert stack.app.parts.handoff.room() == 0
        assert sorted((await stack.states(execution_id)).values()) == ["LEASED"] * 5 + ["READY"] * 7

        GATES.open.set()
        await stack.wait(execution_id)
        assert GATES.most == 5


async def test_two_executors_share_the_work_and_no_run_is_leased_twice(make_stack: OpenStack) -> None:
    async with make_stack(names=("one", "two"), runner={"concurrency": 4, "poll_interval": "PT0.1S"}) as stack:
        execution_id = await stack.start(all_of("HeldModule", ", ".join(f"n{i}" for i in range(300))))
        await until_true(lambda: GATES.running == 8, "both pools are full")
        GATES.open.set()
        await stack.wait(execution_id)
        assert set(GATES.started.values()) == {1}
        assert await stack.sql.fetchval("SELECT max(attempt) FROM executor.run") == 1
        assert await stack.sql.fetchval("SELECT count(*) FROM executor.run_attempt") == 0
        runners = await stack.sql.fetch("SELECT DISTINCT runner_id FROM executor.run")
        assert {row[0] for row in runners} == {"runner-one", "runner-two"}


async def test_the_most_urgent_runs_are_leased_first_and_equals_in_order(make_stack: OpenStack) -> None:
    async with make_stack(runner={"concurrency": 1}) as stack:
        workflow_id = await stack.save(all_of("HeldModule", "first"))
        await stack.client.executions.start(workflow_id)
        await until_true(lambda: GATES.running == 1, "the pool is full")
        for name, priority in (("low", -100), ("mid-a", 0), ("high", 100), ("mid-b", 0), ("above", 1)):
            await stack.client.executions.start(await stack.save(all_of("BriefModule", name)), priority=priority)
        boosted = a_graph("boosted", modules={"boosted": "BriefModule"}, nodes={"boosted": {"priority": 50}})
        last = await stack.client.executions.start(await stack.save(boosted))

        GATES.open.set()
        await stack.wait(last.id)
        await stack.until("SELECT bool_and(state = 'SUCCESS') FROM executor.run")

        assert GATES.order == ["first", "high", "boosted", "above", "mid-a", "mid-b", "low"]


async def test_an_urgent_retry_is_found_though_less_urgent_runs_were_leased_meanwhile(make_stack: OpenStack) -> None:
    """What is due later stands before the mark that later, less urgent leases have set."""
    async with make_stack(runner={"concurrency": 2, "poll_interval": "PT10M"}) as stack:
        urgent = await stack.save(all_of("BriefModule", "urgent"))
        calm = await stack.save(all_of("BriefModule", "calm"))
        await stack.run(a_graph("warm"))
        lab = Lab(stack)
        held = await stack.start(all_of("HeldModule", "h0, h1"))
        await until_true(lambda: GATES.running == 2, "the pool is full")
        execution = await stack.client.executions.start(urgent, priority=50)
        calm_ones = await stack.client.executions.start_many([Start(calm)] * 3)
        await stack.sql.execute(
            """UPDATE executor.run SET ready_at = now() + interval '1.2 s', retry_after = now() + interval '1.2 s'
               WHERE node_id = 'urgent'"""
        )
        GATES.open.set()
        for other in calm_ones:
            await stack.wait(other.id)
        await stack.wait(held)
        assert (await stack.wait(execution.id)).state is ExecutionState.SUCCESS
        assert lab.pool.given == []


async def test_a_retry_that_came_due_while_the_pool_was_full_is_found_when_there_is_room(make_stack: OpenStack) -> None:
    async with make_stack(runner={"concurrency": 1, "poll_interval": "PT10M"}) as stack:
        later = {"type": "RATE_LIMITED", "retry_after": "PT1H", "times": 1}
        execution_id = await stack.start(a_graph("f", modules={"f": ("FailModule", later)}))
        await stack.until("SELECT bool_and(state = 'READY' AND failures = 1) FROM executor.run")
        held = await stack.start(all_of("HeldModule", "h"))
        await until_true(lambda: GATES.running == 1, "the pool is full")
        await stack.sql.execute(
            """UPDATE executor.run SET ready_at = now() - interval '0.2 s', retry_after = now() - interval '0.2 s'
               WHERE state = 'READY'"""
        )
        ready = stack.app.parts.handoff.ready
        ready.wake.set()
        await until_true(lambda: ready.backlog and not ready.wake.is_set(), "its time has come, and there is no room")
        GATES.open.set()
        await stack.wait(held)
        await stack.until(f"SELECT bool_and(state = 'SUCCESS') FROM executor.run WHERE execution_id = '{execution_id}'")


@pytest.mark.parametrize("late", [0.001, 0.01, 0.05, 0.3], ids=str)
async def test_a_timer_is_due_when_it_says_however_it_meets_the_loop(make_stack: OpenStack, late: float) -> None:
    async with make_stack(runner={"poll_interval": "PT10M"}) as stack:
        graph = a_graph("w -> x", modules={"w": ("DelayModule", {"duration": "${trigger}"})})
        workflow_id = await stack.save(graph)
        for _ in range(5):
            execution = await stack.client.executions.start(workflow_id, payload=f"PT{late}S")
            assert (await stack.wait(execution.id)).state is ExecutionState.SUCCESS


async def test_a_timer_goes_on_over_a_restart(make_stack: OpenStack) -> None:
    async with make_stack(names=()) as stack:
        async with add_executor(stack, name="one"):
            graph = a_graph("w -> x", modules={"w": ("DelayModule", {"duration": "PT1H"})})
            execution_id = await stack.start(graph)
            assert (await stack.states(execution_id))["w"] == "WAITING"
        await stack.sql.execute(
            "UPDATE executor.run SET retry_after = now() + interval '0.7 s' WHERE state = 'WAITING'"
        )
        due = (await stack.row(execution_id, "w"))["retry_after"]
        async with add_executor(stack, name="two"):
            execution = await stack.wait(execution_id)
        row = await stack.row(execution_id, "w")
        assert execution.state is ExecutionState.SUCCESS
        assert row["finished_at"] >= due
        assert row["attempt"] == 0


async def test_i12_a_draining_executor_leases_nothing_more(make_stack: OpenStack) -> None:
    async with make_stack(runner={"concurrency": 2, "drain_grace": "PT20S"}) as stack:
        execution_id = await stack.start(all_of("HeldModule", "a -> b, c, d"))
        await until_true(lambda: GATES.running == 2, "two run")
        draining = asyncio.create_task(stack.app.parts.drain())
        await until_true(lambda: stack.app.parts.worker.room() == 0, "it drains")
        later = await stack.start(all_of("BriefModule", "z"))

        GATES.open.set()
        await draining

        states = await stack.states(execution_id)
        assert states == {"a": "SUCCESS", "b": "READY", "c": "SUCCESS", "d": "READY"}
        assert await stack.states(later) == {"z": "READY"}
        assert GATES.started.total() == 2
        assert await stack.sql.fetchval("SELECT count(*) FROM executor.run_attempt") == 0


async def test_i12_what_was_leased_while_the_drain_began_is_handed_back(make_stack: OpenStack) -> None:
    """The transaction of a start is held up, the drain comes, and then the transaction commits its leases."""
    async with make_stack(runner={"concurrency": 2}) as stack:
        workflow_id = await stack.save(all_of("BriefModule", "a"))
        await stack.wait((await stack.client.executions.start(workflow_id)).id)
        other = await asyncpg.connect(stack.database_url)
        try:
            async with other.transaction():
                await other.execute("LOCK TABLE executor.run IN SHARE MODE")
                starting = asyncio.create_task(stack.client.executions.start(workflow_id))
                await stack.until_locked_out("the start waits for the table")
                draining = asyncio.create_task(stack.app.parts.drain())
                await until_true(lambda: stack.app.parts.worker.room() == 0, "it drains")
            started = await starting
            await draining
        finally:
            await other.close()
        assert await stack.states(started.id) == {"a": "READY"}
        assert GATES.started["a"] == 1
        row = await stack.row(started.id, "a")
        assert (row["failures"], row["lost_leases"]) == (0, 0)


async def test_started_modules_that_outlive_the_grace_are_lost_and_run_again_by_the_next(make_stack: OpenStack) -> None:
    async with make_stack(names=(), runner={"retry": {"backoff_base_ms": 0}}) as stack:
        async with add_executor(stack, name="one", runner={"drain_grace": "PT0S"}) as app:
            execution_id = await stack.start(all_of("HeldModule", "a"))
            await until_true(lambda: GATES.running == 1, "it runs")
            await app.parts.drain()
            assert GATES.running == 0
            assert await stack.states(execution_id) == {"a": "LEASED"}
        GATES.open.set()
        async with add_executor(stack, name="one", runner={"retry": {"backoff_base_ms": 0}}):
            assert (await stack.wait(execution_id)).state is ExecutionState.SUCCESS
            run = (await stack.runs(execution_id))["a"]
            assert [attempt.outcome for attempt in run.attempts] == ["RUNNER_LOST", "SUCCESS"]


async def test_a_new_incarnation_ends_the_leases_of_the_older_one_at_once(make_stack: OpenStack) -> None:
    async with make_stack(names=()) as stack:
        async with add_executor(stack, name="one", runner={"concurrency": 0}):
            execution_id = await stack.start(all_of("BriefModule", "a, b"))
            lab = Lab(stack)
            await lab.lease(execution_id, "a", runner=f"runner-one/{UUID(int=5)}")
            await lab.lease(execution_id, "b", runner="somebody-else/x")
        async with add_executor(stack, name="one", runner={"concurrency": 0}):
            mine, other = await stack.row(execution_id, "a"), await stack.row(execution_id, "b")
    assert (mine["state"], mine["epoch"], mine["lost_leases"], mine["failures"]) == ("READY", 2, 1, 0)
    assert (other["state"], other["epoch"]) == ("LEASED", 1)


async def test_i10_a_lost_lease_is_retried_after_a_back_off_and_quarantined_at_the_limit(idle: Stack) -> None:
    lab = Lab(idle)
    execution_id = await idle.start(a_graph("a -> b"))
    for lost in range(1, 6):
        await lab.lease(execution_id, "a", seconds=-1)
        epoch = (await idle.row(execution_id, "a"))["epoch"]
        await lab.reaper().step()
        row = await idle.row(execution_id, "a")
        assert (row["lost_leases"], row["epoch"], row["failures"]) == (lost, epoch + 1, 0)
        assert row["leased_by"] is row["lease_until"] is None
        if lost < 5:
            now = await idle.sql.fetchval("SELECT now()")
            assert row["state"] == "READY"
            assert row["ready_at"] <= now + timedelta(seconds=2 ** (lost - 1))
            assert row["retry_after"] is None or row["retry_after"] == row["ready_at"]

    assert row["state"] == "QUARANTINED"
    execution = await idle.client.executions.get(execution_id)
    run = (await idle.runs(execution_id))["a"]
    assert (execution.state, execution.error_type) == (ExecutionState.FAILED, "RUNNER_LOST")
    assert "lost 5 times" in execution.error_message
    assert [attempt.outcome for attempt in run.attempts] == ["RUNNER_LOST"] * 5
    assert await idle.sql.fetchval("SELECT failure_type FROM executor.run_quarantine") == "RUNNER_LOST"
    assert await idle.sql.fetchval("SELECT kind FROM executor.outbox") == "QUARANTINED"


async def test_a_run_is_not_leased_before_its_back_off_is_over(make_stack: OpenStack) -> None:
    async with make_stack(runner={"concurrency": 1}) as stack:
        execution_id = await stack.start(all_of("BriefModule", "a, b"))
        await stack.wait(execution_id)
        execution_id = await stack.start(all_of("HeldModule", "x, y"))
        await stack.sql.execute(
            """UPDATE executor.run SET ready_at = now() + interval '0.6 s', retry_after = now() + interval '0.6 s'
               WHERE state = 'READY'"""
        )
        due = await stack.sql.fetchval("SELECT max(retry_after) FROM executor.run")
        GATES.open.set()
        await stack.wait(execution_id)
        assert await stack.sql.fetchval("SELECT max(started_at) >= $1 FROM executor.run", due)


async def test_i11_the_reaper_leaves_what_was_extended_since_it_looked(idle: Stack) -> None:
    lab = Lab(idle)
    execution_id = await idle.start(a_graph("a"))
    await lab.lease(execution_id, "a", seconds=60)
    before = await lab.everything()
    assert await lab.report(execution_id, "a", Lost(), only_if_expired=True) == "LEASE_LOST"
    assert await lab.everything() == before


async def test_i11_two_reapers_end_a_lease_once(idle: Stack) -> None:
    labs = [Lab(idle), Lab(idle, holder="other-lab")]
    execution_id = await idle.start(a_graph(", ".join(f"n{i}" for i in range(40))))
    await labs[0].lease(execution_id, *(f"n{i}" for i in range(40)), seconds=-1)
    await asyncio.gather(*(lab.reaper().step() for lab in labs))
    rows = await idle.sql.fetch("SELECT DISTINCT state, lost_leases, epoch FROM executor.run")
    assert [tuple(row) for row in rows] == [("READY", 1, 2)]
    assert await idle.sql.fetchval("SELECT count(*) FROM executor.run_attempt") == 40


async def test_i11_the_reaper_keeps_quiet_after_a_start(idle: Stack) -> None:
    lab, now = Lab(idle), [0.0]
    execution_id = await idle.start(a_graph("a"))
    await lab.lease(execution_id, "a", seconds=-1)
    reaper = lab.reaper(quiet=timedelta(seconds=10), clock=lambda: now[0])
    assert await reaper.step() == timedelta(seconds=10)
    assert (await idle.states(execution_id))["a"] == "LEASED"
    now[0] = 10.1
    await reaper.step()
    assert (await idle.states(execution_id))["a"] == "READY"


async def test_i11_a_storm_of_expiries_is_an_alarm_first_and_reaped_after_a_quiet_period(idle: Stack) -> None:
    lab, now = Lab(idle), [0.0]
    execution_id = await idle.start(a_graph("a, b, c"))
    for node in "abc":
        await lab.lease(execution_id, node, runner=f"runner-of-{node}", seconds=-1)
    reaper = lab.reaper(quiet=timedelta(seconds=10), clock=lambda: now[0])
    now[0] = 11.0
    assert await reaper.step() == timedelta(seconds=10)
    assert set((await idle.states(execution_id)).values()) == {"LEASED"}
    now[0] = 22.0
    await reaper.step()
    assert set((await idle.states(execution_id)).values()) == {"READY"}


async def test_a_lease_that_got_lost_on_the_way_here_is_given_back_and_costs_nothing(idle: Stack) -> None:
    lab = Lab(idle)
    execution_id = await idle.start(a_graph("old, young, others"))
    await lab.lease(execution_id, "old", runner=lab.lease_policy.holder, since=11)
    await lab.lease(execution_id, "young", runner=lab.lease_policy.holder, since=3)
    await lab.lease(execution_id, "others", runner="others/1", since=11)
    await lab.reaper().give_back_forgotten()
    assert await idle.states(execution_id) == {"old": "READY", "young": "LEASED", "others": "LEASED"}
    row = await idle.row(execution_id, "old")
    assert (row["epoch"], row["lost_leases"], row["failures"], row["retry_after"]) == (2, 0, 0, None)


@pytest.mark.parametrize("given_back", [Release(), Omitted()], ids=["released", "omitted"])
async def test_what_is_given_back_burns_nothing_and_is_ready_at_once(idle: Stack, given_back: object) -> None:
    lab = Lab(idle)
    execution_id = await idle.start(a_graph("a"))
    await lab.lease(execution_id, "a")
    assert await lab.report(execution_id, "a", given_back) == "ACCEPTED"  # type: ignore[arg-type]
    row = await idle.row(execution_id, "a")
    assert (row["state"], row["failures"], row["lost_leases"], row["retry_after"]) == ("READY", 0, 0, None)
    await lab.lease(execution_id, "a")
    assert await lab.report(execution_id, "a", DONE) == "ACCEPTED"
    assert (await idle.client.executions.get(execution_id)).state is ExecutionState.SUCCESS


async def test_heartbeats_extend_the_leases_of_what_runs(make_stack: OpenStack) -> None:
    lease = {"duration": "PT10S", "heartbeat_interval": "PT0.2S"}
    async with make_stack(runner={"lease": lease}) as stack:
        execution_id = await stack.start(all_of("HeldModule", "a"))
        await until_true(lambda: GATES.running == 1, "it runs")
        first = (await stack.row(execution_id, "a"))["lease_until"]
        await stack.until("SELECT lease_until > $1::timestamptz + interval '2 s' FROM executor.run", first)
        assert GATES.running == 1
        GATES.open.set()
        assert (await stack.wait(execution_id)).state is ExecutionState.SUCCESS
        assert (await stack.row(execution_id, "a"))["attempt"] == 1


async def test_a_module_whose_lease_is_gone_is_stopped_by_the_next_heartbeat(make_stack: OpenStack) -> None:
    async with make_stack() as stack:
        execution_id = await stack.start(all_of("HeldModule", "a"))
        await until_true(lambda: GATES.running == 1, "it runs")
        await stack.sql.execute("UPDATE executor.run SET epoch = epoch + 1, leased_by = 'other', runner_id = 'other'")
        await until_true(lambda: GATES.running == 0, "it is stopped")
        assert (await stack.row(execution_id, "a"))["state"] == "LEASED"


async def test_a_backlog_larger_than_the_pool_drains_in_the_order_it_came(make_stack: OpenStack) -> None:
    async with make_stack(runner={"concurrency": 3}) as stack:
        workflow_id = await stack.save(all_of("BriefModule", "a -> b"))
        await stack.client.executions.start_many([Start(workflow_id) for _ in range(400)])
        await stack.until("SELECT bool_and(state = 'SUCCESS') FROM executor.workflow_execution")
        assert GATES.most <= 3


async def test_long_graphs_share_the_pool_with_short_ones(make_stack: OpenStack) -> None:
    async with make_stack(runner={"concurrency": 2}) as stack:
        long = await stack.start(a_chain(100))
        wide = await stack.start(a_fan(100))
        assert (await stack.run(a_graph("a"))).state is ExecutionState.SUCCESS
        for execution_id in (long, wide):
            assert (await stack.wait(execution_id)).state is ExecutionState.SUCCESS


def test_i13_room_that_a_transaction_has_set_aside_is_given_to_no_other() -> None:
    handoff = Handoff(
        NotingPool(5), Readiness(), Mirror(Silent()), pool="default", class_names=frozenset(), serves_all=True
    )
    with handoff.grant(wanted=3) as first:
        assert (first.left, handoff.room()) == (3, 2)
        with handoff.grant(wanted=10) as second, handoff.grant(wanted=10, freed=2) as third:
            assert (second.left, third.left, handoff.room()) == (2, 2, 0)
    assert handoff.room() == 5


async def test_an_execution_that_cannot_be_carried_on_holds_up_no_other(make_stack: OpenStack) -> None:
    """A fault that nobody foresaw: here a trigger refuses every end of one run."""
    async with make_stack(runner={"concurrency": 2}) as stack:
        await stack.sql.execute(
            """CREATE FUNCTION executor.refuse() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN RAISE EXCEPTION 'unforeseen'; END $$;
               CREATE TRIGGER refuse BEFORE UPDATE ON executor.run FOR EACH ROW
                 WHEN (OLD.node_id = 'poison' AND NEW.state <> 'LEASED') EXECUTE FUNCTION executor.refuse()"""
        )
        poisoned = await stack.start(all_of("BriefModule", "poison"))
        for _ in range(3):
            assert (await stack.wait(await stack.start(a_graph("a -> b")))).state is ExecutionState.SUCCESS
        await stack.sql.execute("UPDATE executor.run SET started_at = now() - interval '11 s' WHERE state = 'LEASED'")
        await stack.app.parts.reaper.give_back_forgotten()
        assert stack.app.parts.health.serving
        await stack.sql.execute("DROP TRIGGER refuse ON executor.run; DROP FUNCTION executor.refuse()")
        await stack.app.parts.reaper.give_back_forgotten()
        assert (await stack.wait(poisoned)).state is ExecutionState.SUCCESS


async def test_an_executor_starts_though_a_lease_of_its_former_self_cannot_be_ended(make_stack: OpenStack) -> None:
    async with make_stack(names=()) as stack:
        async with add_executor(stack, name="one", runner={"concurrency": 0}):
            execution_id = await stack.start(a_graph("poison, fine"))
            await Lab(stack).lease(execution_id, "poison", "fine", runner=f"runner-one/{UUID(int=5)}")
        await stack.sql.execute(
            """CREATE FUNCTION executor.refuse() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN RAISE EXCEPTION 'unforeseen'; END $$;
               CREATE TRIGGER refuse BEFORE UPDATE ON executor.run FOR EACH ROW
                 WHEN (OLD.node_id = 'poison') EXECUTE FUNCTION executor.refuse()"""
        )
        async with add_executor(stack, name="one"):
            assert (await stack.run(a_graph("a -> b"))).state is ExecutionState.SUCCESS


async def test_two_leases_of_one_run_are_told_apart_by_the_heartbeat(idle: Stack) -> None:
    execution_id = await idle.start(a_graph("a"))
    lab = Lab(idle)
    await lab.lease(execution_id, "a")
    await lab.lease(execution_id, "a")
    run = str(run_id(UUID(execution_id), 0))
    refs = [LeaseRef(execution_id, run, epoch) for epoch in (1, 2)]
    answers = await asyncio.to_thread(idle.app.parts.transport.heartbeat_runs, refs)
    assert answers == [HeartbeatAnswer.LEASE_LOST, HeartbeatAnswer.CONTINUE]


async def test_a_ready_run_that_was_locked_at_the_first_look_is_found_soon_after(make_stack: OpenStack) -> None:
    """Not only after the poll interval, which is ten minutes here."""
    runner = {"concurrency": 1, "poll_interval": timedelta(minutes=10)}
    async with make_stack(runner=runner) as stack:
        first = await stack.start(all_of("HeldModule", "a"))
        await until_true(lambda: GATES.running == 1, "the first module runs")
        second = await stack.start(a_graph("b"))
        async with stack.sql.transaction():
            await stack.sql.fetch("SELECT 1 FROM executor.run WHERE node_id = 'b' FOR UPDATE")
            GATES.open.set()
            assert (await stack.wait(first)).state is ExecutionState.SUCCESS
            parts = stack.app.parts
            await until_true(
                lambda: not parts.handoff.ready.backlog and parts.handoff.room() == 1, "it has looked in vain"
            )
        assert (await stack.wait(second)).state is ExecutionState.SUCCESS


async def test_one_connection_is_enough_for_a_cold_start(make_stack: OpenStack) -> None:
    """Whoever holds a connection never waits for a second one."""
    async with make_stack(names=()) as stack:
        async with add_executor(stack, name="one", runner={"concurrency": 0}):
            ids = [await stack.start(a_graph("a -> b")) for _ in range(3)]
        async with add_executor(stack, name="two", database={"pool_size": 1}):
            for execution_id in ids:
                assert (await stack.wait(execution_id)).state is ExecutionState.SUCCESS


def test_the_kept_runner_id_is_made_once_and_made_again_if_it_was_lost(tmp_path: Path) -> None:
    made = kept_runner_id(tmp_path / "home")
    assert kept_runner_id(tmp_path / "home") == made
    (tmp_path / "home" / "runner-id").write_text("")
    assert kept_runner_id(tmp_path / "home") not in ("", made)
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="runner-id"):
        kept_runner_id(tmp_path / "file")
