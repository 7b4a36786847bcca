"""Alembic revisions of the schema `executor`, written by hand."""
