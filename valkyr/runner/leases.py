"""The plain values of the runner protocol, and the transport that carries them: in process, or over gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from valkyr.flow.results import Failure, FailureType, Release, Result, Snooze, Success
from valkyr.frozen import cheaply_made

__all__ = [
    "Failure",
    "FailureType",
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


@cheaply_made
@dataclass(frozen=True, slots=True)
class RunResult:
    """What a runner says of one lease. `started_at` and `finished_at` are aware UTC by the runner's clock, to show.

    `frees_slot`: false if the attempt's code is still running, so that the runner has no room for another run yet.
    """

    ref: LeaseRef
    result: Result
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_ms: int | None = None
    frees_slot: bool = True


class Transport(Protocol):
    """How a worker reaches its executor."""

    async def lease_runs(self, *, max_runs: int) -> Sequence[LeasedRun]:
        """Up to `max_runs`; waits while there are none and may answer empty after a while. Cancelling it loses no run:
        what was granted meanwhile comes with the next call or is given back by the executor."""
        ...

    async def report_runs(self, results: Sequence[RunResult]) -> Sequence[ReportAnswer]:
        """Answers in order. Raises valkyr.errors.Unavailable if it is not known whether they arrived: report again."""
        ...

    def heartbeat_runs(self, leases: Sequence[LeaseRef]) -> Sequence[HeartbeatAnswer]:
        """Answers in order. Blocking; called from the worker's heartbeat thread only. Raises like report_runs."""
        ...
