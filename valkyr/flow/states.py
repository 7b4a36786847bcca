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


# I05: nothing leaves these.
FINAL_RUN_STATES = frozenset({RunState.SUCCESS, RunState.FAILED, RunState.SKIPPED, RunState.CANCELLED})

# Counted by an execution's `open_runs`.
MOVABLE_RUN_STATES = frozenset({RunState.READY, RunState.LEASED, RunState.WAITING, RunState.PARKED})

SETTLED_EXECUTION_STATES = frozenset({ExecutionState.SUCCESS, ExecutionState.FAILED, ExecutionState.CANCELLED})

_R = RunState
RUN_TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    _R.PENDING: frozenset(
        {_R.READY, _R.LEASED, _R.WAITING, _R.PARKED, _R.SUCCESS, _R.SKIPPED, _R.FAILED, _R.QUARANTINED, _R.CANCELLED}
    ),
    _R.READY: frozenset({_R.LEASED, _R.WAITING, _R.SUCCESS, _R.PARKED, _R.FAILED, _R.QUARANTINED, _R.CANCELLED}),
    _R.LEASED: frozenset({_R.SUCCESS, _R.READY, _R.FAILED, _R.QUARANTINED, _R.CANCELLED}),
    _R.PARKED: frozenset({_R.READY, _R.FAILED, _R.QUARANTINED, _R.CANCELLED}),
    _R.WAITING: frozenset({_R.READY, _R.SUCCESS, _R.FAILED, _R.QUARANTINED, _R.CANCELLED}),
    _R.QUARANTINED: frozenset({_R.READY, _R.SUCCESS, _R.FAILED}),
    _R.SUCCESS: frozenset(),
    _R.FAILED: frozenset(),
    _R.SKIPPED: frozenset(),
    _R.CANCELLED: frozenset(),
}


def open_delta(before: RunState, after: RunState) -> int:
    """What a run's transition adds to `open_runs`."""
    return (after in MOVABLE_RUN_STATES) - (before in MOVABLE_RUN_STATES)


def execution_state_after(current: ExecutionState, *, open_runs: int, bad_runs: int) -> ExecutionState:
    """The end of an execution: nothing can move any more. Settled states stay what they are (I05)."""
    if current in SETTLED_EXECUTION_STATES:
        return current
    if open_runs > 0:
        return current if current is ExecutionState.PAUSED else ExecutionState.RUNNING
    return ExecutionState.FAILED if bad_runs > 0 else ExecutionState.SUCCESS
