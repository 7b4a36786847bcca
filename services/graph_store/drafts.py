"""Drafts: one for each workflow and principal, apart from what is published."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from services.graph_store.model import AuditEvent, Author, NewId, Request, StoredWorkflow, info_of, request_hash
from services.graph_store.model_drafts import (
    NO_VERSION,
    DiscardDraftCommand,
    Draft,
    DraftKey,
    DraftRow,
    SavedDraft,
    SaveDraftCommand,
    base_of,
    check_revision,
    draft_not_found,
    graph_of_draft,
    is_same_draft,
)
from services.graph_store.saving import check_answer_size
from services.graph_store.store import Raced, Store, Transaction
from services.graph_store.store_drafts import Drafts as Rows
from services.graph_store.store_drafts import NewDraft, OldDraft
from services.graph_store.store_requests import Requests
from services.graph_store.validation import Validation
from valkyr.graph.document import canonical_bytes, hash_of
from valkyr.graph.model import WorkflowInfo

PRUNER = Author("graph-store")
"""Who removes drafts that are too old, in the audit."""


class Drafts:
    """The use cases of SaveDraft, GetDraft and DiscardDraft, and the end of drafts that nobody saves any more."""

    def __init__(
        self,
        store: Store,
        rows: Rows,
        requests: Requests,
        validation: Validation,
        *,
        new_id: NewId,
        max_answer_bytes: int,
    ) -> None:
        self._store = store
        self._rows = rows
        self._requests = requests
        self._validation = validation
        self._new_id = new_id
        self._max_answer_bytes = max_answer_bytes

    async def save(self, command: SaveDraftCommand) -> SavedDraft:
        """Keeps the draft, errors and all.

        LimitExceeded, DraftConflict, WorkflowNotFound, VersionNotFound, RequestIdReused.
        """
        document = await asyncio.to_thread(canonical_bytes, command.graph)
        check_answer_size(command.graph, document, limit=self._max_answer_bytes)
        findings = await self._validation.findings(command.namespace, command.graph)
        request = Request("SaveDraft", command.request_id, _hash_of(command, document))

        async def work(tx: Transaction) -> tuple[Draft, int]:
            # The row's lock first: a repetition that waited for the first sees what that has written.
            row = await self._rows.lock(tx, command.key)
            answered = await self._requests.answer_to(tx, command.namespace, request)
            if answered is not None:
                return _answered_draft(command, document, answered), answered["currentVersion"]
            draft, current_version = await self._save(tx, command, document, row)
            answer = _answer_of(draft, current_version, is_said=command.workflow is not None)
            await self._requests.remember(tx, command.namespace, request, answer)
            return draft, current_version

        draft, current_version = await self._store.in_transaction(work)
        return SavedDraft(draft, command.graph, current_version, findings)

    async def get(self, key: DraftKey) -> SavedDraft:
        """DraftNotFound."""
        async with self._store.transaction() as tx:
            found = await self._rows.find(tx, key)
        if found is None:
            raise draft_not_found(key.workflow_id)
        row, current_version = found
        if row.draft is None:
            raise draft_not_found(key.workflow_id)
        return SavedDraft(row.draft, await asyncio.to_thread(graph_of_draft, row.draft), current_version)

    async def discard(self, command: DiscardDraftCommand) -> None:
        """Throws it away. DraftNotFound, DraftConflict, RequestIdReused."""
        key, namespace = command.key, command.namespace
        said = request_hash(key.workflow_id, key.principal, command.revision)
        request = Request("DiscardDraft", command.request_id, said)

        async def work(tx: Transaction) -> None:
            row = await self._rows.lock(tx, key)
            if await self._requests.answer_to(tx, namespace, request) is not None:
                return
            if row is None or row.draft is None:
                raise draft_not_found(key.workflow_id)
            check_revision(row, command.revision)
            await self._rows.empty(tx, row.draft)
            await tx.insert_audit_event(namespace, self._event("draft.discarded", command.author, row.draft, None))
            await self._requests.remember(tx, namespace, request, {})

        await self._store.in_transaction(work)

    async def prune(self, limit: int) -> int:
        """Removes up to `limit` drafts that are too old; how many rows there were."""

        async def work(tx: Transaction) -> Sequence[OldDraft]:
            old = await self._rows.prune(tx, limit)
            said_something = [draft for draft in old if draft.content_hash is not None]
            await tx.insert_audit_events([(draft.key.namespace, self._expired(draft)) for draft in said_something])
            return old

        return len(await self._store.in_transaction(work))

    async def _save(
        self, tx: Transaction, command: SaveDraftCommand, document: bytes, row: DraftRow | None
    ) -> tuple[Draft, int]:
        """The draft as it is stored, and the version that is published."""
        content_hash = hash_of(document)
        workflow = await tx.find_workflow(command.namespace, command.workflow_id)
        current_version = NO_VERSION if workflow is None else workflow.version
        if row is not None and row.draft is not None and is_same_draft(row, command, content_hash):
            return row.draft, current_version
        check_revision(row, command.revision)
        base = base_of(command, row, workflow)
        new = NewDraft(
            key=command.key,
            principal_id=command.author.principal_id,
            base_version=base,
            revision=1 if row is None else row.revision + 1,
            workflow=command.workflow or await self._described(tx, row, workflow, base),
            document=document,
            content_hash=content_hash,
        )
        draft = await self._rows.write(tx, new, row)
        if draft is None:
            raise Raced
        event = self._event("draft.saved", command.author, row.draft if row else None, draft)
        await tx.insert_audit_event(command.namespace, event)
        return draft, current_version

    async def _described(
        self, tx: Transaction, row: DraftRow | None, workflow: StoredWorkflow | None, base: int
    ) -> WorkflowInfo:
        """What a draft says of its workflow where nothing was said: as the one before, else as the base version."""
        if row is not None and row.draft is not None:
            return row.draft.workflow
        if workflow is None or base == NO_VERSION:
            return WorkflowInfo()
        if base == workflow.version:
            return info_of(workflow)
        return info_of((await tx.get_version(workflow.namespace, workflow.id, base)).workflow)

    def _event(self, action: str, author: Author, before: Draft | None, after: Draft | None) -> AuditEvent:
        some = after or before
        return AuditEvent(
            id=self._new_id(),
            workflow_id=some.key.workflow_id if some else None,
            action=action,
            author=author,
            from_hash=before.content_hash if before else None,
            to_hash=after.content_hash if after else None,
        )

    def _expired(self, draft: OldDraft) -> AuditEvent:
        return AuditEvent(
            id=self._new_id(),
            workflow_id=draft.key.workflow_id,
            action="draft.expired",
            author=PRUNER,
            from_hash=draft.content_hash,
            message=f"the draft of {draft.key.principal}",
        )


def _hash_of(command: SaveDraftCommand, document: bytes) -> bytes:
    workflow = command.workflow
    called = None if workflow is None else [workflow.name, workflow.description, dict(workflow.labels)]
    key = command.key
    return request_hash(key.workflow_id, key.principal, command.base_version, command.revision, called, document)


def _answer_of(draft: Draft, current_version: int, *, is_said: bool) -> dict[str, Any]:
    """What is remembered of an answer: the request has the graph, and, if `is_said`, name, description and labels."""
    described = draft.workflow
    return {
        "baseVersion": draft.base_version,
        "revision": draft.revision,
        "described": None if is_said else [described.name, described.description, dict(described.labels)],
        "contentHash": draft.content_hash,
        "times": [draft.created_at, draft.updated_at, draft.expires_at],
        "currentVersion": current_version,
    }


def _answered_draft(command: SaveDraftCommand, document: bytes, answer: Mapping[str, Any]) -> Draft:
    created_at, updated_at, expires_at = map(datetime.fromisoformat, answer["times"])
    described = answer["described"]
    return Draft(
        key=command.key,
        base_version=answer["baseVersion"],
        revision=answer["revision"],
        workflow=command.workflow or WorkflowInfo(name=described[0], description=described[1], labels=described[2]),
        document=document,
        content_hash=answer["contentHash"],
        created_at=created_at,
        updated_at=updated_at,
        expires_at=expires_at,
    )
