"""The executor's own values: ids, rows as they are read, and what travels between its loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import uuid_utils

from valkyr.flow.facts import NO_REPLAY, QuarantineRecord, Replay
from valkyr.flow.ids import RunKey
from valkyr.flow.joins import Gate
from valkyr.flow.states import ExecutionState, RunState
from valkyr.frozen import cheaply_made


def new_id() -> UUID:
    """A fresh UUIDv7."""
    return UUID(int=uuid_utils.uuid7().int)


def rank_of(execution_priority: int, node_priority: int) -> int:
    """The priority of a run, -100 to 100, negated: runs are leased in ascending rank."""
    return -max(-100, min(100, execution_priority + node_priority))


@cheaply_made
@dataclass(frozen=True, slots=True)
class StartRequest:
    """One execution to record, checked. `payload` is JSON text or None; `request_hash` covers all that was asked."""

    namespace: str
    workflow_id: UUID
    version: int | None
    trigger_type: str
    payload: str | None
    request_id: str | None
    request_hash: bytes
    priority: int
    principal: str
    traceparent: str
    deadline: datetime | None = None


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """What the DLQ is to be told of one quarantine: QUARANTINED with how the run failed, or RESOLVED."""

    id: int
    kind: str
    namespace: str
    execution_id: UUID
    run_id: UUID
    record: QuarantineRecord
    attempt: int
    target: str | None
    episode_id: UUID | None
    idempotency_key: str | None
    inputs: str | None
    traceparent: str | None
    task_id: UUID | None
    node_id: str
    class_name: str
    node_index: int
    excluded: tuple[int, ...]
    chosen: tuple[int, ...] | None
    ready_revision: int | None


@dataclass(frozen=True, slots=True)
class Letter:
    """A quarantine with all that is needed to replay it (I21). `inputs` and `config` are JSON."""

    row: OutboxRow
    workflow_id: UUID
    version: int
    inputs: bytes
    config: bytes
    attempts: Sequence[AttemptView]
    traceparent: str


@cheaply_made
@dataclass(frozen=True, slots=True)
class Candidate:
    """A READY run, locked, about to be leased. `gate` is as it was opened, `progress` JSON of earlier attempts."""

    execution_id: UUID
    id: UUID
    node_index: int
    epoch: int
    attempt: int
    gate: Gate
    ready_revision: int
    rank: int
    ready_at: datetime
    replay: Replay = NO_REPLAY
    deadline: datetime | None = None
    progress: str | None = None


@cheaply_made
@dataclass(frozen=True, slots=True)
class ExecutionView:
    """An execution as clients see it. `outputs` and `run_counts` only where they were asked for; who paused it while it
    is PAUSED."""

    id: UUID
    namespace: str
    workflow_id: UUID
    version: int
    state: ExecutionState
    revision: int
    priority: int
    trigger_type: str
    trigger_payload: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error_type: str | None
    error_message: str | None
    trace_id: str
    created_by: str
    modified_at: datetime
    deadline: datetime | None = None
    cancel_requested: bool = False
    cancelled_by: str = ""
    cancel_reason: str = ""
    paused_by: str = ""
    pause_reason: str = ""
    paused_at: datetime | None = None
    outputs: Mapping[str, str] | None = None
    run_counts: Mapping[str, int] = field(default_factory=dict)
    omitted_outputs: Sequence[str] = ()


@cheaply_made
@dataclass(frozen=True, slots=True)
class Heard:
    """An execution that changed; with how it looks now where that is at hand."""

    id: UUID
    revision: int
    settled: bool
    view: ExecutionView | None = None


@dataclass(frozen=True, slots=True)
class AttemptView:
    attempt: int
    outcome: str
    runner_id: str
    started_at: datetime | None
    finished_at: datetime | None
    error: str
    stack_trace: str = ""


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as clients see it, with its attempts, the oldest first."""

    id: UUID
    execution_id: UUID
    node_id: str
    map_index: int
    task_id: UUID | None
    state: RunState
    parked_by: str | None
    attempt: int
    target: str | None
    pool: str
    class_name: str
    outputs: str | None
    error: str | None
    error_type: str | None
    leased_by: str | None
    lease_until: datetime | None
    heartbeat_at: datetime | None
    retry_after: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    duration_ms: int | None
    cost_tokens: float | None
    idempotency_key: str | None
    quarantine_number: int
    inputs: str | None = None
    episode_id: UUID | None = None
    deadline: datetime | None = None
    failures: int = 0
    lost_leases: int = 0
    parked_at: datetime | None = None
    parked_for: timedelta = timedelta()
    reused_from: RunKey | None = None
    attempts: Sequence[AttemptView] = ()
    quarantines: Sequence[QuarantineRecord] = ()


@dataclass(frozen=True, slots=True)
class LeasePolicy:
    """Who leases, and for how long."""

    runner_id: str
    incarnation: UUID
    duration: timedelta

    @property
    def holder(self) -> str:
        """What stands in `leased_by`: unique per process, so that a new incarnation finds the leases of the old one."""
        return f"{self.runner_id}/{self.incarnation}"
