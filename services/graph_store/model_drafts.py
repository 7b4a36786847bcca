"""Drafts, merges and archiving as values, and what is decided about them: which base, which revision. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import orjson

from services.graph_store.model import Author, CorruptVersion, StoredWorkflow, version_not_found, workflow_not_found
from valkyr.errors import DraftConflict, DraftNotFound, WorkflowArchived
from valkyr.graph.conflicts import Conflict
from valkyr.graph.document import graph_from_canonical, hash_of
from valkyr.graph.findings import Finding, has_errors
from valkyr.graph.model import Graph, WorkflowInfo

NO_VERSION = 0
"""The base of a draft of a workflow that was not there."""


@dataclass(frozen=True, slots=True)
class DraftKey:
    """One draft for each workflow and principal."""

    namespace: str
    workflow_id: str
    principal: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A draft as it is stored. `workflow` is what it is to be called and described as."""

    key: DraftKey
    base_version: int
    revision: int
    workflow: WorkflowInfo
    document: bytes
    content_hash: str
    created_at: datetime
    updated_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class DraftRow:
    """Where a principal's draft of a workflow has its place. `draft` is None where it was published or discarded, or is
    over its age: then only its `revision` counts, for the next one."""

    revision: int
    draft: Draft | None


@dataclass(frozen=True, slots=True)
class SaveDraftCommand:
    """One SaveDraft. `workflow` is None where it says nothing of it, `base_version` where it names none."""

    namespace: str
    workflow_id: str
    author: Author
    graph: Graph
    workflow: WorkflowInfo | None = None
    base_version: int | None = None
    revision: int | None = None
    request_id: str = ""

    @property
    def key(self) -> DraftKey:
        return DraftKey(self.namespace, self.workflow_id, self.author.principal)


@dataclass(frozen=True, slots=True)
class DiscardDraftCommand:
    """One DiscardDraft. `revision` is None for whatever is there."""

    namespace: str
    workflow_id: str
    author: Author
    revision: int | None = None
    request_id: str = ""

    @property
    def key(self) -> DraftKey:
        return DraftKey(self.namespace, self.workflow_id, self.author.principal)


@dataclass(frozen=True, slots=True)
class SavedDraft:
    """A draft with its graph, beside the version that is published (0 if none is), and what the validator says."""

    draft: Draft
    graph: Graph
    current_version: int
    findings: Sequence[Finding] = ()


@dataclass(frozen=True, slots=True)
class PublishCommand:
    """One PublishDraft. `revision` is None for whatever is there."""

    namespace: str
    workflow_id: str
    author: Author
    revision: int | None = None
    request_id: str = ""
    message: str = ""

    @property
    def key(self) -> DraftKey:
        return DraftKey(self.namespace, self.workflow_id, self.author.principal)


@dataclass(frozen=True, slots=True)
class ArchiveCommand:
    """One ArchiveWorkflow, or UnarchiveWorkflow where not `archived`."""

    namespace: str
    workflow_id: str
    author: Author
    archived: bool
    reason: str = ""
    request_id: str = ""

    @property
    def method(self) -> str:
        return "ArchiveWorkflow" if self.archived else "UnarchiveWorkflow"

    @property
    def action(self) -> str:
        return "workflow.archived" if self.archived else "workflow.unarchived"


@dataclass(frozen=True, slots=True)
class LatestVersion:
    """Where a workflow is now, and whether it is out of use."""

    version: int
    archived: bool


@dataclass(frozen=True, slots=True)
class MergeCommand:
    """One MergeGraph, or a draft's: what `graph`, and `workflow` unless it is None, made of `base_version`."""

    namespace: str
    workflow_id: str
    base_version: int
    graph: Graph
    workflow: WorkflowInfo | None = None


@dataclass(frozen=True, slots=True)
class MergedGraph:
    """What a merge made. `graph` and `info` are None where there are conflicts; `findings` are the graph's.

    `workflow` is the current one, which the merged graph is to be saved over.
    """

    workflow: StoredWorkflow
    graph: Graph | None = None
    info: WorkflowInfo | None = None
    conflicts: Sequence[Conflict] = ()
    findings: Sequence[Finding] = field(default=())
    both_moved: Sequence[str] = ()

    @property
    def is_valid(self) -> bool:
        """Whether it can be saved: neither conflicts nor errors."""
        return self.graph is not None and not has_errors(list(self.findings))


def check_revision(row: DraftRow | None, revision: int | None) -> None:
    """Whether the draft is still the one that was edited; 0 is for none. DraftConflict."""
    current = row.revision if row is not None and row.draft is not None else 0
    if revision is None or revision == current:
        return
    now = f"at revision {current} by now" if current else "gone: it was published, discarded, or never there"
    raise DraftConflict(
        f"the draft is {now}, and revision {revision} was edited",
        hint="read the draft, apply the change to that, and save it again",
        metadata={"currentRevision": str(current)},
    )


def is_same_draft(row: DraftRow | None, command: SaveDraftCommand, content_hash: str) -> bool:
    """Whether the draft may be what this very save made of the revision that it edited: it was sent before."""
    draft = row.draft if row is not None else None
    return (
        draft is not None
        and command.revision is not None
        and draft.revision == command.revision + 1
        and draft.content_hash == content_hash
        and command.workflow in (None, draft.workflow)
        and command.base_version in (None, draft.base_version)
    )


def base_of(command: SaveDraftCommand, row: DraftRow | None, workflow: StoredWorkflow | None) -> int:
    """The version that a draft begins as. WorkflowNotFound or VersionNotFound for one that is not there."""
    base = command.base_version
    if base is None:
        if row is not None and row.draft is not None:
            return row.draft.base_version
        return NO_VERSION if workflow is None else workflow.version
    if base != NO_VERSION and workflow is None:
        raise workflow_not_found(command.workflow_id)
    if workflow is not None and base > workflow.version:
        raise version_not_found(workflow, base)
    return base


def graph_of_draft(draft: Draft) -> Graph:
    """CorruptVersion if its document does not match its hash."""
    if hash_of(draft.document) != draft.content_hash:
        raise CorruptVersion(f"the draft of workflow {draft.key.workflow_id} does not match its hash")
    return graph_from_canonical(orjson.loads(draft.document))


def draft_not_found(workflow_id: str) -> DraftNotFound:
    return DraftNotFound(
        f"you have no draft of workflow {workflow_id} in this namespace",
        hint="SaveDraft (`valkyr graph draft save`) makes one; drafts belong to the principal that saved them",
    )


def check_in_use(workflow: StoredWorkflow) -> None:
    """WorkflowArchived if it is not."""
    if workflow.archived:
        raise WorkflowArchived(
            f"workflow {workflow.id} is archived: nothing is saved to it",
            hint="UnarchiveWorkflow (`valkyr graph unarchive`) puts it back in use",
            metadata={"workflowId": workflow.id},
        )
