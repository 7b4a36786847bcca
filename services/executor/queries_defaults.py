"""Statements about defaults of modules, as text."""

from __future__ import annotations

READ_DEFAULTS = "SELECT revision, defaults FROM executor.module_defaults WHERE namespace = $1"

# An older revision, of a replica that asked earlier, replaces no newer one.
WRITE_DEFAULTS = """
INSERT INTO executor.module_defaults AS d (namespace, revision, defaults) VALUES ($1, $2, $3)
ON CONFLICT (namespace) DO UPDATE
SET revision = EXCLUDED.revision, defaults = EXCLUDED.defaults, last_modified_date = now()
WHERE d.revision < EXCLUDED.revision
"""
