"""Whole executions that are to end: which requests and deadlines still do anything."""

from __future__ import annotations

from valkyr.errors import ExecutionSettled
from valkyr.flow.attempts import Fence
from valkyr.flow.events import EndExecution
from valkyr.flow.facts import LockedExecution
from valkyr.flow.states import SETTLED_EXECUTION_STATES, Ending, ExecutionState


def answer_to_end(event: EndExecution, locked: LockedExecution, *, ending: Ending | None) -> Fence | ExecutionSettled:
    """ACCEPTED if the execution is to end by this; `ending` is what ends it already, an event before this one too."""
    if locked.state in SETTLED_EXECUTION_STATES:
        return _answer_of_settled(event, locked)
    if event.ending is Ending.CANCEL and ending not in (None, Ending.CANCEL):
        return ExecutionSettled(
            f"execution {locked.id} is ending already, as FAILED by {ending}: wait for its end",
            metadata={"state": locked.state},
        )
    if ending or (event.ending is Ending.DEADLINE and not locked.deadline_passed):
        return Fence.ALREADY_REPORTED
    return Fence.ACCEPTED


def _answer_of_settled(event: EndExecution, locked: LockedExecution) -> Fence | ExecutionSettled:
    if event.ending is not Ending.CANCEL:
        return Fence.LEASE_LOST
    if locked.state is ExecutionState.CANCELLED:
        return Fence.ALREADY_REPORTED
    return ExecutionSettled(
        f"execution {locked.id} has ended in {locked.state} already: there is nothing to cancel",
        metadata={"state": locked.state},
    )
