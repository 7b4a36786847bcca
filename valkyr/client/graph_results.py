"""What client.graphs answers with beside graphs: diffs, merges, drafts, history, and what watches tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from valkyr.client.results import StoredGraph, Workflow
from valkyr.errors import Difference
from valkyr.graph.conflicts import Conflict
from valkyr.graph.findings import Finding
from valkyr.graph.model import Graph, WorkflowInfo


@dataclass(frozen=True, slots=True)
class VersionDiff:
    """What became of one version in another, moves in the picture last. `layout`: there is nothing but moves.

    `total` counts the differences; there are fewer in `differences` where not all fit into a message.
    """

    from_version: int
    to_version: int
    differences: Sequence[Difference]
    total: int
    layout: bool


@dataclass(frozen=True, slots=True)
class MergedGraph:
    """A three-way merge. `stored` is None where there are conflicts, `total_conflicts` in all; its workflow has the
    version that is to be saved over, the current one. `findings` are those of the merged graph, errors first.
    `both_moved` are the ids of nodes that both moved: the sent graph's places stand.
    """

    stored: StoredGraph | None
    conflicts: Sequence[Conflict]
    total_conflicts: int
    findings: Sequence[Finding]
    current_version: int
    both_moved: Sequence[str]

    @property
    def is_valid(self) -> bool:
        """Whether it can be saved: neither conflicts nor errors."""
        return self.stored is not None and not any(finding.is_error for finding in self.findings)


@dataclass(frozen=True, slots=True)
class RestoredGraph:
    """The version that a restore made. `unchanged`: the current version has that graph already, and none was made."""

    stored: StoredGraph
    warnings: Sequence[Finding]
    unchanged: bool


@dataclass(frozen=True, slots=True)
class Draft:
    """The caller's draft of a workflow. `base_version` is the version that it began as, 0 for a workflow that was not
    there; `current_version` the published one, 0 if there is none. `revision` counts its saves.
    """

    workflow_id: str
    workflow: WorkflowInfo
    graph: Graph
    base_version: int
    revision: int
    author: str
    created_at: datetime | None
    updated_at: datetime | None
    expires_at: datetime | None
    current_version: int


@dataclass(frozen=True, slots=True)
class SavedDraft:
    """A draft as it is kept, and what keeps it from being published, errors first."""

    draft: Draft
    findings: Sequence[Finding]


@dataclass(frozen=True, slots=True)
class PublishedDraft:
    """The version that a draft became. `merged`: others had saved since, and their changes were put together with the
    draft's. `unchanged`: it said nothing that the current version does not.
    """

    stored: StoredGraph
    warnings: Sequence[Finding]
    merged: bool
    unchanged: bool


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Who changed what and when. Versions are 0 and hashes empty where there was none, `workflow_id` is empty for a
    change of the catalogue. `action` is such as `workflow.saved`; newer servers may have more.
    """

    id: str
    workflow_id: str
    action: str
    principal: str
    from_version: int
    to_version: int
    from_hash: str
    to_hash: str
    message: str
    trace_id: str
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class WorkflowChange:
    """A workflow as it is now; `action` is what was done last, as an audit event has it, and `principal` who did.

    `layout`: nodes were moved in the picture, and nothing else.
    """

    workflow: Workflow
    action: str
    principal: str
    layout: bool
