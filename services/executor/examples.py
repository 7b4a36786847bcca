"""What executions and runs can be asked for by example: their JSON shapes as columns. What a reader sees is matched."""

from __future__ import annotations

from services.chassis.example.resource import (
    Document,
    Field,
    Group,
    Many,
    Resource,
    Unsearchable,
    boolean,
    duration,
    enum,
    integer,
    number,
    text,
    time,
    uuid,
    worked_out,
)
from services.executor.queries_reading import LAST_ATTEMPTS, SHOWN_STATE
from valkyr.flow.states import ExecutionState, RunState

TRIGGER_TYPES = ("MANUAL", "CRON", "EVENT", "WEBHOOK", "QUEUE", "PARENT", "REPLAY")


def _json(column: str) -> Document:
    """Of a text that a runner or a client made: jsonb does not take every one, and those match nothing."""
    return Document(f"executor.as_json({column})")


def _of_pause(column: str) -> str:
    """Of the pause that holds a paused execution."""
    return f"""CASE WHEN e.state = 'PAUSED' THEN (
        SELECT i.{column} FROM executor.execution_intervention i
        WHERE i.execution_id = e.id AND i.kind = 'PAUSE' AND i.took_effect ORDER BY i.id DESC LIMIT 1) END"""  # noqa: S608 - of constants


EXECUTIONS = Resource(
    name="execution",
    fields={
        "id": uuid("e.id", nullable=False),
        "namespace": text("e.namespace", nullable=False),
        "workflowId": uuid("e.workflow_id", nullable=False),
        "version": integer("e.version", nullable=False),
        # PENDING stands in the row until the first outcome; readers see RUNNING from the first lease on.
        "state": worked_out(
            SHOWN_STATE, ExecutionState, stored="e.state", stored_as={"RUNNING": ("RUNNING", "PENDING")}, nullable=False
        ),
        "triggerType": enum("e.trigger_type", TRIGGER_TYPES, nullable=False),
        "triggerPayload": _json("e.trigger_payload"),
        "outputs": Unsearchable("they stand in the runs; ask ListRuns for `outputs`"),
        "createTime": time("e.created_date", nullable=False, orderable=True),
        "startTime": time("e.started_at", orderable=True),
        "finishTime": time("e.finished_at", orderable=True),
        "errorMessage": text("e.error_message", blank_is_absent=True),
        "errorType": text("e.error_type", blank_is_absent=True),
        "runCounts": Unsearchable("they are counted when one execution is read; ask ListRuns for runs by `state`"),
        "revision": integer("e.revision", nullable=False),
        "priority": integer("e.priority", nullable=False, orderable=True),
        "traceId": text("e.trace_id", nullable=False),
        "createdBy": text("e.created_by_name", nullable=False, blank_is_absent=True),
        "omittedOutputs": Unsearchable("ask ListRuns for `outputs`"),
        "deadline": time("e.deadline", orderable=True),
        "cancelRequested": boolean("e.cancel_requested", nullable=False),
        "cancelledBy": text("CASE WHEN e.cancel_requested THEN e.ended_by END", blank_is_absent=True),
        "cancelReason": text("CASE WHEN e.cancel_requested THEN e.ended_reason END", blank_is_absent=True),
        "pausedBy": text(_of_pause("principal"), blank_is_absent=True),
        "pauseReason": text(_of_pause("reason"), blank_is_absent=True),
        "pauseTime": time(_of_pause("created_date")),
    },
    key=("id",),
    default_order="id desc",
)

# Beside the attempts that did not succeed the one that stands in the run itself, as it is answered: the one under way,
# or the one that succeeded; not of a run that was fixed, whose last attempt had failed.
_ATTEMPTS = f"""(
    (SELECT a.attempt, a.outcome::text, a.runner_id, a.started_at, a.finished_at, a.error
        FROM executor.run_attempt a WHERE a.execution_id = r.execution_id AND a.run_id = r.id
        ORDER BY a.epoch DESC LIMIT {LAST_ATTEMPTS})
    UNION ALL
    SELECT r.attempt, CASE r.state WHEN 'LEASED' THEN 'RUNNING' ELSE 'SUCCESS' END, r.runner_id, r.started_at,
        r.finished_at, NULL
        WHERE r.state IN ('LEASED', 'SUCCESS') AND r.attempt > 0 AND r.attempt IS DISTINCT FROM (
            SELECT a.attempt FROM executor.run_attempt a WHERE a.execution_id = r.execution_id AND a.run_id = r.id
            ORDER BY a.epoch DESC LIMIT 1)
    ) AS a (attempt, outcome, runner_id, started_at, finished_at, error)"""  # noqa: S608 - put together from constants

_ATTEMPT: dict[str, Field] = {
    "attempt": integer("a.attempt", nullable=False),
    "outcome": text("a.outcome", nullable=False),
    "runnerId": text("a.runner_id", blank_is_absent=True),
    "startTime": time("a.started_at"),
    "finishTime": time("a.finished_at"),
    "error": text("a.error", blank_is_absent=True),
    "stackTrace": Unsearchable("it is answered where the run is read alone"),
}
_QUARANTINE: dict[str, Field] = {
    "quarantineNumber": integer("q.quarantine_number", nullable=False),
    "failureType": text("q.failure_type", nullable=False),
    "errorType": text("q.error_type", nullable=False, blank_is_absent=True),
    "error": text("q.error", blank_is_absent=True),
    "quarantineTime": time("q.quarantined_at", nullable=False),
    "resolution": text("q.resolution", nullable=False),
    "resolvedBy": text("q.resolved_by", blank_is_absent=True),
    "resolvedTime": time("q.resolved_at"),
    "reason": text("q.reason", blank_is_absent=True),
    "resolutionTraceId": text("split_part(q.resolution_traceparent, '-', 2)", blank_is_absent=True),
}

RUNS = Resource(
    name="run",
    fields={
        "id": uuid("r.id", nullable=False),
        "executionId": uuid("r.execution_id", nullable=False),
        "nodeId": text("r.node_id", nullable=False, orderable=True),
        "mapIndex": integer("r.map_index", nullable=False),
        "taskId": uuid("r.task_id"),
        "state": enum("r.state", RunState, nullable=False),
        "parkedBy": text("r.parked_by", blank_is_absent=True),
        "attempt": integer("r.attempt", nullable=False, orderable=True),
        "target": text("r.target", blank_is_absent=True),
        "pool": text("r.pool", nullable=False),
        "className": text("r.class_name", nullable=False, blank_is_absent=True),
        "outputs": _json("r.outputs"),
        "error": text("r.error", blank_is_absent=True),
        "errorType": text("r.error_type", blank_is_absent=True),
        "leasedBy": text("r.leased_by", blank_is_absent=True),
        "leaseUntil": time("r.lease_until", orderable=True),
        "heartbeatTime": time("r.heartbeat_at"),
        "retryAfter": time("r.retry_after", orderable=True),
        "startTime": time("r.started_at", orderable=True),
        "finishTime": time("r.finished_at", orderable=True),
        "durationMs": integer("r.duration_ms", orderable=True),
        "costTokens": number("r.cost_tokens::float8", orderable=True),
        "idempotencyKey": text("r.idempotency_key", blank_is_absent=True),
        "quarantineNumber": integer("r.quarantine_number", nullable=False),
        "attempts": Many(_ATTEMPTS, "true", _ATTEMPT),
        "inputs": _json("r.inputs"),
        "episodeId": uuid("r.episode_id"),
        "deadline": time("r.deadline", orderable=True),
        "failures": integer("r.failures", nullable=False, orderable=True),
        "lostLeases": integer("r.lost_leases", nullable=False),
        "parkedTime": time("r.parked_at", orderable=True),
        "parkedDuration": duration("nullif(r.parked_ms, 0) * interval '1 ms'", orderable=True),
        "reusedFrom": Group({"executionId": uuid("r.reused_execution_id"), "runId": uuid("r.reused_run_id")}),
        "quarantines": Many(
            "executor.run_quarantine AS q", "q.execution_id = r.execution_id AND q.run_id = r.id", _QUARANTINE
        ),
    },
    key=("executionId", "id"),
    default_order="executionId desc, id",
)
