"""Taking workflows out of use, and back: what runs goes on, but nothing is started, saved or published any more."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from services.graph_store.model import (
    AnsweredRequest,
    AuditEvent,
    NewId,
    Request,
    StoredWorkflow,
    workflow_not_found,
)
from services.graph_store.model_drafts import ArchiveCommand
from services.graph_store.saving import check_same_request, request_hash
from services.graph_store.store import Store, Transaction
from services.graph_store.store_drafts import set_archived
from valkyr.errors import Unavailable

MAX_RACES = 5


class _Raced(Exception):
    """Another transaction was first with the same request id: look again from the start."""


class Archiving:
    """The use case of ArchiveWorkflow and UnarchiveWorkflow."""

    def __init__(self, store: Store, *, new_id: NewId, requests_kept: timedelta) -> None:
        self._store = store
        self._new_id = new_id
        self._requests_kept = requests_kept

    async def set(self, command: ArchiveCommand) -> StoredWorkflow:
        """The workflow, archived or not as is asked, also where it is so already. WorkflowNotFound, RequestIdReused."""
        request = Request(command.method, command.request_id, request_hash(command.workflow_id, command.reason))

        async def work(tx: Transaction) -> StoredWorkflow:
            return await self._set(tx, command, request)

        for _ in range(MAX_RACES):
            try:
                return await self._store.in_transaction(work)
            except _Raced:
                continue
        raise Unavailable(
            "others keep sending the same request at the same time", retry_after=timedelta(milliseconds=100)
        )

    async def _set(self, tx: Transaction, command: ArchiveCommand, request: Request) -> StoredWorkflow:
        namespace = command.namespace
        current = await tx.lock_workflow(namespace, command.workflow_id)
        if request.id:
            answered = await tx.find_request(namespace, request.method, request.id, self._requests_kept)
            if answered is not None:
                check_same_request(request, answered)
                first = await tx.get_version(namespace, answered.workflow_id, answered.version)
                return replace(first.workflow, archived=command.archived)
        if current is None:
            raise workflow_not_found(command.workflow_id)
        unchanged = current.archived == command.archived
        workflow = current if unchanged else await set_archived(tx, current, command.archived)
        if not unchanged:
            await tx.insert_audit_event(namespace, self._event(command, workflow))
        if request.id:
            answered = AnsweredRequest(request.hash, workflow.id, workflow.version, unchanged, ())
            if not await tx.insert_request(namespace, request.method, request.id, answered, self._requests_kept):
                raise _Raced
        return workflow

    def _event(self, command: ArchiveCommand, workflow: StoredWorkflow) -> AuditEvent:
        return AuditEvent(
            id=self._new_id(),
            workflow_id=workflow.id,
            action=command.action,
            author=command.author,
            from_version=workflow.version,
            to_version=workflow.version,
            from_hash=workflow.content_hash,
            to_hash=workflow.content_hash,
            message=command.reason,
        )
