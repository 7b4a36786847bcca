"""The tables of transitions, and the end of an execution."""

from __future__ import annotations

from itertools import product

import pytest

from valkyr.flow.states import (
    FINAL_RUN_STATES,
    MOVABLE_RUN_STATES,
    RUN_TRANSITIONS,
    SETTLED_EXECUTION_STATES,
    Ending,
    ExecutionState,
    RunState,
    bad_delta,
    execution_state_after,
    open_delta,
)

R, E = RunState, ExecutionState

# As drawn in the design, with what one transaction may put together: a hand-off goes from PENDING or QUARANTINED to
# LEASED, a control node that fails from PENDING or READY to FAILED or QUARANTINED, and one that is requeued waits, ends
# or is quarantined again. While the execution is paused, whatever would be READY is PARKED.
ALLOWED = {
    R.PENDING: {
        R.READY,
        R.WAITING,
        R.PARKED,
        R.SUCCESS,
        R.SKIPPED,
        R.QUARANTINED,
        R.CANCELLED,
        R.LEASED,
        R.FAILED,
    },
    R.READY: {R.LEASED, R.PARKED, R.FAILED, R.QUARANTINED, R.CANCELLED, R.WAITING, R.SUCCESS},
    R.LEASED: {R.SUCCESS, R.READY, R.PARKED, R.FAILED, R.QUARANTINED, R.CANCELLED},
    R.PARKED: {R.READY, R.FAILED, R.QUARANTINED, R.CANCELLED},
    R.WAITING: {R.READY, R.SUCCESS, R.FAILED, R.QUARANTINED, R.CANCELLED},
    R.QUARANTINED: {R.READY, R.LEASED, R.PARKED, R.WAITING, R.SUCCESS, R.FAILED, R.QUARANTINED},
}


@pytest.mark.parametrize(("before", "after"), [*product(R, R)], ids=lambda state: state.value)
def test_runs_move_as_the_design_draws_it(before: RunState, after: RunState) -> None:
    assert (after in RUN_TRANSITIONS[before]) == (after in ALLOWED.get(before, set()))


@pytest.mark.parametrize("state", [R.SUCCESS, R.FAILED, R.SKIPPED, R.CANCELLED])
def test_i05_nothing_leaves_a_final_state(state: RunState) -> None:
    assert state in FINAL_RUN_STATES
    assert RUN_TRANSITIONS[state] == frozenset()


def test_a_state_is_final_movable_or_waits_for_others() -> None:
    assert set(R) - FINAL_RUN_STATES - MOVABLE_RUN_STATES == {R.PENDING, R.QUARANTINED}


@pytest.mark.parametrize(("before", "after"), [*product(R, R)], ids=lambda state: state.value)
def test_open_runs_count_what_can_move(before: RunState, after: RunState) -> None:
    movable = {R.READY, R.LEASED, R.WAITING, R.PARKED}
    assert open_delta(before, after) == int(after in movable) - int(before in movable)


@pytest.mark.parametrize("current", sorted(SETTLED_EXECUTION_STATES))
@pytest.mark.parametrize(("open_runs", "bad_runs"), [(0, 0), (1, 0), (0, 1), (3, 2)])
def test_i05_a_settled_execution_stays_what_it_is(current: ExecutionState, open_runs: int, bad_runs: int) -> None:
    moves = current is E.FAILED and open_runs > 0
    expected = E.RUNNING if moves else current
    assert execution_state_after(current, open_runs=open_runs, bad_runs=bad_runs) is expected


@pytest.mark.parametrize(
    ("current", "open_runs", "bad_runs", "expected"),
    [
        (E.PENDING, 1, 0, E.RUNNING),
        (E.RUNNING, 1, 0, E.RUNNING),
        (E.PAUSED, 1, 0, E.PAUSED),
        (E.RUNNING, 1, 1, E.RUNNING),
        (E.PAUSED, 1, 1, E.PAUSED),
        (E.PENDING, 0, 0, E.SUCCESS),
        (E.RUNNING, 0, 0, E.SUCCESS),
        (E.PAUSED, 0, 0, E.SUCCESS),
        (E.PENDING, 0, 1, E.FAILED),
        (E.RUNNING, 0, 2, E.FAILED),
        (E.PAUSED, 0, 1, E.FAILED),
    ],
)
def test_an_execution_ends_when_nothing_can_move_and_independent_branches_finish_first(
    current: ExecutionState, open_runs: int, bad_runs: int, expected: ExecutionState
) -> None:
    assert execution_state_after(current, open_runs=open_runs, bad_runs=bad_runs) is expected


def is_bad(state: RunState, *, was: RunState) -> bool:
    """Quarantined, or discarded; a failure that was handled is not bad."""
    return state is R.QUARANTINED or (state is R.FAILED and was is R.QUARANTINED)


@pytest.mark.parametrize(
    ("before", "after"),
    [pair for pair in product(R, R) if pair[0] not in FINAL_RUN_STATES],
    ids=lambda state: state.value,
)
def test_bad_runs_count_the_quarantined_and_the_discarded(before: RunState, after: RunState) -> None:
    assert bad_delta(before, after) == int(is_bad(after, was=before)) - int(before is R.QUARANTINED)


@pytest.mark.parametrize("before", [state for state in R if state not in FINAL_RUN_STATES])
def test_a_failure_that_is_handled_is_not_bad_any_more(before: RunState) -> None:
    assert bad_delta(before, R.FAILED, handled=True) == -int(before is R.QUARANTINED)


@pytest.mark.parametrize("open_runs", [0, 2])
@pytest.mark.parametrize("bad_runs", [0, 1])
@pytest.mark.parametrize("ending", [None, *Ending], ids=lambda ending: ending.value if ending else "runs on")
@pytest.mark.parametrize("current", sorted(SETTLED_EXECUTION_STATES))
def test_i05_only_a_failed_execution_is_ever_reopened(
    current: ExecutionState, ending: Ending | None, bad_runs: int, open_runs: int
) -> None:
    kept = execution_state_after(current, open_runs=open_runs, bad_runs=bad_runs, ending=ending)
    reopened = execution_state_after(current, open_runs=open_runs, bad_runs=bad_runs, ending=ending, reopened=True)
    assert kept is (E.RUNNING if current is E.FAILED and open_runs else current)
    assert (reopened is current) or current is E.FAILED


@pytest.mark.parametrize(
    ("open_runs", "bad_runs", "expected"), [(1, 0, E.RUNNING), (1, 2, E.RUNNING), (0, 1, E.FAILED), (0, 0, E.SUCCESS)]
)
def test_a_failed_execution_that_is_reopened_runs_or_ends_by_what_is_left(
    open_runs: int, bad_runs: int, expected: ExecutionState
) -> None:
    assert execution_state_after(E.FAILED, open_runs=open_runs, bad_runs=bad_runs, reopened=True) is expected


@pytest.mark.parametrize("current", [E.PENDING, E.RUNNING, E.PAUSED])
@pytest.mark.parametrize("bad_runs", [0, 1])
@pytest.mark.parametrize(
    ("ending", "ended"),
    [(Ending.CANCEL, E.CANCELLED), (Ending.FAIL_FAST, E.FAILED), (Ending.DEADLINE, E.FAILED)],
)
def test_an_execution_that_ends_is_settled_when_its_last_lease_is_gone(
    ending: Ending, ended: ExecutionState, bad_runs: int, current: ExecutionState
) -> None:
    waits = execution_state_after(current, open_runs=1, bad_runs=bad_runs, ending=ending)
    assert waits is (E.PAUSED if current is E.PAUSED else E.RUNNING)
    assert execution_state_after(current, open_runs=0, bad_runs=bad_runs, ending=ending) is ended
