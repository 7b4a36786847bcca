"""Taking workflows out of use, and back: what runs goes on, but nothing is started, saved or published any more."""

from __future__ import annotations

from dataclasses import replace

from services.graph_store.model import AuditEvent, NewId, Request, StoredWorkflow, request_hash, workflow_not_found
from services.graph_store.model_drafts import ArchiveCommand
from services.graph_store.store import Store, Transaction
from services.graph_store.store_drafts import set_archived
from services.graph_store.store_requests import Requests


class Archiving:
    """The use case of ArchiveWorkflow and UnarchiveWorkflow."""

    def __init__(self, store: Store, requests: Requests, *, new_id: NewId) -> None:
        self._store = store
        self._requests = requests
        self._new_id = new_id

    async def set(self, command: ArchiveCommand) -> StoredWorkflow:
        """The workflow, archived or not as is asked, also where it is so already. WorkflowNotFound, RequestIdReused."""
        request = Request(command.method, command.request_id, request_hash(command.workflow_id, command.reason))
        return await self._store.in_transaction(lambda tx: self._set(tx, command, request))

    async def _set(self, tx: Transaction, command: ArchiveCommand, request: Request) -> StoredWorkflow:
        namespace = command.namespace
        current = await tx.lock_workflow(namespace, command.workflow_id)
        answered = await self._requests.answer_to(tx, namespace, request)
        if answered is not None:
            first = await tx.get_version(namespace, command.workflow_id, answered["version"])
            return replace(first.workflow, archived=command.archived)
        if current is None:
            raise workflow_not_found(command.workflow_id)
        workflow = current
        if current.archived != command.archived:
            workflow = await set_archived(tx, current, command.archived)
            await tx.insert_audit_event(namespace, self._event(command, workflow))
        await self._requests.remember(tx, namespace, request, {"version": workflow.version})
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
