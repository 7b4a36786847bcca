"""Breakers, permits of probes, reports that counted; transitions and episodes."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

CREATE = (
    """
    CREATE TABLE breaker.circuit_breaker_state (
        namespace text NOT NULL DEFAULT 'default',
        id uuid NOT NULL,
        target varchar(500) NOT NULL,
        state varchar(20) NOT NULL DEFAULT 'CLOSED',
        failure_count integer NOT NULL DEFAULT 0,
        success_count integer NOT NULL DEFAULT 0,
        last_failure_at timestamptz,
        opened_at timestamptz,
        next_retry_at timestamptz,
        window_start_at timestamptz NOT NULL DEFAULT now(),
        created_date timestamptz NOT NULL DEFAULT now(),
        last_modified_date timestamptz NOT NULL DEFAULT now(),
        created_by uuid,
        last_modified_by uuid,
        generation integer NOT NULL DEFAULT 0,
        episode_id uuid,
        forced boolean NOT NULL DEFAULT false,
        forced_by_name text,
        forced_reason text,
        forced_until timestamptz,
        revision bigint NOT NULL DEFAULT 1,
        CONSTRAINT circuit_breaker_state_pkey PRIMARY KEY (namespace, id),
        CONSTRAINT circuit_breaker_state_target_key UNIQUE (namespace, target),
        CONSTRAINT circuit_breaker_state_state_check CHECK (
            state IN ('CLOSED', 'OPEN', 'HALF_OPEN', 'FORCED_OPEN', 'DISABLED', 'METRICS_ONLY')
        ),
        CONSTRAINT circuit_breaker_state_forced_check CHECK (
            forced = (state IN ('FORCED_OPEN', 'DISABLED', 'METRICS_ONLY'))
        )
    ) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0)
    """,
    # WatchBreakers: what changed of late, of those that ever left CLOSED; and which of them may be forgotten.
    """
    CREATE INDEX circuit_breaker_state_changed_idx ON breaker.circuit_breaker_state (last_modified_date)
        WHERE generation > 0
    """,
    # Those that never opened and may be forgotten.
    """
    CREATE INDEX circuit_breaker_state_quiet_idx ON breaker.circuit_breaker_state (last_modified_date)
        WHERE generation = 0
    """,
    """
    CREATE TABLE breaker.permit (
        namespace text NOT NULL DEFAULT 'default',
        id uuid NOT NULL,
        breaker_id uuid NOT NULL,
        generation integer NOT NULL,
        run_id text NOT NULL,
        epoch integer NOT NULL,
        granted_at timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz NOT NULL,
        CONSTRAINT permit_pkey PRIMARY KEY (namespace, id),
        CONSTRAINT permit_holder_key UNIQUE (namespace, breaker_id, generation, run_id, epoch)
    ) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0)
    """,
    # Pruned when long expired.
    "CREATE INDEX permit_expiry_idx ON breaker.permit (expires_at)",
    """
    CREATE TABLE breaker.counted_report (
        namespace text NOT NULL DEFAULT 'default',
        breaker_id uuid NOT NULL,
        report_id text NOT NULL,
        created_date timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT counted_report_pkey PRIMARY KEY (namespace, breaker_id, report_id)
    ) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0)
    """,
    # Pruned by age.
    "CREATE INDEX counted_report_age_idx ON breaker.counted_report (created_date)",
    """
    CREATE TABLE breaker.transition (
        namespace text NOT NULL DEFAULT 'default',
        id uuid NOT NULL,
        breaker_id uuid NOT NULL,
        target varchar(500) NOT NULL,
        from_state varchar(20) NOT NULL,
        to_state varchar(20) NOT NULL,
        generation integer NOT NULL,
        cause varchar(20) NOT NULL,
        episode_id uuid,
        report_id text NOT NULL DEFAULT '',
        run_id text NOT NULL DEFAULT '',
        trace_id varchar(32) NOT NULL DEFAULT '',
        principal_name text NOT NULL DEFAULT 'anonymous',
        created_date timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT transition_pkey PRIMARY KEY (namespace, id),
        CONSTRAINT transition_generation_key UNIQUE (namespace, breaker_id, generation)
    )
    """,
    # The transitions of one target, newest first.
    "CREATE INDEX transition_target_idx ON breaker.transition (namespace, target, created_date)",
    # Pruned by age.
    "CREATE INDEX transition_age_idx ON breaker.transition (created_date)",
    """
    CREATE TABLE breaker.episode (
        namespace text NOT NULL DEFAULT 'default',
        id uuid NOT NULL,
        breaker_id uuid NOT NULL,
        target varchar(500) NOT NULL,
        opened_at timestamptz NOT NULL,
        recovered_at timestamptz,
        opened_generation integer NOT NULL,
        recovered_generation integer,
        trace_id varchar(32) NOT NULL DEFAULT '',
        created_date timestamptz NOT NULL DEFAULT now(),
        last_modified_date timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT episode_pkey PRIMARY KEY (namespace, id)
    )
    """,
    # The outages of one target, newest first.
    "CREATE INDEX episode_target_idx ON breaker.episode (namespace, target, opened_at)",
    # Pruned by age.
    "CREATE INDEX episode_age_idx ON breaker.episode (recovered_at) WHERE recovered_at IS NOT NULL",
    """
    CREATE FUNCTION breaker.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'rows of %.% never change', TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END $$
    """,
    # Old ones may be pruned, young ones not, and none is ever rewritten.
    """
    CREATE TRIGGER transition_append_only BEFORE UPDATE ON breaker.transition
        FOR EACH ROW EXECUTE FUNCTION breaker.refuse_change()
    """,
    """
    CREATE TRIGGER transition_kept BEFORE DELETE ON breaker.transition
        FOR EACH ROW WHEN (OLD.created_date > now() - interval '7 days') EXECUTE FUNCTION breaker.refuse_change()
    """,
    """
    CREATE TRIGGER transition_no_truncate BEFORE TRUNCATE ON breaker.transition
        FOR EACH STATEMENT EXECUTE FUNCTION breaker.refuse_change()
    """,
)

TABLES = ("episode", "transition", "counted_report", "permit", "circuit_breaker_state")


def upgrade() -> None:
    for statement in CREATE:
        op.execute(statement)


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP TABLE breaker.{table}")
    op.execute("DROP FUNCTION breaker.refuse_change()")
