"""What the client SDK answers with: plain frozen values, times aware UTC, states as StrEnum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from valkyr.flow.states import FINAL_RUN_STATES, SETTLED_EXECUTION_STATES, ExecutionState, RunState
from valkyr.frozen import cheaply_made
from valkyr.graph.findings import Finding
from valkyr.graph.model import Graph, WorkflowInfo


class TriggerType(StrEnum):
    """A label that says what started an execution."""

    MANUAL = "MANUAL"
    CRON = "CRON"
    EVENT = "EVENT"
    WEBHOOK = "WEBHOOK"
    QUEUE = "QUEUE"
    PARENT = "PARENT"
    REPLAY = "REPLAY"


@dataclass(frozen=True, slots=True)
class Workflow:
    """A named thing with versions; `version` is the one this answer is about."""

    id: str
    namespace: str
    name: str
    description: str
    labels: Mapping[str, str]
    version: int
    content_hash: str
    created_at: datetime | None
    updated_at: datetime | None
    archived: bool

    @property
    def edited(self) -> WorkflowInfo:
        """What a save of its edited graph says of it: all as it is, and that this version was edited."""
        return WorkflowInfo(self.id, self.name or None, self.description, self.labels, self.version)


@dataclass(frozen=True, slots=True)
class StoredGraph:
    """One version of a workflow as the graph store keeps it."""

    workflow: Workflow
    graph: Graph


@dataclass(frozen=True, slots=True)
class SavedGraph:
    """The answer to a save. `unchanged`: equal to the current version, so no version was made."""

    workflow: Workflow
    graph: Graph
    node_id_to_task_id: Mapping[str, str]
    edge_id_to_connection_id: Mapping[str, str]
    module_id_mapping: Mapping[str, str]
    warnings: Sequence[Finding]
    unchanged: bool


@dataclass(frozen=True, slots=True)
class WorkflowVersion:
    """One entry of a workflow's history. `layout`: nodes were moved in the picture, and nothing else since the version
    before. `restored_from` is the version whose graph this is again, 0 if none was restored.
    """

    version: int
    content_hash: str
    created_at: datetime | None
    author: str
    message: str
    node_count: int
    edge_count: int
    layout: bool = False
    restored_from: int = 0


@dataclass(frozen=True, slots=True)
class ResolvedVersions:
    """The latest versions by workflow id, the ids that nobody knows, and those of archived workflows."""

    versions: Mapping[str, int]
    missing_ids: Sequence[str]
    archived_ids: Sequence[str] = ()


@cheaply_made
@dataclass(frozen=True, slots=True)
class Execution:
    """One run-through of one version. `outputs` (by leaf node) and `run_counts` are there where it was read alone;
    watched alone it has `run_counts`, and `outputs` once it is settled. Who paused it is there while it is PAUSED.
    """

    id: str
    namespace: str
    workflow_id: str
    version: int
    state: ExecutionState
    trigger_type: TriggerType | None
    trigger_payload: Any
    outputs: Mapping[str, Any]
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    error_message: str
    error_type: str
    run_counts: Mapping[str, int]
    revision: int
    priority: int
    trace_id: str
    created_by: str
    deadline: datetime | None = None
    cancel_requested: bool = False
    cancelled_by: str = ""
    cancel_reason: str = ""
    paused_by: str = ""
    pause_reason: str = ""
    paused_at: datetime | None = None

    @property
    def settled(self) -> bool:
        """Nothing of it moves any more: SUCCESS, FAILED or CANCELLED."""
        return self.state in SETTLED_EXECUTION_STATES


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a run under one lease; `outcome` is RUNNING, SUCCESS, a failure's type, SNOOZED, RELEASED or OMITTED.

    `stack_trace` is there only in a run or a dead letter that was read alone.
    """

    attempt: int
    outcome: str
    runner_id: str
    started_at: datetime | None
    finished_at: datetime | None
    error: str
    stack_trace: str = ""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """One failure of a run for good, and what was done about it: `resolution` is PENDING until somebody did.

    `failure_type` says why as a dead letter does, `error_type` how the last attempt failed. A resolution has a trace of
    its own, `resolution_trace_id`, linked to the execution's.
    """

    quarantine_number: int
    failure_type: str
    error_type: str
    error: str
    quarantined_at: datetime | None
    resolution: str
    resolved_by: str
    resolved_at: datetime | None
    reason: str
    resolution_trace_id: str


@dataclass(frozen=True, slots=True)
class ReusedRun:
    """The run whose success an equal one has as its own."""

    execution_id: str
    run_id: str


@dataclass(frozen=True, slots=True)
class Run:
    """One node in one execution. `map_index` is -1 but for the items of a map; `outputs`, and `inputs` that a requeue
    replaced, only where asked for or read alone. `parked_duration` is how long it was parked in all before `parked_at`.
    """

    id: str
    execution_id: str
    node_id: str
    map_index: int
    task_id: str
    state: RunState
    parked_by: str
    attempt: int
    target: str
    pool: str
    class_name: str
    outputs: Any
    error: str
    error_type: str
    leased_by: str
    lease_until: datetime | None
    heartbeat_at: datetime | None
    retry_after: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    duration_ms: int
    cost_tokens: float
    idempotency_key: str
    quarantine_number: int
    attempts: Sequence[Attempt] = field(default=())
    inputs: Any = None
    episode_id: str = ""
    deadline: datetime | None = None
    failures: int = 0
    lost_leases: int = 0
    parked_at: datetime | None = None
    parked_duration: timedelta = timedelta(0)
    reused_from: ReusedRun | None = None
    quarantines: Sequence[Quarantine] = field(default=())

    @property
    def first_started_at(self) -> datetime | None:
        """When its first attempt began; `started_at` is that of the last."""
        return self.attempts[0].started_at if len(self.attempts) > 1 else self.started_at

    @property
    def final(self) -> bool:
        """SUCCESS, FAILED, SKIPPED or CANCELLED: nothing leaves these."""
        return self.state in FINAL_RUN_STATES
