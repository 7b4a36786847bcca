"""Statements about runs that breakers hold back. Those who look by target walk along the index `run_parked`."""

# ruff: noqa: S608 - put together from constants alone; values travel as parameters

from __future__ import annotations

from services.executor.queries import TO_LEASE, keyed, look_up

_CHOSEN = keyed("r", "execution_id, id", "c.execution_id, c.id")

# Rows are locked by who parks them: what the lease query found.
PARK_RUNS = f"""
UPDATE executor.run r
SET state = 'PARKED', parked_by = 'BREAKER', parked_at = now(), retry_after = now() + u.wait, target = u.target,
    episode_id = coalesce(u.episode_id, r.episode_id)
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::interval[])
    AS u(execution_id, id, target, episode_id, wait)
WHERE {keyed("r", "execution_id, id", "u.execution_id, u.id")}
"""

# By hopping from one target to the next along the index; the first row of each is the first that is due.
PARKED_TARGETS = """
WITH RECURSIVE hop AS (
    (SELECT namespace, target, retry_after FROM executor.run
     WHERE state = 'PARKED' AND parked_by = 'BREAKER' AND (namespace, target) > ($1, $2)
     ORDER BY namespace, target, retry_after LIMIT 1)
    UNION ALL
    SELECT n.namespace, n.target, n.retry_after FROM hop CROSS JOIN LATERAL (
        SELECT r.namespace, r.target, r.retry_after FROM executor.run r
        WHERE r.state = 'PARKED' AND r.parked_by = 'BREAKER' AND (r.namespace, r.target) > (hop.namespace, hop.target)
        ORDER BY r.namespace, r.target, r.retry_after LIMIT 1) AS n)
SELECT namespace, target, extract(epoch FROM retry_after - clock_timestamp())::float8 FROM hop LIMIT $3
"""

_BACK = """state = 'READY', ready_at = now(), parked_by = NULL, parked_at = NULL, retry_after = NULL,
    parked_ms = r.parked_ms + (extract(epoch FROM now() - r.parked_at) * 1000)::bigint"""

_UNPARK = f"""
WITH chosen AS MATERIALIZED (
    SELECT execution_id, id FROM executor.run
    WHERE state = 'PARKED' AND parked_by = 'BREAKER' AND namespace = $1 AND target = $2 {{due}}
    ORDER BY retry_after LIMIT $3
    FOR NO KEY UPDATE SKIP LOCKED),
back AS (
    UPDATE executor.run r SET {_BACK} FROM chosen c
    WHERE {_CHOSEN}
    RETURNING r.rank)
SELECT count(*)::int, min(rank)::int FROM back
"""

# READY from now on, so that whoever leases from a watermark finds them.
UNPARK_RUNS = _UNPARK.format(due="")
UNPARK_DUE_RUNS = _UNPARK.format(due="AND retry_after <= now()")

POSTPONE_RUNS = f"""
WITH chosen AS MATERIALIZED (
    SELECT execution_id, id FROM executor.run
    WHERE state = 'PARKED' AND parked_by = 'BREAKER' AND namespace = $1 AND target = $2 AND retry_after <= now()
    ORDER BY retry_after LIMIT $4
    FOR NO KEY UPDATE SKIP LOCKED),
moved AS (
    UPDATE executor.run r SET retry_after = now() + $3::interval * (1 + 0.05 * random()) FROM chosen c
    WHERE {_CHOSEN}
    RETURNING 1)
SELECT count(*)::int FROM moved
"""

# The longest parked of each target that a pool can run; $3 is how many of each. Not locked: leave is asked first.
SELECT_PROBES = """
SELECT k.place, p.execution_id, p.id, p.epoch, p.replay_traceparent
FROM unnest($1::text[], $2::text[], $3::int[]) WITH ORDINALITY AS k(namespace, target, wanted, place)
CROSS JOIN LATERAL (
    SELECT r.execution_id, r.id, r.epoch, r.replay_traceparent FROM executor.run r
    WHERE r.state = 'PARKED' AND r.parked_by = 'BREAKER' AND r.namespace = k.namespace AND r.target = k.target
        AND r.pool = $4 AND ($5::text[] IS NULL OR r.class_name = ANY($5))
    ORDER BY r.retry_after LIMIT k.wanted) AS p
ORDER BY k.place
"""

# Those that are as they were when leave was asked, in the order of locking.
UNPARK_PROBES = f"""
WITH chosen AS MATERIALIZED (
    SELECT r.execution_id, r.id
    FROM (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::text[])
        AS k(execution_id, id, epoch, state, parked_by) ORDER BY k.execution_id, k.id) AS k
    CROSS JOIN LATERAL (
        SELECT r.execution_id, r.id FROM executor.run r
        WHERE r.execution_id = k.execution_id AND r.id = k.id
            AND r.epoch = k.epoch AND r.state = k.state AND r.parked_by = k.parked_by
        FOR NO KEY UPDATE SKIP LOCKED) AS r)
UPDATE executor.run r SET {_BACK} FROM chosen c
WHERE {_CHOSEN}
RETURNING {TO_LEASE}
"""

READ_PROBES = f"""
SELECT r.execution_id, r.id, r.state, r.epoch, r.permit_id, r.parked_by
FROM unnest($1::uuid[], $2::uuid[]) AS k(execution_id, id)
{look_up("executor.run r", "execution_id, id", "k.execution_id, k.id")}
"""
