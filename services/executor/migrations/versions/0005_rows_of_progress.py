"""Rows that a transaction of progress writes, sent as rows: one array of them instead of an array for each column.

A type is never altered, since executors of two versions may run at once: a change takes a new name.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TYPES = (
    """CREATE TYPE executor.finished_run AS (
        execution_id uuid, id uuid, epoch integer, outputs text, duration_ms integer, cost_tokens numeric,
        revision integer)""",
    # `lease` is 1 for a run that is handed out at once, else 0.
    """CREATE TYPE executor.changed_run AS (
        execution_id uuid, id uuid, state text, unmet integer, taken integer, dead boolean, excluded integer[],
        chosen integer[], broken text, outputs text, error text, error_type text, revision integer, wake interval,
        lease integer, idempotency_key text, inputs_hash text, config_hash text, always_decided boolean,
        deadline interval, target text)""",
    """CREATE TYPE executor.changed_execution AS (
        id uuid, state text, revision integer, open_runs integer, bad_runs integer, error_type text,
        error_message text)""",
)


def upgrade() -> None:
    for statement in TYPES:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TYPE executor.changed_execution")
    op.execute("DROP TYPE executor.changed_run")
    op.execute("DROP TYPE executor.finished_run")
