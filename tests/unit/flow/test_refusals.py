"""Who may resolve what: every refusal of a requeue, a fix and a discard, and which of them comes first."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.builders import a_graph
from tests.unit.flow.batches import NOON, Batch, a_record, a_request
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
from valkyr.flow.resolutions import refusal_of
from valkyr.flow.states import RunState

R = RunState
REQUEUED, FIXED, DISCARDED = Resolution.REQUEUED, Resolution.FIXED, Resolution.DISCARDED
TOMORROW = NOON + timedelta(days=1)
EACH = pytest.mark.parametrize("resolution", [REQUEUED, FIXED, DISCARDED])


def a_row(state: RunState = R.QUARANTINED, **changes: Any) -> LockedRun:
    return Batch(a_graph("a"), {"a": state}, **changes).step.rows[0]


def a_resolution(resolution: Resolution, **changes: Any) -> Resolve:
    return Batch(a_graph("a")).resolve("a", resolution, **changes)


def refusal(
    event: Resolve,
    *,
    row: LockedRun | None = None,
    record: QuarantineRecord | None = None,
    planned: bool = True,
    settled: bool = False,
    ended: bool = False,
    deadline_passed: bool = False,
    now: datetime | None = NOON,
) -> Fence | ValkyrError | None:
    return refusal_of(
        event,
        row or a_row(quarantine_number=event.quarantine_number),
        record or a_record(quarantine_number=event.quarantine_number),
        planned=planned,
        settled=settled,
        ended=ended,
        deadline_passed=deadline_passed,
        now=now,
        max_requeues=5,
    )


@EACH
def test_a_pending_quarantine_may_be_resolved(resolution: Resolution) -> None:
    assert refusal(a_resolution(resolution)) is None


@EACH
def test_a_run_that_does_not_exist_is_not_found(resolution: Resolution) -> None:
    answer = refusal_of(
        a_resolution(resolution),
        None,
        None,
        planned=False,
        settled=False,
        ended=True,
        deadline_passed=True,
        now=NOON,
        max_requeues=0,
    )
    assert isinstance(answer, RunNotFound)


@EACH
@pytest.mark.parametrize("state", [state for state in R if state is not R.QUARANTINED])
def test_a_run_that_is_not_quarantined_cannot_be_resolved_and_says_what_it_is(
    state: RunState, resolution: Resolution
) -> None:
    answer = refusal_of(
        a_resolution(resolution),
        a_row(state),
        None,
        planned=True,
        settled=False,
        ended=False,
        deadline_passed=False,
        now=NOON,
        max_requeues=5,
    )
    assert isinstance(answer, NotQuarantined)
    assert answer.details.metadata == {"state": state, "quarantineNumber": "1"}
    assert state in str(answer)


@EACH
@pytest.mark.parametrize("number", [0, 1, 3])
def test_i22_a_resolution_matches_only_the_quarantine_that_it_names(number: int, resolution: Resolution) -> None:
    answer = refusal_of(
        a_resolution(resolution, quarantine_number=number),
        a_row(quarantine_number=2),
        a_record(quarantine_number=number) if number else None,
        planned=True,
        settled=False,
        ended=False,
        deadline_passed=False,
        now=NOON,
        max_requeues=5,
    )
    assert isinstance(answer, NotQuarantined)
    assert answer.details.metadata["quarantineNumber"] == "2"


@EACH
@pytest.mark.parametrize("first", [REQUEUED, FIXED, DISCARDED])
@pytest.mark.parametrize("state", [R.QUARANTINED, R.READY, R.SUCCESS, R.FAILED])
def test_i22_a_quarantine_that_was_resolved_says_how_by_whom_and_when(
    state: RunState, first: Resolution, resolution: Resolution
) -> None:
    """Whatever has become of the run since: quarantined again, for one."""
    row = a_row(state, quarantine_number=2)
    record = a_record(resolution=first, resolved_by="Adam", resolved_at=NOON, request_id="theirs", request_hash=b"#")
    answer = refusal(a_resolution(resolution, request=a_request("mine")), row=row, record=record, ended=True)
    assert isinstance(answer, QuarantineResolved)
    assert answer.details.metadata == {
        "resolution": first,
        "resolvedBy": "Adam",
        "resolvedTime": "2026-01-01T12:00:00+00:00",
    }


MINE = {"request_id": "mine", "request_hash": b"#", "resolution": REQUEUED}


@pytest.mark.parametrize(
    ("changes", "request_id", "repeats"),
    [
        pytest.param({}, "mine", True, id="the same request"),
        pytest.param({"request_id": "another"}, "mine", False, id="another request"),
        pytest.param({"request_hash": b"?"}, "mine", False, id="another body"),
        pytest.param({"resolution": FIXED}, "mine", False, id="another resolution"),
        pytest.param({"request_id": None}, None, False, id="no request id, which tells nobody from another"),
    ],
)
def test_i22_the_same_request_is_told_that_it_was_done(
    changes: dict[str, Any], request_id: str | None, repeats: bool
) -> None:
    record = a_record(resolved_by="Eve", resolved_at=NOON, **{**MINE, **changes})
    event = a_resolution(REQUEUED, request=a_request(request_id, hash=b"#"))
    answer = refusal(event, row=a_row(R.SUCCESS), record=record, ended=True, deadline_passed=True)
    assert answer is Fence.ALREADY_REPORTED if repeats else isinstance(answer, QuarantineResolved)


@pytest.mark.parametrize(("resolution", "refused"), [(REQUEUED, True), (FIXED, True), (DISCARDED, False)])
def test_in_an_execution_that_ended_a_run_can_only_be_discarded(resolution: Resolution, refused: bool) -> None:
    answer = refusal(a_resolution(resolution, force=True, deadline=TOMORROW), ended=True, deadline_passed=True)
    assert isinstance(answer, ExecutionEnded) is refused
    assert answer is None or (isinstance(answer, ValkyrError) and "start a new execution" in answer.hint)


@pytest.mark.parametrize(
    ("settled", "ended", "possible"),
    [(False, False, set()), (False, True, {DISCARDED}), (True, False, {DISCARDED}), (True, True, {DISCARDED})],
    ids=["runs on", "ends", "has failed", "was ended"],
)
@EACH
def test_without_a_plan_letters_can_be_discarded_once_nothing_can_move(
    resolution: Resolution, settled: bool, ended: bool, possible: set[Resolution]
) -> None:
    answer = refusal(a_resolution(resolution, force=True), planned=False, settled=settled, ended=ended)
    assert (answer is None) is (resolution in possible)
    assert answer is None or isinstance(answer, WrongState)


@pytest.mark.parametrize(
    ("number", "force", "refused"),
    [(1, False, False), (5, False, False), (6, False, True), (6, True, False), (9, False, True), (9, True, False)],
)
def test_more_requeues_than_are_allowed_need_force(number: int, force: bool, refused: bool) -> None:
    answer = refusal(a_resolution(REQUEUED, quarantine_number=number, force=force))
    assert isinstance(answer, TooManyRequeues) is refused
    assert answer is None or f"{number - 1} times" in str(answer)


@pytest.mark.parametrize("resolution", [FIXED, DISCARDED])
def test_a_fix_and_a_discard_are_never_one_too_many(resolution: Resolution) -> None:
    assert refusal(a_resolution(resolution, quarantine_number=9)) is None


@pytest.mark.parametrize(
    ("resolution", "deadline", "refused"),
    [
        (REQUEUED, None, True),
        (REQUEUED, TOMORROW, False),
        (FIXED, None, False),
        (DISCARDED, None, False),
    ],
    ids=["requeue", "requeue with a new one", "fix", "discard"],
)
def test_past_the_deadline_of_its_execution_a_requeue_needs_a_new_one(
    resolution: Resolution, deadline: Any, refused: bool
) -> None:
    answer = refusal(a_resolution(resolution, deadline=deadline), deadline_passed=True)
    assert isinstance(answer, DeadlinePassed) is refused
    assert refused or answer is None


def test_force_does_not_stand_in_for_a_new_deadline() -> None:
    event = a_resolution(REQUEUED, quarantine_number=6, force=True)
    assert isinstance(refusal(event, deadline_passed=True), DeadlinePassed)


@pytest.mark.parametrize(
    ("deadline", "refused"),
    [(NOON - timedelta(days=1), True), (NOON, True), (NOON + timedelta(microseconds=1), False)],
    ids=["past", "now", "to come"],
)
@pytest.mark.parametrize("passed", [False, True], ids=["in time", "the old one passed"])
def test_i25_a_new_deadline_is_one_to_come_by_the_database_s_clock(
    deadline: datetime, refused: bool, passed: bool
) -> None:
    answer = refusal(a_resolution(REQUEUED, deadline=deadline), deadline_passed=passed)
    assert isinstance(answer, InvalidRequest) is refused
    assert refused or answer is None


def test_i22_a_repeat_of_a_requeue_is_told_so_though_its_deadline_has_passed_since() -> None:
    record = a_record(resolved_by="Eve", resolved_at=NOON, **MINE)
    event = a_resolution(REQUEUED, request=a_request("mine", hash=b"#"), deadline=NOON)
    assert refusal(event, row=a_row(R.SUCCESS), record=record, now=TOMORROW) is Fence.ALREADY_REPORTED
