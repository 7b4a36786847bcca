"""The schema: what v1's reports need, undone with data in it, and statements that stay walks."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from services.chassis import migrate
from services.chassis.database import Database
from services.chassis.example.query import read_query
from services.chassis.settings import DatabaseSettings
from services.executor import (
    queries,
    queries_parking,
    queries_pausing,
    queries_reading,
    queries_reusing,
    queries_runners,
)
from services.executor.examples import EXECUTIONS
from services.executor.store.session import PINNED_PLANNER
from services.executor.tables import SCHEMA, metadata
from tests.builders import a_graph
from tests.executor_stack import Stack
from tests.integration.executor.conftest import OpenStack
from tests.postgres import PostgresForTests
from valkyr.api.common.v1.common_pb2 import TimeRange
from valkyr.api.executor.v1.executor_pb2 import ListExecutionsRequest
from valkyr.client import ExecutionState

# Of the design's predecessor: reports and tools written against these go on working. A type may be wider.
V1_COLUMNS = {
    "workflow_execution": {
        "id": {"uuid"},
        "workflow_id": {"uuid"},
        "version": {"integer", "bigint"},
        "state": {"character varying(20)"},
        "started_at": {"timestamp with time zone"},
        "finished_at": {"timestamp with time zone"},
        "parent_execution_id": {"uuid"},
        "trigger_type": {"character varying(20)"},
        "trigger_payload": {"text", "jsonb"},
        "context_data": {"text", "jsonb"},
        "error_message": {"text"},
        "error_stack_trace": {"text"},
        "metrics_snapshot": {"text", "jsonb"},
        "created_date": {"timestamp with time zone"},
        "last_modified_date": {"timestamp with time zone"},
        "created_by": {"uuid"},
        "last_modified_by": {"uuid"},
    },
    "run": {
        "id": {"uuid"},
        "execution_id": {"uuid"},
        "task_id": {"uuid"},
        "attempt": {"integer", "bigint"},
        "state": {"character varying(20)"},
        "created_date": {"timestamp with time zone"},
        "exec_module_id": {"uuid"},
        "leased_by": {"character varying(255)"},
        "lease_until": {"timestamp with time zone"},
        "idempotency_key": {"character varying(128)"},
        "inputs_hash": {"character varying(64)"},
        "config_hash": {"character varying(64)"},
        "heartbeat_at": {"timestamp with time zone"},
        "retry_after": {"timestamp with time zone"},
        "started_at": {"timestamp with time zone"},
        "finished_at": {"timestamp with time zone"},
        "outputs": {"text", "jsonb"},
        "error": {"text"},
        "error_type": {"character varying(20)"},
        "duration_ms": {"integer", "bigint"},
        "cost_tokens": {"numeric(10,4)", "numeric"},
        "runner_id": {"character varying(255)"},
    },
}
LEADING_COLUMNS = """
SELECT c.relname, a.attname FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = 1
WHERE c.relnamespace = 'executor'::regnamespace
"""
EXECUTIONS_OF_A_FULL_TABLE = 1_000
FULL = "a full table of runs"


@pytest.fixture
async def database(executor_database_url: str) -> AsyncIterator[Database]:
    database = await Database.open(
        DatabaseSettings(url=executor_database_url), schema=SCHEMA, application_name="tests of the schema"
    )
    try:
        yield database
    finally:
        await database.close()


@pytest.mark.parametrize("table", V1_COLUMNS)
async def test_every_column_of_v1_is_there_with_its_type(database: Database, table: str) -> None:
    async with database.acquire() as connection:
        rows = await connection.fetch(
            """SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
               WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped""",
            f"executor.{table}",
        )
    found = {row[0]: row[1] for row in rows}
    assert {name for name in V1_COLUMNS[table] if name not in found} == set()
    assert {name: found[name] for name, types in V1_COLUMNS[table].items() if found[name] not in types} == {}


async def test_the_columns_of_v1_have_its_defaults(database: Database) -> None:
    async with database.acquire() as connection:
        await connection.execute(
            """INSERT INTO executor.workflow_execution (id, workflow_id, version, trace_id, traceparent)
               VALUES (gen_random_uuid(), gen_random_uuid(), 1, '', '')"""
        )
        await connection.execute(
            """INSERT INTO executor.run (execution_id, id, node_index, node_id)
               VALUES (gen_random_uuid(), gen_random_uuid(), 0, 'a')"""
        )
        execution = await connection.fetchrow("SELECT * FROM executor.workflow_execution")
        run = await connection.fetchrow("SELECT * FROM executor.run")
    assert (execution["state"], run["state"], run["attempt"]) == ("PENDING", "PENDING", 1)
    assert None not in (execution["created_date"], execution["last_modified_date"], run["created_date"])


async def test_the_migration_can_be_undone_with_data_and_done_again(make_stack: OpenStack) -> None:
    async with make_stack() as stack:
        await stack.run(a_graph("a -> b"))
        await stack.run(a_graph("a", modules={"a": "BrokenModule"}))
        assert await stack.sql.fetchval("SELECT count(*) FROM executor.outbox") == 1
        url = stack.database_url
    await migrate.downgrade(url, "executor")
    connection = await asyncpg.connect(url)
    try:
        left = (
            "SELECT relname FROM pg_class WHERE relnamespace = 'executor'::regnamespace AND relkind IN ('r', 'S', 'v')"
        )
        assert {row[0] for row in await connection.fetch(left)} <= {"alembic_version"}
        assert await connection.fetchval("SELECT count(*) FROM graph_store.workflow") == 2
    finally:
        await connection.close()
    await migrate.upgrade(url, "executor")
    async with make_stack() as stack:
        assert (await stack.run(a_graph("a"))).run_counts == {"SUCCESS": 1}


async def test_the_migration_of_failures_can_be_undone_with_data_and_what_has_begun_goes_on(
    make_stack: OpenStack,
) -> None:
    async with make_stack() as stack:
        await stack.run(a_graph("a", modules={"a": "BrokenModule"}))
        cancelled = await stack.start(a_graph("a", nodes={"a": {"pool": "elsewhere"}}))
        await stack.client.executions.cancel(cancelled)
        waiting = await stack.start(a_graph("w -> a", modules={"w": ("DelayModule", {"duration": "PT1S"})}))
        url = stack.database_url
    await migrate.downgrade(url, "executor", revision="0001")
    connection = await asyncpg.connect(url)
    try:
        assert await connection.fetchval("SELECT to_regclass('executor.run_quarantine')") is None
        assert await connection.fetchval("SELECT count(*) FROM executor.outbox WHERE payload = '{}'") == 1
    finally:
        await connection.close()
    async with make_stack() as stack:  # migrates again
        assert (await stack.wait(waiting)).state is ExecutionState.SUCCESS
        assert (await stack.run(a_graph("a", modules={"a": "BrokenModule"}))).state is ExecutionState.FAILED


@pytest.fixture
async def full(postgres: PostgresForTests) -> AsyncIterator[asyncpg.Connection]:
    """100,000 finished and 100,000 ready runs, and the planner as the executor pins it; filled once, and copied."""
    with postgres.database(postgres.template(("executor", FULL), _filled)) as url:
        connection = await asyncpg.connect(url, server_settings=PINNED_PLANNER)
        try:
            yield connection
        finally:
            await connection.close()


async def _filled(url: str, what: str) -> None:
    if what != FULL:
        await migrate.upgrade(url, what)
        return
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            f"""INSERT INTO executor.run (execution_id, id, node_index, node_id, class_name, state, epoch, attempt,
                    ready_at, ready_revision, rank)
                SELECT ('01920000-0000-7000-8000-' || lpad(to_hex(e), 12, '0'))::uuid,
                    ('01920000-0000-7000-8001-' || lpad(to_hex(e * 256 + n), 12, '0'))::uuid, n, 'n' || n,
                    CASE WHEN n % 10 = 0 THEN 'RareModule' ELSE 'NoopModule' END,
                    CASE WHEN n < 100 THEN 'SUCCESS' ELSE 'READY' END, 1, 1, now() - interval '1 h', 1, n % 3
                FROM generate_series(1, {EXECUTIONS_OF_A_FULL_TABLE}) AS e, generate_series(0, 199) AS n"""
        )
        await connection.execute("ANALYZE executor.run")
    finally:
        await connection.close()


async def explain(connection: asyncpg.Connection, statement: str, *arguments: object) -> dict[str, Any]:
    """The executed plan's top node; nothing of what it did stays."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        text = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *arguments)
    finally:
        await transaction.rollback()
    plan: dict[str, Any] = orjson.loads(text)[0]["Plan"]
    return plan


def nodes_of(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in nodes_of(child))]


def ways_into_run(plan: dict[str, Any]) -> set[str]:
    """The indexes by which `run` is read; its name where it is read from end to end."""
    return {
        node.get("Index Name", node["Node Type"])
        for node in nodes_of(plan)
        if node.get("Relation Name") == "run" and node["Node Type"] != "ModifyTable"
    }


def buffers(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


async def test_the_lease_query_walks_its_index_however_many_rows_there_are(full: asyncpg.Connection) -> None:
    since = datetime(1, 1, 1, tzinfo=UTC)
    plan = await explain(full, queries.SELECT_TO_LEASE, "default", None, ["default"], ["NoopModule"], [1], [since], 10)
    assert ways_into_run(plan) == {"run_to_lease"}
    [way] = [node for node in nodes_of(plan) if node["Node Type"] == "LockRows"]
    assert "ROW(rank, ready_at) >=" in way["Plans"][0]["Index Cond"], "from the watermark on"
    assert plan["Actual Rows"] == 10
    assert buffers(plan) < 200


@pytest.mark.parametrize(
    ("classes", "mark", "found"),
    [
        pytest.param(["NoopModule"], ("NoopModule", 2), {("NoopModule", 2)}, id="behind the watermark"),
        pytest.param(["NoopModule"], ("RareModule", 2), {("NoopModule", 0)}, id="from the beginning without one"),
        pytest.param(["RareModule"], ("NoopModule", 2), {("RareModule", 0)}, id="of the classes asked for"),
        pytest.param([], ("NoopModule", 2), set(), id="of no class"),
    ],
)
async def test_what_is_leased_is_of_the_classes_and_behind_the_watermarks(
    full: asyncpg.Connection, classes: list[str], mark: tuple[str, int], found: set[tuple[str, int]]
) -> None:
    since = datetime(1, 1, 1, tzinfo=UTC)
    async with full.transaction():
        rows = await full.fetch(
            queries.SELECT_TO_LEASE, "default", classes, ["default"], [mark[0]], [mark[1]], [since], 5
        )
    assert {(row["class_name"], row["rank"]) for row in rows} == found


async def test_the_classes_to_lease_are_found_by_hops(full: asyncpg.Connection) -> None:
    plan = await explain(full, queries.READY_CLASSES, "default")
    assert ways_into_run(plan) == {"run_to_lease"}
    assert buffers(plan) < 50


async def key_of_one(connection: asyncpg.Connection) -> asyncpg.Record:
    return await connection.fetchrow("SELECT execution_id, id, epoch FROM executor.run WHERE state = 'READY' LIMIT 1")


async def test_progress_is_written_by_the_keys(full: asyncpg.Connection) -> None:
    row = await key_of_one(full)
    finished = (row["execution_id"], row["id"], row["epoch"], "{}", 1, None, 2)
    lease = ("holder", "runner", timedelta(seconds=9))
    for statement, arguments in (
        (queries.WRITE_FINISHED, ([], [finished])),
        (queries.WRITE_PROGRESS, ([], [finished], [], *lease)),
    ):
        plan = await explain(full, statement, *arguments)
        assert ways_into_run(plan) == {"run_pkey"}
        of_executions = [node for node in nodes_of(plan) if node.get("Alias") == "e" and "Scan" in node["Node Type"]]
        assert {node.get("Index Name") for node in of_executions} == {"workflow_execution_pkey"}


async def test_executions_and_their_runs_are_locked_by_their_keys_every_execution_before_any_run(
    full: asyncpg.Connection,
) -> None:
    await full.execute(
        """INSERT INTO executor.workflow_execution (id, namespace, workflow_id, version, trace_id, traceparent)
           SELECT DISTINCT execution_id, 'default', execution_id, 1, '', '' FROM executor.run"""
    )
    await full.execute("ANALYZE executor.workflow_execution")
    keys = await full.fetch("SELECT execution_id, min(id::text)::uuid FROM executor.run GROUP BY 1 LIMIT 20")
    places = list(range(1, len(keys) + 1))
    plan = await explain(full, queries.LOCK, [key[0] for key in keys], places, places, [key[1] for key in keys])
    assert ways_into_run(plan) == {"run_pkey"}
    assert buffers(plan) < 20 * 20
    [executions] = [node for node in nodes_of(plan) if node.get("Index Name") == "workflow_execution_pkey"]
    assert executions["Actual Loops"] == len(keys)
    before = [node for node in nodes_of(plan) if node.get("Subplan Name") == "CTE e"]
    assert [node["Node Type"] for node in nodes_of(before[0])][:2] == ["Nested Loop", "Sort"], "by id"
    runs = [node for node in nodes_of(plan) if node["Node Type"] == "LockRows" and node not in before]
    gates = [node.get("One-Time Filter", "") for locked in runs for node in locked["Plans"]]
    assert any("InitPlan" in gate for gate in gates), "until all of the executions were looked at, no run is"
    assert plan["Actual Rows"] == len(keys)


async def test_a_heartbeat_a_stop_and_a_look_at_results_go_by_the_key(full: asyncpg.Connection) -> None:
    row = await key_of_one(full)
    keys = [row["execution_id"]], [row["id"]]
    assert ways_into_run(await explain(full, queries.READ_RESULTS, *keys)) == {"run_pkey"}
    beat = await explain(full, queries.HEARTBEAT_RUNS, *keys, [row["epoch"]], timedelta(seconds=9), "")
    assert ways_into_run(beat) == {"run_pkey"}, "not every lease that there is, or was of late"
    assert ways_into_run(await explain(full, queries.STOP_RUNS, *keys, "CANCEL", timedelta(seconds=9))) == {"run_pkey"}


async def test_what_is_leased_of_an_execution_that_ends_is_found_by_the_key_and_locked_in_order(
    full: asyncpg.Connection,
) -> None:
    await full.execute("UPDATE executor.run SET state = 'LEASED' WHERE node_index >= 150")
    await full.execute("ANALYZE executor.run")
    row = await key_of_one(full)
    nodes = nodes_of(await explain(full, queries.STOP_ALL_RUNS, [row["execution_id"]], timedelta(seconds=9)))
    kinds = [node["Node Type"] for node in nodes]
    assert kinds[kinds.index("LockRows") + 1] in ("Sort", "Index Scan"), "before any of them is written"
    indexes = {node["Index Name"] for node in nodes if "Index Name" in node}
    assert indexes == {"run_pkey"}, "not every lease that there is"


STATEMENTS = {
    name: text
    for module in (queries, queries_parking, queries_pausing, queries_reading, queries_reusing, queries_runners)
    for name, text in vars(module).items()
    if not name.startswith("_")
    and isinstance(text, str)
    and text.lstrip().startswith(("SELECT", "WITH", "UPDATE", "INSERT", "DELETE"))
}
WALKS = {
    "CHANGES_SINCE": {"workflow_execution_changed"},
    "COUNT_LEASES": {"run_leased"},
    "FORGET_REQUESTS": {"execution_intervention_request_age"},
    "FORGET_RUNNERS": {"Seq Scan", "runner_pkey", "run_leased"},
    "LIST_RUNNERS": {"runner_pkey", "run_leased"},
    "NEXT_DEADLINE": {"run_deadline", "workflow_execution_deadline", "run_stopping"},
    "NEXT_RETRY": {"run_retry"},
    "NEXT_TIMER": {"run_waiting"},
    "PARKED_TARGETS": {"run_parked"},
    "READMIT_OUTBOX": {"Seq Scan", "outbox_pkey"},
    "SELECT_CONTROL": {"run_control"},
    "SELECT_DEADLINES": {"run_deadline"},
    "SELECT_EXECUTION_DEADLINES": {"workflow_execution_deadline"},
    "SELECT_EXPIRED": {"run_leased"},
    "SELECT_LEASED_AT": {"run_leased"},
    "SELECT_LEASES_BEFORE": {"run_leased"},
    "SELECT_LEASES_OF_HOLDER": {"run_leased"},
    "SELECT_LEASES_OF_HOLDERS": {"run_leased"},
    "SELECT_LEASES_OF_OLDER": {"run_leased", "runner_pkey"},
    "SELECT_OUTBOX": {"outbox_pkey"},
    "SELECT_STOPPED": {"run_stopping"},
    "SELECT_TIMERS": {"run_waiting"},
}
"""Statements that are to walk along an index, and along which. All others look up what they are about."""

A_ROW_OF_EACH = """
WITH runs AS (
    INSERT INTO executor.run (execution_id, id, node_index, node_id, state, parked_by, target)
    SELECT gen_random_uuid(), gen_random_uuid(), 0, 'a', (ARRAY['SUCCESS', 'READY', 'LEASED', 'PARKED'])[1 + n % 4],
        'BREAKER', 't'
    FROM generate_series(1, $1::int) AS n
    RETURNING *),
executions AS (
    INSERT INTO executor.workflow_execution (id, workflow_id, version, trace_id, traceparent, request_id)
    SELECT execution_id, execution_id, 1, '', '', execution_id::text FROM runs),
quarantines AS (
    INSERT INTO executor.run_quarantine (
        execution_id, run_id, quarantine_number, namespace, failure_type, error_type, revision, attempt)
    SELECT execution_id, id, 1, 'default', '', '', 1, 1 FROM runs),
letters AS (
    INSERT INTO executor.outbox (namespace, execution_id, run_id, quarantine_number, kind)
    SELECT 'default', execution_id, id, 1, '' FROM runs),
interventions AS (
    INSERT INTO executor.execution_intervention (
        namespace, execution_id, kind, principal, request_id, request_hash, took_effect)
    SELECT 'default', execution_id, 'PAUSE', '', id::text, '', true FROM runs)
INSERT INTO executor.run_attempt (execution_id, run_id, epoch, attempt, outcome)
SELECT execution_id, id, 1, 1, '' FROM runs
"""


async def planned(connection: asyncpg.Connection, statement: str) -> dict[str, Any]:
    """The plan that is kept for all parameters."""
    count = max((int(number) for number in re.findall(r"\$(\d+)", statement)), default=0)
    arguments = f"({', '.join(['NULL'] * count)})" if count else ""
    await connection.execute(f"PREPARE planned AS {statement}")
    text = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE planned {arguments}")
    await connection.execute("DEALLOCATE planned")
    plan: dict[str, Any] = orjson.loads(text)[0]["Plan"]
    return plan


def walks_of(plan: dict[str, Any], leading: dict[str, str]) -> list[tuple[str, str]]:
    """Ways into tables that are not by the value of an index's leading column: the index, or how else, and by what."""
    walks = []
    for node in nodes_of(plan):
        if not node["Node Type"].endswith(("Index Scan", "Index Only Scan", "Seq Scan")):
            continue
        way, by = node.get("Index Name", node["Node Type"]), node.get("Index Cond", "")
        if way not in leading or not re.search(rf"\({leading[way]}\)?(::text)? = ", by):
            walks.append((way, by))
    return walks


@pytest.mark.parametrize("rows", [None, 0, 1, 20, 1_000], ids=lambda rows: f"{rows} rows")
async def test_what_is_looked_up_is_so_by_the_key_however_few_rows_there_were_when_it_was_planned(
    executor_database_url: str, rows: int | None
) -> None:
    """A plan is kept until the next ANALYZE, and the table may have a hundred thousand rows by then. None: before the
    first."""
    connection = await asyncpg.connect(executor_database_url, server_settings=PINNED_PLANNER)
    try:
        if rows is not None:
            await connection.execute(A_ROW_OF_EACH.replace("$1", str(rows)))
            await connection.execute(f"ANALYZE {', '.join(str(table) for table in metadata.sorted_tables)}")
        leading = dict(await connection.fetch(LEADING_COLUMNS))
        plans = {name: await planned(connection, statement) for name, statement in STATEMENTS.items()}
    finally:
        await connection.close()
    walks = {
        name: [walk for walk in walks_of(plan, leading) if walk[0] not in WALKS.get(name, ())]
        for name, plan in plans.items()
    }
    assert {name: found for name, found in walks.items() if found} == {}
    assert WALKS.keys() <= plans.keys()


@pytest.mark.parametrize(
    ("statement", "arguments", "index"),
    [
        ("SELECT_EXPIRED", [10], "run_leased"),
        ("COUNT_LEASES", [], "run_leased"),
        ("SELECT_CONTROL", [10], "run_control"),
        ("SELECT_TIMERS", [10], "run_waiting"),
        ("SELECT_LEASES_OF_OLDER", ["runner", "holder", 10], "run_leased"),
        ("SELECT_LEASES_OF_HOLDER", ["holder", timedelta(seconds=9)], "run_leased"),
    ],
)
async def test_what_the_loops_ask_reads_only_what_they_are_about(
    full: asyncpg.Connection, statement: str, arguments: list[object], index: str
) -> None:
    plan = await explain(full, getattr(queries, statement), *arguments)
    assert ways_into_run(plan) == {index}
    assert buffers(plan) < 20


async def test_the_next_retry_is_found_however_many_timers_wait(full: asyncpg.Connection) -> None:
    await full.execute(
        """UPDATE executor.run SET state = 'WAITING', retry_after = now() + interval '1 h' * random()
           WHERE node_index < 20"""
    )
    await full.execute("ANALYZE executor.run")
    plan = await explain(full, queries.NEXT_RETRY)
    assert ways_into_run(plan) == {"run_retry"}
    assert buffers(plan) < 20


async def test_what_started_within_a_range_of_times_is_found_by_the_index_of_starts(full: asyncpg.Connection) -> None:
    await full.execute(
        """INSERT INTO executor.workflow_execution (id, workflow_id, version, trace_id, traceparent, started_at)
           SELECT DISTINCT ON (execution_id) execution_id, execution_id, 1, '', '', now() - node_index * interval '1 h'
           FROM executor.run ORDER BY execution_id, random()"""
    )
    await full.execute("ANALYZE executor.workflow_execution")
    request = ListExecutionsRequest(time_ranges=[TimeRange(field="startTime")])
    request.time_ranges[0].start_time.FromDatetime(datetime.now(UTC) - timedelta(hours=2.5))
    statement = read_query(request, EXECUTIONS).statement("e.id", "executor.workflow_execution AS e", "true")
    plan = await explain(full, statement.text, *statement.parameters)
    assert "workflow_execution_started" in {node.get("Index Name") for node in nodes_of(plan)}


async def test_sessions_of_the_executor_have_the_planner_pinned(stack: Stack) -> None:
    async with stack.app.database.acquire() as connection:
        for name, value in PINNED_PLANNER.items():
            assert await connection.fetchval("SELECT current_setting($1)", name) == value
