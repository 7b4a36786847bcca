"""Very many workflows, straight into the tables: what lists are asked over."""

from __future__ import annotations

from typing import Any

_ID = "('00000000-0000-7000-8000-' || lpad(to_hex({0}), 12, '0'))::uuid"

# Names, labels, times and classes are common and rare; none of them is in the order of another.
_STATEMENTS = (
    f"""INSERT INTO graph_store.workflow (namespace, id, name, description, labels, version, content_hash, archived,
            created_date, last_modified_date)
        SELECT 'default', {_ID.format("i")}, CASE WHEN i % 10 > 0 THEN 'Order-' || (i * 7919 % $1) END,
            'Workflow number ' || i, jsonb_build_object('team', 'team-' || i % 20, 'owner', 'owner-' || i * 31 % 5000),
            1 + i % 50, md5(i::text), i % 100 = 0, '2026-01-01Z'::timestamptz + i * interval '1 minute',
            '2026-01-01Z'::timestamptz + (i * 7 % $1) * interval '1 minute'
        FROM generate_series(1, $1) AS i""",
    f"""INSERT INTO graph_store.task (namespace, id, workflow_id, node_id, label)
        SELECT 'default', {_ID.format("i * 100 + n")}, {_ID.format("i")},
            CASE WHEN n > 1 OR i % 2 = 0 THEN 'step-' || (i * 13 + n) % 20000 ELSE 'start' END, 'Label ' || n
        FROM generate_series(1, $1) AS i, generate_series(1, $2) AS n""",
    f"""INSERT INTO graph_store.module (namespace, id, workflow_id, task_id, class_name, target, config)
        SELECT 'default', {_ID.format("i * 100 + n")}, {_ID.format("i")}, {_ID.format("i * 100 + n")},
            CASE WHEN i % 5000 = 0 THEN 'RareModule' WHEN (i + n) % 2 = 0 THEN 'HttpRequestModule'
                ELSE 'Class' || i % 40 END,
            CASE WHEN i % 3000 = 0 THEN 'http:rare.example.com' WHEN (i + n) % 2 = 0 THEN 'http:api.example.com'
                ELSE '' END,
            '{{"url": "https://example.com/' || i || '"}}'
        FROM generate_series(1, $1) AS i, generate_series(1, $2) AS n""",
)


async def add_workflows(connection: Any, count: int, *, nodes: int = 1) -> None:
    """`count` workflows with so many nodes each, a module on every node; and statistics of them."""
    for statement in _STATEMENTS:
        given = (count, nodes) if "$2" in statement else (count,)
        await connection.execute(statement.replace("$1", "$1::bigint"), *given)
    await connection.execute("ANALYZE graph_store.workflow, graph_store.task, graph_store.module")
