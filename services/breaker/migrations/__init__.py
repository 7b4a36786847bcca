"""Alembic revisions, written by hand, each with a downgrade."""
