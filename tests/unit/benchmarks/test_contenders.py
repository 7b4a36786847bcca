"""The line that contenders print, Valkyr's among them."""

from __future__ import annotations

import pytest

from benchmarks.contract import WORKLOADS, BadLine, Line, parse_line, read_arguments, warm_up
from benchmarks.figures import Measured
from benchmarks.peers.driving import many_at_once, one_after_another
from benchmarks.peers.results import FIGURES
from benchmarks.sizes import FULL
from benchmarks.valkyr_driver import line_of, sizes_for
from benchmarks.workloads.w03_chains import LENGTH


def test_a_line_is_read_as_it_was_printed_whatever_was_said_before() -> None:
    line = Line("W1", 2.0, 100, checked=True, latencies_ms=[1.5], versions={"a": "1"}, note="n", extra={"x": 1})
    assert parse_line(f"starting ...\n{line.text()}\n\n") == line
    assert line.rate == 50


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        '{"workload": "W1"}',
        Line("W1", 1.0, 1, checked=False).text(),
        Line("W9", 1.0, 1, checked=True).text(),
        '{"workload": "W1", "seconds": 1, "count": 1, "checked": "yes"}',
    ],
    ids=["nothing", "nonsense", "not whole", "not checked", "no such workload", "checked by a word"],
)
def test_anything_else_is_no_line(text: str) -> None:
    with pytest.raises(BadLine):
        parse_line(text)


def test_a_line_without_a_duration_has_no_rate() -> None:
    assert Line("W2", 0.0, 100, checked=True).rate == 0


def test_a_driver_is_told_workload_size_and_postgres() -> None:
    chosen = read_arguments(["--workload", "W2", "--size", "7", "--postgres", "postgresql://x"])
    assert (chosen.workload, chosen.size, chosen.postgres) == ("W2", 7, "postgresql://x")


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_size_is_that_of_the_workload(workload: str) -> None:
    sizes = sizes_for(workload, 777)
    fields = {"W1": "sustained", "W2": "calls", "W3": "chains", "W4": "fan_calls", "W5": "backlog"}
    assert getattr(sizes, fields[workload]) == 777
    assert sizes.fan == FULL.fan


@pytest.mark.parametrize(
    ("workload", "figure", "rate", "seconds"),
    [("W1", "W1.one", 50.0, 2.0), ("W3", "W3.saturated", 500.0, 2.0)],
    ids=["W1", "W3"],
)
def test_valkyrs_line_gives_executions_their_seconds(workload: str, figure: str, rate: float, seconds: float) -> None:
    line = line_of(workload, 100, Measured({figure: rate}))
    assert line.seconds == seconds
    assert line.rate == 100 / seconds
    assert parse_line(line.text()).workload == workload


def test_valkyrs_backlog_is_timed_as_that_of_peers_and_not_by_the_databases_rate() -> None:
    drained = {"seconds": 4.0, "first_tenth": 30.0, "last_tenth": 20.0}
    line = line_of("W5", 100, Measured({"W5.rate": 50.0, "W5.first": 60.0}, detail={"drained": drained}))
    assert line.rate == 25
    assert [figure.value(line) for figure in FIGURES if figure.workload == "W5"] == [25, 30, 20]


def test_all_contenders_warm_up_by_a_tenth() -> None:
    assert [warm_up(size) for size in (5, 300, 20_000)] == [1, 30, 2_000]
    assert sizes_for("W1", 20_000).warm == warm_up(20_000)
    assert sizes_for("W3", 2_000).warm // LENGTH == warm_up(2_000)


async def test_peers_warm_up_before_the_clock_starts() -> None:
    ran: list[int] = []

    async def run(number: int) -> int:
        ran.append(number)
        return number

    many = await many_at_once(run, range(50), window=4)
    assert (len(ran), many.count) == (55, 50)
    ran.clear()
    alone = await one_after_another(run, range(3), warm=20)
    assert (len(ran), len(alone.latencies_ms or [])) == (23, 3)


def test_valkyrs_line_gives_latencies_where_there_are_any() -> None:
    line = line_of("W2", 3, Measured({"W2.p50": 1.0}, detail={"latencies_ms": [1.0, 2.0, 3.0]}))
    assert (line.seconds, line.latencies_ms) == (0.0, [1.0, 2.0, 3.0])
