"""How equals are found among very many rows, and which of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from services.executor import queries_reusing as queries
from services.executor.store import reusing as store
from services.executor.store.reusing import Equal
from services.executor.store.session import PINNED_PLANNER
from tests.integration.executor.test_schema import buffers, explain, ways_into_run

HOUR = timedelta(hours=1)


@pytest.fixture
async def full(executor_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """40,000 successes that may be reused among 40,000 others, 20,000 of them equal; the planner as it is pinned."""
    connection = await asyncpg.connect(executor_database_url, server_settings=PINNED_PLANNER)
    try:
        await connection.execute(
            """INSERT INTO executor.run (execution_id, id, namespace, node_index, node_id, class_name, state,
                   idempotency_key, dedupes, finished_at, outputs)
               SELECT gen_random_uuid(), gen_random_uuid(), 'default', 0, 'n', 'NoopModule', 'SUCCESS',
                   CASE WHEN n % 4 = 0 THEN 'often' ELSE 'key' || n END, n % 2 = 0, now() - n * interval '1 s', n::text
               FROM generate_series(1, 80000) AS n"""
        )
        await connection.execute("ANALYZE executor.run")
        yield connection
    finally:
        await connection.close()


@pytest.mark.parametrize("keys", [["key2"], ["often"], ["key1", "key2", "nobody's", "often"]], ids=len)
async def test_equals_are_found_along_their_index_however_many_there_are(
    full: asyncpg.Connection, keys: list[str]
) -> None:
    plan = await explain(full, queries.FIND_REUSABLE, ["default"] * len(keys), keys, [HOUR] * len(keys))
    assert ways_into_run(plan) == {"run_reusable"}
    assert buffers(plan) < 12 * len(keys)


async def test_the_newest_is_found_of_each_that_is_not_too_old(full: asyncpg.Connection) -> None:
    wanted = [
        Equal("default", "often", HOUR),
        Equal("default", "key2", timedelta(seconds=1)),
        Equal("default", "key2", HOUR),
        Equal("default", "key1", HOUR),
        Equal("elsewhere", "often", HOUR),
    ]
    found = await store.find_reusable(full, wanted)
    assert {place: one.outputs for place, one in found.items()} == {0: "4", 2: "2"}


async def test_undecided_runs_are_read_and_released_by_their_keys(full: asyncpg.Connection) -> None:
    await full.execute("UPDATE executor.run SET state = 'READY', is_control = true WHERE idempotency_key = 'key2'")
    row = await full.fetchrow("SELECT execution_id, id FROM executor.run WHERE idempotency_key = 'key2'")
    keys = [[value] for value in row]
    assert ways_into_run(await explain(full, queries.SELECT_UNDECIDED, *keys)) == {"run_pkey"}
    plan = await explain(full, queries.RELEASE_UNDECIDED, *keys, [0], ["k"], ["i"], ["c"], [True])
    assert ways_into_run(plan) == {"run_pkey"}
    source = [[UUID(int=0)], [UUID(int=1)], ["k"], ["i"], ["c"]]
    assert ways_into_run(await explain(full, queries.NOTE_REUSED, *keys, *source)) == {"run_pkey"}
