"""The three ways out of QUARANTINED: who may resolve what, decided over locked rows. I22: each quarantine once."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from valkyr.errors import (
    DeadlinePassed,
    ExecutionEnded,
    InvalidRequest,
    NotQuarantined,
    QuarantineResolved,
    RunNotFound,
    TooManyRequeues,
    ValkyrError,
    WrongState,
)
from valkyr.flow.attempts import Fence
from valkyr.flow.events import Resolution, Resolve
from valkyr.flow.facts import LockedRun, QuarantineRecord
from valkyr.flow.states import RunState


def refusal_of(
    event: Resolve,
    row: LockedRun | None,
    record: QuarantineRecord | None,
    *,
    planned: bool,
    settled: bool,
    ended: bool,
    deadline_passed: bool,
    max_requeues: int,
    now: datetime | None = None,
) -> Fence | ValkyrError | None:
    """Why a resolution changes nothing; ALREADY_REPORTED if the same request did it before; None if it may go on.

    `settled`, `ended` - by a cancel or the like - and `deadline_passed` are the execution's; `planned`: a plan can be
    made of its graph. `now` is the database's clock.
    """
    if row is None:
        return RunNotFound(f"execution {event.execution_id} has no run {event.run_id}")
    if record is not None and record.resolution is not Resolution.PENDING:
        return Fence.ALREADY_REPORTED if _is_repeat(event, record) else _too_late(event, record)
    number = event.quarantine_number
    if record is None or row.facts.state is not RunState.QUARANTINED or row.quarantine_number != number:
        return _not_quarantined(event, row)
    if event.resolution is Resolution.DISCARDED:
        # Without a plan nothing follows, nor has anything to where nothing can move.
        return None if planned or settled or ended else _cannot_be_run(event, settled=settled)
    if ended:
        return ExecutionEnded(
            f"execution {event.execution_id} was cancelled, failed fast or was ended by its deadline",
            hint="start a new execution, or discard the run",
        )
    if not planned:
        return _cannot_be_run(event, settled=settled)
    if event.resolution is Resolution.REQUEUED and number > max_requeues and not event.force:
        return TooManyRequeues(
            f"run {event.run_id} was requeued {_times(number - 1)} without success, {max_requeues} being allowed",
            hint="mend what is wrong, then requeue with force",
        )
    if event.deadline is not None and now is not None and event.deadline <= now:
        return deadline_to_come(event.deadline, "deadline")
    if event.resolution is Resolution.REQUEUED and deadline_passed and event.deadline is None:
        return DeadlinePassed(
            f"the deadline of execution {event.execution_id} has passed", hint="requeue with a new deadline"
        )
    return None


def as_resolved(record: QuarantineRecord, event: Resolve) -> QuarantineRecord:
    """The record after an accepted resolution."""
    return replace(
        record,
        resolution=event.resolution,
        resolved_by=event.request.principal,
        request_id=event.request.request_id,
        request_hash=event.request.hash,
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def deadline_to_come(deadline: datetime, path: str) -> InvalidRequest:
    """What is said of a deadline that has passed."""
    return InvalidRequest.of_field(path, f"{deadline.isoformat()} has passed; takes a time to come")


def _cannot_be_run(event: Resolve, *, settled: bool) -> WrongState:
    return WrongState(
        f"the graph of execution {event.execution_id} cannot be run any more; the executor's log says why",
        hint="discard the run" if settled else "cancel the execution; then its letters can be discarded",
    )


def _is_repeat(event: Resolve, record: QuarantineRecord) -> bool:
    request = event.request
    return (
        request.request_id is not None
        and record.resolution is event.resolution
        and record.request_id == request.request_id
        and record.request_hash == request.hash
    )


def _too_late(event: Resolve, record: QuarantineRecord) -> QuarantineResolved:
    when = record.resolved_at.isoformat() if record.resolved_at else ""
    return QuarantineResolved(
        f"quarantine {event.quarantine_number} of run {event.run_id} was {record.resolution} by {record.resolved_by}",
        metadata={
            "resolution": record.resolution,
            "resolvedBy": record.resolved_by or "",
            "resolvedTime": when,
        },
    )


def _not_quarantined(event: Resolve, row: LockedRun) -> NotQuarantined:
    now = f"it is {row.facts.state}"
    if row.quarantine_number:
        now += f", and its last quarantine was number {row.quarantine_number}"
    return NotQuarantined(
        f"run {event.run_id} is not quarantined as number {event.quarantine_number}: {now}",
        metadata={"state": row.facts.state, "quarantineNumber": str(row.quarantine_number)},
    )
