"""The pure parts of measuring beside others: turns, checks, medians, ratios, the tables and the page."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.contract import WORKLOADS, Line
from benchmarks.peers import publish as publishing
from benchmarks.peers.contenders import CONTENDERS, OURS, QUICK, Contender
from benchmarks.peers.driving import Crew, WrongOutput, check, drained, rates_of_tenths
from benchmarks.peers.report import doubts, failures, figures, for_page, for_terminal, missing
from benchmarks.peers.results import FIGURES, Result, Session, cell, percentile, read_session
from benchmarks.peers.running import MARK, end_leftovers, marked
from benchmarks.peers.turns import turns
from benchmarks.publish import BEGIN, END
from tests.waiting import wait_until

ALL = ("W1", "W2")


def a_contender(name: str, *workloads: str) -> Contender:
    return Contender(name, name, f"driver.{name}", dict.fromkeys(workloads or ALL, 5), "")


def a_result(
    contender: str, workload: str, *, round_: int = 1, rate: float = 0.0, latencies: Sequence[float] | None = None
) -> Result:
    line = Line(workload, 100 / rate if rate else 0.0, 100, checked=True, latencies_ms=latencies)
    return Result(round_, contender, line, workload, 100)


def a_session(*results: Result, quick: bool = False) -> Session:
    machine = {"cores": 2, "cpu": "a cpu", "memory_mib": 2048, "kernel": "6", "filesystem": "ext4", "fsync_us": 50.0}
    on = dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes", "server_version", "shared_buffers"), "on")
    settings = {"rounds": 3, "quick": quick, "postgres": on}
    return Session("2026-01-02T03:04:05+00:00", machine, {"commit": "abc"}, settings, list(results))


def test_contenders_take_turns_and_each_round_begins_with_another() -> None:
    a, b, c = a_contender("a"), a_contender("b"), a_contender("c", "W1")
    order = [(turn.round, turn.workload, turn.contender.name) for turn in turns([a, b, c], ALL, 2)]
    assert order == [
        *((1, "W1", "a"), (1, "W1", "b"), (1, "W1", "c")),
        *((1, "W2", "a"), (1, "W2", "b")),
        *((2, "W1", "b"), (2, "W1", "c"), (2, "W1", "a")),
        *((2, "W2", "b"), (2, "W2", "a")),
    ]


def test_every_contender_has_a_driver_and_a_peer_has_pinned_requirements() -> None:
    folder = Path(publishing.__file__).parent
    for contender in CONTENDERS.values():
        assert set(contender.sizes) <= set(WORKLOADS)
        assert (folder.parents[1] / f"{contender.driver.replace('.', '/')}.py").is_file()
        if contender.name != OURS:
            pins = (folder / contender.environment / "requirements.txt").read_text().splitlines()
            assert pins
            assert all("==" in pin for pin in pins)


def test_a_quick_size_is_a_fraction_of_the_full_one_and_at_least_one() -> None:
    contender = Contender("a", "a", "a", {"W1": 3, "W2": 10_000}, "")
    assert contender.size("W1", quick=True) == 1
    assert contender.size("W2", quick=True) == 10_000 // QUICK
    assert contender.size("W2", quick=False) == 10_000


@pytest.mark.parametrize(
    "found",
    [
        pytest.param([1, 2], id="one is missing"),
        pytest.param([1, 2, 4], id="one is wrong"),
        pytest.param([1, 2, 3, 3], id="one is there twice"),
    ],
)
def test_a_time_counts_only_when_every_output_is_present_and_right(found: list[int]) -> None:
    check([1, 2, 3], [1, 2, 3])
    with pytest.raises(WrongOutput):
        check(found, [1, 2, 3])


def test_the_rates_of_a_backlog_are_those_of_its_first_and_last_tenth() -> None:
    slowing = [n * 0.1 for n in range(50)] + [5 + n * 0.2 for n in range(50)]
    first, last = rates_of_tenths(slowing)
    assert first == pytest.approx(10)
    assert last == pytest.approx(5)


def test_what_ended_in_one_batch_is_not_cut_in_two() -> None:
    batches = [n * 1.0 for n in range(10) for _ in range(20)]
    assert rates_of_tenths(batches) == (20.0, 20.0)
    assert rates_of_tenths([1.0] * 50 + [2.0 + n for n in range(50)]) == (1.0, 1.0)
    assert rates_of_tenths([n * 1.0 for n in range(50)] + [59.0] * 50) == (1.0, 5.0)
    with pytest.raises(ValueError, match="at once"):
        rates_of_tenths([1.0] * 50)


def test_a_backlog_is_drained_from_its_first_end_until_all_are_known() -> None:
    measured = drained([10.0 + n for n in range(20)], known=30.0)
    assert (measured.count, measured.seconds) == (20, 20.0)
    assert measured.extra == {"first_tenth": 1.0, "last_tenth": 1.0}


def test_what_a_worker_says_before_all_are_ready_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "early_worker.py").write_text(
        "import sys\nprint('7 8 0.5')\nprint('ready', flush=True)\nsys.stdin.read()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Crew(2, "early_worker") as workers:
        workers.await_ready()
        assert [workers.line(), workers.line()] == ["7 8 0.5", "7 8 0.5"]


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100)])
def test_a_percentile_is_one_of_the_samples(share: float, expected: int) -> None:
    assert percentile(range(100, 0, -1), share) == expected


def test_a_figure_is_the_median_of_rounds_and_its_ratio_says_how_many_times_better_ours_is() -> None:
    rates = [("valkyr", 1_000.0), ("valkyr", 3_000.0), ("valkyr", 2_000.0), ("dbos", 500.0)]
    session = a_session(
        *(a_result(name, "W1", rate=rate) for name, rate in rates),
        a_result("valkyr", "W2", latencies=[4.0]),
        a_result("dbos", "W2", latencies=[2.0]),
    )
    rate, latency = FIGURES[0], FIGURES[1]
    ours, theirs = cell(session, rate, "valkyr"), cell(session, rate, "dbos")
    assert ours is not None
    assert theirs is not None
    assert (ours.median, ours.least, ours.most, ours.rounds, ours.ratio) == pytest.approx(
        (2_000, 1_000, 3_000, 3, None)
    )
    assert theirs.ratio == pytest.approx(4)
    quicker = cell(session, latency, "dbos")
    assert quicker is not None
    assert quicker.ratio == pytest.approx(0.5)
    assert cell(session, latency, "celery") is None


def test_where_a_peer_is_better_it_stands_there() -> None:
    session = a_session(a_result("valkyr", "W1", rate=100), a_result("pgqueuer", "W1", rate=400))
    _, rows = figures(session, bold=True)
    assert rows == [["W1", "single-node executions, sustained", "100 /s", "**400 /s (0.25x)**"]]
    assert "pgqueuer is 4 times better in W1" in for_page(session)
    assert CONTENDERS["pgqueuer"].caveat in for_page(session)


def test_a_turn_that_failed_is_told_and_has_no_figure() -> None:
    failed = Result(2, "dbos", None, "W1", 100, error="dbos W1 ended with 1: wrong")
    session = a_session(a_result("valkyr", "W1", rate=100), failed)
    assert failures(session) == ["round 2: dbos W1 ended with 1: wrong"]
    assert "dbos W1 ended with 1" in for_terminal(session)
    assert cell(session, FIGURES[0], "dbos") is None


def test_a_part_of_a_session_is_published_as_a_part() -> None:
    everything = [
        a_result(name, workload, round_=number, rate=1, latencies=[1.0])
        for number in (1, 2, 3)
        for name, contender in CONTENDERS.items()
        for workload in contender.sizes
    ]
    assert missing(a_session(*everything)) == []
    part = a_session(*(each for each in everything[:-1] if each.contender != "dbos"))
    assert missing(part) == [
        f"Not measured in every round: {CONTENDERS['dbos'].title} W1 W2 W3 W4 W5; "
        f"{CONTENDERS['celery-always'].title} W5."
    ]
    assert missing(part)[0] in for_page(part)


def test_a_session_on_a_machine_that_others_use_says_that_it_is_doubtful() -> None:
    quiet = a_session(replace(a_result("valkyr", "W1", rate=100), others=0.04))
    assert doubts(quiet) == []
    busy = a_session(replace(a_result("valkyr", "W1", rate=100), others=0.3))
    assert doubts(busy) == ["Doubtful: between turns others used up to 30% of the machine."]
    assert doubts(busy)[0] in for_terminal(busy)
    assert doubts(busy)[0] in for_page(busy)


def test_a_session_reads_back_as_it_was_written(tmp_path: Path) -> None:
    session = a_session(
        a_result("valkyr", "W2", latencies=[1.5, 2.5]), Result(1, "dbos", None, "W2", 100, error="late")
    )
    session.write(tmp_path / "session.json")
    assert read_session(tmp_path / "session.json") == session
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ValueError, match="no session"):
        read_session(tmp_path / "other.json")


def test_publishing_writes_between_the_marks_and_refuses_small_sizes(tmp_path: Path) -> None:
    page = tmp_path / "peers.md"
    page.write_text(f"before\n{BEGIN}\nof old\n{END}\nafter\n")
    source = tmp_path / "source.json"
    a_session(a_result("valkyr", "W1", rate=100)).write(source)
    publishing.publish(source, tmp_path)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "of old" not in text
    assert "100 /s" in text
    assert (tmp_path / "peers.json").read_text() == source.read_text()
    a_session(quick=True).write(source)
    with pytest.raises(ValueError, match="small sizes"):
        publishing.publish(source, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found by /proc")
def test_nothing_that_carries_the_mark_of_a_turn_is_left_running() -> None:
    mark = "of-this-test"
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"],
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, MARK: mark},
    )
    assert child.stdout is not None
    with child, child.stdout:
        child.stdout.readline()
        assert marked(mark) == [child.pid]
        end_leftovers(mark, grace=0.0)
        wait_until(lambda: child.poll() is not None, "it has ended")
        assert marked(mark) == []
