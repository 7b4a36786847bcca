"""Statements that pause and resume executions, whose rows are locked before; runs follow in the order of locking."""

# ruff: noqa: S608 - put together from constants alone; values travel as parameters

from __future__ import annotations

from services.executor.queries import keyed, look_up

_LOCKED = keyed("r", "execution_id, id", "l.execution_id, l.id")

# Whoever leases, parks or brings back runs of an execution without locking it holds their rows until it commits: then
# this statement looks at them again. So nothing stays READY, nor with a breaker: PAUSE wins (flow/pauses.py).
PAUSE_RUNS = f"""
WITH locked AS MATERIALIZED (
    SELECT r.execution_id, r.id FROM executor.run r
    WHERE r.execution_id = ANY($1::uuid[]) AND r.state IN ('READY', 'PARKED') AND r.parked_by IS DISTINCT FROM 'PAUSE'
    ORDER BY r.execution_id, r.id
    FOR NO KEY UPDATE)
UPDATE executor.run r
SET state = 'PARKED', parked_by = 'PAUSE', parked_at = coalesce(r.parked_at, now()),
    retry_after = CASE WHEN r.parked_by IS NULL THEN r.retry_after END
FROM locked l
WHERE {_LOCKED}
"""

# READY from now on, so that whoever leases from a watermark finds them; what waited for its back-off goes on waiting.
# The most urgent rank of what can be leased, and whether there are control nodes.
RESUME_RUNS = f"""
WITH locked AS MATERIALIZED (
    SELECT r.execution_id, r.id FROM executor.run r
    WHERE r.execution_id = ANY($1::uuid[]) AND r.state = 'PARKED' AND r.parked_by = 'PAUSE'
    ORDER BY r.execution_id, r.id
    FOR NO KEY UPDATE),
back AS (
    UPDATE executor.run r
    SET state = 'READY', parked_by = NULL, parked_at = NULL, ready_at = greatest(now(), r.retry_after),
        retry_after = CASE WHEN r.retry_after > now() THEN r.retry_after END,
        parked_ms = r.parked_ms + (extract(epoch FROM now() - r.parked_at) * 1000)::bigint
    FROM locked l
    WHERE {_LOCKED}
    RETURNING r.rank, r.is_control)
SELECT (min(rank) FILTER (WHERE NOT is_control))::int, coalesce(bool_or(is_control), false) FROM back
"""

READ_ASKED = f"""
SELECT i.namespace, i.kind, i.request_id, i.execution_id, i.request_hash
FROM unnest($1::text[], $2::text[], $3::text[]) AS k(namespace, kind, request_id)
{look_up("executor.execution_intervention i", "namespace, kind, request_id", "k.namespace, k.kind, k.request_id")}
"""

INSERT_INTERVENTIONS = """
INSERT INTO executor.execution_intervention (
    namespace, execution_id, kind, principal, reason, request_id, request_hash, took_effect)
SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::bool[])
"""

# At most $2, oldest first; rows that somebody else prunes are passed over. Who paused or resumed stays on record. Where
# the rows are is known, as they are locked.
FORGET_REQUESTS = """
WITH old AS MATERIALIZED (
    SELECT i.ctid, i.took_effect FROM executor.execution_intervention i
    WHERE i.request_hash IS NOT NULL AND i.created_date <= now() - $1::interval
    ORDER BY i.created_date LIMIT $2
    FOR UPDATE SKIP LOCKED),
gone AS (
    DELETE FROM executor.execution_intervention i
    WHERE i.ctid = ANY (ARRAY(SELECT old.ctid FROM old WHERE NOT old.took_effect))),
kept AS (
    UPDATE executor.execution_intervention i SET request_id = NULL, request_hash = NULL
    WHERE i.ctid = ANY (ARRAY(SELECT old.ctid FROM old WHERE old.took_effect)))
SELECT count(*)::int FROM old
"""

# Of executions that are paused.
READ_PAUSES = """
SELECT DISTINCT ON (i.execution_id) i.execution_id, i.principal, i.reason, i.created_date
FROM executor.execution_intervention i
WHERE i.execution_id = ANY($1::uuid[]) AND i.kind = 'PAUSE' AND i.took_effect
ORDER BY i.execution_id, i.id DESC
"""
