"""What happens to executions from outside, as values: leases that end, times that come, what people ask for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from valkyr.flow.ids import RunKey
from valkyr.flow.results import Lost, Omitted, Result
from valkyr.flow.states import Ending
from valkyr.frozen import cheaply_made


@cheaply_made
@dataclass(frozen=True, slots=True)
class LeaseEnded:
    """A runner reported, or a lease ran out. `only_if_expired` makes the reaper's claim conditional (I11).

    `makes_room`: its end makes room for another run in this process. `namespace`: the reporter's, who may speak of no
    other's runs; empty where the executor itself speaks.
    """

    execution_id: UUID
    run_id: UUID
    epoch: int
    result: Result | Omitted | Lost
    duration_ms: int | None = None
    only_if_expired: bool = False
    makes_room: bool = False
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class TimerDue:
    """A WAITING run whose time has come."""

    execution_id: UUID
    run_id: UUID


@dataclass(frozen=True, slots=True)
class ControlReady:
    """A control node that was written READY."""

    execution_id: UUID
    run_id: UUID


@dataclass(frozen=True, slots=True)
class Reused:
    """The success of an equal run was found for a READY one that nothing was decided about yet. `outputs` is JSON.

    `quarantine_number` is that of the run when it was looked for: a requeue since may have given it other inputs.
    """

    execution_id: UUID
    run_id: UUID
    quarantine_number: int
    source: RunKey
    outputs: str
    idempotency_key: str
    inputs_hash: str
    config_hash: str


@dataclass(frozen=True, slots=True)
class RunDeadline:
    """A run whose deadline has passed: one that nobody holds fails, one that is leased is told to stop."""

    execution_id: UUID
    run_id: UUID


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for a change, and how it is told from others. `hash` covers all that was asked."""

    principal: str
    reason: str
    request_id: str | None
    hash: bytes
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class EndExecution:
    """An execution is to end. DEADLINE is conditional on the execution's own; CANCEL comes with who asked for it."""

    execution_id: UUID
    ending: Ending
    request: Request | None = None


@dataclass(frozen=True, slots=True)
class PauseExecution:
    """Nothing of an execution is to be started until it is resumed."""

    execution_id: UUID
    request: Request


@dataclass(frozen=True, slots=True)
class ResumeExecution:
    """A paused execution is to go on."""

    execution_id: UUID
    request: Request


class Resolution(StrEnum):
    """What was done about a quarantine."""

    PENDING = "PENDING"
    REQUEUED = "REQUEUED"
    FIXED = "FIXED"
    DISCARDED = "DISCARDED"


@dataclass(frozen=True, slots=True)
class Resolve:
    """One of the three ways out of QUARANTINED. `outputs` (JSON) is for FIXED; the rest but `request` for REQUEUED."""

    execution_id: UUID
    run_id: UUID
    quarantine_number: int
    resolution: Resolution
    request: Request
    outputs: str | None = None
    inputs: str | None = None
    new_key: bool = False
    deadline: datetime | None = None
    force: bool = False


# Those of a whole execution name no run; they come first in a batch, and need no plan.
OfExecution = EndExecution | PauseExecution | ResumeExecution
Event = LeaseEnded | TimerDue | ControlReady | Reused | RunDeadline | Resolve | OfExecution
