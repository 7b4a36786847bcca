"""Migrations: alone, repeatable, reversible; and clear words when they cannot go on."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from services.chassis.migrate import MigrationError, downgrade, rooms, upgrade
from tests.postgres import PostgresForTests


async def test_three_pods_may_migrate_at_once_and_again(database_url: str, postgres: PostgresForTests) -> None:
    for _ in range(2):
        await asyncio.gather(*(upgrade(database_url, "graph_store") for _ in range(3)))
    applied = await asyncio.to_thread(
        postgres.fetch, "select version_num from graph_store.alembic_version", url=database_url
    )
    assert len(applied) == 1


@pytest.mark.parametrize("room", rooms())
async def test_every_room_can_go_back_and_forth(database_url: str, postgres: PostgresForTests, room: str) -> None:
    tables = "select count(*) from pg_tables where schemaname = $1"
    await upgrade(database_url, room)
    full = (await asyncio.to_thread(postgres.fetch, tables, room, url=database_url))[0][0]
    await downgrade(database_url, room)
    assert (await asyncio.to_thread(postgres.fetch, tables, room, url=database_url))[0][0] == 1
    await upgrade(database_url, room)
    assert (await asyncio.to_thread(postgres.fetch, tables, room, url=database_url))[0][0] == full > 1


async def test_a_schema_newer_than_the_code_is_refused_in_words(database_url: str, postgres: PostgresForTests) -> None:
    await upgrade(database_url, "graph_store")
    newer = "update graph_store.alembic_version set version_num = '9999'"
    await asyncio.to_thread(postgres.execute, newer, url=database_url)
    with pytest.raises(MigrationError, match="start the newer version again"):
        await upgrade(database_url, "graph_store")


async def test_a_room_without_migrations_is_named_with_those_that_have_some(database_url: str) -> None:
    with pytest.raises(MigrationError, match="nowhere.*graph_store"):
        await upgrade(database_url, "nowhere")


async def test_a_lock_held_by_a_reader_is_waited_for_in_short_tries(database_url: str) -> None:
    await upgrade(database_url, "graph_store")
    reader = await asyncpg.connect(database_url)
    await reader.execute("begin; lock table graph_store.workflow in access share mode")
    going_back = asyncio.create_task(downgrade(database_url, "graph_store"))
    async with asyncio.timeout(30):
        while not await reader.fetchval("select count(*) from pg_locks where not granted"):
            await asyncio.sleep(0.01)
    await reader.execute("commit")
    await going_back
    await reader.close()
