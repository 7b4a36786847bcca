"""One function, one statement. Values are parameters, batches are arrays, identifiers are constants of tables.py."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    Column,
    Double,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    cast,
    delete,
    func,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import INTERVAL, JSONB, UUID, insert
from sqlalchemy.sql.dml import Delete, Insert, Update
from sqlalchemy.sql.selectable import FromClause

from services.graph_store.tables import (
    answered_request,
    audit_event,
    connection,
    module,
    task,
    workflow,
    workflow_version,
)

_ID = UUID(as_uuid=False)
ROWS: dict[str, dict[str, Any]] = {
    task.name: {
        "id": Text,
        "node_id": Text,
        "label": Text,
        "position_x": Double,
        "position_y": Double,
        "options": Text,
    },
    connection.name: {
        "id": Text,
        "edge_id": Text,
        "source_task_id": Text,
        "target_task_id": Text,
        "kind": Text,
        "condition": Text,
    },
    module.name: {
        "id": Text,
        "task_id": Text,
        "class_name": Text,
        "module_data": Text,
        "config": Text,
        "target": Text,
    },
}
"""Columns of the tables that a save writes in bulk, with the types that their arrays travel as."""


def lock_workflow(namespace: str, workflow_id: str) -> Select[Any]:
    return (
        select(workflow)
        .where(workflow.c.namespace == namespace, workflow.c.id == workflow_id)
        .with_for_update(key_share=True)
    )


def select_workflow(namespace: str, workflow_id: str) -> Select[Any]:
    return select(workflow).where(workflow.c.namespace == namespace, workflow.c.id == workflow_id)


def select_named(namespace: str, name: str) -> Select[Any]:
    """The id of the workflow that has the name."""
    return select(workflow.c.id).where(workflow.c.namespace == namespace, workflow.c.name == name)


def insert_workflow(values: dict[str, Any]) -> Insert:
    """No row comes back if another transaction was first with the same id."""
    return (
        insert(workflow)
        .values(values)
        .on_conflict_do_nothing(index_elements=[workflow.c.namespace, workflow.c.id])
        .returning(workflow)
    )


def update_workflow(namespace: str, workflow_id: str, values: dict[str, Any]) -> Update:
    return (
        update(workflow)
        .where(workflow.c.namespace == namespace, workflow.c.id == workflow_id)
        .values(**values, last_modified_date=func.now())
        .returning(workflow)
    )


def select_version(namespace: str, workflow_id: str, version: int | None) -> Select[Any]:
    """The workflow's row beside one version's, the latest if None; null if there is no such version."""
    of_version = workflow.c.version if version is None else version
    columns = [column.label(f"version_{column.name}") for column in workflow_version.c]
    return (
        select(workflow, *columns)
        .outerjoin(
            workflow_version,
            and_(
                workflow_version.c.namespace == workflow.c.namespace,
                workflow_version.c.workflow_id == workflow.c.id,
                workflow_version.c.version == of_version,
            ),
        )
        .where(workflow.c.namespace == namespace, workflow.c.id == workflow_id)
    )


def insert_version(values: dict[str, Any]) -> Insert:
    return insert(workflow_version).values(values)


def row_arrays(table: Table, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The parameters of `insert_rows` and `update_rows`: an array for each column."""
    return {f"all_{name}": [row[name] for row in rows] for name in ROWS[table.name]}


@cache
def insert_rows(table: Table) -> Insert:
    """All rows in one statement, whatever their number. Takes `row_arrays`, `of_namespace`, `of_workflow`."""
    given = _given(table)
    columns = [*ROWS[table.name], "namespace", "workflow_id"]
    values = [_value(table, given, name) for name in ROWS[table.name]]
    fixed = [bindparam("of_namespace", type_=Text), bindparam("of_workflow", type_=_ID)]
    return insert(table).from_select(columns, select(*values, *fixed))


@cache
def update_rows(table: Table) -> Update:
    """All rows in one statement, matched by id. Takes `row_arrays` and `of_namespace`."""
    given = _given(table)
    changed = {name: _value(table, given, name) for name in ROWS[table.name] if name != "id"}
    return (
        update(table)
        .values(**changed, last_modified_date=func.now())
        .where(table.c.namespace == bindparam("of_namespace", type_=Text), table.c.id == _value(table, given, "id"))
    )


def delete_rows(table: Table, ids: Sequence[str], namespace: str) -> Delete:
    return delete(table).where(table.c.namespace == namespace, table.c.id == _any_of(ids))


def insert_audit_events(values: Sequence[dict[str, Any]]) -> Insert:
    return insert(audit_event).values(list(values))


def select_request(namespace: str, method: str, request_id: str, kept: timedelta) -> Select[Any]:
    return select(answered_request).where(
        answered_request.c.namespace == namespace,
        answered_request.c.method == method,
        answered_request.c.request_id == request_id,
        answered_request.c.created_date > _ago(kept),
    )


def insert_request(values: dict[str, Any], kept: timedelta) -> Insert:
    """Takes the place of one that is older than `kept`. No row comes back if another transaction was first."""
    statement = insert(answered_request).values(values)
    key = [answered_request.c.namespace, answered_request.c.method, answered_request.c.request_id]
    replaced = {column.name: statement.excluded[column.name] for column in answered_request.c if column not in key}
    return statement.on_conflict_do_update(
        index_elements=key,
        set_={**replaced, "created_date": func.now()},
        where=answered_request.c.created_date <= _ago(kept),
    ).returning(answered_request.c.request_id)


def delete_old_requests(kept: timedelta, limit: int) -> Delete:
    """At most `limit`, oldest first; rows that somebody else prunes are passed over."""
    key = tuple_(answered_request.c.namespace, answered_request.c.method, answered_request.c.request_id)
    old = (
        select(answered_request.c.namespace, answered_request.c.method, answered_request.c.request_id)
        .where(answered_request.c.created_date <= _ago(kept))
        .order_by(answered_request.c.created_date)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("old")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    return delete(answered_request).where(key.in_(select(old)))


# Asked once for every batch of starts: text, so that it goes to the driver as it is.
# With the revision of the namespace's catalogue, in one row of nulls where there is no such workflow.
LATEST_VERSIONS = """
SELECT c.revision, w.id, w.version, w.archived
FROM (SELECT coalesce((SELECT revision FROM graph_store.catalogue WHERE namespace = $1), 0) AS revision) AS c
LEFT JOIN graph_store.workflow AS w ON w.namespace = $1 AND w.id = ANY($2::uuid[])
"""


def select_versions(namespace: str, workflow_id: str, below: int | None, limit: int) -> Select[Any]:
    """Newest first, from below a version on."""
    table = workflow_version.c
    statement = select(
        table.version,
        table.content_hash,
        table.created_date,
        table.created_by_name,
        table.message,
        table.node_count,
        table.edge_count,
        table.layout,
        table.restored_from,
    ).where(table.namespace == namespace, table.workflow_id == workflow_id)
    if below is not None:
        statement = statement.where(table.version < below)
    return statement.order_by(table.version.desc()).limit(limit)


def _given(table: Table) -> FromClause:
    arrays = [bindparam(f"all_{name}", type_=ARRAY(kind)) for name, kind in ROWS[table.name].items()]
    columns: list[Column[Any]] = [Column(name, kind) for name, kind in ROWS[table.name].items()]
    return func.unnest(*arrays).table_valued(*columns, name="given").render_derived()


def _value(table: Table, given: FromClause, name: str) -> Any:
    """UUIDs and JSON travel as text: the driver would otherwise convert each by itself."""
    column, kind = given.c[name], table.c[name].type
    return cast(column, kind) if isinstance(kind, JSONB | UUID) else column


def _any_of(ids: Sequence[str]) -> Any:
    return func.any(cast(bindparam("ids", list(ids), type_=ARRAY(Text)), ARRAY(_ID)))


def _ago(age: timedelta) -> Any:
    return func.now() - bindparam("kept", age, type_=INTERVAL, unique=True)
