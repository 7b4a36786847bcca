"""W7's premise: times count only of an executor that is as full as the budget says."""

from __future__ import annotations

import pytest

from benchmarks.errors import BenchError
from benchmarks.sizes import FULL
from benchmarks.workloads.w07_dispatch import check_waits, require


def test_the_premise_is_that_of_the_budget_less_a_tenth() -> None:
    require({"unsettled": 225_000, "moving": 1_800}, FULL)


@pytest.mark.parametrize(
    ("unsettled", "moving", "said"),
    [(224_999, 2_000, "224,999 runs were unsettled, and not 250,000"), (250_000, 1_799, "1,799 runs were moving")],
    ids=["too few unsettled", "too few moving"],
)
def test_an_executor_that_is_less_full_is_not_measured(unsettled: int, moving: int, said: str) -> None:
    with pytest.raises(BenchError, match=said):
        require({"unsettled": unsettled, "moving": moving}, FULL)


@pytest.mark.parametrize(("waits", "said"), [([], "no run"), ([3.0, -0.5], "0.5 ms before")], ids=["none", "too soon"])
def test_a_run_that_started_before_it_was_ready_makes_all_times_void(waits: list[float], said: str) -> None:
    check_waits([0.1, 3.0])
    with pytest.raises(BenchError, match=said):
        check_waits(waits)
