"""Drafts and the archived flag as the use cases see them, within a transaction of the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from services.graph_store import queries_drafts as queries
from services.graph_store.model import StoredWorkflow
from services.graph_store.model_drafts import Draft, DraftKey, DraftRow
from services.graph_store.store import Transaction, workflow_of
from valkyr.graph.model import WorkflowInfo


@dataclass(frozen=True, slots=True)
class OldDraft:
    """What was pruned; `content_hash` is None where nothing was left in it."""

    key: DraftKey
    content_hash: str | None


class Drafts:
    """The statements about drafts. One that was not saved for `kept` is none any more, pruned or not."""

    def __init__(self, kept: timedelta) -> None:
        self._kept = kept

    async def lock(self, tx: Transaction, key: DraftKey) -> DraftRow | None:
        """The row, locked until the end of the transaction."""
        row = (await tx.connection.execute(queries.lock_draft(_key(key), self._kept))).first()
        return None if row is None else _row(row)

    async def find(self, tx: Transaction, key: DraftKey) -> tuple[DraftRow, int] | None:
        """The row and the published version of its workflow, 0 if there is none; from one snapshot."""
        row = (await tx.connection.execute(queries.select_draft(_key(key), self._kept))).first()
        return None if row is None else (_row(row), row.current_version or 0)

    async def write(self, tx: Transaction, draft: NewDraft, earlier: DraftRow | None) -> Draft | None:
        """The draft as it is stored now; None if another transaction was first to make one."""
        key, values = _key(draft.key), draft.values()
        if earlier is None:
            row = (
                await tx.connection.execute(queries.insert_draft({**_columns(draft.key), **values}, self._kept))
            ).first()
        else:
            anew = earlier.draft is None
            row = (await tx.connection.execute(queries.update_draft(key, values, self._kept, anew=anew))).one()
        return None if row is None else _draft(row)

    async def empty(self, tx: Transaction, draft: Draft) -> bool:
        """Takes all out of it that it says; False if it was saved, published or discarded since it was read."""
        result = await tx.connection.execute(queries.empty_draft(_key(draft.key), draft.revision))
        return result.first() is not None

    async def prune(self, tx: Transaction, limit: int) -> Sequence[OldDraft]:
        """Removes up to `limit` of those that are too old."""
        rows = await tx.connection.execute(queries.delete_old_drafts(self._kept, limit))
        return [
            OldDraft(DraftKey(row.namespace, row.workflow_id, row.principal_name), row.content_hash) for row in rows
        ]


@dataclass(frozen=True, slots=True)
class NewDraft:
    """A draft on its way to the table."""

    key: DraftKey
    principal_id: str | None
    base_version: int
    revision: int
    workflow: WorkflowInfo
    document: bytes
    content_hash: str

    def values(self) -> dict[str, Any]:
        """Its columns but for the key."""
        return {
            "principal_id": self.principal_id,
            "base_version": self.base_version,
            "revision": self.revision,
            "name": self.workflow.name,
            "description": self.workflow.description,
            "labels": dict(self.workflow.labels),
            "document": self.document.decode(),
            "content_hash": self.content_hash,
        }


async def set_archived(tx: Transaction, workflow: StoredWorkflow, archived: bool) -> StoredWorkflow:
    """The workflow as it is then."""
    result = await tx.connection.execute(queries.update_archived(workflow.namespace, workflow.id, archived))
    return workflow_of(result.one())


def _key(key: DraftKey) -> queries.Key:
    return key.namespace, key.workflow_id, key.principal


def _columns(key: DraftKey) -> dict[str, Any]:
    return {"namespace": key.namespace, "workflow_id": key.workflow_id, "principal_name": key.principal}


def _row(row: Any) -> DraftRow:
    return DraftRow(row.revision, _draft(row) if row.is_live else None)


def _draft(row: Any) -> Draft:
    return Draft(
        key=DraftKey(row.namespace, row.workflow_id, row.principal_name),
        base_version=row.base_version,
        revision=row.revision,
        workflow=WorkflowInfo(name=row.name, description=row.description, labels=row.labels),
        document=row.document.encode(),
        content_hash=row.content_hash,
        created_at=row.created_date,
        updated_at=row.last_modified_date,
        expires_at=row.expire_date,
    )
