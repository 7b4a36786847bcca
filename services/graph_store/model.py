"""The graph store's values and its decisions: who may save over which version, and which rows a save changes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from valkyr.errors import VersionConflict, VersionRequired
from valkyr.graph.document import document_bytes
from valkyr.graph.findings import Finding
from valkyr.graph.model import Graph, WorkflowInfo

NewId = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Author:
    """Who makes a change, and in which trace. `principal_id` is the name where that is a UUID."""

    principal: str
    principal_id: str | None = None
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class SaveCommand:
    """One SaveGraph. `workflow.version` is the version that was edited, `workflow.id` None for a new workflow."""

    namespace: str
    workflow: WorkflowInfo
    graph: Graph
    author: Author
    request_id: str = ""
    message: str = ""
    validate_only: bool = False


@dataclass(frozen=True, slots=True)
class StoredWorkflow:
    """A workflow's row: what it is now. `saved_by` is who saved the version that it is at."""

    namespace: str
    id: str
    name: str | None
    description: str
    labels: Mapping[str, str]
    version: int
    content_hash: str
    created_at: datetime
    updated_at: datetime
    archived: bool = False
    saved_by: str = ""


@dataclass(frozen=True, slots=True)
class RowIds:
    """Ids of the rows of a version's nodes, edges and modules, in the order of its document."""

    tasks: Sequence[str] = ()
    connections: Sequence[str] = ()
    modules: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A version whole: the workflow as that version says it is, its canonical document, and the rows' ids."""

    workflow: StoredWorkflow
    document: bytes
    ids: RowIds


@dataclass(frozen=True, slots=True)
class SavedVersion:
    """The answer to a save."""

    stored: StoredVersion
    graph: Graph
    warnings: Sequence[Finding]
    unchanged: bool


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """A line of a workflow's history."""

    version: int
    content_hash: str
    created_at: datetime
    author: str
    message: str
    node_count: int
    edge_count: int


@dataclass(frozen=True, slots=True)
class AnsweredRequest:
    """What a `request_id` led to before."""

    request_hash: bytes
    workflow_id: str
    version: int
    unchanged: bool
    warnings: Sequence[Finding]


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One change of one workflow."""

    id: str
    workflow_id: str
    action: str
    author: Author
    from_version: int | None
    to_version: int
    from_hash: str | None
    to_hash: str
    message: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What one save does to the rows of one kind: (id, item of the document) to insert and to update, ids to delete."""

    inserted: Sequence[tuple[str, Mapping[str, Any]]] = ()
    updated: Sequence[tuple[str, Mapping[str, Any]]] = ()
    deleted: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class RowChanges:
    """What one save does to the rows of a workflow, the ids that its new version has, and the tasks' by node id."""

    ids: RowIds
    task_ids: Mapping[str, str]
    tasks: Changes = field(default_factory=Changes)
    connections: Changes = field(default_factory=Changes)
    modules: Changes = field(default_factory=Changes)


def check_edited_version(workflow: StoredWorkflow, edited: int | None) -> None:
    """Whether a save of `edited` may follow the stored version. VersionRequired if None, VersionConflict if stale."""
    if edited is None:
        raise VersionRequired(
            f"workflow {workflow.id} is stored, at version {workflow.version}: name the version that was edited",
            hint="read the workflow, apply the change to that, and save with its `version`",
            metadata={"currentVersion": str(workflow.version)},
        )
    if edited != workflow.version:
        raise VersionConflict(
            f"workflow {workflow.id} is at version {workflow.version} by now, and the save edited version {edited}",
            hint="read the current version, apply the change to that, and save again",
            metadata={"currentVersion": str(workflow.version), "editedVersion": str(edited)},
        )


def is_unchanged(current: StoredWorkflow, wanted: WorkflowInfo, content_hash: str) -> bool:
    """Whether saving would say nothing new. No name keeps the one there is."""
    return (
        current.content_hash == content_hash
        and wanted.name in (None, current.name)
        and wanted.description == current.description
        and dict(wanted.labels) == dict(current.labels)
    )


def is_repeated(current: StoredWorkflow, wanted: WorkflowInfo, author: Author) -> bool:
    """Whether a save whose graph is the current one may be the very save that made it, sent again.

    It edited the version before (none, for the first), and the same principal sends it: the first answer may have been
    lost on the way.
    """
    return (wanted.version or 0) + 1 == current.version and author.principal == current.saved_by


def row_changes(
    previous: Mapping[str, Any], previous_ids: RowIds, document: Mapping[str, Any], *, new_id: NewId
) -> RowChanges:
    """The rows that differ between two documents. What has the same nodeId, edgeId or module's nodeId keeps its id."""
    tasks, task_ids = _changes(previous, previous_ids.tasks, document, ("nodes", "nodeId"), new_id)
    connections, connection_ids = _changes(previous, previous_ids.connections, document, ("edges", "edgeId"), new_id)
    modules, module_ids = _changes(previous, previous_ids.modules, document, ("modules", "nodeId"), new_id)
    ids = RowIds(task_ids, connection_ids, module_ids)
    by_node = {node["nodeId"]: task_id for node, task_id in zip(document.get("nodes", ()), task_ids, strict=True)}
    return RowChanges(ids, by_node, tasks, connections, modules)


def _changes(
    previous: Mapping[str, Any],
    previous_ids: Sequence[str],
    document: Mapping[str, Any],
    kind: tuple[str, str],
    new_id: NewId,
) -> tuple[Changes, list[str]]:
    collection, key = kind
    before = {
        item[key]: (row_id, item) for row_id, item in zip(previous_ids, previous.get(collection, ()), strict=True)
    }
    inserted: list[tuple[str, Mapping[str, Any]]] = []
    updated: list[tuple[str, Mapping[str, Any]]] = []
    ids: list[str] = []
    for item in document.get(collection, ()):
        earlier = before.pop(item[key], None)
        row_id = new_id() if earlier is None else earlier[0]
        if earlier is None:
            inserted.append((row_id, item))
        elif not _same(earlier[1], item):
            updated.append((row_id, item))
        ids.append(row_id)
    return Changes(inserted, updated, [row_id for row_id, _ in before.values()]), ids


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Equal as JSON; Python's == alone takes true for 1."""
    return one == other and ("config" not in other or document_bytes(one) == document_bytes(other))
