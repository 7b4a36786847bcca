"""What letters can be asked for by example: the JSON shape of a letter as columns. What a reader sees is matched."""

from __future__ import annotations

from services.chassis.example.resource import (
    Document,
    Field,
    Many,
    Resource,
    Unsearchable,
    boolean,
    enum,
    integer,
    text,
    time,
    uuid,
)
from services.dlq.model import Resolution

FAILURE_TYPES = ("MAX_RETRIES", "PERMANENT_ERROR", "RUNNER_LOST", "TIMEOUT", "CIRCUIT_BREAKER", "MANUAL")
ROWS = "dlq.dead_letter_queue AS l"
# Ids as text, as the rest of the room has them. What is heavy is left out.
COLUMNS = """l.namespace, l.id::text, l.run_id::text, l.execution_id::text, l.quarantine_number, l.task_id::text,
    l.node_id, l.workflow_id::text, l.version, l.class_name, l.failure_type, l.failure_reason, l.error_type, l.attempts,
    l.target, l.episode_id, l.traceparent, l.trace_id, l.quarantined_at, l.idempotency_key, l.resolution,
    l.requeue_count, l.previous_id::text, l.reviewed_by_name, l.notes, l.resolved_at, l.resolved_by_name,
    l.resolution_reason, l.requested_resolution, l.intent_id::text"""


def _json(column: str) -> str:
    """Of a text that a runner or a client made: jsonb does not take every one, and those match nothing."""
    return f"dlq.as_json({column})"


_ATTEMPT: dict[str, Field] = {
    "attempt": integer("(a.told ->> 'attempt')::int"),
    "outcome": text("a.told ->> 'outcome'"),
    "runnerId": text("a.told ->> 'runnerId'", blank_is_absent=True),
    "startTime": time("(a.told ->> 'startTime')::timestamptz"),
    "finishTime": time("(a.told ->> 'finishTime')::timestamptz"),
    "error": text("a.told ->> 'error'", blank_is_absent=True),
    "stackTrace": Unsearchable("it is answered where the letter is read alone"),
}

LETTERS = Resource(
    name="dead letter",
    fields={
        "id": uuid("l.id", nullable=False),
        "namespace": text("l.namespace", nullable=False),
        "runId": uuid("l.run_id", nullable=False),
        "executionId": uuid("l.execution_id", nullable=False),
        "taskId": uuid("l.task_id"),
        "nodeId": text("l.node_id", nullable=False, orderable=True, blank_is_absent=True),
        "workflowId": uuid("l.workflow_id"),
        "version": integer("l.version", nullable=False),
        "className": text("l.class_name", nullable=False, orderable=True, blank_is_absent=True),
        "quarantineNumber": integer("l.quarantine_number", nullable=False),
        "failureType": enum("l.failure_type", FAILURE_TYPES),
        "failureReason": text("l.failure_reason", blank_is_absent=True),
        "originalInputs": Document(_json("l.original_inputs")),
        "originalConfig": Document(_json("l.original_config")),
        "attempts": Many(f"jsonb_array_elements({_json('l.attempts')}) AS a (told)", "true", _ATTEMPT),
        "target": text("l.target", nullable=False, orderable=True, blank_is_absent=True),
        "episodeId": text("l.episode_id", nullable=False, blank_is_absent=True),
        "traceId": text("l.trace_id", nullable=False, blank_is_absent=True),
        "quarantinedTime": time("l.quarantined_at", nullable=False, orderable=True),
        "resolution": enum("l.resolution", Resolution, nullable=False),
        "reviewedBy": text("l.reviewed_by_name", nullable=False, blank_is_absent=True),
        "resolvedTime": time("l.resolved_at", orderable=True),
        "notes": text("l.notes", blank_is_absent=True),
        "requeueCount": integer("l.requeue_count", nullable=False, orderable=True),
        "previousId": uuid("l.previous_id"),
        "idempotencyKey": text("l.idempotency_key", nullable=False, blank_is_absent=True),
        "resolvedBy": text("l.resolved_by_name", nullable=False, blank_is_absent=True),
        "resolutionReason": text("l.resolution_reason", nullable=False, blank_is_absent=True),
        "errorType": text("l.error_type", nullable=False, blank_is_absent=True),
        "requestedResolution": enum("l.requested_resolution", Resolution),
        "traceparent": text("l.traceparent", nullable=False, blank_is_absent=True),
        "refused": Unsearchable("it is answered where the letter is read alone"),
        "resolvedHere": boolean("(l.resolution <> 'PENDING' AND l.intent_id IS NOT NULL)", nullable=False),
    },
    key=("id",),
    default_order="quarantinedTime desc",
)
