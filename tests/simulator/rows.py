"""Rows as the database holds them, times in seconds of the virtual clock; and the facts that a lock on them gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from tests.simulator.clock import moment_of
from valkyr.flow.attempts import LeaseFacts
from valkyr.flow.events import Resolution
from valkyr.flow.facts import NO_REPLAY, ExecutionFacts, LockedExecution, LockedRun, QuarantineRecord, Replay
from valkyr.flow.ids import RunKey, run_id
from valkyr.flow.joins import Gate
from valkyr.flow.outcomes import RunFacts
from valkyr.flow.plan import Plan, PlannedNode
from valkyr.flow.states import Ending, ExecutionState, RunState, StopReason
from valkyr.graph.model import Graph


@dataclass(slots=True, eq=False)
class RunRow:
    """A row of `run`."""

    key: RunKey
    node: PlannedNode
    state: RunState
    gate: Gate
    epoch: int = 0
    attempt: int = 0
    failures: int = 0
    lost_leases: int = 0
    always_decided: bool = False
    quarantine_number: int = 0
    holder: str | None = None
    leased_at: float = 0.0
    lease_until: float | None = None
    retry_after: float | None = None
    ready_at: float | None = None
    deadline: float | None = None
    ready_revision: int | None = None
    settled_revision: int | None = None
    parked_by: str | None = None
    stop_reason: StopReason | None = None
    permit_id: UUID | None = None
    target: str | None = None
    replay: Replay = NO_REPLAY
    trusted_until: float | None = None
    outputs: str | None = None
    error: str | None = None
    error_type: str | None = None
    undecided: bool = False
    dedupes: bool = False
    idempotency_key: str | None = None
    finished_at: float = 0.0
    reused_run_id: UUID | None = None
    locked_by: Any = None

    @property
    def id(self) -> UUID:
        return self.key[1]

    def locked(self, now: float) -> LockedRun:
        """What LOCK reads of a run."""
        stop = self.stop_reason
        passed = self.deadline is not None and self.deadline <= now
        replay = self.replay
        replayed = replay.inputs is not None or replay.key_number or replay.traceparent is not None
        return LockedRun(
            self.key[0],
            self.key[1],
            self.node.index,
            self.attempt,
            self.quarantine_number,
            self.holder,
            LeaseFacts(self.state, self.epoch, self.failures, self.lost_leases, stop is StopReason.CANCEL, passed),
            RunFacts(self.state, self.gate, self.always_decided),
            self.lease_until is not None and self.lease_until < now,
            self.retry_after is not None and self.retry_after <= now,
            self.ready_revision,
            self.parked_by,
            stop,
            self.permit_id,
            self.target,
            replay if replayed else NO_REPLAY,
            self.trusted_until is not None and self.trusted_until > now,
            self.undecided,
        )


@dataclass(slots=True, eq=False)
class QuarantineRow:
    """A row of `run_quarantine`."""

    number: int
    failure_type: str
    error_type: str
    error: str
    revision: int
    at: float
    resolution: Resolution = Resolution.PENDING
    resolved_by: str | None = None
    request_id: str | None = None
    request_hash: bytes | None = None

    def record(self) -> QuarantineRecord:
        moment = moment_of(self.at)
        return QuarantineRecord(
            self.number,
            self.failure_type,
            self.error_type,
            self.error,
            self.revision,
            moment,
            self.resolution,
            self.resolved_by,
            None if self.resolution is Resolution.PENDING else moment,
            None,
            self.request_id,
            self.request_hash,
        )


@dataclass(slots=True, eq=False)
class ExecutionRow:
    """A row of `workflow_execution`, with its runs by node and its quarantines by run and number."""

    id: UUID
    name: str
    facts: ExecutionFacts
    graph: Graph
    plan: Plan
    state: ExecutionState
    open_runs: int
    deadline: float | None
    runs: list[RunRow] = field(default_factory=list)
    quarantines: dict[tuple[UUID, int], QuarantineRow] = field(default_factory=dict)
    revision: int = 1
    bad_runs: int = 0
    ending: Ending | None = None
    error_type: str | None = None
    cancel_request: str | None = None
    # Not in the table: until then no executor can make a plan of its graph.
    plannable_from: float = 0.0
    locked_by: Any = None

    def locked(self, now: float) -> LockedExecution:
        """What LOCK reads of an execution."""
        passed = self.deadline is not None and self.deadline <= now
        return LockedExecution(
            self.id, self.state, self.revision, self.open_runs, self.bad_runs, self.ending, passed, moment_of(now)
        )


@dataclass(slots=True, eq=False)
class OutboxRow:
    """A row of `outbox`."""

    id: int
    run: UUID
    number: int
    kind: str


def first_rows(execution: ExecutionRow, now: float) -> list[RunRow]:
    """What INSERT_RUNS writes for an execution whose roots nobody holds yet."""
    rows = []
    for node in execution.plan.nodes:
        key = (execution.id, run_id(execution.id, node.index))
        row = RunRow(key, node, RunState.PENDING if node.incoming else RunState.READY, Gate(len(node.incoming)))
        row.target, row.undecided = node.target or None, node.decided_first
        if not node.incoming:
            row.ready_at, row.ready_revision = now, 1
            row.deadline = now + node.deadline.total_seconds() if node.deadline else None
        rows.append(row)
    return rows
