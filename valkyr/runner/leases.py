"""The plain values of the runner protocol, and the transport that carries them: in process, or over gRPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from valkyr.errors import InvalidRequest
from valkyr.flow.results import Failure, FailureType, Release, Result, Snooze, Success
from valkyr.frozen import cheaply_made

__all__ = [
    "Failure",
    "FailureType",
    "Granted",
    "HeartbeatAnswer",
    "LeaseRef",
    "LeasedRun",
    "Release",
    "ReportAnswer",
    "Result",
    "RunResult",
    "Snooze",
    "Success",
    "Transport",
]


class HeartbeatAnswer(StrEnum):
    CONTINUE = "CONTINUE"
    CANCEL = "CANCEL"
    LEASE_LOST = "LEASE_LOST"


class ReportAnswer(StrEnum):
    ACCEPTED = "ACCEPTED"
    LEASE_LOST = "LEASE_LOST"
    ALREADY_REPORTED = "ALREADY_REPORTED"


@cheaply_made
@dataclass(frozen=True, slots=True)
class LeaseRef:
    """Names one lease: (run, epoch) is the fence; execution_id finds the row."""

    execution_id: str
    run_id: str
    epoch: int


@cheaply_made
@dataclass(frozen=True, slots=True)
class LeasedRun:
    """One run handed to a runner. `config` (resolved) and `inputs` are JSON bytes; `timeout` bounds the attempt.

    `traceparent` is what the attempt's span stands below; `links` are traceparents of what went before it: the attempt
    before, and for a replay the trace that failed.
    """

    ref: LeaseRef
    attempt: int
    node_id: str
    class_name: str
    config: bytes
    inputs: bytes
    idempotency_key: str
    lease_duration: timedelta
    timeout: timedelta | None = None
    deadline: datetime | None = None
    traceparent: str = ""
    links: tuple[str, ...] = ()
    target: str = ""
    progress: bytes = b""


@dataclass(frozen=True, slots=True)
class Granted:
    """Runs leased to this worker. `asked_at` is the worker's clock from when they were first asked for, None if that
    was by this call; at `start_by` and later, by the same clock, none of them is to be started: whoever granted them
    may think them lost on the way."""

    runs: Sequence[LeasedRun]
    asked_at: float | None = None
    start_by: float | None = None


@cheaply_made
@dataclass(frozen=True, slots=True)
class RunResult:
    """What a runner says of one lease. `started_at` and `finished_at` are aware UTC by the runner's clock, to show.

    `frees_slot`: false if the attempt's code is still running, so that the runner has no room for another run yet.
    `progress` is JSON that no heartbeat has carried, for the attempt to come; None: as it was.
    """

    ref: LeaseRef
    result: Result
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_ms: int | None = None
    frees_slot: bool = True
    progress: bytes | None = None


class Transport(Protocol):
    """How a worker reaches its executor."""

    async def lease_runs(self, *, max_runs: int) -> Granted:
        """Up to `max_runs`; waits while there are none and may answer empty after a while. Cancelling it loses no run:
        what was granted meanwhile comes with the next call or is given back by the executor."""
        ...

    async def report_runs(self, results: Sequence[RunResult]) -> Sequence[ReportAnswer | InvalidRequest]:
        """Answers in order, an InvalidRequest for a result that is refused: to be put otherwise. Raises
        valkyr.errors.Unavailable if it is not known whether they arrived: report again."""
        ...

    def told(self) -> datetime | None:
        """The executor's latest time that an answer has brought, by which it judges what a heartbeat leaves out; None
        where nothing is given back so. From any thread."""
        ...

    def heartbeat_runs(
        self, leases: Sequence[LeaseRef], *, progress: Mapping[LeaseRef, bytes], as_of: datetime | None
    ) -> Sequence[HeartbeatAnswer]:
        """All leases that are held, be it none. Answers in order. `as_of` is what `told` said before the list was made;
        `progress` is JSON of those that have said something new. Blocking; called from the worker's heartbeat thread
        only. Raises like report_runs."""
        ...
