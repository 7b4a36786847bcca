"""Pause and resume: which requests still do anything. While an execution is paused whatever would be READY is PARKED,
leased runs finish, timers and deadlines go on."""

from __future__ import annotations

from valkyr.errors import ExecutionSettled, RequestIdReused
from valkyr.flow.attempts import Fence
from valkyr.flow.events import PauseExecution, ResumeExecution
from valkyr.flow.facts import Asked, LockedExecution
from valkyr.flow.states import SETTLED_EXECUTION_STATES, ExecutionState

PAUSE = "PAUSE"
"""In `parked_by`. It wins over BREAKER: a run that both hold back is the pause's, and meets its breaker afterwards."""


def answer_to_pause(
    event: PauseExecution | ResumeExecution,
    locked: LockedExecution,
    *,
    ending: bool,
    paused: bool,
    first: Asked | None,
) -> Fence | ExecutionSettled | RequestIdReused:
    """ACCEPTED if the execution is to become what is asked for, ALREADY_REPORTED if it is that already, or if this very
    request was answered before: it changes nothing then, whatever has happened since.

    `ending` and `paused` are as events before this one leave it; `first` is what the request_id was used for before.
    """
    if first is not None:
        return _answer_to_repeat(event, first)
    word = "pause" if isinstance(event, PauseExecution) else "resume"
    if locked.state in SETTLED_EXECUTION_STATES:
        return ExecutionSettled(
            f"execution {locked.id} has ended in {locked.state} already: there is nothing to {word}",
            metadata={"state": locked.state},
        )
    if ending:
        return ExecutionSettled(
            f"execution {locked.id} is ending already: there is nothing to {word}", metadata={"state": locked.state}
        )
    return Fence.ALREADY_REPORTED if isinstance(event, PauseExecution) is paused else Fence.ACCEPTED


def _answer_to_repeat(event: PauseExecution | ResumeExecution, first: Asked) -> Fence | RequestIdReused:
    if (first.execution_id, first.request_hash) == (event.execution_id, event.request.hash):
        return Fence.ALREADY_REPORTED
    return RequestIdReused(
        f"request_id {event.request.request_id!r} was used before, with another request", hint="use a new request_id"
    )


def kind_of(event: PauseExecution | ResumeExecution) -> str:
    """As it stands in the record of interventions."""
    return "PAUSE" if isinstance(event, PauseExecution) else "RESUME"


def state_after(event: PauseExecution | ResumeExecution) -> ExecutionState:
    """Of an execution that accepts it."""
    return ExecutionState.PAUSED if isinstance(event, PauseExecution) else ExecutionState.RUNNING
