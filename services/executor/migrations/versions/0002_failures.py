"""What failures need: deadlines, ends of executions, parking, quarantines and their resolutions."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

UPGRADE = """
-- Why an execution ends before its runs did: CANCEL, FAIL_FAST or DEADLINE. Nothing of it runs again.
ALTER TABLE executor.workflow_execution
    ADD COLUMN ending varchar(20),
    ADD COLUMN ended_by text,
    ADD COLUMN ended_reason text,
    ADD COLUMN cancel_request_id text,
    ADD COLUMN cancel_request_hash bytea;

ALTER TABLE executor.run
    ADD COLUMN deadline timestamptz,
    -- Why a LEASED run is told to stop: CANCEL or DEADLINE; its lease is not extended any more.
    ADD COLUMN stop_reason varchar(20),
    -- Until when a runner that was told to stop may be at it, having heard nothing.
    ADD COLUMN trusted_until timestamptz,
    -- Whether its ALWAYS edges were decided by an earlier end: they are decided once.
    ADD COLUMN always_decided boolean NOT NULL DEFAULT false,
    -- Inputs that replace the assembled ones.
    ADD COLUMN inputs text,
    -- Distinguishes the idempotency key of a requeue that asked for a new one.
    ADD COLUMN key_number integer NOT NULL DEFAULT 0,
    -- The trace of the last requeue, and the attempt after which it came.
    ADD COLUMN replay_traceparent varchar(64),
    ADD COLUMN replay_attempt integer NOT NULL DEFAULT 0,
    ADD COLUMN permit_id uuid,
    ADD COLUMN parked_at timestamptz,
    ADD COLUMN parked_ms bigint NOT NULL DEFAULT 0;

-- Every failure for good, and what was done about it.
CREATE TABLE executor.run_quarantine (
    execution_id uuid NOT NULL,
    run_id uuid NOT NULL,
    quarantine_number integer NOT NULL,
    namespace text NOT NULL,
    failure_type varchar(50) NOT NULL,
    error_type varchar(20) NOT NULL,
    error text,
    -- Of the execution when this happened: what later readers of the run see of it.
    revision integer NOT NULL,
    attempt integer NOT NULL,
    target varchar(500),
    episode_id uuid,
    idempotency_key varchar(128),
    -- What stood in the place of the assembled inputs, and the trace in which it ran if a requeue had begun one.
    inputs text,
    traceparent varchar(64),
    quarantined_at timestamptz NOT NULL DEFAULT now(),
    resolution varchar(20) NOT NULL DEFAULT 'PENDING',
    resolved_by text,
    resolved_at timestamptz,
    reason text,
    request_id text,
    request_hash bytea,
    resolution_traceparent varchar(64),
    PRIMARY KEY (execution_id, run_id, quarantine_number)
);

CREATE UNIQUE INDEX run_quarantine_request ON executor.run_quarantine (namespace, resolution, request_id)
    WHERE request_id IS NOT NULL;

-- What the DLQ can never store stays here, and is not sent again.
ALTER TABLE executor.outbox DROP COLUMN payload, ADD COLUMN refused_at timestamptz, ADD COLUMN problem text;

CREATE UNIQUE INDEX workflow_execution_cancel_request ON executor.workflow_execution (namespace, cancel_request_id)
    WHERE cancel_request_id IS NOT NULL;
CREATE INDEX run_deadline ON executor.run (deadline)
    WHERE deadline IS NOT NULL AND stop_reason IS NULL AND state IN ('READY', 'LEASED', 'WAITING', 'PARKED');
-- Retries alone: `run_due` held the timers as well, of which there may be very many, and those have `run_waiting`.
DROP INDEX executor.run_due;
CREATE INDEX run_retry ON executor.run (retry_after) WHERE retry_after IS NOT NULL AND state = 'READY';
CREATE INDEX run_stopping ON executor.run (lease_until) WHERE state = 'LEASED' AND stop_reason IS NOT NULL;
CREATE INDEX run_parked ON executor.run (namespace, target, retry_after)
    WHERE state = 'PARKED' AND parked_by = 'BREAKER';
CREATE INDEX workflow_execution_deadline ON executor.workflow_execution (deadline)
    WHERE deadline IS NOT NULL AND ending IS NULL AND state IN ('PENDING', 'RUNNING', 'PAUSED');
"""

DOWNGRADE = """
DROP INDEX executor.workflow_execution_deadline;
DROP INDEX executor.run_parked;
DROP INDEX executor.run_stopping;
DROP INDEX executor.run_retry;
CREATE INDEX run_due ON executor.run (retry_after)
    WHERE retry_after IS NOT NULL AND state IN ('READY', 'WAITING');
DROP INDEX executor.run_deadline;
DROP INDEX executor.workflow_execution_cancel_request;
ALTER TABLE executor.outbox
    DROP COLUMN refused_at, DROP COLUMN problem, ADD COLUMN payload text NOT NULL DEFAULT '{}';
DROP TABLE executor.run_quarantine;
ALTER TABLE executor.run
    DROP COLUMN deadline, DROP COLUMN stop_reason, DROP COLUMN trusted_until, DROP COLUMN always_decided,
    DROP COLUMN inputs,
    DROP COLUMN key_number, DROP COLUMN replay_traceparent, DROP COLUMN replay_attempt, DROP COLUMN permit_id,
    DROP COLUMN parked_at, DROP COLUMN parked_ms;
ALTER TABLE executor.workflow_execution
    DROP COLUMN ending, DROP COLUMN ended_by, DROP COLUMN ended_reason,
    DROP COLUMN cancel_request_id, DROP COLUMN cancel_request_hash;
"""


def upgrade() -> None:
    _execute(UPGRADE)


def downgrade() -> None:
    _execute(DOWNGRADE)


def _execute(script: str) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            op.execute(statement)
