"""The fixtures of tests/conftest.py: a database of one's own, gone afterwards, nothing left running."""

from __future__ import annotations

import asyncpg

from tests.postgres import PostgresForTests


async def test_a_database_of_ones_own_is_empty_and_owned(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetchval("SELECT current_user") == "valkyr"
        assert await connection.fetchval("SELECT current_setting('fsync')") == "on"
        assert await connection.fetchval("SELECT current_setting('server_version_num')::int / 10000") == 18
        await connection.execute("CREATE SCHEMA mine CREATE TABLE note (id int)")
    finally:
        await connection.close()


def test_two_databases_do_not_share_tables(postgres: PostgresForTests) -> None:
    with postgres.database() as one, postgres.database() as two:
        postgres.execute("CREATE TABLE note (id int)", url=one)
        postgres.execute("CREATE TABLE note (id int)", url=two)
        name = one.split("/")[3].split("?")[0]
    assert not postgres.fetch("SELECT 1 FROM pg_database WHERE datname = $1", name)


def test_a_template_is_filled_once(postgres: PostgresForTests) -> None:
    filled: list[str] = []

    async def migrate(url: str, room: str) -> None:
        filled.append(room)
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(f"CREATE SCHEMA {room}")
        finally:
            await connection.close()

    names = {postgres.template(["here", "there"], migrate) for _ in range(2)}
    assert len(names) == 1
    assert filled == ["here", "there"]
    with postgres.database(names.pop()) as url:
        assert len(postgres.fetch("SELECT 1 FROM pg_namespace WHERE nspname IN ('here', 'there')", url=url)) == 2
