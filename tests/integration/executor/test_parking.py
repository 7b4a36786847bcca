"""Statements about parked runs: what they touch, what they leave alone, and how they find it among many."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from services.executor import queries_parking as queries
from services.executor.store import parking
from services.executor.store.parking import ParkedRun
from services.executor.store.session import PINNED_PLANNER
from tests.builders import a_graph
from tests.executor_stack import Stack
from tests.integration.executor.conftest import OpenStack
from tests.integration.executor.test_schema import buffers, explain, ways_into_run
from valkyr.flow.ids import run_id

KEY = ("default", "t")


@pytest.fixture
async def idle(make_stack: OpenStack) -> AsyncIterator[Stack]:
    """A stack whose executor leases nothing."""
    async with make_stack(runner={"concurrency": 0}) as stack:
        yield stack


async def park(
    stack: Stack, execution_id: str, nodes: str, *, by: str = "BREAKER", due: float = 10, target: str = "t"
) -> None:
    """Parks nodes as long ago as a minute; due in so many seconds."""
    await stack.sql.execute(
        """UPDATE executor.run SET state = 'PARKED', parked_by = $3, parked_at = now() - interval '1 min', target = $4,
               ready_at = now() - interval '1 h',
               retry_after = now() + $5 WHERE execution_id = $1 AND node_id = ANY($2)""",
        UUID(execution_id),
        nodes.split(),
        by,
        target,
        timedelta(seconds=due),
    )


def parked_run(execution_id: str, node: int, epoch: int = 0) -> ParkedRun:
    return ParkedRun(KEY, UUID(execution_id), run_id(UUID(execution_id), node), epoch)


async def test_only_runs_that_a_breaker_parked_for_the_target_come_back(idle: Stack) -> None:
    execution = await idle.start(a_graph("ours, paused, elsewhere, ready"))
    await park(idle, execution, "ours")
    await park(idle, execution, "paused", by="PAUSE")
    await park(idle, execution, "elsewhere", target="u")
    async with idle.app.parts.session.transaction() as tx:
        assert await parking.unpark_runs(tx, KEY, limit=10) == (1, 0)
    assert await idle.states(execution) == {
        "ours": "READY",
        "paused": "PARKED",
        "elsewhere": "PARKED",
        "ready": "READY",
    }
    row = await idle.row(execution, "ours")
    assert (row["parked_by"], row["parked_at"], row["retry_after"]) == (None, None, None)
    assert 60_000 <= row["parked_ms"] < 120_000
    assert await idle.sql.fetchval("SELECT $1 > now() - interval '1 min'", row["ready_at"])


async def test_only_those_that_are_due_come_back_while_the_breaker_is_away(idle: Stack) -> None:
    execution = await idle.start(a_graph("due, later"))
    await park(idle, execution, "due", due=-1)
    await park(idle, execution, "later")
    async with idle.app.parts.session.transaction() as tx:
        assert (await parking.unpark_due_runs(tx, KEY, limit=10))[0] == 1
    assert await idle.states(execution) == {"due": "READY", "later": "PARKED"}


async def test_runs_that_another_transaction_holds_are_passed_over(idle: Stack) -> None:
    execution = await idle.start(a_graph("a, b"))
    await park(idle, execution, "a b")
    session = idle.app.parts.session
    async with session.transaction() as other, session.transaction() as tx:
        await other.execute("SELECT 1 FROM executor.run WHERE node_id = 'a' FOR UPDATE")
        assert (await parking.unpark_runs(tx, KEY, limit=10))[0] == 1
        assert await parking.unpark_probes(tx, [parked_run(execution, 0)]) == []


async def test_due_runs_are_moved_a_chunk_at_a_time(idle: Stack) -> None:
    execution = await idle.start(a_graph("a, b, c, later"))
    await park(idle, execution, "a b c", due=-1)
    await park(idle, execution, "later")
    async with idle.app.parts.session.transaction() as tx:
        wait = timedelta(minutes=5)
        assert [await parking.postpone_runs(tx, KEY, wait, limit=2) for _ in range(3)] == [2, 1, 0]
    ahead = await idle.sql.fetch("SELECT extract(epoch FROM retry_after - now())::float8 FROM executor.run ORDER BY 1")
    assert ahead[0][0] < 11
    assert all(295 < row[0] <= 315 for row in ahead[1:])


@pytest.mark.parametrize(
    "spoiled",
    ["epoch = 1", "state = 'CANCELLED', parked_by = NULL", "parked_by = 'PAUSE'", "state = 'LEASED'"],
)
async def test_i06_a_probe_is_leased_only_as_it_was_when_leave_was_asked(idle: Stack, spoiled: str) -> None:
    execution = await idle.start(a_graph("a, b"))
    await park(idle, execution, "a b")
    await idle.sql.execute(f"UPDATE executor.run SET {spoiled} WHERE node_id = 'a'")
    before = dict(await idle.row(execution, "a"))
    async with idle.app.parts.session.transaction() as tx:
        found = await parking.unpark_probes(tx, [parked_run(execution, 0), parked_run(execution, 1)])
    assert [candidate.id for candidate in found] == [run_id(UUID(execution), 1)]
    assert dict(await idle.row(execution, "a")) == before


async def test_targets_are_found_in_order_with_the_first_that_is_due(idle: Stack) -> None:
    execution = await idle.start(a_graph("a, b, c, d"))
    await park(idle, execution, "a", target="x", due=30)
    await park(idle, execution, "b", target="x", due=-5)
    await park(idle, execution, "c", target="y", due=10)
    async with idle.app.parts.session.reading() as connection:
        first, second = await parking.parked_targets(connection, ("", ""), 10)
        assert [target.key for target in (first, second)] == [("default", "x"), ("default", "y")]
        assert first.wait < timedelta()
        assert timedelta(seconds=5) < second.wait <= timedelta(seconds=10)
        assert [target.key for target in await parking.parked_targets(connection, first.key, 10)] == [second.key]
        assert [target.key for target in await parking.parked_targets(connection, ("", ""), 1)] == [first.key]


async def test_probes_are_the_longest_parked_that_the_pool_can_run(idle: Stack) -> None:
    execution = await idle.start(a_graph("a, b, c, d", modules={"c": "BriefModule"}, nodes={"d": {"pool": "other"}}))
    await park(idle, execution, "a", due=20)
    await park(idle, execution, "b c d", due=10)
    async with idle.app.parts.session.reading() as connection:

        async def chosen(wanted: int, class_names: list[str] | None) -> list[UUID]:
            found = await parking.select_probes(connection, [(KEY, wanted)], pool="default", class_names=class_names)
            return [run.id for run in found]

        a, b, c = (run_id(UUID(execution), node) for node in range(3))
        assert await chosen(5, ["NoopModule"]) == [b, a]
        assert await chosen(1, ["NoopModule"]) == [b]
        assert set(await chosen(5, None)) == {a, b, c}


@pytest.fixture
async def full(executor_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """40,000 parked runs of 40 targets among 40,000 others, and the planner as the executor pins it."""
    connection = await asyncpg.connect(executor_database_url, server_settings=PINNED_PLANNER)
    try:
        await connection.execute(
            """INSERT INTO executor.run (execution_id, id, namespace, node_index, node_id, class_name, pool, state,
                   parked_by, parked_at, target, retry_after, ready_at, ready_revision)
               SELECT gen_random_uuid(), gen_random_uuid(), 'default', 0, 'n', 'NoopModule', 'default',
                   CASE WHEN n % 2 = 0 THEN 'PARKED' ELSE 'READY' END, CASE WHEN n % 2 = 0 THEN 'BREAKER' END, now(),
                   't' || n % 80, now() - interval '1 s', now(), 1
               FROM generate_series(1, 80000) AS n"""
        )
        await connection.execute("ANALYZE executor.run")
        yield connection
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("statement", "arguments", "ways", "pages"),
    [
        pytest.param(queries.PARKED_TARGETS, ("", "", 100), {"run_parked"}, 400, id="targets"),
        pytest.param(queries.UNPARK_RUNS, ("default", "t2", 5), {"run_parked", "run_pkey"}, 400, id="unpark"),
        pytest.param(queries.UNPARK_DUE_RUNS, ("default", "t2", 5), {"run_parked", "run_pkey"}, 400, id="unpark due"),
        pytest.param(
            queries.POSTPONE_RUNS,
            ("default", "t2", timedelta(seconds=30), 5),
            {"run_parked", "run_pkey"},
            400,
            id="postpone",
        ),
        pytest.param(
            queries.SELECT_PROBES,
            (["default"], ["t2"], [2], "default", ["NoopModule"]),
            {"run_parked"},
            50,
            id="select probes",
        ),
    ],
)
async def test_parked_runs_are_found_along_the_index_however_many_there_are(
    full: asyncpg.Connection, statement: str, arguments: tuple[Any, ...], ways: set[str], pages: int
) -> None:
    plan = await explain(full, statement, *arguments)
    assert ways_into_run(plan) == ways
    assert buffers(plan) < pages


async def test_probes_are_locked_by_their_keys(full: asyncpg.Connection) -> None:
    row = await full.fetchrow("SELECT execution_id, id, epoch FROM executor.run WHERE state = 'PARKED' LIMIT 1")
    keys = [[value] for value in row]
    plan = await explain(full, queries.UNPARK_PROBES, *keys, ["PARKED"], ["BREAKER"])
    assert ways_into_run(plan) == {"run_pkey"}
    assert plan["Actual Rows"] == 1
    assert buffers(plan) < 100
