"""How PostgreSQL goes about what is typically asked of very many letters: along an index."""

from __future__ import annotations

from typing import Any

import asyncpg
from google.protobuf import json_format

from services.chassis.example.query import Statement, fetch, read_query
from services.dlq.examples import COLUMNS, LETTERS, ROWS
from valkyr.api.dlq.v1 import dlq_pb2 as pb

# One in five hundred still waits.
FILL = """
    INSERT INTO dlq.dead_letter_queue (id, run_id, execution_id, workflow_id, node_id, failure_type, resolution, target,
        quarantined_at, original_inputs, attempts)
    SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, md5('r' || i)::uuid, md5('e' || i / 5)::uuid,
        ('00000000-0000-7000-9000-' || lpad(to_hex(i % 500), 12, '0'))::uuid, 'node-' || i % 50,
        CASE WHEN i % 7 = 0 THEN 'TIMEOUT' ELSE 'MAX_RETRIES' END,
        CASE WHEN i % 500 = 0 THEN 'PENDING' ELSE 'REQUEUED' END, 'http:' || i % 1000 || '.example.com',
        '2026-03-01Z'::timestamptz + i * interval '1 minute', '{"trigger": {"order": ' || i || '}}', '[]'
    FROM generate_series(1, 30000) AS i"""
CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("dead_letter_queue_newest_idx", {}),
    ("dead_letter_queue_resolution_idx", {"example": {"resolution": "PENDING"}}),
    ("dead_letter_queue_resolution_idx", {"example": {"resolution": "pending", "failureType": "TIMEOUT"}}),
    (
        "dead_letter_queue_resolution_idx",
        {"example": {"resolution": "PENDING", "originalInputs": {"trigger": {"order": 500}}}},
    ),
    ("dead_letter_queue_execution_idx", {"example": {"executionId": "d2490f04-8dc2-2b77-3611-7870e10a4e66"}}),
    ("dead_letter_queue_workflow_idx", {"example": {"workflowId": "00000000-0000-7000-9000-000000000003"}}),
    ("dead_letter_queue_target_idx", {"example": {"target": "http:7.example.com"}}),
    ("dead_letter_queue_quarantine_key", {"example": {"runId": "d2490f04-8dc2-2b77-3611-7870e10a4e66"}}),
    ("dead_letter_queue_pkey", {"example": {"id": "00000000-0000-7000-8000-000000000007"}}),
    (
        "dead_letter_queue_newest_idx",
        {"timeRanges": [{"field": "quarantinedTime", "startTime": "2026-03-02T00:00:00Z"}], "pageSize": 5},
    ),
)


async def test_what_is_typical_is_answered_along_an_index(dlq_database_url: str) -> None:
    connection = await asyncpg.connect(dlq_database_url)
    await connection.execute(FILL)
    await connection.execute("ANALYZE dlq.dead_letter_queue")
    for index, asked in CASES:
        query = read_query(json_format.ParseDict(asked, pb.ListDeadLettersRequest()), LETTERS)
        statement = query.statement(COLUMNS, ROWS, "l.namespace = $1::text", ["default"])
        rows = await fetch(connection, Statement(f"EXPLAIN {statement.text}", statement.parameters))
        plan = "\n".join(row[0] for row in rows)
        assert "Seq Scan" not in plan, (asked, plan)
        assert index in plan, (asked, plan)
    await connection.close()
