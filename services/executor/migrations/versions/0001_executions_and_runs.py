"""Executions, runs, attempts, who paused and resumed, pinned graphs, runners, outbox; and rows as they are sent."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE executor.pinned_graph (
    namespace text NOT NULL,
    workflow_id uuid NOT NULL,
    version integer NOT NULL,
    content_hash text NOT NULL,
    document text NOT NULL,
    task_ids text NOT NULL,
    created_date timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace, workflow_id, version)
);

-- The indexes that every change of a row writes anew keep duplicates apart: what is merged today is dead tomorrow.
CREATE TABLE executor.workflow_execution (
    id uuid PRIMARY KEY WITH (deduplicate_items = off),
    namespace text NOT NULL DEFAULT 'default',
    workflow_id uuid NOT NULL,
    version integer NOT NULL,
    state varchar(20) NOT NULL DEFAULT 'PENDING',
    revision integer NOT NULL DEFAULT 1,
    open_runs integer NOT NULL DEFAULT 0,
    bad_runs integer NOT NULL DEFAULT 0,
    priority smallint NOT NULL DEFAULT 0,
    started_at timestamptz,
    finished_at timestamptz,
    deadline timestamptz,
    cancel_requested boolean NOT NULL DEFAULT false,
    parent_execution_id uuid,
    restarted_from_id uuid,
    trigger_type varchar(20) NOT NULL DEFAULT 'MANUAL',
    trigger_payload text,
    context_data text,
    error_type varchar(50),
    error_message text,
    error_stack_trace text,
    metrics_snapshot text,
    trace_id varchar(32) NOT NULL,
    traceparent varchar(64) NOT NULL,
    request_id text,
    request_hash bytea,
    created_date timestamptz NOT NULL DEFAULT now(),
    last_modified_date timestamptz NOT NULL DEFAULT now(),
    -- The transaction that wrote the row last: what a watch has not seen yet is what later ones wrote.
    changed_in bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    created_by uuid,
    created_by_name text NOT NULL DEFAULT 'anonymous',
    last_modified_by uuid
);

-- No foreign keys: every statement carries execution_id, so that the table can be partitioned or distributed.
-- The id is made from (execution, node, map index), see model.run_id, so that the key keeps one row for each.
CREATE TABLE executor.run (
    execution_id uuid NOT NULL,
    id uuid NOT NULL,
    namespace text NOT NULL DEFAULT 'default',
    node_index integer NOT NULL,
    map_index integer NOT NULL DEFAULT -1,
    node_id text NOT NULL,
    task_id uuid,
    exec_module_id uuid,
    class_name text NOT NULL DEFAULT '',
    -- READY the engine decides about it before anybody may lease it: a control node, or one whose equal is looked for.
    is_control boolean NOT NULL DEFAULT false,
    pool text NOT NULL DEFAULT 'default',
    -- The negative priority, so that the order of leasing ascends in every column of its index.
    rank smallint NOT NULL DEFAULT 0,
    target varchar(500),
    state varchar(20) NOT NULL DEFAULT 'PENDING',
    parked_by varchar(20),
    unmet integer NOT NULL DEFAULT 0,
    taken integer NOT NULL DEFAULT 0,
    dead boolean NOT NULL DEFAULT false,
    excluded_edges integer[],
    chosen_edges integer[],
    broken_edge text,
    ready_at timestamptz,
    ready_revision integer,
    settled_revision integer,
    epoch integer NOT NULL DEFAULT 0,
    attempt integer NOT NULL DEFAULT 1,
    failures integer NOT NULL DEFAULT 0,
    lost_leases integer NOT NULL DEFAULT 0,
    quarantine_number integer NOT NULL DEFAULT 0,
    leased_by varchar(255),
    runner_id varchar(255),
    lease_until timestamptz,
    heartbeat_at timestamptz,
    retry_after timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    duration_ms integer,
    idempotency_key varchar(128),
    inputs_hash varchar(64),
    config_hash varchar(64),
    -- An equal run was looked for and not found: what comes of this one may be reused.
    dedupes boolean NOT NULL DEFAULT false,
    -- The run whose success this one's is.
    reused_execution_id uuid,
    reused_run_id uuid,
    outputs text,
    -- JSON: what its attempts say that they have done so far.
    progress text,
    error text,
    error_type varchar(20),
    cost_tokens numeric,
    episode_id uuid,
    created_date timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (execution_id, id) WITH (deduplicate_items = off)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- Attempts that did not end in success; the present or successful one stands in the run itself.
CREATE TABLE executor.run_attempt (
    execution_id uuid NOT NULL,
    run_id uuid NOT NULL,
    epoch integer NOT NULL,
    attempt integer NOT NULL,
    outcome varchar(20) NOT NULL,
    runner_id varchar(255),
    started_at timestamptz,
    finished_at timestamptz NOT NULL DEFAULT now(),
    error text,
    error_stack_trace text,
    PRIMARY KEY (execution_id, run_id, epoch)
);

CREATE TABLE executor.runner (
    namespace text NOT NULL DEFAULT 'default',
    runner_id varchar(255) NOT NULL,
    incarnation uuid NOT NULL,
    pool text NOT NULL,
    class_names text[] NOT NULL,
    capacity integer NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    draining boolean NOT NULL DEFAULT false,
    host text NOT NULL DEFAULT '',
    version text NOT NULL DEFAULT '',
    -- It takes every class, whatever class_names say.
    serves_all boolean NOT NULL DEFAULT false,
    -- Incarnations that others took the id from, the latest last: what comes of them is refused.
    replaced uuid[] NOT NULL DEFAULT '{}',
    -- The last LeaseRuns that was answered with runs, and when these were leased: its repetition brings them again.
    lease_request_id text,
    leased_at timestamptz,
    PRIMARY KEY (namespace, runner_id)
);

-- Quarantines on their way to the DLQ, written with the state they announce.
CREATE TABLE executor.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace text NOT NULL,
    execution_id uuid NOT NULL,
    run_id uuid NOT NULL,
    quarantine_number integer NOT NULL,
    kind varchar(20) NOT NULL,
    payload text NOT NULL,
    created_date timestamptz NOT NULL DEFAULT now(),
    UNIQUE (execution_id, run_id, quarantine_number, kind)
);

-- Who paused and resumed executions.
CREATE TABLE executor.execution_intervention (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace text NOT NULL,
    execution_id uuid NOT NULL,
    -- PAUSE or RESUME.
    kind varchar(20) NOT NULL,
    principal text NOT NULL,
    reason text,
    request_id text,
    request_hash bytea,
    -- False for what was asked of an execution that was so already.
    took_effect boolean NOT NULL,
    created_date timestamptz NOT NULL DEFAULT now()
);
"""

# Rows as they are sent: one array of them takes the driver half the time of an array for each column.
# A type is never altered, since executors of two versions may run at once: a change takes a new name.
# `lease` is 1 for a run that is handed out at once, else 0.
TYPES = """
CREATE TYPE executor.new_execution AS (
    id uuid, namespace text, workflow_id uuid, version integer, state text, open_runs integer, priority integer,
    trigger_type text, trigger_payload text, traceparent text, request_id text, request_hash bytea,
    created_by uuid, created_by_name text, deadline timestamptz, timeout interval);
CREATE TYPE executor.new_run AS (
    execution_id uuid, id uuid, namespace text, node_index integer, node_id text, task_id uuid, class_name text,
    is_control boolean, pool text, rank integer, target text, state text, unmet integer, lease integer,
    idempotency_key text, inputs_hash text, config_hash text, deadline interval);
CREATE TYPE executor.finished_run AS (
    execution_id uuid, id uuid, epoch integer, outputs text, duration_ms integer, cost_tokens numeric,
    revision integer);
CREATE TYPE executor.changed_run AS (
    execution_id uuid, id uuid, state text, unmet integer, taken integer, dead boolean, excluded integer[],
    chosen integer[], broken text, outputs text, error text, error_type text, revision integer, wake interval,
    lease integer, idempotency_key text, inputs_hash text, config_hash text, always_decided boolean,
    deadline interval, target text);
CREATE TYPE executor.changed_execution AS (
    id uuid, state text, revision integer, open_runs integer, bad_runs integer, error_type text,
    error_message text);
"""

INDEXES = """
CREATE UNIQUE INDEX workflow_execution_request ON executor.workflow_execution (namespace, request_id)
    WITH (deduplicate_items = off) WHERE request_id IS NOT NULL;
CREATE INDEX workflow_execution_of_workflow ON executor.workflow_execution (workflow_id, id)
    WITH (deduplicate_items = off) WHERE workflow_id IS NOT NULL;
CREATE INDEX workflow_execution_unsettled ON executor.workflow_execution (state, id)
    WHERE state IN ('PENDING', 'RUNNING', 'PAUSED', 'FAILED', 'CANCELLED');
-- Lists by the time of the start; v1's tools ask for the newest by it.
CREATE INDEX workflow_execution_started ON executor.workflow_execution (started_at) WHERE started_at IS NOT NULL;
CREATE INDEX workflow_execution_changed ON executor.workflow_execution (changed_in);

CREATE INDEX run_to_lease ON executor.run (pool, namespace, class_name, rank, ready_at)
    WHERE state = 'READY' AND NOT is_control;
CREATE INDEX run_control ON executor.run (ready_at) WHERE state = 'READY' AND is_control;
CREATE INDEX run_leased ON executor.run (lease_until) WHERE state = 'LEASED';
CREATE INDEX run_due ON executor.run (retry_after)
    WHERE retry_after IS NOT NULL AND state IN ('READY', 'WAITING');
CREATE INDEX run_waiting ON executor.run (retry_after) WHERE state = 'WAITING';
CREATE INDEX run_to_look_at ON executor.run (state, execution_id, id)
    WHERE state IN ('PARKED', 'QUARANTINED', 'FAILED');
CREATE INDEX run_failed_key ON executor.run (idempotency_key) WHERE state IN ('QUARANTINED', 'FAILED');
-- The newest of equal successes; there may be very many of one key.
CREATE INDEX run_reusable ON executor.run (namespace, idempotency_key, finished_at)
    WHERE state = 'SUCCESS' AND dedupes;

CREATE INDEX execution_intervention_of_execution ON executor.execution_intervention (execution_id, id);
CREATE UNIQUE INDEX execution_intervention_request ON executor.execution_intervention (namespace, kind, request_id)
    WHERE request_id IS NOT NULL;
-- Pruned by age. The hash is there where the id is; by its name this index is never taken for one of request ids.
CREATE INDEX execution_intervention_request_age ON executor.execution_intervention (created_date)
    WHERE request_hash IS NOT NULL;
"""

# Of text that others have made: jsonb takes not every JSON, and a list that meets such a one is not to fail.
AS_JSON = """
CREATE FUNCTION executor.as_json(said text) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN said::jsonb;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN NULL;
END $$
"""


def upgrade() -> None:
    for statement in (TABLES + TYPES + INDEXES).split(";\n"):
        if statement.strip():
            op.execute(statement)
    op.execute(AS_JSON)


def downgrade() -> None:
    op.execute("DROP FUNCTION executor.as_json(text)")
    for row in ("changed_execution", "changed_run", "finished_run", "new_run", "new_execution"):
        op.execute(f"DROP TYPE executor.{row}")
    for table in (
        "execution_intervention",
        "outbox",
        "runner",
        "run_attempt",
        "run",
        "workflow_execution",
        "pinned_graph",
    ):
        op.execute(f"DROP TABLE executor.{table}")
