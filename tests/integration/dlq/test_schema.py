"""The migrations: v1's columns are kept, lists read their indexes, and each can be undone with data."""

from __future__ import annotations

import asyncpg
import pytest

from services.chassis import migrate
from tests.dlq_lab import a_resolved, a_run
from tests.integration.dlq.conftest import Desk, Sql

V1 = {
    "id": "uuid",
    "run_id": "uuid",
    "execution_id": "uuid",
    "task_id": "uuid",
    "failure_reason": "text",
    "failure_type": "character varying(50)",
    "original_inputs": "text",
    "original_config": "text",
    "quarantined_at": "timestamp with time zone",
    "reviewed_by": "uuid",
    "resolution": "character varying(20)",
    "resolved_at": "timestamp with time zone",
    "notes": "text",
    "created_date": "timestamp with time zone",
    "last_modified_date": "timestamp with time zone",
    "created_by": "uuid",
    "last_modified_by": "uuid",
}


async def test_every_column_of_v1_is_there_under_its_name(sql: Sql) -> None:
    rows = await sql(
        "select attname, format_type(atttypid, atttypmod) from pg_attribute"
        " where attrelid = 'dlq.dead_letter_queue'::regclass and attnum > 0"
    )
    columns = {row[0]: row[1] for row in rows}
    assert V1.items() <= columns.items()


async def test_v1s_insert_works_unchanged(sql: Sql) -> None:
    await sql(
        "insert into dlq.dead_letter_queue (id, run_id, execution_id, task_id, failure_reason, failure_type)"
        " values (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'x', 'MANUAL')"
    )
    rows = await sql("select resolution, namespace, quarantined_at is not null from dlq.dead_letter_queue")
    assert tuple(rows[0]) == ("PENDING", "default", True)


async def test_c18_what_happened_to_a_letter_is_never_changed(desk: Desk, sql: Sql) -> None:
    await desk.a_letter()
    for statement in (
        "update dlq.audit_event set principal_name = 'nobody'",
        "delete from dlq.audit_event",
        "truncate dlq.audit_event",
    ):
        with pytest.raises(asyncpg.RestrictViolationError, match="never change"):
            await sql(statement)


LISTS = {
    "newest": "",
    "resolution": "and resolution = 'PENDING'",
    "execution": "and execution_id = '01920000-0000-7000-8000-000000000001'",
    "workflow": "and workflow_id = '01920000-0000-7000-8000-000000000001'",
    "target": "and target = 'http:x'",
}


@pytest.mark.parametrize("name", LISTS)
async def test_each_list_reads_its_index_in_order(sql: Sql, name: str) -> None:
    await sql(
        "insert into dlq.dead_letter_queue (id, run_id, execution_id, workflow_id, target, resolution, quarantined_at)"
        " select gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'http:' || n % 500,"
        " case when n % 50 = 0 then 'PENDING' else 'FIXED' end, now() - n * interval '1 second'"
        " from generate_series(1, 20000) n"
    )
    await sql("analyze dlq.dead_letter_queue")
    plan = await sql(
        f"explain select id from dlq.dead_letter_queue where namespace = 'default' {LISTS[name]}"
        " order by quarantined_at desc, id desc limit 100"
    )
    text = "\n".join(row[0] for row in plan)
    assert f"dead_letter_queue_{name}_idx" in text
    assert "Sort" not in text
    assert "Seq Scan" not in text


async def test_the_migration_can_be_undone_with_data_and_done_again(
    desk: Desk, sql: Sql, dlq_database_url: str
) -> None:
    await desk.fix(await desk.a_letter(), request_id="r")
    await desk.bring(a_resolved(a_run()))
    await migrate.downgrade(dlq_database_url, "dlq")
    left = "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'dlq'"
    functions = "select count(*) from pg_proc p join pg_namespace n on n.oid = p.pronamespace where nspname = 'dlq'"
    assert (await sql(left + " and relname not like 'alembic_version%'"))[0][0] == 0
    assert (await sql(functions))[0][0] == 0
    await migrate.upgrade(dlq_database_url, "dlq")
    assert (await sql("select count(*) from dlq.dead_letter_queue"))[0][0] == 0
