"""The migrations of every room: what they make is what its tables.py says, and its keys hold the namespace."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from sqlalchemy import MetaData, inspect
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.ext.asyncio import create_async_engine

from services.chassis.migrate import rooms

UNIQUE_KEYS = {"graph_store": 14, "breaker": 8, "dlq": 6}
"""Of the executor's, most are of an execution."""


def declared(metadata: MetaData, dialect: Dialect) -> dict[str, Any]:
    """Columns, with type and whether they take NULL, and the primary key, by table."""
    return {
        table.name: (
            [(column.name, column.type.compile(dialect), bool(column.nullable)) for column in table.columns],
            [column.name for column in table.primary_key.columns],
        )
        for table in metadata.sorted_tables
    }


def migrated(connection: Connection, schema: str) -> dict[str, Any]:
    """The same of the database."""
    inspector = inspect(connection)
    return {
        table: (
            [
                (column["name"], column["type"].compile(connection.dialect), column["nullable"])
                for column in inspector.get_columns(table, schema)
            ],
            inspector.get_pk_constraint(table, schema)["constrained_columns"],
        )
        for table in inspector.get_table_names(schema)
        if table != "alembic_version"
    }


@pytest.mark.parametrize("room", rooms())
async def test_tables_are_those_of_the_migrated_schema(migrated_database_url: Callable[..., str], room: str) -> None:
    url = migrated_database_url(room)
    tables = importlib.import_module(f"services.{room}.tables")
    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url))
    async with engine.connect() as connection:
        found = await connection.run_sync(migrated, tables.SCHEMA)
    await engine.dispose()
    assert found == declared(tables.metadata, engine.dialect)


@pytest.mark.parametrize("room", UNIQUE_KEYS)
async def test_every_unique_key_holds_the_namespace(migrated_database_url: Callable[..., str], room: str) -> None:
    connection = await asyncpg.connect(migrated_database_url(room))
    keys = await connection.fetch(
        """SELECT indexdef FROM pg_indexes
           WHERE schemaname = $1 AND indexdef LIKE '%UNIQUE%' AND tablename <> 'alembic_version'""",
        room,
    )
    await connection.close()
    assert len(keys) == UNIQUE_KEYS[room]
    assert [key[0] for key in keys if "(namespace, " not in key[0] and "(namespace)" not in key[0]] == []
