"""States of runs and executions, and which transitions exist. Spelled as in the protos and in the tables."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    PENDING = "PENDING"
    READY = "READY"
    LEASED = "LEASED"
    WAITING = "WAITING"
    PARKED = "PARKED"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"
    QUARANTINED = "QUARANTINED"


class ExecutionState(StrEnum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Ending(StrEnum):
    """Why an execution ends before its runs did. Nothing of it is started any more, nothing follows what still ends."""

    CANCEL = "CANCEL"
    FAIL_FAST = "FAIL_FAST"
    DEADLINE = "DEADLINE"


class StopReason(StrEnum):
    """Why a LEASED run is told to stop. Its lease is not extended any more."""

    # Its execution ends.
    CANCEL = "CANCEL"
    # Its own deadline passed.
    DEADLINE = "DEADLINE"


# I05: nothing leaves these.
FINAL_RUN_STATES = frozenset({RunState.SUCCESS, RunState.FAILED, RunState.SKIPPED, RunState.CANCELLED})

# Counted by an execution's `open_runs`.
MOVABLE_RUN_STATES = frozenset({RunState.READY, RunState.LEASED, RunState.WAITING, RunState.PARKED})

SETTLED_EXECUTION_STATES = frozenset({ExecutionState.SUCCESS, ExecutionState.FAILED, ExecutionState.CANCELLED})

_R = RunState
# As a transaction leaves them: while an execution is paused, whatever would be READY is PARKED at once; a requeue and
# what follows it at once are one step out of QUARANTINED - leased by the hand-off, or a control node decided again,
# which may wait, end, or be quarantined once more.
RUN_TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    _R.PENDING: frozenset(
        {_R.READY, _R.LEASED, _R.WAITING, _R.PARKED, _R.SUCCESS, _R.SKIPPED, _R.FAILED, _R.QUARANTINED, _R.CANCELLED}
    ),
    _R.READY: frozenset({_R.LEASED, _R.WAITING, _R.SUCCESS, _R.PARKED, _R.FAILED, _R.QUARANTINED, _R.CANCELLED}),
    _R.LEASED: frozenset({_R.SUCCESS, _R.READY, _R.PARKED, _R.FAILED, _R.QUARANTINED, _R.CANCELLED}),
    _R.PARKED: frozenset({_R.READY, _R.FAILED, _R.QUARANTINED, _R.CANCELLED}),
    _R.WAITING: frozenset({_R.READY, _R.SUCCESS, _R.FAILED, _R.QUARANTINED, _R.CANCELLED}),
    _R.QUARANTINED: frozenset({_R.READY, _R.LEASED, _R.PARKED, _R.WAITING, _R.SUCCESS, _R.FAILED, _R.QUARANTINED}),
    _R.SUCCESS: frozenset(),
    _R.FAILED: frozenset(),
    _R.SKIPPED: frozenset(),
    _R.CANCELLED: frozenset(),
}


# What becomes CANCELLED at once when an execution ends; LEASED runs are told to stop, letters stay.
CANCELLED_AT_ONCE = frozenset({RunState.PENDING, RunState.READY, RunState.WAITING, RunState.PARKED})

_ENDED_AS = {
    Ending.CANCEL: ExecutionState.CANCELLED,
    Ending.FAIL_FAST: ExecutionState.FAILED,
    Ending.DEADLINE: ExecutionState.FAILED,
}


def open_delta(before: RunState, after: RunState) -> int:
    """What a run's transition adds to `open_runs`."""
    return (after in MOVABLE_RUN_STATES) - (before in MOVABLE_RUN_STATES)


def bad_delta(before: RunState, after: RunState, *, handled: bool = False) -> int:
    """What a run's transition adds to `bad_runs`: those QUARANTINED, or discarded. A failure that is `handled` by an
    edge is not bad, also where it follows a requeue in the same step."""
    if before is RunState.QUARANTINED:
        stays = after is RunState.QUARANTINED or (after is RunState.FAILED and not handled)
        return 0 if stays else -1
    return int(after is RunState.QUARANTINED)


def execution_state_after(
    current: ExecutionState,
    *,
    open_runs: int,
    bad_runs: int,
    ending: Ending | None = None,
    reopened: bool = False,
) -> ExecutionState:
    """The end of an execution: nothing can move any more. Settled states stay what they are (I05), but for a FAILED
    one that was `reopened` by requeue or fix, or in which a discard lets a join go: while something can move, nothing
    has ended."""
    if current in SETTLED_EXECUTION_STATES:
        if current is not ExecutionState.FAILED or not (reopened or open_runs > 0):
            return current
        current = ExecutionState.RUNNING
    if open_runs > 0:
        return current if current is ExecutionState.PAUSED else ExecutionState.RUNNING
    if ending is not None:
        return _ENDED_AS[ending]
    return ExecutionState.FAILED if bad_runs > 0 else ExecutionState.SUCCESS
