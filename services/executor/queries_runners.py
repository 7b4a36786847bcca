"""Statements about runners that call over the network: who they are, what they hold, what they were last given."""

# ruff: noqa: S608 - put together from constants alone; values travel as parameters

from __future__ import annotations

from services.executor.queries import TO_LEASE, keyed

_RUNNER = """namespace, runner_id, incarnation, pool, class_names, capacity, registered_at, last_seen_at, draining,
    host, version, replaced, lease_request_id, leased_at, now(), serves_all"""

# The lock orders registrations and leases of one runner: nothing is leased to an incarnation once another has the id.
LOCK_RUNNER = f"""
SELECT {_RUNNER}, 0 FROM executor.runner WHERE namespace = $1 AND runner_id = $2 FOR NO KEY UPDATE
"""

READ_RUNNER = f"""
SELECT {_RUNNER}, 0 FROM executor.runner WHERE namespace = $1 AND runner_id = $2
"""

PUT_RUNNER = """
INSERT INTO executor.runner (
    namespace, runner_id, incarnation, pool, class_names, capacity, host, version, replaced, serves_all)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (namespace, runner_id) DO UPDATE SET
    incarnation = EXCLUDED.incarnation, pool = EXCLUDED.pool, class_names = EXCLUDED.class_names,
    capacity = EXCLUDED.capacity, host = EXCLUDED.host, version = EXCLUDED.version, replaced = EXCLUDED.replaced,
    serves_all = EXCLUDED.serves_all, last_seen_at = now(),
    registered_at = CASE WHEN runner.incarnation = EXCLUDED.incarnation THEN runner.registered_at ELSE now() END,
    draining = runner.draining AND runner.incarnation = EXCLUDED.incarnation,
    lease_request_id = CASE WHEN runner.incarnation = EXCLUDED.incarnation THEN runner.lease_request_id END,
    leased_at = CASE WHEN runner.incarnation = EXCLUDED.incarnation THEN runner.leased_at END
"""

# What every call of a runner asks: whether it is still the one, whether it is to drain, and the time. That it called is
# written at most once a second, so that its reports need not wait for a disk; and not at all where the row is locked:
# whoever leases to it may stand still before the commit, and heartbeats must not stand still with it.
SEE_RUNNER = f"""
WITH free AS MATERIALIZED (
    SELECT 1 FROM executor.runner
    WHERE namespace = $1 AND runner_id = $2
        AND (last_seen_at < now() - interval '1 second' OR last_seen_at = registered_at)
    FOR NO KEY UPDATE SKIP LOCKED),
noted AS (
    UPDATE executor.runner SET last_seen_at = now()
    WHERE namespace = $1 AND runner_id = $2 AND EXISTS (SELECT 1 FROM free))
SELECT {_RUNNER}, 0 FROM executor.runner WHERE namespace = $1 AND runner_id = $2
"""

# Locks the runners as LOCK_RUNNER does, by their ids. The last two columns are of the grant before, perhaps by
# another executor, for whose commit this has waited.
NOTE_LEASES = f"""
WITH locked AS MATERIALIZED (
    SELECT runner_id AS id, lease_request_id AS asked_before, leased_at AS leased_before
    FROM executor.runner WHERE namespace = $1 AND runner_id = ANY($2::text[])
    ORDER BY runner_id FOR NO KEY UPDATE)
UPDATE executor.runner n SET lease_request_id = u.request_id, leased_at = now()
FROM unnest($2::text[], $3::text[]) AS u(id, request_id) JOIN locked USING (id)
WHERE n.namespace = $1 AND n.runner_id = id
RETURNING {_RUNNER}, 0, asked_before, leased_before
"""

DRAIN_RUNNER = """
UPDATE executor.runner SET draining = true WHERE namespace = $1 AND runner_id = $2
"""

# One that still holds something is left to the reaper first. A process may call in several namespaces under one id, and
# holds something in each; executors' own pools, which stand under '*', in all.
FORGET_RUNNERS = """
DELETE FROM executor.runner n
WHERE n.last_seen_at < now() - $1::interval AND NOT EXISTS (
    SELECT 1 FROM executor.run r WHERE r.state = 'LEASED' AND r.leased_by = n.runner_id || '/' || n.incarnation::text
        AND n.namespace IN (r.namespace, '*'))
"""

# A runner holds what its capacity allows: few among all that are leased, found by who holds them.
LIST_RUNNERS = f"""
SELECT {_RUNNER}, coalesce(held.leases, 0)::int
FROM executor.runner AS n
LEFT JOIN LATERAL (
    SELECT count(*) AS leases FROM executor.run r
    WHERE r.state = 'LEASED' AND r.leased_by = n.runner_id || '/' || n.incarnation::text
        AND n.namespace IN (r.namespace, '*')) AS held ON true
WHERE n.namespace = ANY($1::text[]) AND ($2 = '' OR n.pool = $2) AND (n.pool, n.runner_id, n.namespace) > ($3, $4, $5)
ORDER BY n.pool, n.runner_id, n.namespace
LIMIT $6
"""

# Handed to the next attempt. Only of leases that are still held.
NOTE_PROGRESS = f"""
UPDATE executor.run r SET progress = u.progress
FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::text[]) AS u(execution_id, id, epoch, progress)
WHERE {keyed("r", "execution_id, id", "u.execution_id, u.id")} AND r.epoch = u.epoch AND r.state || '' = 'LEASED'
    AND ($5 = '' OR r.namespace = $5)
"""

SELECT_LEASES_OF_HOLDERS = """
SELECT execution_id, id, epoch FROM executor.run
WHERE state = 'LEASED' AND namespace = $1 AND leased_by = ANY($2::text[]) ORDER BY lease_until LIMIT $3
"""

SELECT_LEASES_BEFORE = """
SELECT execution_id, id, epoch FROM executor.run
WHERE state = 'LEASED' AND namespace = $1 AND leased_by = $2 AND started_at < $3
"""

# What one call of LeaseRuns was answered with, as far as it is still leased so.
SELECT_LEASED_AT = f"""
SELECT {TO_LEASE} FROM executor.run r
WHERE r.state = 'LEASED' AND r.namespace = $1 AND r.leased_by = $2 AND r.started_at = $3
ORDER BY r.rank, r.ready_at
"""
