"""Pause against those who change runs without locking their execution, and against everything at once."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from services.executor import queries_pausing as queries
from services.executor.model import ExecutionView
from services.executor.store import leases, parking
from services.executor.store.parking import ParkedRun, Parking
from services.executor.store.session import PINNED_PLANNER
from tests.builders import a_chain, a_fan, a_graph
from tests.executor_lab import DONE, Lab
from tests.executor_stack import Stack
from tests.integration.executor.conftest import OpenStack
from tests.integration.executor.pauses import a_request, held_back, pause, resume, state_of
from tests.integration.executor.test_schema import buffers, explain, nodes_of, ways_into_run
from valkyr.client import ExecutionState
from valkyr.errors import ExecutionSettled
from valkyr.flow.ids import run_id
from valkyr.flow.leasing import Serving
from valkyr.flow.results import Failure, FailureType

SERVING = Serving("default", frozenset({"NoopModule"}), serves_all=False)
HOUR = timedelta(hours=1)
READY = "SELECT count(*) FROM executor.run WHERE execution_id = $1 AND state = 'READY'"
BROKE = Failure(FailureType.TRANSIENT, "it broke")


@pytest.fixture
async def idle(make_stack: OpenStack) -> AsyncIterator[Stack]:
    """A stack whose executor leases nothing."""
    async with make_stack(runner={"concurrency": 0}) as stack:
        yield stack


async def paused_during(stack: Stack, execution: str, change: Callable[[Any], Awaitable[Any]]) -> None:
    """Pauses while a transaction that has made the change is not committed yet; it commits once the pause waits."""
    async with stack.app.parts.session.transaction() as tx:
        await change(tx)
        asked = asyncio.ensure_future(pause(stack, execution))
        await stack.until_locked_out("the pause waits for the row")
        assert not asked.done()
    assert (await asked).state is ExecutionState.PAUSED


async def park_by_breaker(stack: Stack) -> None:
    await stack.sql.execute(
        """UPDATE executor.run SET state = 'PARKED', parked_by = 'BREAKER', parked_at = now(), target = 't',
               retry_after = now() + interval '1 h' WHERE node_id = 'a'"""
    )


async def test_what_the_dispatcher_leases_meanwhile_is_leased_and_the_rest_is_parked(idle: Stack) -> None:
    execution, lab = await idle.start(a_graph("a, b -> c")), Lab(idle)

    async def lease(tx: Any) -> None:
        [(_, found)] = await leases.select_to_lease(tx, SERVING, limit=1)
        await tx.execute(
            """UPDATE executor.run SET state = 'LEASED', epoch = 1, attempt = 1, leased_by = 'other',
                   lease_until = now() + interval '1 min' WHERE execution_id = $1 AND id = $2""",
            UUID(execution),
            found.id,
        )

    await paused_during(idle, execution, lease)
    states = await idle.states(execution)
    [leased] = [node for node, state in states.items() if state == "LEASED"]
    assert sorted(states.values()) == ["LEASED", "PARKED", "PENDING"]
    assert await lab.report(execution, leased, DONE) == "ACCEPTED"
    assert set((await held_back(idle, execution)).values()) == {"PAUSE"}


async def test_what_the_dispatcher_parks_meanwhile_is_the_pauses(idle: Stack) -> None:
    execution = await idle.start(a_graph("a"))

    async def park(tx: Any) -> None:
        [(_, found)] = await leases.select_to_lease(tx, SERVING, limit=1)
        await parking.park_runs(tx, [Parking("default", UUID(execution), found.id, "t", None, HOUR)])

    await paused_during(idle, execution, park)
    assert await held_back(idle, execution) == {"a": "PAUSE"}


async def test_what_its_breaker_lets_go_meanwhile_is_the_pauses(idle: Stack) -> None:
    execution = await idle.start(a_graph("a"))
    await park_by_breaker(idle)
    await paused_during(idle, execution, lambda tx: parking.unpark_runs(tx, ("default", "t"), limit=10))
    assert await held_back(idle, execution) == {"a": "PAUSE"}


async def test_a_probe_that_is_leased_meanwhile_stays_leased(idle: Stack) -> None:
    execution = await idle.start(a_graph("a"))
    await park_by_breaker(idle)
    probe = ParkedRun(("default", "t"), UUID(execution), run_id(UUID(execution), 0), 0)

    async def lease(tx: Any) -> None:
        assert len(await parking.unpark_probes(tx, [probe])) == 1
        await tx.execute("UPDATE executor.run SET state = 'LEASED', epoch = 1, lease_until = now() + interval '1 min'")

    await paused_during(idle, execution, lease)
    assert await idle.states(execution) == {"a": "LEASED"}


async def test_the_pauses_runs_are_nothing_to_dispatchers_and_breakers(idle: Stack) -> None:
    execution = await idle.start(a_graph("a, b"))
    await park_by_breaker(idle)
    await pause(idle, execution)
    async with idle.app.parts.session.transaction() as tx:
        assert await leases.select_to_lease(tx, SERVING, limit=10) == []
        assert await leases.ready_classes(tx, "default") == []
        assert await parking.parked_targets(tx, ("", ""), 10) == []
        assert (await parking.unpark_runs(tx, ("default", "t"), limit=10))[0] == 0
        probe = ParkedRun(("default", "t"), UUID(execution), run_id(UUID(execution), 0), 0)
        assert await parking.unpark_probes(tx, [probe]) == []
    assert await held_back(idle, execution) == {"a": "PAUSE", "b": "PAUSE"}


@pytest.mark.parametrize("end", [DONE, BROKE], ids=["success, and a hand-off", "failure, and a retry"])
async def test_an_end_of_a_lease_and_a_pause_come_one_after_the_other(idle: Stack, end: Any) -> None:
    """Whichever is first: b was handed over before, or it is parked; a is READY before, and then parked as well."""
    for _ in range(10):
        execution, lab = await idle.start(a_chain(2)), Lab(idle, room=1)
        await lab.lease(execution, "n0")
        await asyncio.gather(pause(idle, execution), lab.report(execution, "n0", end))
        states = await idle.states(execution)
        assert "READY" not in states.values()
        assert set((await held_back(idle, execution)).values()) <= {"PAUSE"}
        handed_over = [run.node_id for run in lab.pool.given]
        assert handed_over == [node for node, state in states.items() if state == "LEASED"]
        assert await state_of(idle, execution) == "PAUSED"


async def test_executions_paused_and_resumed_at_random_by_two_executors_lose_nothing_and_run_nothing_twice(
    make_stack: OpenStack,
) -> None:
    rng = random.Random(7)
    settings = {"runner": {"concurrency": 8}, "names": ("one", "two")}
    graphs = [a_chain(12), a_fan(25), a_graph("a -> b -> c, a -> d -> c", modules={"b": None, "c": None})]
    async with make_stack(**settings) as stack:
        executions = [await stack.start(graph) for graph in graphs for _ in range(6)]

        async def disturb(execution: str) -> None:
            for _ in range(rng.randint(1, 4)):
                for _ in range(rng.randint(0, 30)):
                    await asyncio.sleep(0)
                await unless_settled(pause(stack, execution, by=rng.randint(0, 1)))
                async with stack.app.parts.session.reading() as connection:
                    assert await connection.fetchval(READY, UUID(execution)) == 0
                for _ in range(rng.randint(0, 30)):
                    await asyncio.sleep(0)
                await unless_settled(resume(stack, execution, by=rng.randint(0, 1)))

        await asyncio.gather(*(disturb(execution) for execution in executions))
        for execution in executions:
            assert (await stack.wait(execution)).state is ExecutionState.SUCCESS
        assert await stack.sql.fetchval("SELECT count(*) FROM executor.run WHERE attempt > 1") == 0
        assert await stack.sql.fetchval("SELECT count(*) FROM executor.run WHERE state <> 'SUCCESS'") == 0


async def unless_settled(asked: Awaitable[Any]) -> None:
    with contextlib.suppress(ExecutionSettled):
        await asked


async def test_a_request_id_that_two_executions_race_for_is_one_executions(idle: Stack) -> None:
    for number in range(5):
        one, other = await idle.start(a_graph("a")), await idle.start(a_graph("a"))
        asked = [pause(idle, execution, a_request(f"r{number}")) for execution in (one, other)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert sorted(type(answer).__name__ for answer in answers) == ["ExecutionView", "RequestIdReused"]
        paused = [execution for execution in (one, other) if await state_of(idle, execution) == "PAUSED"]
        assert [str(answer.id) for answer in answers if isinstance(answer, ExecutionView)] == paused


async def test_a_pause_waits_for_no_runner_and_thousands_of_runs_are_parked_at_once(idle: Stack) -> None:
    execution, lab = await idle.start(a_fan(4_000)), Lab(idle)
    await lab.lease(execution, "start")
    await lab.report(execution, "start", DONE)
    await lab.lease(execution, "m0", "m1")
    await pause(idle, execution)

    assert Counter((await idle.states(execution)).values()) == {
        "SUCCESS": 1,
        "LEASED": 2,
        "PARKED": 3_998,
        "PENDING": 1,
    }
    assert await lab.report(execution, "m0", DONE) == "ACCEPTED"
    await resume(idle, execution)
    assert Counter((await idle.states(execution)).values())["READY"] == 3_998


@pytest.fixture
async def full(executor_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """200 executions with 200 runs each, of which half are paused, and the planner as the executor pins it."""
    connection = await asyncpg.connect(executor_database_url, server_settings=PINNED_PLANNER)
    try:
        await connection.execute(
            """INSERT INTO executor.run (execution_id, id, node_index, node_id, class_name, state, parked_by, parked_at,
                   ready_at, ready_revision)
               SELECT ('01920000-0000-7000-8000-' || lpad(to_hex(e), 12, '0'))::uuid,
                   ('01920000-0000-7000-8001-' || lpad(to_hex(e * 256 + n), 12, '0'))::uuid, n, 'n' || n, 'NoopModule',
                   CASE WHEN e % 2 = 0 THEN 'READY' ELSE 'PARKED' END, CASE WHEN e % 2 = 1 THEN 'PAUSE' END, now(),
                   now(), 1
               FROM generate_series(1, 200) AS e, generate_series(0, 199) AS n"""
        )
        await connection.execute("ANALYZE executor.run")
        yield connection
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("statement", "execution", "ways"),
    [
        pytest.param(queries.PAUSE_RUNS, 2, {"run_pkey"}, id="pause"),
        pytest.param(queries.RESUME_RUNS, 1, {"run_pkey", "Bitmap Heap Scan"}, id="resume"),
    ],
)
async def test_only_the_runs_of_the_execution_are_looked_at_however_many_others_are_ready_or_parked(
    full: asyncpg.Connection, statement: str, execution: int, ways: set[str]
) -> None:
    plan = await explain(full, statement, [UUID(f"01920000-0000-7000-8000-{execution:012x}")])
    assert ways_into_run(plan) <= ways
    changed = next(node for node in nodes_of(plan) if node["Node Type"] == "ModifyTable")
    assert changed["Plans"][0]["Actual Rows"] == 200
    assert buffers(plan) < 200 * 40
