"""A schema made sure of at start: looked at in the process, migrated in another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from alembic.script import ScriptDirectory

from services.chassis import schema
from services.chassis.database import Database
from services.chassis.migrate import lock_key, rooms
from services.chassis.schema import MigrationError, bring_up_to_date, newest_revision
from services.chassis.settings import DatabaseSettings
from tests.postgres import PostgresForTests
from tests.waiting import wait_until

OTHERS = """select count(*) from pg_stat_activity
    where application_name = 'valkyr migrate dlq lock' and datname = current_database()"""


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await Database.open(DatabaseSettings(url=database_url), schema="dlq", application_name="toys")
    yield database
    await database.close()


@pytest.mark.parametrize("room", rooms())
def test_the_newest_revision_is_the_one_that_migrating_ends_at(room: str) -> None:
    folder = schema.SERVICES / room / "migrations"
    script = ScriptDirectory(str(folder), version_locations=[str(folder / "versions")])
    assert newest_revision(room) == script.get_current_head()


async def test_an_empty_database_is_migrated_however_many_start_at_once(database: Database) -> None:
    await asyncio.gather(*(bring_up_to_date(database, "dlq") for _ in range(2)))
    async with database.acquire() as connection:
        assert await connection.fetchval("select version_num from dlq.alembic_version") == newest_revision("dlq")
        assert await connection.fetchval("select count(*) from dlq.dead_letter_queue") == 0


async def test_a_schema_that_is_up_to_date_starts_no_process(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bring_up_to_date(database, "dlq")
    monkeypatch.setattr(schema, "MIGRATE", "services.there_is_no_such_module")
    await bring_up_to_date(database, "dlq")


async def test_a_schema_newer_than_the_code_is_refused_in_the_migrations_words(database: Database) -> None:
    await bring_up_to_date(database, "dlq")
    async with database.acquire() as connection:
        await connection.execute("update dlq.alembic_version set version_num = '9999'")
    with pytest.raises(MigrationError, match=r"^the schema dlq is of a version .* start the newer version again.*$"):
        await bring_up_to_date(database, "dlq")


async def test_a_migration_that_breaks_is_told_of_with_all_that_it_said(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "MIGRATE", "services.there_is_no_such_module")
    with pytest.raises(MigrationError, match="No module named services.there_is_no_such_module"):
        await bring_up_to_date(database, "dlq")


async def test_a_start_that_is_given_up_ends_its_migration(
    database: Database, database_url: str, postgres: PostgresForTests
) -> None:
    def migrating() -> bool:
        return bool(postgres.fetch(OTHERS, url=database_url)[0][0])

    async with database.acquire() as other:
        await other.fetch("select pg_advisory_lock($1)", lock_key("dlq"))
        starting = asyncio.create_task(bring_up_to_date(database, "dlq"))
        await asyncio.to_thread(wait_until, migrating, "the migration waits for its turn", 60)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await asyncio.to_thread(wait_until, lambda: not migrating(), "the migration has ended", 60)
        assert await other.fetchval("select to_regnamespace('dlq')") is None
