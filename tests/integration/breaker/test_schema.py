"""The migrations: v1's columns are there, what happened stays, and each can be undone with data."""

from __future__ import annotations

import asyncpg
import pytest

from services.chassis import migrate
from tests.integration.breaker.conftest import MovableClock, OpenReplica, Replica, Sql

V1_COLUMNS = {
    "id": "uuid",
    "target": "character varying(500)",
    "state": "character varying(20)",
    "failure_count": "integer",
    "success_count": "integer",
    "last_failure_at": "timestamp with time zone",
    "opened_at": "timestamp with time zone",
    "next_retry_at": "timestamp with time zone",
    "window_start_at": "timestamp with time zone",
    "created_date": "timestamp with time zone",
    "last_modified_date": "timestamp with time zone",
    "created_by": "uuid",
    "last_modified_by": "uuid",
}


async def test_every_column_of_v1_is_there_under_its_name(sql: Sql) -> None:
    rows = await sql(
        "select attname, format_type(atttypid, atttypmod) as type from pg_attribute "
        "where attrelid = 'breaker.circuit_breaker_state'::regclass and attnum > 0"
    )
    found = {row["attname"]: row["type"] for row in rows}
    assert V1_COLUMNS.items() <= found.items()


async def test_a_row_of_v1_needs_no_more_than_v1_gave_it(sql: Sql, replica: Replica) -> None:
    await sql("insert into breaker.circuit_breaker_state (id, target) values (gen_random_uuid(), 'smtp:mail')")
    view = await replica.get("smtp:mail")
    assert (view.key.namespace, view.circuit.state, view.circuit.generation) == ("default", "CLOSED", 0)
    await replica.report(*"FFFFF", target="smtp:mail")
    assert (await replica.get("smtp:mail")).circuit.generation == 1


@pytest.mark.parametrize(
    "statement",
    [
        "update breaker.transition set cause = 'x'",
        "delete from breaker.transition",
        "truncate breaker.transition",
    ],
)
async def test_transitions_are_appended_and_stay(replica: Replica, sql: Sql, statement: str) -> None:
    await replica.report(*"FFFFF")
    with pytest.raises(asyncpg.RestrictViolationError, match="never change"):
        await sql(statement)


async def test_a_breaker_is_marked_forced_exactly_in_the_states_that_are(replica: Replica, sql: Sql) -> None:
    await replica.report("F")
    for state, forced in (("FORCED_OPEN", False), ("CLOSED", True), ("AJAR", False)):
        with pytest.raises(asyncpg.CheckViolationError):
            await sql("update breaker.circuit_breaker_state set state = $1, forced = $2", state, forced)


async def test_the_migration_can_be_undone_with_data_and_done_again(
    replica: Replica, open_replica: OpenReplica, sql: Sql, clock: MovableClock, breaker_database_url: str
) -> None:
    await replica.report(*"FFFFF")
    clock.advance(seconds=30)
    await replica.probe()
    await migrate.downgrade(breaker_database_url, "breaker")
    left = "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'breaker'"
    functions = "select count(*) from pg_proc p join pg_namespace n on n.oid = p.pronamespace where nspname = 'breaker'"
    assert (await sql(left + " and relname not like 'alembic_version%'"))[0][0] == 0
    assert (await sql(functions))[0][0] == 0
    await replica.database.close()
    await migrate.upgrade(breaker_database_url, "breaker")
    again = await open_replica()
    assert (await again.get()).circuit.generation == 0
    await again.report(*"FFFFF")
    assert (await again.get()).circuit.generation == 1
