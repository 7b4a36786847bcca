"""Merging what somebody made of a version into what others have made of it since. Saves nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from services.graph_store.model import (
    StoredVersion,
    StoredWorkflow,
    graph_of,
    info_of,
    version_not_found,
    workflow_not_found,
)
from services.graph_store.model_drafts import NO_VERSION, MergeCommand, MergedGraph
from services.graph_store.saving import check_answer_size
from services.graph_store.store import Store
from services.graph_store.validation import Validation
from valkyr.graph.document import canonical_bytes
from valkyr.graph.merge import merge_unchecked, merge_workflows
from valkyr.graph.model import Graph, WorkflowInfo


@dataclass(frozen=True, slots=True)
class _Sides:
    """The workflow, the version that the merge begins at (None: nothing was there), and the current one."""

    workflow: StoredWorkflow
    base: StoredVersion | None
    current: StoredVersion


class Merging:
    """The use case of MergeGraph, and what PublishDraft does where others have saved since."""

    def __init__(self, store: Store, validation: Validation, *, max_answer_bytes: int) -> None:
        self._store = store
        self._validation = validation
        self._max_answer_bytes = max_answer_bytes

    async def merge(self, command: MergeCommand) -> MergedGraph:
        """The merged graph with its findings, or the conflicts. WorkflowNotFound, VersionNotFound, LimitExceeded."""
        sides = await self._sides(command)
        merged = await asyncio.to_thread(self._merged, sides, command)
        if merged.graph is None:
            return merged
        return replace(merged, findings=await self._validation.findings(command.namespace, merged.graph))

    async def _sides(self, command: MergeCommand) -> _Sides:
        namespace, workflow_id = command.namespace, command.workflow_id
        wanted = None if command.base_version == NO_VERSION else command.base_version
        async with self._store.transaction() as tx:
            found = await tx.find_version(namespace, workflow_id, wanted)
            if found is None:
                raise workflow_not_found(workflow_id)
            workflow, version = found
            if version is None:
                raise version_not_found(workflow, command.base_version)
            if version.workflow.version == workflow.version:
                return _Sides(workflow, version if wanted else None, version)
            return _Sides(workflow, version, await tx.get_version(namespace, workflow_id, workflow.version))

    def _merged(self, sides: _Sides, command: MergeCommand) -> MergedGraph:
        base_graph, base_info = Graph(), WorkflowInfo()
        if sides.base is not None:
            base_graph, base_info = graph_of(sides.base), info_of(sides.base.workflow)
        of_graph = merge_unchecked(base_graph, graph_of(sides.current), command.graph)
        of_info = merge_workflows(base_info, info_of(sides.current.workflow), _said(command, base_info))
        if of_graph.graph is None or of_info.workflow is None:
            return MergedGraph(sides.workflow, conflicts=(*of_graph.conflicts, *of_info.conflicts))
        check_answer_size(of_graph.graph, canonical_bytes(of_graph.graph), limit=self._max_answer_bytes)
        info = replace(of_info.workflow, id=command.workflow_id, version=sides.workflow.version)
        return MergedGraph(sides.workflow, of_graph.graph, info, both_moved=of_graph.both_moved)


def _said(command: MergeCommand, base: WorkflowInfo) -> WorkflowInfo:
    """What the sent graph says of its workflow: as in a save, no name keeps the one there is."""
    if command.workflow is None:
        return base
    return replace(command.workflow, name=command.workflow.name or base.name)
