"""Validating, saving and reading graphs."""

from __future__ import annotations

import asyncio

from services.graph_store.model import (
    SaveCommand,
    SavedVersion,
    StoredVersion,
    graph_of,
    version_not_found,
    workflow_not_found,
)
from services.graph_store.saving import Saving
from services.graph_store.store import Store
from services.graph_store.validation import Validation
from valkyr.graph.findings import Finding
from valkyr.graph.model import Graph


class Graphs:
    """The use cases of SaveGraph, ValidateGraph and GetGraph."""

    def __init__(self, store: Store, validation: Validation, saving: Saving) -> None:
        self._store = store
        self._validation = validation
        self._saving = saving

    async def validate(self, namespace: str, graph: Graph) -> list[Finding]:
        """Every finding, errors first."""
        return await self._validation.findings(namespace, graph)

    async def save(self, command: SaveCommand) -> SavedVersion:
        """Saves all or nothing. The errors are those of `Saving.save`."""
        return await self._saving.save(command)

    async def get(self, namespace: str, workflow_id: str, version: int | None) -> tuple[StoredVersion, Graph]:
        """A version whole, the latest if None. WorkflowNotFound, VersionNotFound."""
        async with self._store.transaction() as tx:
            found = await tx.find_version(namespace, workflow_id, version)
        if found is None:
            raise workflow_not_found(workflow_id)
        workflow, stored = found
        if stored is None:
            raise version_not_found(workflow, version)
        return stored, await asyncio.to_thread(graph_of, stored)
