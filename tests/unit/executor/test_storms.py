"""When the reaper holds back: a storm of expiries, and the quiet period."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.executor.reaper import QuietPeriod, is_storm
from services.executor.store.leases import LeaseCensus


@pytest.mark.parametrize(
    ("leases", "runners", "expired", "storm"),
    [
        (10, 3, 6, True),
        (10, 3, 5, False),
        (10, 2, 10, False),
        (10, 3, 10, True),
        (1, 1, 1, False),
        (3, 3, 2, True),
        (3, 3, 1, False),
        (0, 0, 0, False),
        (10_000, 3, 5_001, True),
        (10_000, 3, 5_000, False),
    ],
)
def test_i11_more_than_half_of_all_leases_of_at_least_three_runners_is_a_storm(
    leases: int, runners: int, expired: int, storm: bool
) -> None:
    assert is_storm(LeaseCensus(leases, runners, expired, None)) is storm


def test_i11_a_quiet_period_ends_by_itself_and_can_begin_anew() -> None:
    now = [50.0]
    quiet = QuietPeriod(timedelta(seconds=10), clock=lambda: now[0])
    assert quiet.left() is None, "not begun"
    quiet.begin()
    assert quiet.left() == timedelta(seconds=10)
    now[0] = 59.5
    assert quiet.left() == timedelta(milliseconds=500)
    now[0] = 60.0
    assert quiet.left() is None
    quiet.begin()
    assert quiet.left() == timedelta(seconds=10)
