"""What has come due for a run that no report is awaited of: its timer, its turn as a control node, an equal run that
was found, its deadline."""

from __future__ import annotations

import orjson

from valkyr.flow.events import ControlReady, Reused, RunDeadline, TimerDue
from valkyr.flow.facts import LockedRun
from valkyr.flow.outcomes import DecideControl, FailedForGood, Succeeded
from valkyr.flow.results import FailureType, LetterType
from valkyr.flow.states import RunState

_HELD_BY_NOBODY = (RunState.READY, RunState.WAITING, RunState.PARKED)


def outcome_when_due(
    event: TimerDue | ControlReady, node: int, row: LockedRun, *, paused: bool
) -> Succeeded | DecideControl | None:
    """None if the event has come too late, or too early. Timers go on while the execution is paused, control nodes are
    parked."""
    state = row.facts.state
    if isinstance(event, TimerDue):
        return Succeeded(node, {}) if state is RunState.WAITING and row.due else None
    return DecideControl(node) if state is RunState.READY and not paused else None


def outcome_of_reuse(event: Reused, node: int, row: LockedRun, *, watched: bool, paused: bool) -> Succeeded | None:
    """None if the event has come too late: the run was leased, may be leased, or was given other inputs since its equal
    was looked for. `watched`: its outputs are asked for by what follows."""
    as_it_was = row.undecided and row.quarantine_number == event.quarantine_number
    if row.facts.state is not RunState.READY or not as_it_was or paused:
        return None
    return Succeeded(node, orjson.loads(event.outputs) if watched else None)


def outcome_of_deadline(event: RunDeadline, node: int, row: LockedRun) -> FailedForGood | RunDeadline | None:
    """A run that nobody holds fails for good. The event itself where the run is leased and has to be told; None if the
    deadline has not passed, or nothing is left to be done about it."""
    if not row.lease.deadline_passed:
        return None
    if row.facts.state in _HELD_BY_NOBODY:
        return _failed_at_deadline(node, row)
    return event if row.facts.state is RunState.LEASED and row.stop_reason is None else None


def _failed_at_deadline(node: int, row: LockedRun) -> FailedForGood:
    if row.facts.state is RunState.PARKED and row.parked_by == "BREAKER":
        message = f"the run's deadline passed while the breaker of {row.target!r} held it back"
        return FailedForGood(node, LetterType.CIRCUIT_BREAKER, FailureType.TIMEOUT, message)
    message = f"the run's deadline passed while it was {row.facts.state}"
    return FailedForGood(node, LetterType.TIMEOUT, FailureType.TIMEOUT, message)
