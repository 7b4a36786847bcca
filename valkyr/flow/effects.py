"""What events of executions change, as values: rows that are written, what is told to the DLQ and to breakers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from valkyr.flow.events import Request
from valkyr.flow.facts import NO_REPLAY, Replay
from valkyr.flow.ids import RunKey
from valkyr.flow.joins import Gate
from valkyr.flow.results import Lost, Omitted, Result
from valkyr.flow.states import ExecutionState, RunState
from valkyr.frozen import cheaply_made


@cheaply_made
@dataclass(frozen=True, slots=True)
class Prepared:
    """A run with its inputs and config resolved. `problem` is set where they could not be: it fails unstarted.

    `target` is what its module will call, empty if nothing that a breaker guards; `permit_id` that of a probe.
    """

    execution_id: UUID
    id: UUID
    node_index: int
    epoch: int
    attempt: int
    config: bytes
    inputs: bytes
    inputs_hash: str
    config_hash: str
    idempotency_key: str
    problem: str = ""
    target: str = ""
    permit_id: UUID | None = None
    replay: Replay = NO_REPLAY
    deadline: datetime | None = None
    progress: str | None = None


@cheaply_made
@dataclass(frozen=True, slots=True)
class FinishedRun:
    """An accepted success."""

    key: RunKey
    epoch: int
    outputs: str
    duration_ms: int | None
    cost_tokens: float | None
    revision: int


@cheaply_made
@dataclass(frozen=True, slots=True)
class EndedRun:
    """An accepted end of a lease that was no success. `wait` is set where the run goes back to READY, or is PARKED by a
    pause instead."""

    key: RunKey
    epoch: int
    state: RunState
    raise_epoch: bool
    failures: int
    lost_leases: int
    error: str | None
    error_type: str | None
    revision: int | None
    wait: timedelta | None
    duration_ms: int | None
    always_decided: bool = False


@cheaply_made
@dataclass(frozen=True, slots=True)
class ChangedRun:
    """A run that was not leased and changes by what others did. `prepared` is set where it is leased at once; PARKED it
    is by a pause.

    `deadline` counts from when the run leaves PENDING.
    """

    key: RunKey
    state: RunState
    gate: Gate
    outputs: str | None
    error: str | None
    error_type: str | None
    revision: int
    wake_after: timedelta | None
    prepared: Prepared | None
    always_decided: bool = False
    deadline: timedelta | None = None

    def leased(self, prepared: Prepared) -> ChangedRun:
        """The same run, READY no more: leased where it became so."""
        return ChangedRun(
            self.key,
            RunState.LEASED,
            self.gate,
            self.outputs,
            self.error,
            self.error_type,
            self.revision,
            self.wake_after,
            prepared,
            self.always_decided,
            self.deadline,
        )


@cheaply_made
@dataclass(frozen=True, slots=True)
class ChangedExecution:
    id: UUID
    state: ExecutionState
    revision: int
    open_runs: int
    bad_runs: int
    error_type: str | None
    error_message: str | None


@cheaply_made
@dataclass(frozen=True, slots=True)
class EndedAttempt:
    """An attempt for the history: everything but a success."""

    key: RunKey
    epoch: int
    attempt: int
    outcome: str
    error: str
    stack_trace: str


@cheaply_made
@dataclass(frozen=True, slots=True)
class NewQuarantine:
    """A failure for good that no edge handled."""

    namespace: str
    key: RunKey
    quarantine_number: int
    failure_type: str
    error_type: str
    error: str
    revision: int


@cheaply_made
@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """What the DLQ is to be told: QUARANTINED or RESOLVED."""

    namespace: str
    key: RunKey
    quarantine_number: int
    kind: str


@cheaply_made
@dataclass(frozen=True, slots=True)
class Intervention:
    """That somebody paused or resumed an execution: for the record, and so that a repeated request is known.

    `took_effect` is False for what was asked of an execution that was so already.
    """

    namespace: str
    execution_id: UUID
    kind: str
    request: Request
    took_effect: bool


@cheaply_made
@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """For the breaker: what a call of a target came to. `result` says whether it was the target's doing."""

    namespace: str
    target: str
    run_id: UUID
    epoch: int
    result: Result | Omitted | Lost
    duration_ms: int | None
    permit_id: UUID | None
    traceparent: str
