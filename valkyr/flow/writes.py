"""What one transaction writes, gathered over all its executions, and the rows that events and changes become."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

import orjson

from valkyr.flow.attempts import Cancel, FailForGood, Finish, LeaseFacts, RetryAfter
from valkyr.flow.effects import (
    AttemptEnded,
    ChangedExecution,
    ChangedRun,
    EndedAttempt,
    EndedRun,
    FinishedRun,
    Intervention,
    NewQuarantine,
    OutboxEntry,
)
from valkyr.flow.events import EndExecution, LeaseEnded, Resolve, Reused
from valkyr.flow.facts import ExecutionFacts, LockedRun
from valkyr.flow.ids import RunKey
from valkyr.flow.outcomes import Change
from valkyr.flow.results import Failure, Lost, Omitted, Snooze, Success
from valkyr.flow.states import RunState


class Closing(Protocol):
    """An execution whose row is written once it is known how many leases it has left."""

    def changed_execution(self, open_runs: int) -> ChangedExecution: ...


@dataclass(slots=True)
class Writes:
    """All that one transaction writes, over all its executions."""

    finished: list[FinishedRun] = field(default_factory=list)
    ended: list[EndedRun] = field(default_factory=list)
    changed: list[ChangedRun] = field(default_factory=list)
    executions: list[ChangedExecution] = field(default_factory=list)
    attempts: list[EndedAttempt] = field(default_factory=list)
    quarantines: list[NewQuarantine] = field(default_factory=list)
    outbox: list[OutboxEntry] = field(default_factory=list)
    resolved: list[Resolve] = field(default_factory=list)
    # Runs that were requeued, and about which the engine decides before anybody may lease them.
    undecided: list[RunKey] = field(default_factory=list)
    # Runs that ended with what an equal one had come to.
    reused: list[Reused] = field(default_factory=list)
    stopped: list[RunKey] = field(default_factory=list)
    # Of executions, by what was asked with a resolution; None lifts it.
    deadlines: list[tuple[UUID, datetime | None]] = field(default_factory=list)
    # Executions that end, each with what writes its row once it is known how many leases it has left.
    endings: list[tuple[EndExecution, Closing]] = field(default_factory=list)
    # Executions whose READY runs are parked, and those whose parked runs are READY again.
    paused: list[UUID] = field(default_factory=list)
    resumed: list[UUID] = field(default_factory=list)
    interventions: list[Intervention] = field(default_factory=list)
    calls: list[AttemptEnded] = field(default_factory=list)

    def add_reported(
        self,
        change: Change,
        event: LeaseEnded,
        after: FailForGood | Finish | Cancel,
        lease: LeaseFacts,
        revision: int,
    ) -> None:
        """The accepted end of a lease; `lease` is as it was before."""
        key = (event.execution_id, event.run_id)
        if isinstance(after, Finish) and isinstance(event.result, Success):
            outputs = event.result.outputs.decode()
            cost = event.result.cost_tokens
            self.finished.append(FinishedRun(key, event.epoch, outputs, event.duration_ms, cost, revision))
            return
        failed = after if isinstance(after, FailForGood) else None
        self.ended.append(
            EndedRun(
                key=key,
                epoch=event.epoch,
                state=change.after,
                raise_epoch=isinstance(event.result, Lost | Omitted),
                failures=failed.failures if failed else lease.failures,
                lost_leases=failed.lost_leases if failed else lease.lost_leases,
                error=failed.message if failed else None,
                error_type=failed.error_type if failed else None,
                revision=revision,
                wait=None,
                duration_ms=event.duration_ms,
                always_decided=change.always_decided,
            )
        )


def changed_run(
    change: Change, key: RunKey, revision: int, *, given: str | None, deadline: timedelta | None, paused: bool
) -> ChangedRun:
    """A run that was not leased. `given` are its outputs as JSON, if somebody else than the graph gave them; `paused`
    parks what would be READY."""
    if change.after is RunState.SUCCESS and given is not None:
        outputs: str | None = given
    else:
        outputs = None if change.outputs is None else orjson.dumps(change.outputs).decode()
    return ChangedRun(
        key=key,
        state=RunState.PARKED if paused and change.after is RunState.READY else change.after,
        gate=change.gate,
        outputs=outputs,
        error=change.failure.message if change.failure else None,
        error_type=change.failure.error_type if change.failure else None,
        revision=revision,
        wake_after=change.wake_after,
        prepared=None,
        always_decided=change.always_decided,
        deadline=deadline,
    )


def noted_attempt(event: LeaseEnded, row: LockedRun) -> EndedAttempt | None:
    """An attempt for the history; None for a success, which stands in the run itself."""
    match event.result:
        case Success():
            return None
        case Failure() as failure:
            said: tuple[str, str, str] = (failure.type, failure.message, failure.stack_trace)
        case Lost():
            said = ("RUNNER_LOST", "the lease ended without a report", "")
        case Omitted():
            said = ("OMITTED", "", "")
        case Snooze():
            said = ("SNOOZED", "", "")
        case _:
            said = ("RELEASED", "", "")
    return EndedAttempt((event.execution_id, event.run_id), event.epoch, row.attempt, *said)


def call_of(event: LeaseEnded, row: LockedRun, facts: ExecutionFacts) -> AttemptEnded:
    """What the breaker of the run's target is told; only for a run that has one."""
    return AttemptEnded(
        namespace=facts.namespace,
        target=row.target or "",
        run_id=event.run_id,
        epoch=event.epoch,
        result=event.result,
        duration_ms=event.duration_ms,
        permit_id=row.permit_id,
        traceparent=row.replay.traceparent or facts.traceparent,
    )


def retried_run(event: LeaseEnded, after: RetryAfter, *, paused: bool) -> EndedRun:
    """Back to READY, or parked by the pause, with what went wrong."""
    match event.result:
        case Lost():
            error: tuple[str | None, str | None] = ("the lease ended without a report", "RUNNER_LOST")
        case Failure() as failure:
            error = (failure.message, failure.type)
        case _:
            error = (None, None)
    return EndedRun(
        key=(event.execution_id, event.run_id),
        epoch=event.epoch,
        state=RunState.PARKED if paused else RunState.READY,
        raise_epoch=isinstance(event.result, Lost | Omitted),
        failures=after.failures,
        lost_leases=after.lost_leases,
        error=error[0],
        error_type=error[1],
        revision=None,
        wait=after.delay,
        duration_ms=None,
    )
