"""Statements about audit events, as text: they go to the driver as they are."""

from __future__ import annotations

_EVENT = """e.number, e.id::text, e.workflow_id::text, e.action, e.principal_name, e.from_version, e.to_version,
    e.from_hash, e.to_hash, e.message, e.trace_id, e.created_date"""

# Newest first, below a number.
EVENTS_OF_NAMESPACE = f"""
SELECT {_EVENT} FROM graph_store.audit_event AS e
WHERE e.namespace = $1 AND e.number < $2
ORDER BY e.number DESC LIMIT $3
"""  # noqa: S608 - put together from constants

EVENTS_OF_WORKFLOW = f"""
SELECT {_EVENT} FROM graph_store.audit_event AS e
WHERE e.namespace = $1 AND e.number < $2 AND e.workflow_id = $4::uuid
ORDER BY e.number DESC LIMIT $3
"""  # noqa: S608 - put together from constants

# A workflow as the event left it: what it says is its version's, which never changes, and an archived one is not saved.
# Laterals of one row are read by key, whatever the planner takes the number of events for.
_CHANGE = """e.written_in, e.number, e.action, e.principal_name, v.created_date, w.namespace, w.id::text,
    w.created_date AS workflow_created_date, v.version, v.name, v.description, v.labels, v.content_hash,
    v.created_by_name, v.layout AND e.from_version IS DISTINCT FROM e.to_version AS layout"""
_WITH_WORKFLOW = """
CROSS JOIN LATERAL (
    SELECT w.* FROM graph_store.workflow AS w WHERE w.namespace = e.namespace AND w.id = e.workflow_id LIMIT 1) AS w
CROSS JOIN LATERAL (
    SELECT v.* FROM graph_store.workflow_version AS v
    WHERE v.namespace = e.namespace AND v.workflow_id = e.workflow_id
        AND v.version = coalesce(e.to_version, w.version) LIMIT 1) AS v"""

# What this look sees and one with the snapshot ($1, $2) did not, in the namespaces $3; and what this one sees. The
# limit is one of memory: whoever gets that many rows reads them otherwise.
#
# It sees up to the last transaction that an event tells of, not up to the last there was: a transaction that wrote
# nothing that lasts, a notification or one that was undone, may be forgotten in a crash, and its id given out again.
_IN_NAMESPACES = """e.namespace = ANY($3::text[]) AND e.action LIKE 'workflow.%'
        ORDER BY e.written_in, e.number LIMIT $4"""
CHANGES_SINCE = f"""
WITH t AS MATERIALIZED (
    SELECT s, coalesce((
        SELECT e.written_in + 1 FROM graph_store.audit_event AS e
        WHERE e.written_in < pg_snapshot_xmax(s)::text::bigint ORDER BY e.written_in DESC LIMIT 1), 0) AS top
    FROM pg_current_snapshot() AS s),
s AS MATERIALIZED (
    SELECT t.top, ARRAY(SELECT x::text::bigint FROM pg_snapshot_xip(t.s) AS x WHERE x::text::bigint < t.top) AS open
    FROM t)
SELECT s.top, s.open, c.*
FROM s
LEFT JOIN LATERAL (
    SELECT {_CHANGE} FROM (
        (SELECT e.* FROM graph_store.audit_event AS e WHERE e.written_in = ANY($2::bigint[]) AND {_IN_NAMESPACES})
        UNION ALL
        (SELECT e.* FROM graph_store.audit_event AS e
         WHERE e.written_in >= $1::bigint AND e.written_in < s.top AND {_IN_NAMESPACES})
    ) AS e {_WITH_WORKFLOW}
    LIMIT $4) AS c ON true
"""  # noqa: S608 - put together from constants

# What the snapshot ($4, $5) has and ($2, $3) had not, of the workflows $9 or all, after the place ($6, $7), in order.
_BETWEEN = """e.namespace = $1 AND e.action LIKE 'workflow.%'
        AND ($9::uuid[] IS NULL OR e.workflow_id = ANY($9::uuid[]))
        AND e.written_in < $4::bigint AND e.written_in <> ALL($5::bigint[])
        AND (e.written_in, e.number) > ($6::bigint, $7::bigint)
        ORDER BY e.written_in, e.number LIMIT $8"""
CHANGES_BETWEEN = f"""
SELECT {_CHANGE} FROM (
    SELECT e.* FROM (
        (SELECT e.* FROM graph_store.audit_event AS e WHERE e.written_in = ANY($3::bigint[]) AND {_BETWEEN})
        UNION ALL
        (SELECT e.* FROM graph_store.audit_event AS e WHERE e.written_in >= $2::bigint AND {_BETWEEN})) AS e
    ORDER BY e.written_in, e.number LIMIT $8
) AS e {_WITH_WORKFLOW}
ORDER BY e.written_in, e.number
"""  # noqa: S608 - put together from constants

NOTIFY = "SELECT pg_notify($1, '')"
