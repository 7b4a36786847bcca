"""Statements of the catalogue of modules, as text."""

from __future__ import annotations

from sqlalchemy import text

# The catalogue's revision, and what it has of the classes $2; one row with nulls if that is none of them.
FIND_SCHEMAS = """
SELECT c.revision, m.class_name, m.config_schema
FROM (SELECT coalesce((SELECT revision FROM graph_store.catalogue WHERE namespace = $1), 0) AS revision) AS c
LEFT JOIN graph_store.module_spec AS m ON m.namespace = $1 AND m.class_name = ANY($2::text[])
"""

_LISTED = """m.class_name, m.description, {schema} AS config_schema, m.defaults, m.last_modified_by_name AS author,
    m.last_modified_date AS modified"""

# By class name, after one. `bytes` counts what the rows up to this one have together.
_LIST = """
SELECT c.revision, l.*
FROM (SELECT coalesce((SELECT revision FROM graph_store.catalogue WHERE namespace = $1), 0) AS revision) AS c
LEFT JOIN (
    SELECT {columns}, sum(octet_length(m.class_name) + octet_length(m.description) + octet_length(m.defaults)
        + coalesce(octet_length({schema}), 0)) OVER (ORDER BY m.class_name COLLATE "C") AS bytes
    FROM (
        SELECT * FROM graph_store.module_spec
        WHERE namespace = $1 AND class_name COLLATE "C" > $2 ORDER BY class_name COLLATE "C" LIMIT $3) AS m
    ) AS l ON true
ORDER BY l.class_name COLLATE "C"
"""


def list_modules(*, with_schemas: bool) -> str:
    """Of a namespace ($1), after a class name ($2), at most $3."""
    schema = "m.config_schema" if with_schemas else "NULL::text"
    return _LIST.format(columns=_LISTED.format(schema=schema), schema=schema)


# Makes the row where there is none. Locked until the end: registrations of a namespace come one after the other.
LOCK_CATALOGUE = text(
    """INSERT INTO graph_store.catalogue (namespace, revision) VALUES (:namespace, 0)
    ON CONFLICT (namespace) DO UPDATE SET revision = catalogue.revision
    RETURNING revision"""
)

FIND_MODULES = text(
    f"""SELECT {_LISTED.format(schema="m.config_schema")}
    FROM graph_store.module_spec AS m
    WHERE m.namespace = :namespace AND m.class_name = ANY(CAST(:names AS text[]))"""  # noqa: S608 - of constants
)

MEASURE_MODULES = text(
    """SELECT count(*) AS number, coalesce(sum(octet_length(config_schema)), 0) AS bytes
    FROM graph_store.module_spec WHERE namespace = :namespace"""
)

WRITE_MODULES = text(
    """INSERT INTO graph_store.module_spec AS m
        (namespace, class_name, description, config_schema, defaults, last_modified_by, last_modified_by_name)
    SELECT :namespace, g.*, CAST(:author_id AS uuid), :author
    FROM unnest(CAST(:names AS text[]), CAST(:descriptions AS text[]), CAST(:schemas AS text[]),
        CAST(:defaults AS text[])) AS g
    ON CONFLICT (namespace, class_name) DO UPDATE SET description = EXCLUDED.description,
        config_schema = EXCLUDED.config_schema, defaults = EXCLUDED.defaults, last_modified_date = now(),
        last_modified_by = EXCLUDED.last_modified_by, last_modified_by_name = EXCLUDED.last_modified_by_name
    RETURNING m.class_name, m.last_modified_date"""
)

SET_REVISION = text(
    "UPDATE graph_store.catalogue SET revision = :revision, last_modified_date = now() WHERE namespace = :namespace"
)
