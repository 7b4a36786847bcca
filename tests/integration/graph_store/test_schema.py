"""The migrations: what they make is what tables.py says, and each can be undone with data in the tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from services.chassis import migrate
from services.chassis.database import Database
from services.graph_store.tables import SCHEMA, metadata
from tests.builders import a_graph
from tests.integration.graph_store.conftest import Saves

Sql = Callable[..., Any]


async def test_tables_are_those_of_the_migrated_schema(database: Database) -> None:
    dialect = database.engine.sync.dialect

    def look(connection: Connection) -> dict[str, Any]:
        inspector = inspect(connection)
        return {
            table: (
                [
                    (column["name"], column["type"].compile(dialect), column["nullable"])
                    for column in inspector.get_columns(table, SCHEMA)
                ],
                inspector.get_pk_constraint(table, SCHEMA)["constrained_columns"],
            )
            for table in inspector.get_table_names(SCHEMA)
            if table != "alembic_version"
        }

    async with AsyncEngine(database.engine.sync).connect() as connection:
        found = await connection.run_sync(look)
    assert found == {
        table.name: (
            [(column.name, column.type.compile(dialect), bool(column.nullable)) for column in table.columns],
            [column.name for column in table.primary_key.columns],
        )
        for table in metadata.sorted_tables
    }


async def test_every_unique_key_holds_the_namespace(sql: Sql) -> None:
    keys = await sql("select indexdef from pg_indexes where schemaname = 'graph_store' and indexdef like '%UNIQUE%'")
    keys = [key[0] for key in keys if "alembic_version" not in key[0]]
    assert len(keys) >= 8
    assert all("(namespace, " in key for key in keys)


async def test_the_migration_can_be_undone_with_data_and_done_again(
    save: Saves, sql: Sql, graph_store_database_url: str
) -> None:
    saved = await save(a_graph("a -> b"), request_id="r")
    await save(a_graph("a -> c"), id=saved.stored.workflow.id, version=1)
    await migrate.downgrade(graph_store_database_url, "graph_store")
    left = (
        "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'graph_store'"
    )
    functions = (
        "select count(*) from pg_proc p join pg_namespace n on n.oid = p.pronamespace where nspname = 'graph_store'"
    )
    assert (await sql(left + " and relname not like 'alembic_version%'"))[0][0] == 0
    assert (await sql(functions))[0][0] == 0
    await migrate.upgrade(graph_store_database_url, "graph_store")
    assert (await save(a_graph("a -> b"))).stored.workflow.version == 1
