"""The tables as the use cases see them. Driver errors stop here: what a caller can mend becomes a ValkyrError."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import orjson
from sqlalchemy import Row, Table
from sqlalchemy.exc import IntegrityError

from services.chassis.database import Database, with_retries
from services.chassis.engine import Connection
from services.chassis.example.query import Query, fetch
from services.graph_store import examples, queries, tables
from services.graph_store.model import (
    AuditEvent,
    Changes,
    CorruptVersion,
    RowChanges,
    RowIds,
    StoredVersion,
    StoredWorkflow,
    VersionSummary,
    check_hash,
)
from services.graph_store.model_drafts import LatestVersion
from valkyr.errors import NameTaken, Unavailable

MAX_RACES = 5
_NAME_KEY = "workflow_name_key"
_OPTIONS = ("retry", "timeout", "deadline", "pool", "priority", "join")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class FoundWorkflows:
    """What a query found: the rows that say where a page ends, and their workflows."""

    rows: Sequence[Any]
    workflows: Sequence[StoredWorkflow]


class Raced(Exception):
    """Another transaction was first, so that what this one has read is no longer true."""


class Store:
    """Reads of the graph store, and transactions for its writes."""

    def __init__(self, database: Database, *, changed: Callable[[], None] = lambda: None) -> None:
        """`changed` is called when something that leaves an audit event was committed, or may have been."""
        self._database = database
        self._changed = changed

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Commits at the end of the block; any exception rolls back."""
        tx: Transaction | None = None
        try:
            async with self._database.transaction() as connection:
                tx = Transaction(connection)
                yield tx
        finally:
            # The connection may be lost in the middle of the commit: that it failed does not say that it did nothing.
            if tx is not None and tx.has_events:
                self._changed()

    async def in_transaction(self, work: Callable[[Transaction], Awaitable[_Result]]) -> _Result:
        """Runs `work` in a transaction, again from its start after a deadlock, a serialization failure or Raced.

        Unavailable where others were first time and again.
        """

        async def once() -> _Result:
            async with self.transaction() as tx:
                return await work(tx)

        for _ in range(MAX_RACES):
            try:
                return await with_retries(once)
            except Raced:
                continue
        raise Unavailable("others keep changing the same at the same time", retry_after=timedelta(milliseconds=100))

    async def latest_versions(
        self, namespace: str, workflow_ids: Sequence[str]
    ) -> tuple[dict[str, LatestVersion], int]:
        """By workflow, unknown ones absent; and the revision of the catalogue. One statement, and no transaction round
        it."""
        async with self._database.acquire() as connection:
            rows = await connection.fetch(queries.LATEST_VERSIONS, namespace, workflow_ids)
        return {str(row[1]): LatestVersion(row[2], row[3]) for row in rows if row[1] is not None}, rows[0][0]

    async def find_workflows(self, namespace: str, query: Query) -> FoundWorkflows:
        """A page of what the query asks for, and one more if there is one."""
        async with self._database.listing() as connection:
            rows = await fetch(
                connection, query.statement(examples.COLUMNS, examples.ROWS, examples.SCOPE, [namespace])
            )
        return FoundWorkflows(rows, [_found(row) for row in rows])


class Transaction:
    """The statements of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.has_events = False

    @property
    def connection(self) -> Connection:
        """For statements of other files of the store."""
        return self._connection

    async def lock_workflow(self, namespace: str, workflow_id: str) -> StoredWorkflow | None:
        """The workflow's row, locked until the end: saves of one workflow come one after the other."""
        row = (await self._connection.execute(queries.lock_workflow(namespace, workflow_id))).first()
        return None if row is None else workflow_of(row)

    async def find_workflow(self, namespace: str, workflow_id: str) -> StoredWorkflow | None:
        row = (await self._connection.execute(queries.select_workflow(namespace, workflow_id))).first()
        return None if row is None else workflow_of(row)

    async def id_of_name(self, namespace: str, name: str) -> str | None:
        """The workflow that has the name."""
        found: str | None = (await self._connection.execute(queries.select_named(namespace, name))).scalar_one_or_none()
        return found

    async def insert_workflow(self, values: Mapping[str, Any]) -> StoredWorkflow | None:
        """None if another transaction was first with the same id. NameTaken."""
        with _name_taken(values["name"]):
            row = (await self._connection.execute(queries.insert_workflow(dict(values)))).first()
        return None if row is None else workflow_of(row)

    async def update_workflow(self, namespace: str, workflow_id: str, values: Mapping[str, Any]) -> StoredWorkflow:
        """NameTaken."""
        with _name_taken(values["name"]):
            result = await self._connection.execute(queries.update_workflow(namespace, workflow_id, dict(values)))
        return workflow_of(result.one())

    async def find_version(
        self, namespace: str, workflow_id: str, version: int | None
    ) -> tuple[StoredWorkflow, StoredVersion | None] | None:
        """The workflow as it is and one of its versions, the latest if None; from one snapshot. CorruptVersion."""
        row = (await self._connection.execute(queries.select_version(namespace, workflow_id, version))).first()
        if row is None:
            return None
        workflow = workflow_of(row)
        return workflow, None if row.version_version is None else _version(row, workflow)

    async def get_version(self, namespace: str, workflow_id: str, version: int) -> StoredVersion:
        """One that is known to be there. CorruptVersion if it is not."""
        found = await self.find_version(namespace, workflow_id, version)
        if found is None or found[1] is None:
            raise CorruptVersion(f"workflow {workflow_id} lacks its version {version}")
        return found[1]

    async def insert_version(self, values: Mapping[str, Any], ids: RowIds) -> None:
        row_ids = orjson.dumps(asdict(ids)).decode()
        await self._connection.execute(queries.insert_version({**values, "row_ids": row_ids}))

    async def write_rows(self, namespace: str, workflow_id: str, changes: RowChanges) -> None:
        """Inserts, updates and deletes the rows that changed, of nodes, edges and modules: one statement for each."""
        await self._write(tables.task, changes.tasks, namespace, workflow_id, _task_row)
        connection_row = partial(_connection_row, task_ids=changes.task_ids)
        await self._write(tables.connection, changes.connections, namespace, workflow_id, connection_row)
        module_row = partial(_module_row, task_ids=changes.task_ids)
        await self._write(tables.module, changes.modules, namespace, workflow_id, module_row)

    async def insert_audit_event(self, namespace: str, event: AuditEvent) -> None:
        await self.insert_audit_events([(namespace, event)])

    async def insert_audit_events(self, events: Sequence[tuple[str, AuditEvent]]) -> None:
        """Each with its namespace; in one statement."""
        if events:
            self.has_events = True
            await self._connection.execute(queries.insert_audit_events([_event_row(*event) for event in events]))

    async def list_versions(
        self, namespace: str, workflow_id: str, *, below: int | None, limit: int
    ) -> list[VersionSummary]:
        rows = await self._connection.execute(queries.select_versions(namespace, workflow_id, below, limit))
        return [
            VersionSummary(
                version=row.version,
                content_hash=row.content_hash,
                created_at=row.created_date,
                author=row.created_by_name,
                message=row.message,
                node_count=row.node_count,
                edge_count=row.edge_count,
                layout=row.layout,
                restored_from=row.restored_from,
            )
            for row in rows
        ]

    async def _write(
        self,
        table: Table,
        changes: Changes,
        namespace: str,
        workflow_id: str,
        row_of: Callable[[str, Mapping[str, Any]], dict[str, Any]],
    ) -> None:
        if changes.deleted:
            await self._connection.execute(queries.delete_rows(table, changes.deleted, namespace))
        if changes.updated:
            arrays = queries.row_arrays(table, [row_of(*change) for change in changes.updated])
            await self._connection.execute(queries.update_rows(table), {**arrays, "of_namespace": namespace})
        if changes.inserted:
            arrays = queries.row_arrays(table, [row_of(*change) for change in changes.inserted])
            fixed = {"of_namespace": namespace, "of_workflow": workflow_id}
            await self._connection.execute(queries.insert_rows(table), {**arrays, **fixed})


@contextmanager
def _name_taken(name: str | None) -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        if _NAME_KEY not in str(error.orig):
            raise
        raise NameTaken(
            f"another workflow of this namespace is called {name!r}",
            hint="choose another name, or save with that workflow's id and version",
        ) from None


def workflow_of(row: Row[Any]) -> StoredWorkflow:
    """Of a row of the table `workflow`."""
    return StoredWorkflow(
        namespace=row.namespace,
        id=row.id,
        name=row.name,
        description=row.description,
        labels=row.labels,
        version=row.version,
        content_hash=row.content_hash,
        created_at=row.created_date,
        updated_at=row.last_modified_date,
        archived=row.archived,
        saved_by=row.last_modified_by_name,
    )


def _found(row: Mapping[str, Any]) -> StoredWorkflow:
    """Of a row as asyncpg has it: ids are UUIDs, and jsonb is text."""
    return StoredWorkflow(
        namespace=row["namespace"],
        id=str(row["id"]),
        name=row["name"],
        description=row["description"],
        labels=orjson.loads(row["labels"]),
        version=row["version"],
        content_hash=row["content_hash"],
        created_at=row["created_date"],
        updated_at=row["last_modified_date"],
        archived=row["archived"],
        saved_by=row["last_modified_by_name"],
    )


def _version(row: Row[Any], workflow: StoredWorkflow) -> StoredVersion:
    as_it_was = StoredWorkflow(
        namespace=workflow.namespace,
        id=workflow.id,
        name=row.version_name,
        description=row.version_description,
        labels=row.version_labels,
        version=row.version_version,
        content_hash=row.version_content_hash,
        created_at=workflow.created_at,
        updated_at=row.version_created_date,
        archived=workflow.archived,
        saved_by=row.version_created_by_name,
    )
    stored = StoredVersion(as_it_was, row.version_document.encode(), RowIds(**orjson.loads(row.version_row_ids)))
    return check_hash(stored)


def _event_row(namespace: str, event: AuditEvent) -> dict[str, Any]:
    return {
        "namespace": namespace,
        "id": event.id,
        "workflow_id": event.workflow_id,
        "action": event.action,
        "principal_id": event.author.principal_id,
        "principal_name": event.author.principal,
        "from_version": event.from_version,
        "to_version": event.to_version,
        "from_hash": event.from_hash,
        "to_hash": event.to_hash,
        "message": event.message,
        "trace_id": event.author.trace_id,
    }


def _task_row(task_id: str, node: Mapping[str, Any]) -> dict[str, Any]:
    position = node.get("position", {})
    return {
        "id": task_id,
        "node_id": node["nodeId"],
        "label": node.get("label", ""),
        "position_x": position.get("x"),
        "position_y": position.get("y"),
        "options": orjson.dumps({name: node[name] for name in _OPTIONS if name in node}).decode(),
    }


def _connection_row(connection_id: str, edge: Mapping[str, Any], task_ids: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": connection_id,
        "edge_id": edge["edgeId"],
        "source_task_id": task_ids[edge["source"]],
        "target_task_id": task_ids[edge["target"]],
        "kind": edge.get("kind", "SUCCESS"),
        "condition": edge.get("condition", ""),
    }


def _module_row(module_id: str, module: Mapping[str, Any], task_ids: Mapping[str, str]) -> dict[str, Any]:
    config = module.get("config")
    return {
        "id": module_id,
        "task_id": task_ids[module["nodeId"]],
        "class_name": module["className"],
        "module_data": module.get("moduleData"),
        "config": None if config is None else orjson.dumps(config).decode(),
        "target": module.get("target", ""),
    }
