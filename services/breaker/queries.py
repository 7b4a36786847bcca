# ruff: noqa: S608 - what is put together here are constants of this file
"""Every statement. Batches travel as arrays.

Rows of breakers are locked in the order of (namespace, target). New ones are inserted in that order too, and before
any is locked: whoever inserts holds nothing that others wait for, so nobody waits in a circle.

Rows are looked up by namespace and target or breaker, never by id alone: a plan made while a table is empty may take
any index that begins with the namespace, and would then walk through the whole namespace for each row.
"""

from __future__ import annotations

_COLUMNS = """
    b.namespace, b.id, b.target, b.state, b.generation, b.failure_count, b.success_count, b.last_failure_at,
    b.opened_at, b.next_retry_at, b.window_start_at, b.episode_id, b.revision, b.last_modified_date
"""

# $n is a moment that a test may give; NULL is the database's own.
_IN_FLIGHT = """
LEFT JOIN LATERAL (
    SELECT count(*) AS permits FROM breaker.permit p
    WHERE b.state = 'HALF_OPEN' AND p.namespace = b.namespace AND p.breaker_id = b.id AND p.generation = b.generation
        AND p.expires_at > coalesce({moment}::timestamptz, clock_timestamp())
) AS f ON true
"""

NOW = "SELECT clock_timestamp()"

ARE_YOU_THERE = "SELECT 1"

NOTIFY = "SELECT pg_notify($1, '')"

READ_BREAKERS = f"""
SELECT {_COLUMNS}, 0 AS permits
FROM unnest($1::text[], $2::text[]) AS k(namespace, target)
JOIN breaker.circuit_breaker_state b ON b.namespace = k.namespace AND b.target = k.target
"""

LOCK_BREAKERS = f"""
SELECT {_COLUMNS}, 0 AS permits
FROM unnest($1::text[], $2::text[]) AS k(namespace, target)
JOIN breaker.circuit_breaker_state b ON b.namespace = k.namespace AND b.target = k.target
ORDER BY b.namespace, b.target
FOR NO KEY UPDATE OF b
"""

GET_BREAKER = f"""
SELECT {_COLUMNS}, f.permits
FROM breaker.circuit_breaker_state b {_IN_FLIGHT.format(moment="$3")}
WHERE b.namespace = $1::text AND b.target = $2::text
"""

# Lists: $1 is the namespace, $2 a moment as above, $3 what the targets begin with, $4 the states, all if empty.
LISTED_COLUMNS = f"{_COLUMNS}, f.permits"
LISTED = f"breaker.circuit_breaker_state AS b {_IN_FLIGHT.format(moment='$2')}"
LISTED_SCOPE = """b.namespace = $1::text AND b.target ^@ $3::text
    AND (cardinality($4::text[]) = 0 OR b.state = ANY($4::text[]))"""

# Of all namespaces where $1 is NULL.
SNAPSHOT = f"""
SELECT {_COLUMNS}, f.permits
FROM (
    SELECT * FROM breaker.circuit_breaker_state
    WHERE generation > 0 AND ($1::text IS NULL OR namespace = $1::text) AND (namespace, target) > ($2::text, $3::text)
    ORDER BY namespace, target
    LIMIT $4
) AS b {_IN_FLIGHT.format(moment="$5")}
ORDER BY b.namespace, b.target
"""

# One row at least, with the time; the breaker's columns are NULL where none changed.
CHANGED_SINCE = f"""
SELECT t.moment, {_COLUMNS}, f.permits
FROM (SELECT statement_timestamp() AS moment) AS t
LEFT JOIN breaker.circuit_breaker_state b
    ON b.generation > 0 AND b.last_modified_date > coalesce($1::timestamptz, statement_timestamp()) - $2::interval
{_IN_FLIGHT.format(moment="$3")}
"""

COUNT_BREAKERS = """
SELECT k.namespace, c.breakers
FROM unnest($1::text[]) AS k(namespace)
CROSS JOIN LATERAL (
    SELECT count(*) AS breakers
    FROM (SELECT FROM breaker.circuit_breaker_state b WHERE b.namespace = k.namespace LIMIT $2) AS few
) AS c
"""

INSERT_BREAKERS = """
INSERT INTO breaker.circuit_breaker_state (id, namespace, target)
SELECT u.id, u.namespace, u.target
FROM unnest($1::uuid[], $2::text[], $3::text[]) AS u(id, namespace, target)
ORDER BY u.namespace, u.target
ON CONFLICT (namespace, target) DO NOTHING
"""

# Under the lock of the rows. The time of the change is the database's own, whatever moment a test gives.
UPDATE_BREAKERS = """
UPDATE breaker.circuit_breaker_state b
SET state = u.state, generation = u.generation, failure_count = u.failure_count, success_count = u.success_count,
    last_failure_at = u.last_failure_at, opened_at = u.opened_at, next_retry_at = u.next_retry_at,
    window_start_at = coalesce(u.window_start_at, b.window_start_at), episode_id = u.episode_id,
    revision = b.revision + 1, last_modified_date = clock_timestamp()
FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::int[], $6::int[], $7::timestamptz[], $8::timestamptz[],
    $9::timestamptz[], $10::timestamptz[], $11::uuid[])
    AS u(namespace, target, state, generation, failure_count, success_count, last_failure_at, opened_at, next_retry_at,
        window_start_at, episode_id)
WHERE b.namespace = u.namespace AND b.target = u.target
"""

READ_PERMITS = """
SELECT p.breaker_id, p.id, p.generation, p.run_id, p.epoch, p.expires_at
FROM unnest($1::text[], $2::uuid[]) AS k(namespace, breaker_id)
JOIN breaker.permit p ON p.namespace = k.namespace AND p.breaker_id = k.breaker_id
ORDER BY p.granted_at, p.id
"""

# One that its holder is given again keeps its id.
INSERT_PERMITS = """
INSERT INTO breaker.permit (namespace, id, breaker_id, generation, run_id, epoch, granted_at, expires_at)
SELECT u.*
FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::int[], $5::text[], $6::int[], $7::timestamptz[], $8::timestamptz[])
    AS u
ON CONFLICT (namespace, id) DO UPDATE SET granted_at = excluded.granted_at, expires_at = excluded.expires_at
"""

DELETE_PERMITS = """
DELETE FROM breaker.permit p
USING unnest($1::text[], $2::uuid[], $3::uuid[]) AS k(namespace, breaker_id, id)
WHERE p.namespace = k.namespace AND p.breaker_id = k.breaker_id AND p.id = k.id
"""

KNOWN_REPORTS = """
SELECT r.breaker_id, r.report_id
FROM unnest($1::text[], $2::uuid[], $3::text[]) AS k(namespace, breaker_id, report_id)
JOIN breaker.counted_report r
    ON r.namespace = k.namespace AND r.breaker_id = k.breaker_id AND r.report_id = k.report_id
"""

INSERT_REPORTS = """
INSERT INTO breaker.counted_report (namespace, breaker_id, report_id)
SELECT u.* FROM unnest($1::text[], $2::uuid[], $3::text[]) AS u
"""

INSERT_TRANSITIONS = """
INSERT INTO breaker.transition (namespace, id, breaker_id, target, from_state, to_state, generation, cause, episode_id,
    report_id, run_id, trace_id, principal_name, created_date)
SELECT u.*
FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::int[], $8::text[], $9::uuid[],
    $10::text[], $11::text[], $12::text[], $13::text[], $14::timestamptz[]) AS u
"""

INSERT_EPISODES = """
INSERT INTO breaker.episode (namespace, id, breaker_id, target, opened_at, opened_generation, trace_id)
SELECT u.*
FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::text[], $5::timestamptz[], $6::int[], $7::text[]) AS u
"""

END_EPISODES = """
UPDATE breaker.episode e
SET recovered_at = u.recovered_at, recovered_generation = u.generation, last_modified_date = clock_timestamp()
FROM unnest($1::text[], $2::text[], $3::uuid[], $4::timestamptz[], $5::int[])
    AS u(namespace, target, id, recovered_at, generation)
WHERE e.namespace = u.namespace AND e.target = u.target AND e.id = u.id AND e.recovered_at IS NULL
"""


# Nobody has asked for them for long, so nothing says that the outage goes on. They are closed first, so that whoever
# watches them hears of it, and pruned like all that have recovered. What an operator forces stays.
CLOSE_FORGOTTEN = """
WITH old AS MATERIALIZED (
    SELECT ctid, namespace, id, target, state, generation, episode_id FROM breaker.circuit_breaker_state
    WHERE generation > 0 AND state IN ('OPEN', 'HALF_OPEN')
        AND last_modified_date < statement_timestamp() - $1::interval
        AND coalesce(next_retry_at, last_modified_date) < statement_timestamp() - $1::interval
    ORDER BY last_modified_date LIMIT $2 FOR UPDATE SKIP LOCKED
), ended AS (
    UPDATE breaker.episode e
    SET recovered_at = statement_timestamp(), recovered_generation = old.generation + 1,
        last_modified_date = clock_timestamp()
    FROM old
    WHERE e.namespace = old.namespace AND e.target = old.target AND e.id = old.episode_id AND e.recovered_at IS NULL
), told AS (
    INSERT INTO breaker.transition (namespace, id, breaker_id, target, from_state, to_state, generation, cause,
        episode_id)
    SELECT namespace, gen_random_uuid(), id, target, state, 'CLOSED', generation + 1, 'FORGOTTEN', episode_id FROM old
)
UPDATE breaker.circuit_breaker_state
SET state = 'CLOSED', generation = generation + 1, failure_count = 0, success_count = 0, opened_at = NULL,
    next_retry_at = NULL, window_start_at = statement_timestamp(), revision = revision + 1,
    last_modified_date = clock_timestamp()
WHERE ctid = ANY(ARRAY(SELECT ctid FROM old))
"""


def _pruned(table: str, condition: str, order: str) -> str:
    """Deletes at most $2 rows, oldest first; rows that somebody else holds are passed over."""
    return f"""
WITH old AS MATERIALIZED (
    SELECT ctid FROM breaker.{table}
    WHERE {condition} AND {order} < statement_timestamp() - $1::interval
    ORDER BY {order} LIMIT $2 FOR UPDATE SKIP LOCKED
)
DELETE FROM breaker.{table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM old))
"""


# A call that outlasts its permit is answered later: what was given since the breaker is half open stays for that.
PRUNE_PERMITS = _pruned(
    "permit",
    """NOT EXISTS (
        SELECT FROM breaker.circuit_breaker_state b
        WHERE b.namespace = permit.namespace AND b.id = permit.breaker_id AND b.state = 'HALF_OPEN'
            AND b.generation = permit.generation
    )""",
    "expires_at",
)
PRUNE_UNANSWERED_PERMITS = _pruned("permit", "true", "expires_at")
PRUNE_REPORTS = _pruned("counted_report", "true", "created_date")
PRUNE_QUIET = _pruned("circuit_breaker_state", "generation = 0 AND state = 'CLOSED'", "last_modified_date")
PRUNE_RECOVERED = _pruned("circuit_breaker_state", "generation > 0 AND state = 'CLOSED'", "last_modified_date")
PRUNE_TRANSITIONS = _pruned("transition", "true", "created_date")
PRUNE_EPISODES = _pruned("episode", "recovered_at IS NOT NULL", "recovered_at")
