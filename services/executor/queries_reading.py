"""Statements behind what clients ask and watch: executions, runs, attempts, outputs."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from services.executor.queries import look_up
from valkyr.flow.states import SETTLED_EXECUTION_STATES

LAST_ATTEMPTS = 200
"""Of a run; one that snoozes has an attempt for every time."""


def _literals(states: Iterable[StrEnum]) -> str:
    return ", ".join(f"'{state.value}'" for state in sorted(states))


# PENDING stands in the row until the first outcome, since no lease writes it; what clients see is RUNNING from the
# first lease on. Not EXISTS: that may be planned as a look at all runs there are, kept for the statement.
SHOWN_STATE = """CASE WHEN e.state = 'PENDING' AND (SELECT 1 FROM executor.run r
        WHERE r.execution_id = e.id AND r.attempt > 0 LIMIT 1) IS NOT NULL THEN 'RUNNING' ELSE e.state END"""

EXECUTION_COLUMNS = f"""e.id, e.namespace, e.workflow_id, e.version, {SHOWN_STATE} AS state, e.revision, e.priority,
    e.trigger_type, e.created_date, e.started_at, e.finished_at, e.error_type, e.error_message,
    e.trace_id, e.created_by_name, e.last_modified_date, e.deadline, e.cancel_requested, e.ended_by, e.ended_reason"""

READ_EXECUTIONS = f"""
SELECT {EXECUTION_COLUMNS} FROM executor.workflow_execution e WHERE e.id = ANY($1::uuid[])
"""  # noqa: S608 - put together from constants

# What was written by transactions that an earlier snapshot did not see: those from its top ($1) on, and those that were
# open then ($2). Ids beyond the present one are those of another database's life, from which this one was restored.
CHANGES_SINCE = """
WITH t AS MATERIALIZED (
    SELECT s, coalesce((
        SELECT e.changed_in + 1 FROM executor.workflow_execution e
        WHERE e.changed_in < pg_snapshot_xmax(s)::text::bigint ORDER BY e.changed_in DESC LIMIT 1), 0) AS top
    FROM pg_current_snapshot() AS s),
s AS MATERIALIZED (
    SELECT least(t.top, pg_snapshot_xmin(t.s)::text::bigint) AS oldest_open, t.top,
        ARRAY(SELECT x::text::bigint FROM pg_snapshot_xip(t.s) AS x WHERE x::text::bigint < t.top) AS open
    FROM t)
SELECT e.id, e.revision, e.state, s.oldest_open, s.top, s.open
FROM s
LEFT JOIN LATERAL (
    SELECT e.id, e.revision, e.state FROM executor.workflow_execution e
    WHERE e.changed_in >= $1::bigint AND e.changed_in < s.top OR e.changed_in = ANY($2::bigint[])) AS e ON true
"""

RUN_COLUMNS = """r.id, r.execution_id, r.node_id, r.map_index, r.task_id, r.state, r.parked_by, r.attempt, r.target,
    r.pool, r.class_name, r.error, r.error_type, r.leased_by, r.lease_until, r.heartbeat_at, r.retry_after,
    r.started_at, r.finished_at, r.duration_ms, r.cost_tokens, r.idempotency_key, r.quarantine_number, r.runner_id,
    r.inputs, r.episode_id, r.deadline, r.failures, r.lost_leases, r.parked_at, r.parked_ms,
    r.reused_execution_id, r.reused_run_id"""

# Payload, run counts and the outputs of the runs $3, as far as they fit into $4 bytes, null beyond; none of these where
# the execution is not settled and only settled ones are wanted ($5).
READ_EXECUTION = f"""
SELECT {EXECUTION_COLUMNS}, CASE WHEN e.is_wanted THEN e.trigger_payload END, c.states, c.runs, o.nodes, o.texts
FROM (SELECT e.*, NOT $5::boolean OR e.state IN ({_literals(SETTLED_EXECUTION_STATES)}) AS is_wanted
    FROM executor.workflow_execution e WHERE e.namespace = $1 AND e.id = $2::uuid) AS e
CROSS JOIN LATERAL (
    SELECT array_agg(c.state) AS states, array_agg(c.runs) AS runs
    FROM (SELECT r.state, count(*)::int AS runs FROM executor.run r
        WHERE r.execution_id = e.id AND e.is_wanted GROUP BY r.state) AS c) AS c
CROSS JOIN LATERAL (
    SELECT array_agg(r.node_id) AS nodes, array_agg(r.text) AS texts
    FROM (SELECT r.node_id,
            CASE WHEN sum(octet_length(r.outputs)) OVER (ORDER BY r.id) <= $4::bigint THEN r.outputs END AS text
        FROM executor.run r
        WHERE e.is_wanted AND r.execution_id = e.id AND r.id = ANY($3::uuid[])
            AND r.state = 'SUCCESS' AND r.outputs IS NOT NULL) AS r) AS o
"""  # noqa: S608 - put together from constants

COUNT_RUNS = """
SELECT execution_id, state, count(*)::int FROM executor.run WHERE execution_id = ANY($1::uuid[]) GROUP BY 1, 2
"""

# Outputs as far as they fit into $3 bytes; null beyond.
READ_OUTPUTS = f"""
SELECT r.execution_id, r.node_id, r.id,
    CASE WHEN sum(octet_length(r.outputs)) OVER (ORDER BY r.execution_id DESC, r.id) <= $3::bigint THEN r.outputs END
FROM unnest($1::uuid[], $2::uuid[]) AS k(execution_id, id)
{look_up("executor.run r", "execution_id, id", "k.execution_id, k.id")}
WHERE r.state = 'SUCCESS' AND r.outputs IS NOT NULL
ORDER BY r.execution_id DESC, r.id
"""  # noqa: S608 - put together from constants

# The last $3 of each run.
READ_ATTEMPTS = """
SELECT a.run_id, a.attempt, a.outcome, a.runner_id, a.started_at, a.finished_at, a.error
FROM unnest($1::uuid[], $2::uuid[]) AS k(execution_id, id)
CROSS JOIN LATERAL (
    SELECT * FROM executor.run_attempt a
    WHERE a.execution_id = k.execution_id AND a.run_id = k.id
    ORDER BY a.epoch DESC LIMIT $3) AS a
ORDER BY a.run_id, a.epoch
"""

# Of the last $3 attempts of one run that left one.
READ_STACK_TRACES = """
SELECT a.attempt, a.error_stack_trace FROM executor.run_attempt a
WHERE a.execution_id = $1 AND a.run_id = $2 AND a.error_stack_trace IS NOT NULL
ORDER BY a.epoch DESC LIMIT $3
"""

_FAILED_BEFORE = """SELECT a.epoch, a.attempt, a.outcome, a.runner_id, a.started_at, a.finished_at, a.error,
            a.error_stack_trace
        FROM executor.run_attempt a
        WHERE a.execution_id = k.execution_id AND a.run_id = k.id AND a.attempt <= k.attempt
            AND a.outcome NOT IN ('SNOOZED', 'RELEASED', 'OMITTED')
        ORDER BY a.epoch"""

# Of each quarantine the first $4 and the last $5 that burnt something; stack traces of the last $6.
READ_TOLD_ATTEMPTS = f"""
SELECT k.place, a.attempt, a.outcome, a.runner_id, a.started_at, a.finished_at, a.error,
    CASE WHEN row_number() OVER (PARTITION BY k.place ORDER BY a.epoch DESC) <= $6 THEN a.error_stack_trace END
FROM unnest($1::uuid[], $2::uuid[], $3::int[]) WITH ORDINALITY AS k(execution_id, id, attempt, place)
CROSS JOIN LATERAL (
        ({_FAILED_BEFORE} LIMIT $4)
        UNION
        ({_FAILED_BEFORE} DESC LIMIT $5)) AS a
ORDER BY k.place, a.epoch
"""  # noqa: S608 - put together from constants


def list_executions(*, by_ids: bool, by_workflow: bool, before: bool, changed_since: bool) -> str:
    """Newest first. Parameters: namespace, limit, then those of the conditions asked for, in this order."""
    conditions = _numbered(
        (by_ids, "e.id = ANY({}::uuid[])"),
        (by_workflow, "e.workflow_id = {}::uuid"),
        (before, "e.id < {}::uuid"),
        (changed_since, "e.changed_in >= {}::bigint"),
    )
    return f"""SELECT {EXECUTION_COLUMNS}
FROM executor.workflow_execution e
WHERE e.namespace = $1{conditions}
ORDER BY e.id DESC
LIMIT $2"""  # noqa: S608 - put together from constants; values travel as parameters


def read_run(*, by_node: bool) -> str:
    """Parameters: namespace, execution, then the run's id or its node's."""
    condition = "r.node_id = $3::text AND r.map_index = -1" if by_node else "r.id = $3::uuid"
    return f"""SELECT {RUN_COLUMNS}
FROM executor.run r
WHERE r.namespace = $1 AND r.execution_id = $2::uuid AND {condition}
LIMIT 1"""  # noqa: S608 - put together from constants; values travel as parameters


def _numbered(*conditions: tuple[bool, str]) -> str:
    """The conditions asked for, their parameters numbered on from $3."""
    parts = []
    number = 3
    for wanted, condition in conditions:
        if not wanted:
            continue
        parts.append(" AND " + condition.format(f"${number}"))
        number += 1
    return "".join(parts)
