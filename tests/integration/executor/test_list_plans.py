"""How PostgreSQL goes about what is typically asked of very many executions and their runs: along an index."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from google.protobuf import json_format

from services.chassis.example.query import Statement, fetch, read_query
from services.executor.examples import EXECUTIONS, RUNS
from services.executor.store import lists
from services.executor.store.lists import ExecutionScope, RunScope, find_executions, find_runs
from valkyr.api.executor.v1 import executor_pb2 as pb
from valkyr.flow.states import ExecutionState, RunState

COUNT = 50_000
BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
WORKFLOW = UUID("00000000-0000-7000-8000-000000000003")
# An execution a minute; one in a thousand failed, the last hundred are running, and most have succeeded.
FILL = (
    """INSERT INTO executor.workflow_execution (id, namespace, workflow_id, version, state, started_at, created_date,
            trace_id, traceparent, trigger_payload)
        SELECT (lpad(to_hex(1772323200000 + i * 60000), 12, '0') || '7000' || lpad(to_hex(i), 16, '8'))::uuid,
            'default',
            ('00000000-0000-7000-8000-' || lpad(to_hex(i % 1000), 12, '0'))::uuid, 1,
            CASE WHEN i % 1000 = 0 THEN 'FAILED' WHEN i > $1 - 100 THEN 'RUNNING' ELSE 'SUCCESS' END,
            '2026-03-01Z'::timestamptz + i * interval '1 minute', '2026-03-01Z'::timestamptz + i * interval '1 minute',
            md5(i::text), '', '{"order": ' || i || '}'
        FROM generate_series(1, $1::bigint) AS i""",
    """INSERT INTO executor.run (execution_id, id, node_index, node_id, class_name, state, runner_id, started_at,
            lease_until, quarantine_number)
        SELECT e.id, md5(e.id::text || n)::uuid, n, 'n' || n, 'Class', CASE WHEN n = 2 AND e.state = 'FAILED' THEN
            'QUARANTINED' WHEN n = 2 AND e.state = 'RUNNING' THEN 'LEASED' ELSE 'SUCCESS' END, 'runner-one',
            e.started_at,
            CASE WHEN e.state = 'RUNNING' THEN now() END, CASE WHEN e.state = 'FAILED' THEN n - 1 ELSE 0 END
        FROM executor.workflow_execution AS e, generate_series(1, 2) AS n""",
    "ANALYZE executor.workflow_execution, executor.run",
)


@pytest.fixture
async def connection(executor_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(executor_database_url)
    yield connection
    await connection.close()


async def told(connection: asyncpg.Connection, statement: Statement) -> list[Any]:
    """Prints the plan of a statement in place of its rows."""
    rows = await fetch(connection, Statement(f"EXPLAIN {statement.text}", statement.parameters))
    raise Told("\n".join(row[0] for row in rows))


class Told(Exception):
    """A plan."""


async def plan_of_executions(connection: Any, asked: dict[str, Any], **scope: Any) -> str:
    query = read_query(json_format.ParseDict(asked, pb.ListExecutionsRequest()), EXECUTIONS)
    with pytest.raises(Told) as plan:
        await find_executions(connection, query, ExecutionScope("default", **scope))
    return str(plan.value)


async def plan_of_runs(connection: Any, asked: dict[str, Any], **scope: Any) -> str:
    query = read_query(json_format.ParseDict(asked, pb.ListRunsRequest()), RUNS)
    with pytest.raises(Told) as plan:
        await find_runs(connection, query, RunScope("default", **scope))
    return str(plan.value)


async def test_what_is_typical_is_answered_along_an_index(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for statement in FILL:
        await connection.execute(statement, *([COUNT] if "$1" in statement else []))
    last = await connection.fetchval("SELECT id FROM executor.workflow_execution ORDER BY id DESC LIMIT 1")
    monkeypatch.setattr(lists, "fetch", told)
    since = {"field": "createTime", "startTime": f"{BEGAN + timedelta(minutes=COUNT - 30):%Y-%m-%dT%H:%M:%SZ}"}
    executions: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
        ("workflow_execution_pkey", {}, {}),
        ("workflow_execution_pkey", {"example": {"id": str(last)}}, {}),
        ("workflow_execution_pkey", {}, {"ids": [last]}),
        ("Index Cond: (id >= ", {"timeRanges": [since]}, {}),
        ("workflow_execution_of_workflow", {"example": {"workflowId": str(WORKFLOW)}}, {}),
        ("workflow_execution_of_workflow", {"example": {"state": "FAILED"}}, {"workflow_id": WORKFLOW}),
        ("workflow_execution_unsettled", {"example": {"state": "FAILED"}}, {}),
        ("workflow_execution_unsettled", {"example": {"state": "RUNNING"}}, {}),
        ("workflow_execution_unsettled", {}, {"states": [ExecutionState.FAILED, ExecutionState.RUNNING]}),
        ("workflow_execution_unsettled", {"example": {"state": "FAILED", "errorType": "TIMEOUT"}}, {}),
        ("workflow_execution_started", {"timeRanges": [since | {"field": "startTime"}]}, {}),
    )
    for index, asked, scope in executions:
        plan = await plan_of_executions(connection, asked, **scope)
        assert "Seq Scan" not in plan, (asked, scope, plan)
        assert index in plan, (asked, scope, plan)
    runs: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
        ("run_pkey", {}, {}),
        ("run_pkey", {"example": {"executionId": str(last)}}, {}),
        ("run_pkey", {"example": {"nodeId": "n1"}}, {"execution_id": last}),
        ("workflow_execution_of_workflow", {}, {"workflow_id": WORKFLOW}),
        ("run_to_look_at", {"example": {"state": "QUARANTINED"}}, {}),
        ("run_to_look_at", {"example": {"nodeId": "n2"}}, {"states": [RunState.QUARANTINED, RunState.PARKED]}),
        ("run_leased", {"example": {"state": "LEASED"}, "orderBy": "startTime"}, {}),
    )
    for index, asked, scope in runs:
        plan = await plan_of_runs(connection, asked, **scope)
        assert "Seq Scan" not in plan, (asked, scope, plan)
        assert index in plan, (asked, scope, plan)
