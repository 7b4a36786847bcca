"""The arithmetic over rounds and against budgets."""

from __future__ import annotations

import pytest

from benchmarks.errors import BenchError
from benchmarks.figures import FIGURES, Figure, Measured, Summary, quantile, slowdown, summarise
from benchmarks.session import WORKLOADS, least_disturbed

RATE = Figure("W0.rate", "things", "/s", 100, more_is_better=True)
TIME = Figure("W0.time", "one thing", "ms", 4)


@pytest.mark.parametrize(
    ("figure", "value", "ratio"),
    [
        (RATE, 200, 2.0),
        (RATE, 50, 0.5),
        (TIME, 2, 2.0),
        (TIME, 8, 0.5),
        (TIME, 0, float("inf")),
        (TIME, -1, float("inf")),
    ],
    ids=["rate above", "rate below", "time below", "time above", "no time", "less than none"],
)
def test_a_ratio_says_how_many_times_better_than_the_budget(figure: Figure, value: float, ratio: float) -> None:
    assert figure.ratio(value) == ratio


def test_a_figure_without_a_budget_has_no_ratio_and_is_neither_met_nor_missed() -> None:
    summary = Summary(Figure("W0.more", "told besides", "/s"), [1.0])
    assert summary.ratio is None
    assert summary.met is None


@pytest.mark.parametrize(("values", "met"), [([90, 100, 500], True), ([90, 99, 500], False)], ids=["met", "missed"])
def test_a_budget_is_met_by_the_median_of_rounds(values: list[float], met: bool) -> None:
    assert Summary(RATE, values).met is met


def test_rounds_are_gathered_by_figure_in_the_order_of_the_page() -> None:
    found = summarise([{"W2.p99": 9.0, "W1.one": 1.0}, {"W1.one": 3.0}])
    assert [(summary.figure.key, list(summary.values)) for summary in found] == [
        ("W1.one", [1.0, 3.0]),
        ("W2.p99", [9.0]),
    ]


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100), (0.0, 1)], ids=lambda value: str(value)
)
def test_a_quantile_is_a_value_that_was_measured(share: float, expected: int) -> None:
    assert quantile(list(range(100, 0, -1)), share) == expected


def test_a_quantile_of_one_value_is_that_value_and_of_none_an_error() -> None:
    assert quantile([7.0], 0.99) == 7.0
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_a_slowdown_is_in_percent_and_negative_where_it_got_faster() -> None:
    assert slowdown(1000, 850) == pytest.approx(15)
    assert slowdown(1000, 1100) == pytest.approx(-10)


@pytest.mark.parametrize(
    ("others", "counts", "tried"),
    [
        ([0.01, 0.0, 0.0], 0.01, 1),
        ([0.3, 0.02, 0.0], 0.02, 2),
        ([0.3, 0.1, 0.2], 0.1, 3),
        ([0.2, 0.3, 0.4], 0.2, 3),
    ],
    ids=["undisturbed", "once more", "the least of three", "the first of three"],
)
async def test_what_others_disturbed_is_measured_again_whatever_came_out(
    others: list[float], counts: float, tried: int
) -> None:
    left, said = list(others), list[str]()

    async def measure() -> Measured:
        return Measured({"W1.one": 1.0}, others=left.pop(0))

    assert (await least_disturbed(measure, attempts=3, tell=said.append)).others == counts
    assert len(others) - len(left) == tried
    assert len(said) == tried - 1


async def test_a_second_attempt_that_fails_leaves_the_first() -> None:
    tried = 0

    async def measure() -> Measured:
        nonlocal tried
        tried += 1
        if tried > 1:
            raise BenchError("no longer")
        return Measured({"W1.one": 1.0}, others=0.4)

    said = list[str]()
    assert (await least_disturbed(measure, attempts=3, tell=said.append)).others == 0.4
    assert tried == 2
    assert "no longer" in said[-1]


def test_every_figure_belongs_to_a_workload_that_is_measured() -> None:
    assert {figure.workload for figure in FIGURES.values()} == set(WORKLOADS)
