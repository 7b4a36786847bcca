"""Finding workflows and their versions."""

from __future__ import annotations

from collections.abc import Sequence

from services.chassis.example.query import Query
from services.graph_store.model import VersionSummary, workflow_not_found
from services.graph_store.model_drafts import LatestVersion
from services.graph_store.store import FoundWorkflows, Store


class Workflows:
    """The use cases of ResolveVersions, ListVersions and FindWorkflows."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def resolve_versions(
        self, namespace: str, workflow_ids: Sequence[str]
    ) -> tuple[dict[str, LatestVersion], int]:
        """The latest version of each workflow that is there, and the revision of the catalogue."""
        return await self._store.latest_versions(namespace, workflow_ids)

    async def list_versions(
        self, namespace: str, workflow_id: str, *, below: int | None, limit: int
    ) -> list[VersionSummary]:
        """The newest `limit` versions below `below`. WorkflowNotFound."""
        async with self._store.transaction() as tx:
            versions = await tx.list_versions(namespace, workflow_id, below=below, limit=limit)
            if not versions and await tx.find_workflow(namespace, workflow_id) is None:
                raise workflow_not_found(workflow_id)
        return versions

    async def find_workflows(self, namespace: str, query: Query) -> FoundWorkflows:
        """A page of what the query asks for, and one more if there is one."""
        return await self._store.find_workflows(namespace, query)
