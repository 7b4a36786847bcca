"""Single statements against real rows: each is fenced by itself, whatever its caller has checked before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from services.executor.callers import Asked
from services.executor.runner_rows import RunnerSaid
from services.executor.store.leases import heartbeat_runs, select_to_lease
from services.executor.store.progress import end_runs, lock, stop_runs, write_progress
from services.executor.store.runners import note_leases, see_runner
from tests.builders import a_graph
from tests.executor_lab import Lab
from tests.executor_stack import Stack
from tests.integration.executor.conftest import OpenStack
from valkyr.flow.effects import EndedRun, FinishedRun
from valkyr.flow.events import TimerDue
from valkyr.flow.ids import run_id
from valkyr.flow.leasing import Serving
from valkyr.flow.states import RunState, StopReason


@pytest.fixture
async def idle(make_stack: OpenStack) -> AsyncIterator[Stack]:
    """A stack whose executor leases nothing."""
    async with make_stack(runner={"concurrency": 0}) as stack:
        yield stack


@pytest.mark.parametrize("epoch", [0, 2], ids=["older", "newer"])
async def test_i06_a_success_or_an_end_with_another_epoch_matches_no_row(idle: Stack, epoch: int) -> None:
    lab = Lab(idle)
    execution_id = await idle.start(a_graph("a"))
    await lab.lease(execution_id, "a")
    before = await lab.everything()
    key = (UUID(execution_id), run_id(UUID(execution_id), 0))
    async with lab.session.transaction() as tx:
        await write_progress(tx, [FinishedRun(key, epoch, "{}", 1, None, 2)], [], [], policy=idle.app.parts.lease)
        await end_runs(tx, [EndedRun(key, epoch, RunState.READY, True, 1, 1, "x", "x", 2, timedelta(), 1)])
    assert await lab.everything() == before


async def test_what_another_transaction_has_changed_while_its_lock_was_waited_for_is_read_as_it_is_then(
    idle: Stack,
) -> None:
    lab = Lab(idle)
    execution_id = UUID(await idle.start(a_graph("a -> b")))
    runs = {execution_id: [run_id(execution_id, node) for node in (0, 1)]}
    async with lab.session.transaction() as first, lab.session.transaction() as second:
        await lock(first, runs)
        waiting = asyncio.create_task(lock(second, runs))
        await idle.until_locked_out("the second waits for the first")
        await first.execute("UPDATE executor.workflow_execution SET revision = 7 WHERE id = $1", execution_id)
        await first.execute("UPDATE executor.run SET epoch = 5 + node_index WHERE execution_id = $1", execution_id)
        await first.execute("COMMIT; BEGIN")
        [(execution, rows)] = (await waiting).values()
    assert execution.revision == 7
    assert {node: row.lease.epoch for node, row in rows.items()} == {0: 5, 1: 6}


async def test_executions_are_locked_also_where_none_of_their_runs_is_asked_for(idle: Stack) -> None:
    lab = Lab(idle)
    with_runs, without = [UUID(await idle.start(a_graph("a -> b"))) for _ in range(2)]
    unknown = UUID(int=0)
    b = run_id(with_runs, 1)
    async with lab.session.transaction() as tx:
        locked = await lock(tx, {without: [], unknown: [run_id(unknown, 0)], with_runs: [b]})
    assert {key: [row.id for row in rows.values()] for key, (_, rows) in locked.items()} == {
        without: [],
        with_runs: [b],
    }


async def test_a_heartbeat_never_shortens_a_lease_and_never_revives_one(idle: Stack) -> None:
    lab = Lab(idle)
    execution_id = await idle.start(a_graph("long, short, over, given_on"))
    await lab.lease(execution_id, "long", seconds=3_600)
    await lab.lease(execution_id, "short", "given_on", seconds=5)
    await lab.lease(execution_id, "given_on", seconds=5)
    until = {node: (await idle.row(execution_id, node))["lease_until"] for node in ("long", "short", "given_on")}
    leases = [(UUID(execution_id), run_id(UUID(execution_id), node), 1) for node in range(4)]

    async with lab.session.transaction() as tx:
        held = await heartbeat_runs(tx, leases, timedelta(seconds=60))

    assert held == {(run_id(UUID(execution_id), node), 1): True for node in (0, 1)}
    assert (await idle.row(execution_id, "long"))["lease_until"] == until["long"]
    assert (await idle.row(execution_id, "short"))["lease_until"] > until["short"] + timedelta(seconds=30)
    assert (await idle.row(execution_id, "given_on"))["lease_until"] == until["given_on"]
    assert (await idle.row(execution_id, "over"))["state"] == "READY"


@pytest.mark.parametrize("reason", StopReason)
async def test_a_lease_that_was_told_to_stop_is_extended_no_more_and_its_runner_is_told(
    idle: Stack, reason: StopReason
) -> None:
    lab = Lab(idle)
    execution_id = await idle.start(a_graph("stopped, short, held"))
    await lab.lease(execution_id, "stopped", "held", seconds=3_600)
    await lab.lease(execution_id, "short", seconds=5)
    short = (await idle.row(execution_id, "short"))["lease_until"]
    keys = [(UUID(execution_id), run_id(UUID(execution_id), node)) for node in range(3)]

    async with lab.session.transaction() as tx:
        await stop_runs(tx, keys[:2], reason, timedelta(seconds=10))
        await stop_runs(tx, keys[:2], StopReason.CANCEL, timedelta(seconds=1))
    async with lab.session.transaction() as tx:
        held = await heartbeat_runs(tx, [(*key, 1) for key in keys], timedelta(seconds=60))

    assert held == {(key[1], 1): key is keys[2] for key in keys}
    stopped = await idle.row(execution_id, "stopped")
    assert stopped["lease_until"] <= await idle.sql.fetchval("SELECT now() + interval '10 s'")
    assert (await idle.row(execution_id, "short"))["lease_until"] == short, "never longer than it was"
    assert stopped["stop_reason"] == reason, "told once"


async def test_runs_that_another_transaction_is_leasing_are_passed_over(idle: Stack) -> None:
    lab = Lab(idle)
    await idle.start(a_graph(", ".join(f"n{index}" for index in range(10))))
    serving = Serving("default", frozenset(), serves_all=True)
    async with lab.session.transaction() as one, lab.session.transaction() as two:
        first = await select_to_lease(one, serving, limit=4)
        second = await select_to_lease(two, serving, limit=100)
    assert (len(first), len(second)) == (4, 6)
    assert {candidate.id for _, candidate in first}.isdisjoint(candidate.id for _, candidate in second)


async def test_a_runner_is_seen_at_once_while_another_transaction_leases_to_it(idle: Stack) -> None:
    """The executor that leases may stand still before its commit: no heartbeat at another may wait for that."""
    said = RunnerSaid("default", "r1", uuid4(), "default", ("NoopModule",), 1)
    await idle.app.parts.runners.register(said)
    seen_at = "SELECT last_seen_at FROM executor.runner WHERE runner_id = 'r1'"
    registered_at = await idle.sql.fetchval(seen_at)
    session = Lab(idle).session
    async with session.transaction() as leasing, session.transaction() as calling:
        await note_leases(leasing, [Asked("default", "r1", said.incarnation, 1, timedelta(), "q")])
        await calling.execute("SET LOCAL lock_timeout = '100ms'")
        row = await see_runner(calling, "default", "r1")
        assert row is not None
        assert row.said == said
    assert await idle.sql.fetchval(seen_at) == registered_at, "left to the next call"
    assert (await idle.app.parts.runners.seen("default", "r1", said.incarnation)).said == said
    assert await idle.sql.fetchval(seen_at) > registered_at


async def test_a_timer_that_is_not_due_ends_nothing(idle: Stack) -> None:
    lab = Lab(idle)
    execution_id = await idle.start(a_graph("wait -> x", modules={"wait": ("DelayModule", {"duration": "PT1H"})}))
    before = await lab.everything()
    key = UUID(execution_id)
    assert [str(answer) for answer in await lab.progress.apply([TimerDue(key, run_id(key, 0))])] == ["LEASE_LOST"]
    assert await lab.everything() == before
