"""Migrations: alone, repeatable, reversible; and clear words when they cannot go on."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import urlsplit

import asyncpg
import pytest

from services.chassis.migrate import MigrationError, downgrade, rooms, upgrade
from services.chassis.settings import SettingsError
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
    waiting = """
        select count(*) from pg_locks where not granted
        and database = (select oid from pg_database where datname = current_database())
    """
    async with asyncio.timeout(60):
        while not await reader.fetchval(waiting):
            await asyncio.sleep(0.01)
    await reader.execute("commit")
    await going_back
    await reader.close()


PLAIN = re.compile(r"Traceback|sqlalche\.me|Error\b|<class|asyncpg")


async def test_a_user_who_may_not_create_schemas_is_told_who_may_allow_it(
    database_url: str, postgres: PostgresForTests
) -> None:
    name = urlsplit(database_url).path[1:]
    await asyncio.to_thread(postgres.execute, f"create role {name}_guest login")
    try:
        guest = database_url.replace("valkyr@", f"{name}_guest@")
        with pytest.raises(MigrationError, match=f"grant create on database {name} to {name}_guest") as caught:
            await upgrade(guest, "graph_store")
        assert not PLAIN.search(str(caught.value))
    finally:
        await asyncio.to_thread(postgres.execute, f"drop role {name}_guest")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u@127.0.0.1:1/d", r"PostgreSQL cannot be reached \(connection refused\)"),
        ("postgresql://u@no-host.invalid/d", "PostgreSQL cannot be reached"),
        (None, "PostgreSQL says: database .no_such_database.* does not exist"),
    ],
    ids=["nobody listens", "no such host", "no such database"],
)
async def test_a_database_that_cannot_be_used_is_one_plain_sentence(
    database_url: str, url: str | None, said: str
) -> None:
    with pytest.raises(MigrationError, match=said) as caught:
        await upgrade(url or database_url.replace("/test_", "/no_such_database_"), "graph_store")
    assert not PLAIN.search(str(caught.value))


async def test_a_postgresql_of_an_unsupported_version_is_refused_before_anything_is_made(
    database_url: str, postgres: PostgresForTests, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = await asyncio.to_thread(postgres.fetch, "show server_version_num", url=database_url)
    major = int(shown[0][0]) // 10_000
    monkeypatch.setattr("services.chassis.settings.POSTGRES_VERSIONS", range(major - 3, major))
    with pytest.raises(SettingsError, match=f"this is PostgreSQL {major}; takes {major - 3} to {major - 1}"):
        await upgrade(database_url, "graph_store")
    schemas = "select count(*) from pg_namespace where nspname = 'graph_store'"
    assert (await asyncio.to_thread(postgres.fetch, schemas, url=database_url))[0][0] == 0
