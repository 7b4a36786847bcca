"""What is known of an execution and its runs when something is decided: what never changes, and rows as locked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from valkyr.flow.attempts import LeaseFacts
from valkyr.flow.events import Resolution
from valkyr.flow.outcomes import RunFacts
from valkyr.flow.states import Ending, ExecutionState, StopReason
from valkyr.frozen import cheaply_made


@cheaply_made
@dataclass(frozen=True, slots=True)
class ExecutionFacts:
    """What never changes about an execution; cached."""

    id: UUID
    namespace: str
    workflow_id: UUID
    version: int
    priority: int
    trigger_json: bytes
    traceparent: str

    @property
    def version_key(self) -> tuple[str, UUID, int]:
        """What names the version in the graph store."""
        return (self.namespace, self.workflow_id, self.version)

    @property
    def trigger(self) -> Any:
        return orjson.loads(self.trigger_json)

    @property
    def visible(self) -> dict[str, Any]:
        """What expressions see as `execution`."""
        return {"id": str(self.id), "workflowId": str(self.workflow_id), "version": self.version}


@cheaply_made
@dataclass(frozen=True, slots=True)
class LockedExecution:
    """The counters of an execution whose row is locked."""

    id: UUID
    state: ExecutionState
    revision: int
    open_runs: int
    bad_runs: int
    ending: Ending | None = None
    deadline_passed: bool = False
    # The database's clock.
    now: datetime | None = None


@cheaply_made
@dataclass(frozen=True, slots=True)
class Replay:
    """What requeues have left on a run: inputs that replace the assembled ones, a new key, the trace of the last one
    and the attempt after which it came."""

    inputs: str | None = None
    key_number: int = 0
    traceparent: str | None = None
    after_attempt: int = 0


NO_REPLAY = Replay()


@cheaply_made
@dataclass(frozen=True, slots=True)
class LockedRun:
    """A run whose row is locked, as far as decisions need it."""

    execution_id: UUID
    id: UUID
    node_index: int
    attempt: int
    quarantine_number: int
    runner_id: str | None
    lease: LeaseFacts
    facts: RunFacts
    lease_expired: bool
    due: bool
    ready_revision: int | None
    parked_by: str | None = None
    stop_reason: StopReason | None = None
    permit_id: UUID | None = None
    target: str | None = None
    replay: Replay = NO_REPLAY
    # A runner that was told to stop and said nothing may still be at it.
    trusted: bool = False
    # READY it is decided by the engine before anybody may lease it.
    undecided: bool = False


@cheaply_made
@dataclass(frozen=True, slots=True)
class Asked:
    """What a request_id of a pause or a resume was used for."""

    execution_id: UUID
    request_hash: bytes


@cheaply_made
@dataclass(frozen=True, slots=True)
class QuarantineRecord:
    """One quarantine of a run, as it is stored."""

    quarantine_number: int
    failure_type: str
    error_type: str
    error: str | None
    revision: int
    quarantined_at: datetime
    resolution: Resolution
    resolved_by: str | None
    resolved_at: datetime | None
    reason: str | None
    request_id: str | None = None
    request_hash: bytes | None = None
    resolution_traceparent: str | None = None
