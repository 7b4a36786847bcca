"""Workflows, their versions, the latest version's rows, audit events, answered requests."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

CREATE = (
    """
    CREATE TABLE graph_store.workflow (
        namespace text NOT NULL DEFAULT 'default',
        id uuid NOT NULL,
        name text,
        description text NOT NULL DEFAULT '',
        labels jsonb NOT NULL DEFAULT '{}',
        version bigint NOT NULL DEFAULT 1,
        content_hash varchar(64) NOT NULL,
        archived boolean NOT NULL DEFAULT false,
        created_date timestamptz NOT NULL DEFAULT now(),
        last_modified_date timestamptz NOT NULL DEFAULT now(),
        created_by uuid,
        created_by_name text NOT NULL DEFAULT 'anonymous',
        last_modified_by uuid,
        last_modified_by_name text NOT NULL DEFAULT 'anonymous',
        CONSTRAINT workflow_pkey PRIMARY KEY (namespace, id)
    )
    """,
    # One workflow per name; FindWorkflows by a name or its beginning, whatever the database's collation.
    """
    CREATE UNIQUE INDEX workflow_name_key ON graph_store.workflow (namespace, name text_pattern_ops)
        WHERE name IS NOT NULL
    """,
    # The same with ignore_case.
    "CREATE INDEX workflow_lower_name_idx ON graph_store.workflow (namespace, lower(name) text_pattern_ops)",
    # FindWorkflows in order: newest first, last changed first, by name.
    "CREATE INDEX workflow_newest_idx ON graph_store.workflow (namespace, created_date, id)",
    "CREATE INDEX workflow_recent_idx ON graph_store.workflow (namespace, last_modified_date, id)",
    "CREATE INDEX workflow_by_name_idx ON graph_store.workflow (namespace, name, id)",
    # FindWorkflows by labels.
    "CREATE INDEX workflow_labels_idx ON graph_store.workflow USING gin (labels jsonb_path_ops)",
    """
    CREATE TABLE graph_store.workflow_version (
        namespace text NOT NULL DEFAULT 'default',
        workflow_id uuid NOT NULL,
        version integer NOT NULL,
        name text,
        description text NOT NULL DEFAULT '',
        labels jsonb NOT NULL DEFAULT '{}',
        document text NOT NULL,
        content_hash varchar(64) NOT NULL,
        row_ids text NOT NULL,
        node_count integer NOT NULL,
        edge_count integer NOT NULL,
        layout boolean NOT NULL DEFAULT false,
        restored_from integer,
        message text NOT NULL DEFAULT '',
        created_date timestamptz NOT NULL DEFAULT now(),
        created_by uuid,
        created_by_name text NOT NULL DEFAULT 'anonymous',
        CONSTRAINT workflow_version_pkey PRIMARY KEY (namespace, workflow_id, version),
        CONSTRAINT workflow_version_workflow_fkey FOREIGN KEY (namespace, workflow_id)
            REFERENCES graph_store.workflow (namespace, id)
    )
    """,
    # task, connection and module have no foreign keys: one save writes them whole, under the lock of the workflow's
    # row, and forty thousand checks would cost more than all of its other statements.
    """
    CREATE TABLE graph_store.task (
        namespace text NOT NULL DEFAULT 'default',
        id uuid NOT NULL,
        workflow_id uuid NOT NULL,
        node_id text NOT NULL,
        label text NOT NULL DEFAULT '',
        position_x double precision,
        position_y double precision,
        options jsonb NOT NULL DEFAULT '{}',
        created_date timestamptz NOT NULL DEFAULT now(),
        last_modified_date timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT task_pkey PRIMARY KEY (namespace, id),
        CONSTRAINT task_node_key UNIQUE (namespace, workflow_id, node_id)
    )
    """,
    # FindWorkflows by a node.
    "CREATE INDEX task_node_idx ON graph_store.task (namespace, node_id, workflow_id)",
    """
    CREATE TABLE graph_store.connection (
        namespace text NOT NULL DEFAULT 'default',
        id uuid NOT NULL,
        workflow_id uuid NOT NULL,
        edge_id text NOT NULL,
        source_task_id uuid NOT NULL,
        target_task_id uuid NOT NULL,
        kind varchar(20) NOT NULL DEFAULT 'SUCCESS',
        condition text NOT NULL DEFAULT '',
        created_date timestamptz NOT NULL DEFAULT now(),
        last_modified_date timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT connection_pkey PRIMARY KEY (namespace, id),
        CONSTRAINT connection_edge_key UNIQUE (namespace, workflow_id, edge_id)
    )
    """,
    """
    CREATE TABLE graph_store.module (
        namespace text NOT NULL DEFAULT 'default',
        id uuid NOT NULL,
        workflow_id uuid NOT NULL,
        task_id uuid NOT NULL,
        class_name text NOT NULL,
        module_data text,
        config text,
        target text NOT NULL DEFAULT '',
        created_date timestamptz NOT NULL DEFAULT now(),
        last_modified_date timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT module_pkey PRIMARY KEY (namespace, id),
        CONSTRAINT module_task_key UNIQUE (namespace, workflow_id, task_id)
    )
    """,
    # FindWorkflows by a module's class, and by its target.
    "CREATE INDEX module_class_idx ON graph_store.module (namespace, class_name, workflow_id)",
    "CREATE INDEX module_target_idx ON graph_store.module (namespace, target, workflow_id) WHERE target <> ''",
    """
    CREATE TABLE graph_store.audit_event (
        namespace text NOT NULL DEFAULT 'default',
        id uuid NOT NULL,
        workflow_id uuid,
        action varchar(40) NOT NULL,
        principal_id uuid,
        principal_name text NOT NULL,
        from_version integer,
        to_version integer,
        from_hash varchar(64),
        to_hash varchar(64),
        message text NOT NULL DEFAULT '',
        trace_id varchar(32) NOT NULL DEFAULT '',
        number bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
        written_in bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
        created_date timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT audit_event_pkey PRIMARY KEY (namespace, id)
    )
    """,
    # ListAuditEvents of one workflow, and of a namespace. Events of one workflow are numbered in the order in which
    # they happened, as each is written under the lock of the workflow's row.
    "CREATE INDEX audit_event_workflow_idx ON graph_store.audit_event (namespace, workflow_id, number)",
    "CREATE INDEX audit_event_number_idx ON graph_store.audit_event (namespace, number)",
    # WatchWorkflows: what transactions wrote that an earlier look could not see.
    "CREATE INDEX audit_event_written_idx ON graph_store.audit_event (written_in, number)",
    # No foreign key: a draft may be of a workflow that is not there yet. One without a document was published or
    # discarded; it is kept so that the revisions of the next one go on from there.
    """
    CREATE TABLE graph_store.draft (
        namespace text NOT NULL DEFAULT 'default',
        workflow_id uuid NOT NULL,
        principal_name text NOT NULL,
        principal_id uuid,
        base_version integer NOT NULL,
        revision integer NOT NULL,
        name text,
        description text NOT NULL DEFAULT '',
        labels jsonb NOT NULL DEFAULT '{}',
        document text,
        content_hash varchar(64),
        created_date timestamptz NOT NULL DEFAULT now(),
        last_modified_date timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT draft_pkey PRIMARY KEY (namespace, workflow_id, principal_name)
    )
    """,
    # Pruned by age.
    "CREATE INDEX draft_age_idx ON graph_store.draft (last_modified_date)",
    """
    CREATE TABLE graph_store.answered_request (
        namespace text NOT NULL DEFAULT 'default',
        method varchar(40) NOT NULL,
        request_id text NOT NULL,
        request_hash bytea NOT NULL,
        answer text NOT NULL,
        created_date timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT answered_request_pkey PRIMARY KEY (namespace, method, request_id)
    )
    """,
    # One row for each namespace that has registered modules: locked by who registers, compared by who has some of them
    # in memory.
    """
    CREATE TABLE graph_store.catalogue (
        namespace text NOT NULL DEFAULT 'default',
        revision integer NOT NULL,
        last_modified_date timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT catalogue_pkey PRIMARY KEY (namespace)
    )
    """,
    """
    CREATE TABLE graph_store.module_spec (
        namespace text NOT NULL DEFAULT 'default',
        class_name text NOT NULL,
        description text NOT NULL DEFAULT '',
        config_schema text,
        defaults text NOT NULL DEFAULT '{}',
        last_modified_date timestamptz NOT NULL DEFAULT now(),
        last_modified_by uuid,
        last_modified_by_name text NOT NULL DEFAULT 'anonymous',
        CONSTRAINT module_spec_pkey PRIMARY KEY (namespace, class_name)
    )
    """,
    # Pruned by age.
    "CREATE INDEX answered_request_age_idx ON graph_store.answered_request (created_date)",
    # Of text that others have made: jsonb takes not every JSON, and a list that meets such a one is not to fail.
    """
    CREATE FUNCTION graph_store.as_json(said text) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE STRICT AS $$
    BEGIN
        RETURN said::jsonb;
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION graph_store.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'rows of %.% never change', TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END $$
    """,
)

APPEND_ONLY = ("workflow_version", "audit_event")
TABLES = (
    "module_spec",
    "catalogue",
    "draft",
    "answered_request",
    "audit_event",
    "module",
    "connection",
    "task",
    "workflow_version",
    "workflow",
)


def upgrade() -> None:
    for statement in CREATE:
        op.execute(statement)
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON graph_store.{table} "
            "FOR EACH ROW EXECUTE FUNCTION graph_store.refuse_change()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON graph_store.{table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION graph_store.refuse_change()"
        )


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP TABLE graph_store.{table}")
    op.execute("DROP FUNCTION graph_store.refuse_change()")
    op.execute("DROP FUNCTION graph_store.as_json(text)")
