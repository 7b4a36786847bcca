"""What modules say where nodes say nothing: kept, so that it is known without the graph store."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE executor.module_defaults (
            namespace text NOT NULL,
            revision integer NOT NULL,
            defaults text NOT NULL,
            last_modified_date timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT module_defaults_pkey PRIMARY KEY (namespace)
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE executor.module_defaults")
