"""The graph store's values and its decisions: who may save over which version, and which rows a save changes. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from valkyr.errors import VersionConflict, VersionNotFound, VersionRequired, WorkflowNotFound
from valkyr.graph.document import document_bytes, graph_from_canonical, hash_of
from valkyr.graph.findings import Finding
from valkyr.graph.model import Graph, WorkflowInfo

NewId = Callable[[], str]


class CorruptVersion(Exception):
    """A stored document does not match its hash, or is not there."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who makes a change, and in which trace. `principal_id` is the name where that is a UUID."""

    principal: str
    principal_id: str | None = None
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """What makes a call safe to repeat: its method, its `request_id` ("" if it has none), a hash of what it says."""

    method: str
    id: str
    hash: bytes


@dataclass(frozen=True, slots=True)
class SaveCommand:
    """One save. `workflow.version` is the version that was edited, `workflow.id` None for a new workflow.

    `request` is for callers whose request is not the graph itself; otherwise it is made of `method`, `request_id` and
    what the save says. `action` None is `workflow.created` or `workflow.saved`. `restored` is the version whose graph
    it is: name, description and labels then stay as they are. `merged` is only handed on. `warnings` are those of a
    graph that was validated already.
    """

    namespace: str
    workflow: WorkflowInfo
    graph: Graph
    author: Author
    request_id: str = ""
    message: str = ""
    validate_only: bool = False
    method: str = "SaveGraph"
    request: Request | None = None
    action: str | None = None
    restored: StoredVersion | None = None
    merged: bool = False
    warnings: Sequence[Finding] | None = None


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
    merged: bool = False


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
    layout: bool = False
    restored_from: int | None = None


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One change of one workflow; of the catalogue if `workflow_id` is None."""

    id: str
    workflow_id: str | None
    action: str
    author: Author
    from_version: int | None = None
    to_version: int | None = None
    from_hash: str | None = None
    to_hash: str | None = None
    message: str = ""


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


def request_hash(*said: Any) -> bytes:
    """Of all that a request says: JSON values, and bytes at the end."""
    values = [value for value in said if not isinstance(value, bytes)]
    content = b"".join(value for value in said if isinstance(value, bytes))
    return hashlib.sha256(orjson.dumps(values, option=orjson.OPT_SORT_KEYS) + content).digest()


def workflow_not_found(workflow_id: str) -> WorkflowNotFound:
    return WorkflowNotFound(
        f"there is no workflow {workflow_id} in this namespace", hint="FindWorkflows lists what there is"
    )


def version_not_found(workflow: StoredWorkflow, version: int | None) -> VersionNotFound:
    return VersionNotFound(
        f"workflow {workflow.id} has no version {version}",
        hint=f"its versions are 1 to {workflow.version}",
        metadata={"currentVersion": str(workflow.version)},
    )


def check_hash(stored: StoredVersion) -> StoredVersion:
    """The version as it is. CorruptVersion if its document does not match its hash."""
    workflow = stored.workflow
    if hash_of(stored.document) != workflow.content_hash:
        raise CorruptVersion(f"version {workflow.version} of workflow {workflow.id} does not match its hash")
    return stored


def graph_of(stored: StoredVersion) -> Graph:
    return graph_from_canonical(orjson.loads(stored.document))


def info_of(workflow: StoredWorkflow) -> WorkflowInfo:
    """What it says beside its graph."""
    return WorkflowInfo(name=workflow.name, description=workflow.description, labels=dict(workflow.labels))


def check_edited_version(workflow: StoredWorkflow, edited: int | None, *, restores: bool = False) -> None:
    """Whether a save of `edited`, or a restore that is to follow it, may follow the stored version.

    VersionRequired if None, VersionConflict if stale.
    """
    now = {"currentVersion": str(workflow.version)}
    if edited is None:
        raise VersionRequired(
            f"workflow {workflow.id} is stored, at version {workflow.version}: name the version that "
            + ("is to be replaced" if restores else "was edited"),
            hint=f"send `currentVersion`: {workflow.version}, if that is the one that you have seen"
            if restores
            else "read the workflow, apply the change to that, and save with its `version`",
            metadata=now,
        )
    if edited != workflow.version:
        raise VersionConflict(
            f"workflow {workflow.id} is at version {workflow.version} by now, and "
            + (f"the restore was to replace version {edited}" if restores else f"the save edited version {edited}"),
            hint=f"DiffVersions from {edited} shows what was saved since; restore again with `currentVersion`"
            f" {workflow.version} if that is to go"
            if restores
            else "MergeGraph (`valkyr graph merge`) puts both changes together; or read the current version, apply the"
            " change to that, and save again",
            metadata={**now, "editedVersion": str(edited)},
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


def is_layout(previous: Mapping[str, Any], document: Mapping[str, Any], changes: RowChanges) -> bool:
    """Whether nodes were moved, or parts put into another order, and nothing else was changed."""
    tasks = changes.tasks
    if any((tasks.inserted, tasks.deleted, *_all(changes.connections), *_all(changes.modules))):
        return False
    if previous.get("settings") != document.get("settings"):
        return False
    before = {node["nodeId"]: node for node in previous.get("nodes", ())}
    return all(_unplaced(before[node["nodeId"]]) == _unplaced(node) for _, node in tasks.updated)


def _all(changes: Changes) -> tuple[Sequence[Any], ...]:
    return changes.inserted, changes.updated, changes.deleted


def _unplaced(node: Mapping[str, Any]) -> Mapping[str, Any]:
    return {key: value for key, value in node.items() if key != "position"}


def row_changes(
    previous: Mapping[str, Any],
    previous_ids: RowIds,
    document: Mapping[str, Any],
    *,
    new_id: NewId,
    restored: RowIds | None = None,
) -> RowChanges:
    """The rows that differ between two documents. What has the same nodeId, edgeId or module's nodeId keeps its id.

    `restored` are the ids that the document's rows had when it was a version: what comes back gets them back.
    """
    was = restored or RowIds()
    tasks, task_ids = _changes(previous, previous_ids.tasks, document, ("nodes", "nodeId"), _ids(was.tasks, new_id))
    connections, connection_ids = _changes(
        previous, previous_ids.connections, document, ("edges", "edgeId"), _ids(was.connections, new_id)
    )
    modules, module_ids = _changes(
        previous, previous_ids.modules, document, ("modules", "nodeId"), _ids(was.modules, new_id)
    )
    ids = RowIds(task_ids, connection_ids, module_ids)
    by_node = {node["nodeId"]: task_id for node, task_id in zip(document.get("nodes", ()), task_ids, strict=True)}
    return RowChanges(ids, by_node, tasks, connections, modules)


def _ids(restored: Sequence[str], new_id: NewId) -> Callable[[int], str]:
    """The id of what is new at a place in the document."""
    return lambda place: restored[place] if restored else new_id()


def _changes(
    previous: Mapping[str, Any],
    previous_ids: Sequence[str],
    document: Mapping[str, Any],
    kind: tuple[str, str],
    id_at: Callable[[int], str],
) -> tuple[Changes, list[str]]:
    collection, key = kind
    before = {
        item[key]: (row_id, item) for row_id, item in zip(previous_ids, previous.get(collection, ()), strict=True)
    }
    inserted: list[tuple[str, Mapping[str, Any]]] = []
    updated: list[tuple[str, Mapping[str, Any]]] = []
    ids: list[str] = []
    for place, item in enumerate(document.get(collection, ())):
        earlier = before.pop(item[key], None)
        row_id = id_at(place) if earlier is None else earlier[0]
        if earlier is None:
            inserted.append((row_id, item))
        elif not _same(earlier[1], item):
            updated.append((row_id, item))
        ids.append(row_id)
    return Changes(inserted, updated, [row_id for row_id, _ in before.values()]), ids


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Equal as JSON; Python's == alone takes true for 1."""
    return one == other and ("config" not in other or document_bytes(one) == document_bytes(other))
