"""What became of workflows, as values: audit events, the changes that watchers are told, and how far they were told.
Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from services.graph_store.model import Author, StoredWorkflow
from valkyr.graph.diff import GraphDiff


@dataclass(frozen=True, slots=True)
class DiffedVersions:
    """What became of `from_version` in `to_version`; 0 is the empty graph before the first version."""

    from_version: int
    to_version: int
    diff: GraphDiff


@dataclass(frozen=True, slots=True)
class RestoreCommand:
    """One RestoreVersion: `version` is to be again what `current_version`, the caller's idea of the current one, is."""

    namespace: str
    workflow_id: str
    version: int
    current_version: int | None
    author: Author
    request_id: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An audit event as it is stored. `number` orders the events of a workflow as they happened; those of its drafts,
    which do not wait for each other, only among those of one draft."""

    number: int
    id: str
    workflow_id: str | None
    action: str
    principal: str
    from_version: int | None
    to_version: int | None
    from_hash: str | None
    to_hash: str | None
    message: str
    trace_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a look at the database could see: what transactions below `top` wrote, but for those `open` at the time."""

    top: int
    open: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Position:
    """How far a watch was told: all of `seen`; and of what `towards` has beyond that, in the order of `Change.place`,
    up to and with `place`."""

    seen: Snapshot
    towards: Snapshot | None = None
    place: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Change:
    """A workflow as one audit event left it. Of one workflow, events with greater places happened later."""

    place: tuple[int, int]
    """The transaction that wrote it, and the event's number."""
    workflow: StoredWorkflow
    action: str
    principal: str
    layout: bool


@dataclass(frozen=True, slots=True)
class Watched:
    """What a stream is about, all of the namespace if no workflows are named. `since` is from a resume token."""

    namespace: str
    workflow_ids: Sequence[str] = ()
    since: Position | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Some workflows as they were left, and where to resume after them."""

    changes: Sequence[Change]
    position: Position


def newest(changes: Iterable[Change]) -> list[Change]:
    """The last change of each workflow, in order. It is one of the layout if all of its workflow's are."""
    last: dict[str, Change] = {}
    for change in changes:
        before = last.pop(change.workflow.id, None)
        layout = change.layout and (before is None or before.layout)
        last[change.workflow.id] = replace(change, layout=layout)
    return list(last.values())
