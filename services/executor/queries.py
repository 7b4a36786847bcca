"""Every statement, prepared once per connection. Batches travel as arrays; hot ones on runs name the execution.

Rows are locked executions by id first, then runs by id. The connections that run these have their planner pinned to
index look-ups, see store.session: a plan made while the tables were small must not outlive that.
What is joined by a key says so with `keyed`: what is planned while a table is empty goes by the key as well.
"""

# ruff: noqa: S608 - put together from constants alone; values travel as parameters

from __future__ import annotations


def look_up(table: str, columns: str, keys: str) -> str:
    """A join of what stands before it with the rows that have its keys, columns in the order of their index:
    `look_up("executor.run r", "execution_id, id", "k.execution_id, k.id")`.

    Row by row, whenever it is planned: OFFSET keeps the planner from making one join of all, where over few rows a walk
    along a whole index seems to cost no more than a look by the key.
    """
    row = table.split()[-1]
    pairs = zip(columns.split(", "), keys.split(", "), strict=True)
    condition = " AND ".join(f"{row}.{column} = {key}" for column, key in pairs)
    return f"CROSS JOIN LATERAL (SELECT {row}.* FROM {table} WHERE {condition} OFFSET 0) AS {row}"


def keyed(row: str, columns: str, keys: str) -> str:
    """The same for a row that is written, which cannot stand in a subquery: a condition, and the columns are those of
    the whole key. `keyed("r", "execution_id, id", "u.execution_id, u.id")`.

    The leading column is compared with an array of one: by `=` the planner would take a walk for as good as a look.
    """
    (leading, first), *others = zip(columns.split(", "), keys.split(", "), strict=True)
    rest = (f"{row}.{column} = {key}" for column, key in others)
    return " AND ".join([f"{row}.{leading} = ANY (ARRAY[{first}])", *rest])


_OF_RUN = keyed("r", "execution_id, id", "u.execution_id, u.id")

FIND_REQUESTS = f"""
SELECT k.namespace, k.request_id, e.id, e.request_hash
FROM unnest($1::text[], $2::text[]) AS k(namespace, request_id)
{look_up("executor.workflow_execution e", "namespace, request_id", "k.namespace, k.request_id")}
"""

# Whole rows in one array: an array for each column takes the driver twice as long. See migration 0001.
INSERT_RUNS = """
INSERT INTO executor.run (
    execution_id, id, namespace, node_index, node_id, task_id, class_name, is_control, pool, rank, target, state, unmet,
    ready_at, ready_revision, epoch, attempt, leased_by, runner_id, lease_until, started_at, idempotency_key,
    inputs_hash, config_hash, deadline)
SELECT u.execution_id, u.id, u.namespace, u.node_index, u.node_id, u.task_id, u.class_name, u.is_control, u.pool,
    u.rank, u.target, u.state, u.unmet, CASE WHEN u.state <> 'PENDING' THEN now() END,
    CASE WHEN u.state <> 'PENDING' THEN 1 END, u.lease, u.lease, CASE WHEN u.lease = 1 THEN $2::text END,
    CASE WHEN u.lease = 1 THEN $3::text END, CASE WHEN u.lease = 1 THEN now() + $4::interval END,
    CASE WHEN u.lease = 1 THEN now() END, u.idempotency_key, u.inputs_hash, u.config_hash,
    CASE WHEN u.state <> 'PENDING' THEN now() + u.deadline END
FROM unnest($1::executor.new_run[]) AS u
"""

# Executions and runs, and when they were made. A request_id that was used before is an error: it undoes the whole.
INSERT_STARTS = f"""
WITH executions AS (
    INSERT INTO executor.workflow_execution (
        id, namespace, workflow_id, version, state, open_runs, priority, trigger_type, trigger_payload, trace_id,
        traceparent, request_id, request_hash, created_by, created_by_name, deadline, started_at, finished_at)
    SELECT u.id, u.namespace, u.workflow_id, u.version, u.state, u.open_runs, u.priority, u.trigger_type,
        u.trigger_payload, split_part(u.traceparent, '-', 2), u.traceparent, u.request_id, u.request_hash, u.created_by,
        u.created_by_name, least(u.deadline, now() + u.timeout), CASE WHEN u.state <> 'PENDING' THEN now() END,
        CASE WHEN u.state = 'SUCCESS' THEN now() END
    FROM unnest($5::executor.new_execution[]) AS u),
runs AS ({INSERT_RUNS})
SELECT now()
"""

_LOCKED_RUN = """r.execution_id, r.id, r.node_index, r.state, r.epoch, r.attempt, r.failures, r.lost_leases,
    r.unmet, r.taken, r.dead, r.excluded_edges, r.chosen_edges, r.broken_edge, r.quarantine_number, r.runner_id,
    r.ready_revision, coalesce(r.lease_until < now(), false), coalesce(r.retry_after <= now(), false),
    coalesce(r.deadline <= now(), false), r.always_decided, r.parked_by, r.stop_reason, r.permit_id, r.target,
    r.inputs, r.key_number, r.replay_traceparent, r.replay_attempt, coalesce(r.trusted_until > now(), false),
    r.is_control"""

# Executions by id, then of each the runs that $4 holds from place `first` to `last`, by id. The look at all of `e` sees
# to it that every execution is locked before any run is. What is locked is read as it is then.
LOCK = f"""
WITH e AS MATERIALIZED (
    SELECT e.id, e.state, e.revision, e.open_runs, e.bad_runs, e.ending, coalesce(e.deadline <= now(), false) AS late,
        k.first, k.last
    FROM (SELECT * FROM unnest($1::uuid[], $2::int[], $3::int[]) AS k(id, first, last) ORDER BY k.id) AS k
    CROSS JOIN LATERAL (
        SELECT e.* FROM executor.workflow_execution e WHERE e.id = k.id FOR NO KEY UPDATE) AS e)
SELECT e.id, e.state, e.revision, e.open_runs, e.bad_runs, e.ending, e.late, now(), r.*
FROM e LEFT JOIN LATERAL (
    SELECT {_LOCKED_RUN}
    FROM executor.run r
    WHERE r.execution_id = e.id AND r.id = ANY(($4::uuid[])[e.first:e.last]) AND (SELECT count(*) FROM e) > 0
    ORDER BY r.id
    FOR NO KEY UPDATE) AS r ON true
"""

LOCK_PENDING_RUNS = f"""
SELECT {_LOCKED_RUN}
FROM executor.run r
WHERE r.execution_id = $1::uuid AND r.state = 'PENDING'
ORDER BY r.execution_id, r.id
FOR NO KEY UPDATE OF r
"""

READ_RESULTS = f"""
SELECT r.execution_id, r.id, r.state, r.outputs, r.error, r.error_type, r.settled_revision, r.quarantine_number
FROM unnest($1::uuid[], $2::uuid[]) AS k(execution_id, id)
{look_up("executor.run r", "execution_id, id", "k.execution_id, k.id")}
"""

READ_EARLIER = f"""
SELECT q.execution_id, q.run_id, q.revision, q.error, q.error_type
FROM unnest($1::uuid[], $2::uuid[]) AS k(execution_id, id)
{look_up("executor.run_quarantine q", "execution_id, run_id", "k.execution_id, k.id")}
ORDER BY q.execution_id, q.run_id, q.quarantine_number
"""

READ_FACTS = """
SELECT id, namespace, workflow_id, version, priority, trigger_payload, traceparent
FROM executor.workflow_execution
WHERE id = ANY($1::uuid[])
"""

# What a transaction of progress writes comes as whole rows, like those of a start: the executions in $1, the runs that
# finished in $2, those that changed in $3, the lease that is given to some of these in $4 to $6.

# The epoch alone is the fence: by the state a plan may go along the index of leased rows, which is several times slower
# than the key.
_FINISH_RUNS = """
UPDATE executor.run r
SET state = 'SUCCESS', outputs = u.outputs, duration_ms = u.duration_ms, cost_tokens = u.cost_tokens,
    settled_revision = u.revision, finished_at = now(), lease_until = NULL, leased_by = NULL, retry_after = NULL,
    error = NULL, error_type = NULL, stop_reason = NULL
FROM unnest($2::executor.finished_run[]) AS u
WHERE r.execution_id = ANY (ARRAY[u.execution_id]) AND r.id = u.id AND r.epoch = u.epoch
"""

# `wait` is set where the run goes back to READY; every end of a lease that was no report raises the epoch.
END_RUNS = f"""
UPDATE executor.run r
SET state = u.state, epoch = r.epoch + u.raise_epoch, failures = u.failures, lost_leases = u.lost_leases,
    error = coalesce(u.error, r.error), error_type = coalesce(u.error_type, r.error_type),
    settled_revision = u.revision, quarantine_number = r.quarantine_number + u.quarantined,
    always_decided = r.always_decided OR u.always_decided, stop_reason = NULL,
    trusted_until = CASE WHEN u.raise_epoch = 1 THEN r.trusted_until END,
    ready_at = CASE WHEN u.wait IS NOT NULL THEN now() + u.wait ELSE r.ready_at END,
    retry_after = CASE WHEN u.wait > interval '0' THEN now() + u.wait END,
    finished_at = CASE WHEN u.wait IS NULL THEN now() END,
    duration_ms = coalesce(u.duration_ms, r.duration_ms), lease_until = NULL, leased_by = NULL,
    parked_by = CASE WHEN u.state = 'PARKED' THEN 'PAUSE' END, parked_at = CASE WHEN u.state = 'PARKED' THEN now() END
FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::int[], $6::int[], $7::int[], $8::text[], $9::text[],
    $10::int[], $11::interval[], $12::int[], $13::int[], $14::bool[])
    AS u(execution_id, id, epoch, state, raise_epoch, failures, lost_leases, error, error_type, revision, wait,
        duration_ms, quarantined, always_decided)
WHERE {_OF_RUN} AND r.epoch = u.epoch
"""

_CHANGE_RUNS = """
UPDATE executor.run r
SET state = u.state, unmet = u.unmet, taken = u.taken, dead = u.dead, excluded_edges = u.excluded,
    chosen_edges = u.chosen, broken_edge = u.broken, outputs = u.outputs,
    error = CASE WHEN u.state = 'FAILED' AND r.state = 'QUARANTINED' THEN coalesce(u.error, r.error)
        ELSE u.error END,
    error_type = CASE WHEN u.state = 'FAILED' AND r.state = 'QUARANTINED' THEN coalesce(u.error_type, r.error_type)
        ELSE u.error_type END,
    quarantine_number = r.quarantine_number + (u.state = 'QUARANTINED')::int,
    always_decided = r.always_decided OR u.always_decided,
    ready_at = CASE WHEN r.ready_at IS NULL AND u.state IN ('READY', 'LEASED', 'WAITING', 'PARKED', 'SUCCESS')
        THEN greatest(now(), r.trusted_until) ELSE r.ready_at END,
    ready_revision = CASE WHEN r.ready_revision IS NULL AND u.state <> 'PENDING' THEN u.revision
        ELSE r.ready_revision END,
    deadline = CASE WHEN r.deadline IS NULL AND u.state IN ('READY', 'LEASED', 'WAITING', 'PARKED')
        THEN now() + u.deadline ELSE r.deadline END,
    settled_revision = CASE WHEN u.state IN ('SUCCESS', 'FAILED', 'SKIPPED', 'QUARANTINED', 'CANCELLED')
        THEN u.revision END,
    finished_at = CASE WHEN u.state IN ('SUCCESS', 'FAILED', 'SKIPPED', 'QUARANTINED', 'CANCELLED') THEN now() END,
    started_at = CASE WHEN u.lease = 1 OR r.started_at IS NULL AND u.state IN ('WAITING', 'SUCCESS') THEN now()
        ELSE r.started_at END,
    parked_by = CASE WHEN u.state = 'PARKED' THEN 'PAUSE' END, parked_at = CASE WHEN u.state = 'PARKED' THEN now() END,
    parked_ms = r.parked_ms + coalesce((extract(epoch FROM now() - r.parked_at) * 1000)::bigint, 0),
    retry_after = CASE WHEN u.state IN ('READY', 'PARKED') AND r.trusted_until > now() THEN r.trusted_until
        ELSE now() + u.wake END,
    epoch = r.epoch + u.lease, attempt = r.attempt + u.lease,
    leased_by = CASE WHEN u.lease = 1 THEN $4::text END,
    runner_id = CASE WHEN u.lease = 1 THEN $5::text ELSE r.runner_id END,
    lease_until = CASE WHEN u.lease = 1 THEN now() + $6::interval END,
    is_control = r.is_control AND u.lease = 0,
    target = CASE WHEN u.lease = 1 THEN u.target ELSE r.target END,
    idempotency_key = coalesce(u.idempotency_key, r.idempotency_key),
    inputs_hash = coalesce(u.inputs_hash, r.inputs_hash), config_hash = coalesce(u.config_hash, r.config_hash)
FROM unnest($3::executor.changed_run[]) AS u
WHERE r.execution_id = ANY (ARRAY[u.execution_id]) AND r.id = u.id
"""

# Budgets begin anew; the deadline and the time of readiness are set again by what follows in the same transaction.
# Where `first`, the engine decides before anybody may lease the run: its inputs may be others now.
REQUEUE_RUNS = f"""
UPDATE executor.run r
SET failures = 0, lost_leases = 0, ready_at = NULL, deadline = NULL, inputs = coalesce(u.inputs, r.inputs),
    key_number = CASE WHEN u.new_key THEN r.quarantine_number ELSE r.key_number END,
    replay_traceparent = u.traceparent, replay_attempt = r.attempt, permit_id = NULL,
    progress = CASE WHEN u.inputs IS NULL THEN r.progress END, is_control = u.first, dedupes = false
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bool[], $5::text[], $6::bool[])
    AS u(execution_id, id, inputs, new_key, traceparent, first)
WHERE {_OF_RUN}
"""

# Told to stop at its next heartbeat; what it holds is not extended past the grace. I12: a runner that hears nothing may
# be at it until the end that it was promised; a requeue does not start the run before that.
STOP_RUNS = f"""
UPDATE executor.run r
SET stop_reason = $3, lease_until = least(r.lease_until, now() + $4::interval), trusted_until = r.lease_until
FROM unnest($1::uuid[], $2::uuid[]) AS u(execution_id, id)
WHERE {_OF_RUN} AND r.state || '' = 'LEASED'
    AND r.stop_reason IS NULL
"""

# Everything of executions that end and that nobody holds; in the order of locking.
CANCEL_RUNS = f"""
WITH locked AS MATERIALIZED (
    SELECT r.execution_id, r.id FROM executor.run r
    WHERE r.execution_id = ANY($1::uuid[]) AND r.state IN ('PENDING', 'READY', 'WAITING', 'PARKED')
    ORDER BY r.execution_id, r.id
    FOR NO KEY UPDATE)
UPDATE executor.run r
SET state = 'CANCELLED', finished_at = now(), settled_revision = e.revision + 1, retry_after = NULL, parked_by = NULL,
    parked_ms = r.parked_ms + CASE WHEN r.parked_by IS NULL THEN 0
        ELSE (extract(epoch FROM now() - r.parked_at) * 1000)::bigint END
FROM locked l JOIN executor.workflow_execution e ON {keyed("e", "id", "l.execution_id")}
WHERE {keyed("r", "execution_id, id", "l.execution_id, l.id")}
"""

# After CANCEL_RUNS: what was leased meanwhile is seen by this statement; in the order of locking, too. Leases left, by
# execution. The state is compared so that no partial index matches: the way in is the key, not every lease that is.
STOP_ALL_RUNS = f"""
WITH locked AS MATERIALIZED (
    SELECT r.execution_id, r.id FROM executor.run r
    WHERE r.execution_id = ANY($1::uuid[]) AND r.state || '' = 'LEASED'
    ORDER BY r.execution_id, r.id
    FOR NO KEY UPDATE),
stopped AS (
    UPDATE executor.run r
    SET stop_reason = 'CANCEL', lease_until = least(r.lease_until, now() + $2::interval)
    FROM locked l
    WHERE {keyed("r", "execution_id, id", "l.execution_id, l.id")}
    RETURNING r.execution_id)
SELECT execution_id, count(*)::int FROM stopped GROUP BY execution_id
"""

END_EXECUTIONS = f"""
UPDATE executor.workflow_execution e
SET ending = u.ending, cancel_requested = e.cancel_requested OR u.ending = 'CANCEL', ended_by = u.principal,
    ended_reason = u.reason, cancel_request_id = u.request_id, cancel_request_hash = u.request_hash
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[])
    AS u(id, ending, principal, reason, request_id, request_hash)
WHERE {keyed("e", "id", "u.id")}
"""

SET_DEADLINES = f"""
UPDATE executor.workflow_execution e SET deadline = u.deadline
FROM unnest($1::uuid[], $2::timestamptz[]) AS u(id, deadline) WHERE {keyed("e", "id", "u.id")}
"""

UPDATE_EXECUTIONS = """
UPDATE executor.workflow_execution e
SET state = u.state, revision = u.revision, open_runs = u.open_runs, bad_runs = u.bad_runs,
    error_type = CASE WHEN u.state <> 'SUCCESS' THEN coalesce(u.error_type, e.error_type) END,
    error_message = CASE WHEN u.state <> 'SUCCESS' THEN coalesce(u.error_message, e.error_message) END,
    started_at = coalesce(e.started_at, now()),
    finished_at = CASE WHEN u.state IN ('SUCCESS', 'FAILED', 'CANCELLED') THEN coalesce(e.finished_at, now()) END,
    last_modified_date = now(), changed_in = pg_current_xact_id()::text::bigint
FROM unnest($1::executor.changed_execution[]) AS u
WHERE e.id = ANY (ARRAY[u.id])
"""

# Where no run but those that finished has changed.
WRITE_FINISHED = f"""
WITH finished AS ({_FINISH_RUNS})
{UPDATE_EXECUTIONS}
"""

# All of it in one round trip: the three change different rows.
WRITE_PROGRESS = f"""
WITH finished AS ({_FINISH_RUNS}), changed AS ({_CHANGE_RUNS})
{UPDATE_EXECUTIONS}
"""

INSERT_ATTEMPTS = f"""
INSERT INTO executor.run_attempt (
    execution_id, run_id, epoch, attempt, outcome, runner_id, started_at, error, error_stack_trace)
SELECT u.execution_id, u.run_id, u.epoch, u.attempt, u.outcome, r.runner_id, r.started_at, u.error, u.stack
FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::int[], $5::text[], $6::text[], $7::text[])
    AS u(execution_id, run_id, epoch, attempt, outcome, error, stack)
{look_up("executor.run r", "execution_id, id", "u.execution_id, u.run_id")}
"""

INSERT_OUTBOX = """
INSERT INTO executor.outbox (namespace, execution_id, run_id, quarantine_number, kind)
SELECT * FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::int[], $5::text[])
"""

# After the runs themselves have changed: what they were is copied from there.
INSERT_QUARANTINES = f"""
INSERT INTO executor.run_quarantine (
    execution_id, run_id, quarantine_number, namespace, failure_type, error_type, error, revision, attempt, target,
    episode_id, idempotency_key, inputs, traceparent)
SELECT u.execution_id, u.run_id, u.quarantine_number, u.namespace, u.failure_type, u.error_type, u.error, u.revision,
    r.attempt, r.target, r.episode_id, r.idempotency_key, r.inputs, r.replay_traceparent
FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int[])
    AS u(execution_id, run_id, quarantine_number, namespace, failure_type, error_type, error, revision)
{look_up("executor.run r", "execution_id, id", "u.execution_id, u.run_id")}
"""

RESOLVE_QUARANTINES = f"""
UPDATE executor.run_quarantine q
SET resolution = u.resolution, resolved_by = u.principal, resolved_at = now(), reason = u.reason,
    request_id = u.request_id, request_hash = u.request_hash, resolution_traceparent = u.traceparent
FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[],
    $9::text[]) AS u(execution_id, run_id, quarantine_number, resolution, principal, reason, request_id, request_hash,
        traceparent)
WHERE {keyed("q", "execution_id, run_id, quarantine_number", "u.execution_id, u.run_id, u.quarantine_number")}
"""

_QUARANTINE = """q.run_id, q.quarantine_number, q.failure_type, q.error_type, q.error, q.revision, q.quarantined_at,
    q.resolution, q.resolved_by, q.resolved_at, q.reason, q.request_id, q.request_hash, q.resolution_traceparent"""

READ_QUARANTINES = f"""
SELECT {_QUARANTINE}
FROM unnest($1::uuid[], $2::uuid[]) AS k(execution_id, id)
{look_up("executor.run_quarantine q", "execution_id, run_id", "k.execution_id, k.id")}
ORDER BY q.run_id, q.quarantine_number
"""

FIND_RESOLUTION = """
SELECT q.execution_id, q.run_id, q.request_hash FROM executor.run_quarantine q
WHERE q.namespace = $1 AND q.resolution = $2 AND q.request_id = $3
"""

FIND_CANCEL = """
SELECT e.id, e.cancel_request_hash FROM executor.workflow_execution e
WHERE e.namespace = $1 AND e.cancel_request_id = $2
"""

_OUTBOX_KEY = "o.execution_id, o.run_id, o.quarantine_number"

# What may be told to the DLQ, in the order in which it happened.
SELECT_OUTBOX = f"""
SELECT o.id, o.kind, o.namespace, o.execution_id, o.run_id, o.quarantine_number, q.failure_type, q.error_type, q.error,
    q.attempt, q.target, q.episode_id, q.idempotency_key, q.inputs, q.traceparent, q.quarantined_at, q.resolution,
    q.resolved_by, q.resolved_at, q.reason, r.task_id, r.node_id, r.class_name,
    r.node_index, r.excluded_edges, r.chosen_edges, r.ready_revision
FROM executor.outbox o
{look_up("executor.run_quarantine q", "execution_id, run_id, quarantine_number", _OUTBOX_KEY)}
{look_up("executor.run r", "execution_id, id", "o.execution_id, o.run_id")}
WHERE o.refused_at IS NULL AND o.run_id <> ALL($2::uuid[])
ORDER BY o.id
LIMIT $1
"""

DELETE_OUTBOX = """
DELETE FROM executor.outbox WHERE id = ANY($1::bigint[])
"""

REFUSE_OUTBOX = f"""
UPDATE executor.outbox o SET refused_at = now(), problem = u.problem
FROM unnest($1::bigint[], $2::text[]) AS u(id, problem) WHERE {keyed("o", "id", "u.id")}
"""

READMIT_OUTBOX = """
UPDATE executor.outbox SET refused_at = NULL, problem = NULL WHERE refused_at IS NOT NULL
"""


def _ready_classes(namespace: str) -> str:
    """The classes that have something to lease in the pool $1, by namespace, by hopping along the index from the last
    entry of one to that of the one before: the first ones of a class were leased already, and are dead. `namespace` is
    the place of the parameter that names the only one to look into, or empty."""
    only = f"AND namespace = {namespace}" if namespace else ""
    return f"""
WITH RECURSIVE hop AS (
    (SELECT namespace, class_name FROM executor.run
     WHERE state = 'READY' AND NOT is_control AND pool = $1 {only} ORDER BY namespace DESC, class_name DESC LIMIT 1)
    UNION ALL
    SELECT next.namespace, next.class_name
    FROM hop CROSS JOIN LATERAL (
        SELECT namespace, class_name FROM executor.run
        WHERE state = 'READY' AND NOT is_control AND pool = $1 {only}
            AND (namespace, class_name) < (hop.namespace, hop.class_name)
        ORDER BY namespace DESC, class_name DESC LIMIT 1) AS next)
"""


READY_CLASSES = f"""
{_ready_classes("")}
SELECT DISTINCT class_name FROM hop
"""

READY_CLASSES_OF_NAMESPACE = f"""
{_ready_classes("$2")}
SELECT DISTINCT class_name FROM hop
"""

# What a lease needs of a run.
TO_LEASE = """r.execution_id, r.id, r.node_index, r.epoch, r.attempt, r.excluded_edges, r.chosen_edges,
    r.ready_revision, r.rank, r.ready_at, r.inputs, r.key_number, r.replay_traceparent, r.replay_attempt, r.deadline,
    r.progress"""


def _select_to_lease(namespace: str) -> str:
    """`may_lease` of valkyr/flow/leasing.py, of many; of the classes $2, or of all. `namespace` as in _ready_classes.

    One look per namespace and class, so that a class without a runner never stands in the way of another, nor a long
    queue of one namespace in that of the next. $5 and $6 are the watermarks of the classes $4 in the namespaces $3:
    rows before them were leased already, and walking over their dead index entries slows a backlog down. The locks
    stand in a materialized CTE: LIMIT with SKIP LOCKED must run once.
    """
    return f"""
{_ready_classes(namespace)},
candidate AS MATERIALIZED (
    SELECT r.* FROM hop
    LEFT JOIN unnest($3::text[], $4::text[], $5::int[], $6::timestamptz[])
        AS mark(namespace, class_name, rank, ready_at) USING (namespace, class_name)
    CROSS JOIN LATERAL (
        SELECT {TO_LEASE}, r.class_name, r.namespace FROM executor.run r
        WHERE r.state = 'READY' AND NOT r.is_control AND r.pool = $1 AND r.namespace = hop.namespace
            AND r.class_name = hop.class_name
            AND (r.rank, r.ready_at) >= (coalesce(mark.rank, -32768)::smallint, coalesce(mark.ready_at, '-infinity'))
            AND r.ready_at <= now()
        ORDER BY r.rank, r.ready_at
        LIMIT $7
        FOR NO KEY UPDATE SKIP LOCKED) AS r
    WHERE $2::text[] IS NULL OR hop.class_name = ANY($2))
SELECT * FROM candidate ORDER BY rank, ready_at LIMIT $7
"""


SELECT_TO_LEASE = _select_to_lease("")
SELECT_TO_LEASE_OF_NAMESPACE = _select_to_lease("$8")

LEASE_RUNS = f"""
UPDATE executor.run r
SET state = 'LEASED', epoch = r.epoch + 1, attempt = r.attempt + 1, leased_by = u.holder, runner_id = u.runner_id,
    lease_until = now() + $1::interval, heartbeat_at = NULL, started_at = now(), retry_after = NULL,
    idempotency_key = u.idempotency_key, inputs_hash = u.inputs_hash, config_hash = u.config_hash,
    target = u.target, permit_id = u.permit_id
FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::uuid[], $9::text[], $10::text[])
    AS u(execution_id, id, idempotency_key, inputs_hash, config_hash, target, permit_id, holder, runner_id)
WHERE {_OF_RUN}
"""

# Never shortens a lease, never revives one, nor extends one that is told to stop; the rows that do not match are the
# answer LEASE_LOST. The way in is the key, see STOP_ALL_RUNS: the index of leases is full of those that are over.
HEARTBEAT_RUNS = f"""
UPDATE executor.run r
SET lease_until = CASE WHEN r.stop_reason IS NULL THEN greatest(r.lease_until, now() + $4::interval)
        ELSE r.lease_until END,
    heartbeat_at = now()
FROM unnest($1::uuid[], $2::uuid[], $3::int[]) AS u(execution_id, id, epoch)
WHERE {_OF_RUN} AND r.epoch = u.epoch AND r.state || '' = 'LEASED' AND ($5 = '' OR r.namespace = $5)
RETURNING r.id, r.epoch, r.stop_reason
"""

SELECT_CONTROL = """
SELECT execution_id, id FROM executor.run WHERE state = 'READY' AND is_control ORDER BY ready_at LIMIT $1
"""

SELECT_TIMERS = """
SELECT execution_id, id FROM executor.run
WHERE state = 'WAITING' AND retry_after <= now()
ORDER BY retry_after LIMIT $1
"""

# Seconds until the next timer is due, negative if it became due since the last look; null if there is none.
NEXT_TIMER = """
SELECT extract(epoch FROM min(retry_after) - clock_timestamp())::float8 FROM executor.run
WHERE retry_after IS NOT NULL AND state = 'WAITING'
"""

# The same for retries; one that has been due for longer than a second waits for room or for a runner, not for a time.
NEXT_RETRY = """
SELECT extract(epoch FROM min(retry_after) - clock_timestamp())::float8 FROM executor.run
WHERE state = 'READY' AND retry_after > now() - interval '1 second'
"""

# Runs whose own deadline has passed and that were not told yet.
SELECT_DEADLINES = """
SELECT execution_id, id FROM executor.run
WHERE deadline <= now() AND deadline IS NOT NULL AND stop_reason IS NULL
    AND state IN ('READY', 'LEASED', 'WAITING', 'PARKED')
ORDER BY deadline LIMIT $1
"""

# With how many nodes each has: the last run by id is that of the last node.
SELECT_EXECUTION_DEADLINES = """
SELECT e.id, coalesce((
    SELECT r.node_index + 1 FROM executor.run r WHERE r.execution_id = e.id ORDER BY r.id DESC LIMIT 1), 0)
FROM executor.workflow_execution e
WHERE deadline <= now() AND deadline IS NOT NULL AND ending IS NULL AND state IN ('PENDING', 'RUNNING', 'PAUSED')
ORDER BY deadline LIMIT $1
"""

# Leases of runs that were told to stop and whose grace is over; the reaper's quiet periods do not apply to them.
SELECT_STOPPED = """
SELECT execution_id, id, epoch, runner_id FROM executor.run
WHERE state = 'LEASED' AND stop_reason IS NOT NULL AND lease_until < now() ORDER BY lease_until LIMIT $1
"""

# Seconds until the next deadline of a run or of an execution, or the end of a grace; null if there is none.
NEXT_DEADLINE = """
SELECT extract(epoch FROM least(
    (SELECT min(deadline) FROM executor.run
     WHERE deadline IS NOT NULL AND stop_reason IS NULL AND state IN ('READY', 'LEASED', 'WAITING', 'PARKED')),
    (SELECT min(deadline) FROM executor.workflow_execution
     WHERE deadline IS NOT NULL AND ending IS NULL AND state IN ('PENDING', 'RUNNING', 'PAUSED')),
    (SELECT min(lease_until) FROM executor.run WHERE state = 'LEASED' AND stop_reason IS NOT NULL)
) - clock_timestamp())::float8
"""

# `has_run_out` of valkyr/flow/leasing.py, of many.
SELECT_EXPIRED = """
SELECT execution_id, id, epoch, runner_id FROM executor.run
WHERE state = 'LEASED' AND lease_until < now() ORDER BY lease_until LIMIT $1
"""

COUNT_LEASES = """
SELECT count(*)::int AS leases, count(DISTINCT runner_id)::int AS runners,
    (count(*) FILTER (WHERE lease_until < now()))::int AS expired,
    extract(epoch FROM min(lease_until) - now())::float8 AS next_expiry
FROM executor.run WHERE state = 'LEASED'
"""

# A runner that calls over the network may have the same id: what it holds is its own.
SELECT_LEASES_OF_OLDER = """
SELECT execution_id, id, epoch, runner_id FROM executor.run r
WHERE state = 'LEASED' AND runner_id = $1 AND leased_by <> $2 AND NOT EXISTS (
    SELECT 1 FROM executor.runner n
    WHERE n.namespace = r.namespace AND n.runner_id = $1 AND r.leased_by = n.runner_id || '/' || n.incarnation::text)
ORDER BY lease_until LIMIT $3
"""

SELECT_LEASES_OF_HOLDER = """
SELECT execution_id, id, epoch FROM executor.run
WHERE state = 'LEASED' AND leased_by = $1 AND started_at < now() - $2::interval
"""

REGISTER_RUNNER = """
INSERT INTO executor.runner (namespace, runner_id, incarnation, pool, class_names, capacity, serves_all)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (namespace, runner_id) DO UPDATE SET incarnation = EXCLUDED.incarnation, pool = EXCLUDED.pool,
    class_names = EXCLUDED.class_names, capacity = EXCLUDED.capacity, serves_all = EXCLUDED.serves_all,
    registered_at = now(), last_seen_at = now()
"""

PIN_GRAPH = """
INSERT INTO executor.pinned_graph (namespace, workflow_id, version, content_hash, document, task_ids)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (namespace, workflow_id, version) DO NOTHING
"""

READ_PINNED_GRAPH = """
SELECT document, task_ids, content_hash FROM executor.pinned_graph
WHERE namespace = $1 AND workflow_id = $2 AND version = $3
"""

NOTIFY = "SELECT pg_notify($1, $2)"
