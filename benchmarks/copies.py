"""Fills the executor's tables with copies of an execution that it made itself: rows in their real shape, whatever
columns they have by now."""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg

from benchmarks.database import Database

CHUNK = 50_000

COLUMNS = """
SELECT column_name, data_type FROM information_schema.columns
WHERE table_schema = 'executor' AND table_name = $1 AND is_generated = 'NEVER' ORDER BY ordinal_position
"""

NEW_RUN_ID = "overlay(c.id::text PLACING right(t.id::text, 7) FROM 30)::uuid"
"""A run's id is that of its execution but for the last 28 bits, which name the node."""


async def copy_execution(database: Database, execution_id: str, copies: int) -> None:
    """Copies of the execution and of all its runs, each a little older than the last; then VACUUM, ANALYZE and
    CHECKPOINT, so that none of it is left for the time that is measured."""
    connection = await asyncpg.connect(database.url)
    try:
        statement = await _statement(connection)
        for first in range(0, copies, CHUNK):
            await connection.execute(statement, execution_id, first, min(first + CHUNK, copies) - 1)
        await connection.execute("VACUUM (ANALYZE) executor.run")
        await connection.execute("VACUUM (ANALYZE) executor.workflow_execution")
    finally:
        await connection.close()
    await database.checkpoint()


async def _statement(connection: asyncpg.Connection) -> str:
    executions = await _copied(
        connection,
        "workflow_execution",
        {"id": "uuidv7()", "request_id": "CASE WHEN t.request_id IS NOT NULL THEN gen_random_uuid()::text END"},
    )
    runs = await _copied(connection, "run", {"execution_id": "c.id", "id": NEW_RUN_ID})
    return f"""
WITH copied AS (
    INSERT INTO executor.workflow_execution ({", ".join(executions)})
    SELECT {", ".join(executions.values())}
    FROM executor.workflow_execution t CROSS JOIN generate_series($2::int, $3::int) AS g(n) WHERE t.id = $1::uuid
    RETURNING id)
INSERT INTO executor.run ({", ".join(runs)})
SELECT {", ".join(runs.values())}
FROM (SELECT id, $2::int + row_number() OVER () AS n FROM copied) AS c
CROSS JOIN executor.run t CROSS JOIN LATERAL (SELECT c.n) AS g(n) WHERE t.execution_id = $1::uuid
"""


async def _copied(connection: asyncpg.Connection, table: str, changed: Mapping[str, str]) -> dict[str, str]:
    """By column, what stands in the copy. Times go back by an hour and more: nothing of it has changed of late."""
    kinds = {row["column_name"]: row["data_type"] for row in await connection.fetch(COLUMNS, table)}
    older = "t.{} - interval '1 hour' - g.n * interval '3 ms'"
    return {
        name: changed.get(name) or (older.format(name) if kind == "timestamp with time zone" else f"t.{name}")
        for name, kind in kinds.items()
    }
