"""Rows of new executions and runs as a start sends them: one array of rows instead of an array for each column.

A type is never altered, since executors of two versions may run at once: a change takes a new name.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TYPES = (
    """CREATE TYPE executor.new_execution AS (
        id uuid, namespace text, workflow_id uuid, version integer, state text, open_runs integer, priority integer,
        trigger_type text, trigger_payload text, traceparent text, request_id text, request_hash bytea,
        created_by uuid, created_by_name text, deadline timestamptz, timeout interval)""",
    # `lease` is 1 for a run that is handed out at once, else 0.
    """CREATE TYPE executor.new_run AS (
        execution_id uuid, id uuid, namespace text, node_index integer, node_id text, task_id uuid, class_name text,
        is_control boolean, pool text, rank integer, target text, state text, unmet integer, lease integer,
        idempotency_key text, inputs_hash text, config_hash text, deadline interval)""",
)


def upgrade() -> None:
    for statement in TYPES:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TYPE executor.new_run")
    op.execute("DROP TYPE executor.new_execution")
