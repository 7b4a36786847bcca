"""What became of a workflow: its versions compared and restored, and who changed what."""

from __future__ import annotations

import asyncio

from services.graph_store.events import Events
from services.graph_store.model import (
    Request,
    SaveCommand,
    SavedVersion,
    StoredVersion,
    StoredWorkflow,
    check_edited_version,
    graph_of,
    info_of,
    request_hash,
    version_not_found,
    workflow_not_found,
)
from services.graph_store.model_history import DiffedVersions, RecordedEvent, RestoreCommand
from services.graph_store.saving import Saving
from services.graph_store.store import Store, Transaction
from valkyr.graph.diff import GraphDiff, diff_graphs
from valkyr.graph.model import Graph, WorkflowInfo

METHOD = "RestoreVersion"


class History:
    """The use cases of DiffVersions, RestoreVersion and ListAuditEvents."""

    def __init__(self, store: Store, events: Events, saving: Saving) -> None:
        self._store = store
        self._events = events
        self._saving = saving

    async def diff_versions(
        self, namespace: str, workflow_id: str, from_version: int | None, to_version: int | None
    ) -> DiffedVersions:
        """What became of the one in the other: the latest if `to_version` is None, the one before that if
        `from_version` is; 0 is the empty graph before the first. WorkflowNotFound, VersionNotFound."""
        async with self._store.transaction() as tx:
            _, to = await self._version(tx, namespace, workflow_id, to_version)
            begin = to.workflow.version - 1 if from_version is None else from_version
            before = None if begin == 0 else (await self._version(tx, namespace, workflow_id, begin))[1]
        diff = await asyncio.to_thread(_diff, before, to)
        return DiffedVersions(begin, to.workflow.version, diff)

    async def restore(self, command: RestoreCommand) -> SavedVersion:
        """The graph of an earlier version as a new one; what the workflow is called and described as stays.

        WorkflowNotFound, VersionNotFound, and what `Saving.save` raises.
        """
        async with self._store.transaction() as tx:
            workflow, stored = await self._version(tx, command.namespace, command.workflow_id, command.version)
        if command.current_version is None:
            check_edited_version(workflow, None, restores=True)
        said = [command.workflow_id, command.version, command.current_version, command.message]
        return await self._saving.save(
            SaveCommand(
                namespace=command.namespace,
                workflow=WorkflowInfo(id=workflow.id, version=command.current_version),
                graph=await asyncio.to_thread(graph_of, stored),
                author=command.author,
                request_id=command.request_id,
                request=Request(METHOD, command.request_id, request_hash(*said)),
                message=command.message or f"restores version {command.version}",
                action="workflow.restored",
                restored=stored,
            )
        )

    async def list_audit_events(
        self, namespace: str, workflow_id: str | None, *, below: int | None, limit: int
    ) -> list[RecordedEvent]:
        """The newest `limit` events with a number below `below`, of one workflow or of all."""
        return await self._events.list_events(namespace, workflow_id, below=below, limit=limit)

    async def _version(
        self, tx: Transaction, namespace: str, workflow_id: str, version: int | None
    ) -> tuple[StoredWorkflow, StoredVersion]:
        found = await tx.find_version(namespace, workflow_id, version)
        if found is None:
            raise workflow_not_found(workflow_id)
        workflow, stored = found
        if stored is None:
            raise version_not_found(workflow, version)
        return workflow, stored


def _diff(before: StoredVersion | None, after: StoredVersion) -> GraphDiff:
    old = (Graph(), WorkflowInfo()) if before is None else (graph_of(before), info_of(before.workflow))
    return diff_graphs(old[0], graph_of(after), workflows=(old[1], info_of(after.workflow)))
