"""What is done about a target with parked runs, and which permits go back."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import pytest

from services.executor.breakers.mirror import Mirror
from services.executor.gateways import _wait
from services.executor.model import new_id
from services.executor.targets import FORCED_LOOK, BreakerState
from tests.unit.executor.breakers import HALF_A_MINUTE, NOON, a_mirror, a_status
from valkyr.flow.leasing import Look, Probed, Way, goes_back, look_at
from valkyr.flow.states import RunState

KEY = ("default", "t")
DUE = timedelta(seconds=-1)
NOT_DUE = timedelta(seconds=20)
PERMIT = new_id()


def look(first_due: timedelta, mirror: Mirror) -> Look:
    return look_at(first_due, closed=mirror.closed(*KEY), wait=mirror.wait(*KEY), away=mirror.away)


@pytest.mark.parametrize("parked", [DUE, NOT_DUE], ids=["due", "not due"])
def test_all_runs_of_a_target_that_has_closed_come_back(parked: timedelta) -> None:
    mirror, _ = a_mirror()
    assert look(parked, mirror).way is Way.BRING_BACK


@pytest.mark.parametrize(("parked", "way"), [(DUE, Way.POSTPONE), (NOT_DUE, Way.SLEEP)], ids=["due", "not due"])
def test_i17_nobody_asks_before_the_breaker_said(parked: timedelta, way: Way) -> None:
    mirror, _ = a_mirror(a_status())
    found = look(parked, mirror)
    assert (found.way, found.wait) == (way, HALF_A_MINUTE)


@pytest.mark.parametrize("parked", [DUE, NOT_DUE], ids=["due", "not due"])
def test_leave_is_asked_for_when_the_target_is_due(parked: timedelta) -> None:
    mirror, clock = a_mirror(a_status())
    clock.now += 30
    assert look(parked, mirror).way is Way.PROBE


def test_a_short_wait_is_not_written_into_the_rows() -> None:
    mirror, _ = a_mirror(a_status(state="HALF_OPEN"))
    mirror.hold(KEY, timedelta(seconds=1))
    assert look(DUE, mirror).way is Way.SLEEP


def test_with_the_breaker_away_each_rows_own_time_counts_and_then_the_policy() -> None:
    mirror, clock = a_mirror(a_status())
    mirror._away = True
    assert look(NOT_DUE, mirror).way is Way.SLEEP
    assert look(DUE, mirror).way is Way.POSTPONE
    clock.now += 31
    assert look(NOT_DUE, mirror).way is Way.SLEEP
    assert look(DUE, mirror).way is Way.BRING_BACK_DUE


def test_with_the_breaker_away_a_policy_that_denies_postpones() -> None:
    mirror, _ = a_mirror(denies=True)
    mirror._away = True
    found = look(DUE, mirror)
    assert (found.way, found.wait) == (Way.POSTPONE, timedelta(seconds=5))


def a_row(state: str, epoch: int, permit: UUID | None = None, *, by: str | None = None) -> Probed:
    return Probed(RunState(state), epoch, permit, by or ("BREAKER" if state == "PARKED" else None))


@pytest.mark.parametrize(
    ("row", "back"),
    [
        pytest.param(None, True, id="the run is gone"),
        pytest.param(a_row("CANCELLED", 2), True, id="cancelled before it was leased"),
        pytest.param(a_row("READY", 2), True, id="brought back by somebody"),
        pytest.param(a_row("LEASED", 3), True, id="leased by somebody without the permit"),
        pytest.param(a_row("PARKED", 2), False, id="still parked: it gets the same one again"),
        pytest.param(a_row("PARKED", 2, by="PAUSE"), True, id="paused before it was leased"),
        pytest.param(a_row("LEASED", 3, PERMIT), False, id="leased by another replica under the same permit"),
        pytest.param(a_row("SUCCESS", 3, PERMIT), False, id="run by another replica under the same permit"),
        pytest.param(a_row("PARKED", 3), True, id="leased, ended and parked again meanwhile"),
        pytest.param(a_row("CANCELLED", 2, PERMIT), True, id="an older attempt's permit of the same name"),
    ],
)
def test_i17_a_permit_goes_back_only_if_nobody_uses_it(row: Probed | None, back: bool) -> None:
    assert goes_back(row, 3, PERMIT) is back


@pytest.mark.parametrize(
    ("here", "wait"),
    [(0, 30), (10, 20), (60, 0), (-3600, 30)],
    ids=[
        "told at once",
        "told later",
        "a clock ahead asks too early",
        "a clock behind waits no longer than it is open",
    ],
)
def test_the_wait_of_an_open_breaker_survives_clocks_that_differ(here: int, wait: int) -> None:
    now: datetime = NOON + timedelta(seconds=here)
    waited = _wait(BreakerState.OPEN, NOON + HALF_A_MINUTE, updated_at=NOON, now=now)
    assert waited == timedelta(seconds=wait)


def test_only_open_breakers_make_wait() -> None:
    assert _wait(BreakerState.FORCED_OPEN, None, updated_at=NOON, now=NOON) == FORCED_LOOK
    assert _wait(BreakerState.HALF_OPEN, NOON + HALF_A_MINUTE, updated_at=NOON, now=NOON) == timedelta()
