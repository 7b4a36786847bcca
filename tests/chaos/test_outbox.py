"""I15: executor and DLQ die at the worst moment between them, and two executors relay the same rows at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from tests import run_history
from tests.builders import a_graph
from tests.chaos import ledger
from tests.chaos.load import ALWAYS
from tests.chaos.proxy import Proxy, Way
from tests.chaos.rooms import Rooms, open_rooms, running
from tests.executor_stack import eventually
from valkyr.client import Client
from valkyr.client.executions import Start

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

EXECUTIONS, FEW = 150, 15
HOPELESS = a_graph("a", modules={"a": ("FailModule", {"type": "PERMANENT", "times": ALWAYS})})
OUTBOX = "SELECT count(*) FROM executor.outbox"
LETTERS = "SELECT count(*) FROM dlq.dead_letter_queue"
QUARANTINES = "SELECT count(*) FROM executor.run_quarantine"
SLOW_COMMITS = """
CREATE FUNCTION history.dawdle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_sleep(random() * 0.2); RETURN NULL; END $$;
CREATE TRIGGER slow AFTER INSERT ON executor.outbox FOR EACH STATEMENT EXECUTE FUNCTION history.dawdle();
"""

OFTEN = {"VALKYR_EXECUTOR__RUNNER__POLL_INTERVAL": "PT0.5S"}
"""Six of them until the relay looks by itself."""


@pytest.fixture
def database(migrated_database_url: Callable[..., str]) -> str:
    return migrated_database_url("graph_store", "executor", "breaker", "dlq")


async def watched(sql: asyncpg.Connection) -> None:
    await run_history.install(sql)
    await ledger.install(sql)


async def fail_for_good(client: Client, number: int = EXECUTIONS) -> None:
    """Starts so many executions, each of which ends in a quarantine."""
    workflow_id = (await client.graphs.save(HOPELESS)).workflow.id
    await client.executions.start_many([Start(workflow_id) for _ in range(number)])


async def until_count(sql: asyncpg.Connection, query: str, number: int) -> None:
    async def equal() -> bool:
        return bool(await sql.fetchval(query) == number)

    await eventually(equal, f"{number}: {query}", 60)


async def assert_each_has_its_letter(sql: asyncpg.Connection, number: int = EXECUTIONS) -> None:
    await until_count(sql, LETTERS, number)
    await until_count(sql, OUTBOX, 0)
    assert await ledger.letter_problems(sql) == []


async def test_i15_an_executor_killed_between_commit_and_relay_tells_the_dlq_later(
    database: str, tmp_path: Path
) -> None:
    async with open_rooms(tmp_path, database) as (rooms, sql), rooms.client() as client:
        await watched(sql)
        await rooms.kill("dlq")
        await fail_for_good(client)
        await until_count(sql, OUTBOX, EXECUTIONS)
        await rooms.kill("executor")
        await rooms.start("dlq", "executor")
        await assert_each_has_its_letter(sql)


async def test_i15_a_dlq_killed_between_storing_and_answering_is_told_again(database: str, tmp_path: Path) -> None:
    rooms = Rooms(tmp_path, database)
    async with Proxy(rooms.addresses["dlq"]) as proxy:
        rooms.set("executor", VALKYR_EXECUTOR__DLQ=proxy.address)
        async with running(rooms) as sql, rooms.client() as client:
            await watched(sql)
            await fail_for_good(client, FEW)
            await assert_each_has_its_letter(sql, FEW)
            await proxy.set(Way.SWALLOW_ANSWERS)
            await fail_for_good(client, FEW)
            await until_count(sql, LETTERS, 2 * FEW)
            assert await sql.fetchval(OUTBOX) > 0
            await rooms.kill("dlq")
            await proxy.set(Way.PASS)
            await rooms.start("dlq")
            await assert_each_has_its_letter(sql, 2 * FEW)


async def test_i15_two_executors_that_relay_at_once_tell_each_row_once(database: str, tmp_path: Path) -> None:
    everybody = ("graph_store", "breaker", "dlq", "executor", "executor_two")
    async with open_rooms(tmp_path, database, *everybody) as (rooms, sql):
        await watched(sql)
        await sql.execute(SLOW_COMMITS)
        async with rooms.client() as one, rooms.client(executor="executor_two") as two:
            await asyncio.gather(fail_for_good(one), fail_for_good(two))
            await until_count(sql, QUARANTINES, 2 * EXECUTIONS)
            await assert_each_has_its_letter(sql, 2 * EXECUTIONS)


async def test_i15_a_row_that_commits_after_younger_ones_were_told_is_told_too(database: str, tmp_path: Path) -> None:
    async with open_rooms(tmp_path, database, **OFTEN) as (rooms, sql), rooms.client() as client:
        await rooms.kill("dlq")
        await fail_for_good(client, FEW)
        await until_count(sql, OUTBOX, FEW)
        await rooms.kill("executor")
        oldest = await sql.fetchrow(
            "DELETE FROM executor.outbox WHERE id = (SELECT min(id) FROM executor.outbox) RETURNING *"
        )
        late = await asyncpg.connect(database)
        try:
            async with late.transaction():
                await late.execute(
                    """INSERT INTO executor.outbox OVERRIDING SYSTEM VALUE
                       SELECT * FROM jsonb_populate_record(NULL::executor.outbox, $1::text::jsonb)""",
                    json.dumps(dict(oldest), default=str),
                )
                await rooms.start("dlq", "executor")
                await until_count(sql, LETTERS, FEW - 1)
                await until_count(sql, OUTBOX, 0)
        finally:
            await late.close()
        await until_count(sql, LETTERS, FEW)
        await until_count(sql, OUTBOX, 0)
        assert await sql.fetch(ledger.LETTER_PROBLEMS) == []
