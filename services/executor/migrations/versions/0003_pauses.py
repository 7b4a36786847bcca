"""Who paused and resumed executions."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLE = """
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
)
"""

INDEXES = (
    "CREATE INDEX execution_intervention_of_execution ON executor.execution_intervention (execution_id, id)",
    """CREATE UNIQUE INDEX execution_intervention_request
       ON executor.execution_intervention (namespace, kind, request_id) WHERE request_id IS NOT NULL""",
    # Pruned by age. The hash is there where the id is; by its name this index is never taken for one of request ids.
    """CREATE INDEX execution_intervention_request_age
       ON executor.execution_intervention (created_date) WHERE request_hash IS NOT NULL""",
)


def upgrade() -> None:
    op.execute(TABLE)
    for index in INDEXES:
        op.execute(index)


def downgrade() -> None:
    """Nobody could resume what is paused then: it runs on."""
    op.execute(
        """UPDATE executor.run
           SET state = 'READY', parked_by = NULL, parked_at = NULL, ready_at = greatest(now(), retry_after)
           WHERE state = 'PARKED' AND parked_by = 'PAUSE'"""
    )
    op.execute("UPDATE executor.workflow_execution SET state = 'RUNNING' WHERE state = 'PAUSED'")
    op.execute("DROP TABLE executor.execution_intervention")
