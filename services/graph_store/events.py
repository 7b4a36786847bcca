"""Audit events as they are read: listed, and as the changes of workflows that they tell of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from services.chassis.database import Database
from services.graph_store import queries_history as queries
from services.graph_store.model import StoredWorkflow
from services.graph_store.model_history import Change, RecordedEvent, Snapshot

MAX_BIGINT = 2**63 - 1
CHANNEL = "valkyr_graph_store"


class Events:
    """Each read is one statement, and sees one snapshot."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_events(
        self, namespace: str, workflow_id: str | None, *, below: int | None, limit: int
    ) -> list[RecordedEvent]:
        """Newest first."""
        arguments: list[Any] = [namespace, MAX_BIGINT if below is None else below, limit]
        statement = queries.EVENTS_OF_NAMESPACE
        if workflow_id is not None:
            statement = queries.EVENTS_OF_WORKFLOW
            arguments.append(workflow_id)
        async with self._database.acquire() as connection:
            return [RecordedEvent(*row) for row in await connection.fetch(statement, *arguments)]

    async def changes_since(
        self, seen: Snapshot | None, namespaces: Sequence[str], *, limit: int
    ) -> tuple[list[Change], Snapshot]:
        """What is seen now and was not then, at most `limit` of it, nothing if there was no look before; and what is
        seen now."""
        before = Snapshot(MAX_BIGINT) if seen is None else seen
        async with self._database.acquire() as connection:
            rows = await connection.fetch(queries.CHANGES_SINCE, before.top, before.open, namespaces, limit)
        now = Snapshot(rows[0]["top"], tuple(rows[0]["open"]))
        return [_change(row) for row in rows if row["number"] is not None], now

    async def changes_between(
        self,
        namespace: str,
        workflow_ids: Sequence[str],
        *,
        seen: Snapshot,
        now: Snapshot,
        after: tuple[int, int],
        limit: int,
    ) -> list[Change]:
        """What `now` has and `seen` had not, of some workflows or of all, the first `limit` after a place."""
        only = list(workflow_ids) or None
        arguments = (namespace, seen.top, seen.open, now.top, now.open, *after, limit, only)
        async with self._database.acquire() as connection:
            return [_change(row) for row in await connection.fetch(queries.CHANGES_BETWEEN, *arguments)]

    async def notify(self) -> None:
        """Tells the other replicas that there is something to see."""
        async with self._database.acquire() as connection:
            await connection.execute(queries.NOTIFY, CHANNEL)


def _change(row: Any) -> Change:
    action = row["action"]
    workflow = StoredWorkflow(
        namespace=row["namespace"],
        id=row["id"],
        name=row["name"],
        description=row["description"],
        labels=orjson.loads(row["labels"]),
        version=row["version"],
        content_hash=row["content_hash"],
        created_at=row["workflow_created_date"],
        updated_at=row["created_date"],
        archived=action == "workflow.archived",
        saved_by=row["created_by_name"],
    )
    return Change((row["written_in"], row["number"]), workflow, action, row["principal_name"], row["layout"])
