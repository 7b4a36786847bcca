"""Letters, resolutions that came before their letter, intents of operators, audit events, answered requests."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

CREATE = (
    """
    CREATE TABLE dlq.dead_letter_queue (
        namespace text NOT NULL DEFAULT 'default',
        id uuid NOT NULL,
        run_id uuid NOT NULL,
        execution_id uuid NOT NULL,
        task_id uuid,
        failure_reason text,
        failure_type varchar(50),
        original_inputs text,
        original_config text,
        quarantined_at timestamptz NOT NULL DEFAULT now(),
        reviewed_by uuid,
        resolution varchar(20) NOT NULL DEFAULT 'PENDING',
        resolved_at timestamptz,
        notes text,
        created_date timestamptz NOT NULL DEFAULT now(),
        last_modified_date timestamptz NOT NULL DEFAULT now(),
        created_by uuid,
        last_modified_by uuid,
        reviewed_by_name text NOT NULL DEFAULT '',
        created_by_name text NOT NULL DEFAULT 'anonymous',
        last_modified_by_name text NOT NULL DEFAULT 'anonymous',
        node_id text NOT NULL DEFAULT '',
        workflow_id uuid,
        version integer NOT NULL DEFAULT 0,
        class_name text NOT NULL DEFAULT '',
        quarantine_number integer NOT NULL DEFAULT 1,
        error_type text NOT NULL DEFAULT '',
        target text NOT NULL DEFAULT '',
        episode_id text NOT NULL DEFAULT '',
        trace_id varchar(32) NOT NULL DEFAULT '',
        traceparent varchar(55) NOT NULL DEFAULT '',
        attempts text NOT NULL DEFAULT '[]',
        stack_traces text NOT NULL DEFAULT '[]',
        idempotency_key text NOT NULL DEFAULT '',
        previous_id uuid,
        requeue_count integer NOT NULL DEFAULT 0,
        resolved_by uuid,
        resolved_by_name text NOT NULL DEFAULT '',
        resolution_reason text NOT NULL DEFAULT '',
        requested_resolution varchar(20),
        intent_id uuid,
        CONSTRAINT dead_letter_queue_pkey PRIMARY KEY (namespace, id),
        CONSTRAINT dead_letter_queue_quarantine_key UNIQUE (namespace, run_id, quarantine_number)
    )
    """,
    # ListDeadLetters, newest first: of all, by resolution, of an execution, of a workflow, of a target. Those of a run
    # are found by the unique key.
    "CREATE INDEX dead_letter_queue_newest_idx ON dlq.dead_letter_queue (namespace, quarantined_at, id)",
    "CREATE INDEX dead_letter_queue_resolution_idx"
    " ON dlq.dead_letter_queue (namespace, resolution, quarantined_at, id)",
    "CREATE INDEX dead_letter_queue_execution_idx"
    " ON dlq.dead_letter_queue (namespace, execution_id, quarantined_at, id)",
    "CREATE INDEX dead_letter_queue_workflow_idx ON dlq.dead_letter_queue (namespace, workflow_id, quarantined_at, id)",
    "CREATE INDEX dead_letter_queue_target_idx ON dlq.dead_letter_queue (namespace, target, quarantined_at, id)",
    """
    CREATE TABLE dlq.early_resolution (
        namespace text NOT NULL DEFAULT 'default',
        run_id uuid NOT NULL,
        quarantine_number integer NOT NULL,
        execution_id uuid NOT NULL,
        resolution varchar(20) NOT NULL,
        resolved_by_name text NOT NULL,
        reason text NOT NULL,
        resolved_at timestamptz NOT NULL,
        created_date timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT early_resolution_pkey PRIMARY KEY (namespace, run_id, quarantine_number)
    )
    """,
    """
    CREATE TABLE dlq.resolution_intent (
        namespace text NOT NULL DEFAULT 'default',
        id uuid NOT NULL,
        dead_letter_id uuid NOT NULL,
        resolution varchar(20) NOT NULL,
        state varchar(20) NOT NULL DEFAULT 'OPEN',
        content text NOT NULL,
        request_hash bytea NOT NULL,
        reason text NOT NULL DEFAULT '',
        problem text NOT NULL DEFAULT '',
        principal_id uuid,
        principal_name text NOT NULL,
        traceparent varchar(55) NOT NULL DEFAULT '',
        tries integer NOT NULL DEFAULT 1,
        next_try_at timestamptz NOT NULL,
        created_date timestamptz NOT NULL DEFAULT now(),
        last_modified_date timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT resolution_intent_pkey PRIMARY KEY (namespace, id)
    )
    """,
    # Those whose answer is outstanding, the one that is due first.
    "CREATE INDEX resolution_intent_due_idx ON dlq.resolution_intent (next_try_at) WHERE state = 'OPEN'",
    # The intents of one letter, in order.
    "CREATE INDEX resolution_intent_letter_idx ON dlq.resolution_intent (namespace, dead_letter_id, id)",
    """
    CREATE TABLE dlq.audit_event (
        namespace text NOT NULL DEFAULT 'default',
        id uuid NOT NULL,
        dead_letter_id uuid NOT NULL,
        action varchar(40) NOT NULL,
        from_resolution varchar(20),
        to_resolution varchar(20) NOT NULL,
        principal_id uuid,
        principal_name text NOT NULL,
        reason text NOT NULL DEFAULT '',
        detail text NOT NULL DEFAULT '',
        trace_id varchar(32) NOT NULL DEFAULT '',
        created_date timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT audit_event_pkey PRIMARY KEY (namespace, id)
    )
    """,
    # The events of one letter, in order.
    "CREATE INDEX audit_event_letter_idx ON dlq.audit_event (namespace, dead_letter_id, id)",
    """
    CREATE TABLE dlq.answered_request (
        namespace text NOT NULL DEFAULT 'default',
        method varchar(40) NOT NULL,
        request_id text NOT NULL,
        request_hash bytea NOT NULL,
        intent_id uuid NOT NULL,
        created_date timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT answered_request_pkey PRIMARY KEY (namespace, method, request_id)
    )
    """,
    # Pruned by age.
    "CREATE INDEX answered_request_age_idx ON dlq.answered_request (created_date)",
    # Forgotten with the intent that the executor refused.
    "CREATE INDEX answered_request_intent_idx ON dlq.answered_request (namespace, intent_id)",
    # Of text that others have made: jsonb takes not every JSON, and a list that meets such a one is not to fail.
    """
    CREATE FUNCTION dlq.as_json(said text) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE STRICT AS $$
    BEGIN
        RETURN said::jsonb;
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION dlq.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'rows of %.% never change', TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END $$
    """,
    "CREATE TRIGGER audit_event_append_only BEFORE UPDATE OR DELETE ON dlq.audit_event"
    " FOR EACH ROW EXECUTE FUNCTION dlq.refuse_change()",
    "CREATE TRIGGER audit_event_no_truncate BEFORE TRUNCATE ON dlq.audit_event"
    " FOR EACH STATEMENT EXECUTE FUNCTION dlq.refuse_change()",
)

TABLES = ("answered_request", "audit_event", "resolution_intent", "early_resolution", "dead_letter_queue")


def upgrade() -> None:
    for statement in CREATE:
        op.execute(statement)


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP TABLE dlq.{table}")
    op.execute("DROP FUNCTION dlq.refuse_change()")
    op.execute("DROP FUNCTION dlq.as_json(text)")
