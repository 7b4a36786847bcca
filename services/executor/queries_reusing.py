"""Statements about runs whose equals are looked for before anybody may lease them."""

# ruff: noqa: S608 - put together from constants alone; values travel as parameters

from __future__ import annotations

from services.executor.queries import TO_LEASE, keyed, look_up

# Not locked: what is found is held against the row when it is written.
SELECT_UNDECIDED = f"""
SELECT {TO_LEASE}, r.quarantine_number
FROM unnest($1::uuid[], $2::uuid[]) AS k(execution_id, id)
{look_up("executor.run r", "execution_id, id", "k.execution_id, k.id")}
WHERE r.state = 'READY' AND r.is_control
"""

# The newest success of each key that ended no longer ago than its asker takes. A run that has itself reused one is not
# found: nothing lives longer by being asked for.
FIND_REUSABLE = """
SELECT k.place, f.execution_id, f.id, f.outputs
FROM unnest($1::text[], $2::text[], $3::interval[]) WITH ORDINALITY AS k(namespace, key, ttl, place)
CROSS JOIN LATERAL (
    SELECT r.execution_id, r.id, r.outputs FROM executor.run r
    WHERE r.namespace = k.namespace AND r.idempotency_key = k.key AND r.state = 'SUCCESS' AND r.dedupes
        AND r.finished_at > now() - k.ttl
    ORDER BY r.finished_at DESC LIMIT 1) AS f
"""

# Those that are as they were when their equals were looked for may be leased now. What another transaction holds is
# passed over: it may wait for rows in another order.
RELEASE_UNDECIDED = f"""
WITH chosen AS MATERIALIZED (
    SELECT r.execution_id, r.id, k.key, k.inputs_hash, k.config_hash, k.dedupes
    FROM (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::text[], $6::text[], $7::bool[])
        AS k(execution_id, id, number, key, inputs_hash, config_hash, dedupes) ORDER BY k.execution_id, k.id) AS k
    CROSS JOIN LATERAL (
        SELECT r.execution_id, r.id FROM executor.run r
        WHERE r.execution_id = k.execution_id AND r.id = k.id
            AND r.state || '' = 'READY' AND r.is_control AND r.quarantine_number = k.number
        FOR NO KEY UPDATE SKIP LOCKED) AS r)
UPDATE executor.run r
SET is_control = false, dedupes = c.dedupes, idempotency_key = c.key, inputs_hash = c.inputs_hash,
    config_hash = c.config_hash, ready_at = greatest(now(), r.ready_at)
FROM chosen c
WHERE {keyed("r", "execution_id, id", "c.execution_id, c.id")}
RETURNING r.id, r.pool, r.rank
"""

# Of runs that this transaction makes a SUCCESS.
NOTE_REUSED = f"""
UPDATE executor.run r
SET reused_execution_id = u.source_execution_id, reused_run_id = u.source_id, idempotency_key = u.key,
    inputs_hash = u.inputs_hash, config_hash = u.config_hash
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[])
    AS u(execution_id, id, source_execution_id, source_id, key, inputs_hash, config_hash)
WHERE {keyed("r", "execution_id, id", "u.execution_id, u.id")}
"""
