"""What a trace tells of one run: where its waits, its parking and its quarantines stand."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from tests.builders import a_graph
from tests.unit.cli.test_views import a_run as plain_run
from tests.unit.cli.test_views import after, an_execution
from valkyr.cli.trace_history import history_of
from valkyr.cli.trace_tree import Known, trace_tree
from valkyr.client import Attempt, Breaker, BreakerState, Quarantine, ReusedRun, Run

TARGET = "http:bank"


def an_attempt(number: int, start: float, end: float | None, outcome: str = "TRANSIENT") -> Attempt:
    return Attempt(number, outcome, "r1", after(seconds=start), None if end is None else after(seconds=end), "")


def a_run(state: str = "SUCCESS", **more: Any) -> Run:
    return plain_run("charge", state, target=TARGET, **more)


def a_breaker(state: str, **more: Any) -> Breaker:
    values: dict[str, Any] = dict.fromkeys(("opened_at", "next_retry_at", "last_failure_at", "policy", "updated_at"))
    values |= {"namespace": "default", "target": TARGET, "state": BreakerState(state), "episode_id": "p1"}
    values |= dict.fromkeys(("failure_count", "success_count", "generation", "permits_in_flight"), 1)
    return Breaker(**(values | {"forced": False} | more))


def a_quarantine(number: int, at: float, *, resolved: float | None = None, resolution: str = "REQUEUED") -> Quarantine:
    return Quarantine(
        number,
        "MAX_RETRIES",
        "TRANSIENT",
        "no answer",
        after(seconds=at),
        "PENDING" if resolved is None else resolution,
        "" if resolved is None else "bob",
        None if resolved is None else after(seconds=resolved),
        "",
        "",
    )


def told(run: Run, *breakers: Breaker, letters_known: bool = False) -> list[tuple[str, float | None, float | None]]:
    """Label, seconds since the beginning, seconds that it took."""
    events = history_of(
        run,
        letters={},
        breakers={breaker.target: breaker for breaker in breakers},
        letters_known=letters_known,
    )
    return [
        (
            event.label,
            None if event.at is None else (event.at - after(seconds=0)).total_seconds(),
            None if event.took is None else event.took.total_seconds(),
        )
        for event in events
    ]


def test_a_run_that_went_through_at_once_has_no_history() -> None:
    assert told(a_run(attempts=(an_attempt(1, 0, 1, "SUCCESS"),))) == []


def test_a_run_that_was_not_run_has_a_history_of_one_line() -> None:
    run = a_run(reused_from=ReusedRun("e0", "r0"), finished_at=after(seconds=3))
    assert told(run) == [("reused", 3.0, None)]


def test_a_wait_has_the_name_of_what_it_waited_for() -> None:
    run = a_run(
        attempts=(
            an_attempt(1, 0, 1, "TIMEOUT"),
            an_attempt(2, 2, 3, "SNOOZED"),
            an_attempt(3, 5, 6, "RELEASED"),
            an_attempt(4, 7, 8, "SUCCESS"),
        )
    )
    waits = [event for event in told(run) if not event[0].startswith("attempt")]
    assert waits == [("back-off", 1, 1), ("snoozed", 3, 2)]


def test_a_run_that_waits_for_its_next_attempt_says_until_when() -> None:
    run = a_run("READY", attempts=(an_attempt(1, 0, 1),), retry_after=after(seconds=9), quarantines=())
    run_again = a_run("READY", attempts=(an_attempt(1, 0, 1), an_attempt(2, 2, 3)), retry_after=after(seconds=9))
    assert told(run) == [("attempt 1", 0, 1), ("back-off", 1, None)]
    assert told(run_again)[-1] == ("back-off", 3, None)


def test_parking_stands_at_the_end_of_the_gap_that_it_fits_into_and_shortens_the_back_off() -> None:
    attempts = (an_attempt(1, 0, 1), an_attempt(2, 2, 3), an_attempt(3, 13, 14, "SUCCESS"))
    run = a_run(attempts=attempts, parked_duration=timedelta(seconds=8), episode_id="p1")
    assert told(run)[3:] == [("back-off", 3, 2), ("parked", 5, 8), ("attempt 3", 13, 1)]


def test_parking_before_the_first_attempt_stands_before_it() -> None:
    run = a_run(attempts=(an_attempt(1, 9, 10, "SUCCESS"),), parked_duration=timedelta(seconds=4))
    assert told(run) == [("parked", 5, 4), ("attempt 1", 9, 1)]


def test_the_time_that_a_letter_lay_there_is_no_parking() -> None:
    run = a_run(
        attempts=(an_attempt(1, 9, 10), an_attempt(2, 100, 101, "SUCCESS")),
        parked_duration=timedelta(seconds=4),
        quarantines=(a_quarantine(1, 10, resolved=99.5),),
    )
    assert ("parked", 5, 4) in told(run)
    assert not any(label == "back-off" for label, _, _ in told(run))


def test_parking_that_fits_nowhere_is_told_without_a_time_and_the_waits_are_not_called_back_off() -> None:
    attempts = (an_attempt(1, 0, 1), an_attempt(2, 6, 7), an_attempt(3, 12, 13, "SUCCESS"))
    run = a_run(attempts=attempts, parked_duration=timedelta(seconds=8))
    assert [label for label, _, _ in told(run)] == [
        "attempt 1",
        "waits",
        "attempt 2",
        "waits",
        "attempt 3",
        "parked",
    ]
    assert told(run)[-1] == ("parked", None, 8)


def test_a_run_that_is_parked_says_since_when_and_when_its_target_is_tried_again() -> None:
    run = a_run("PARKED", parked_by="BREAKER", parked_at=after(seconds=3), episode_id="p1", attempts=())
    breaker = a_breaker("OPEN", opened_at=after(seconds=2), next_retry_at=after(seconds=32))
    assert told(run, breaker) == [("opened", 2, None), ("parked", 3, None)]
    (_, parked) = history_of(run, letters={}, breakers={TARGET: breaker})
    assert parked.service == "breaker"
    assert parked.said.startswith(f"still waits for {TARGET}, outage p1; it is OPEN now, the next probe ")


def test_a_breaker_that_opened_after_the_run_was_parked_had_a_probe_that_failed() -> None:
    run = a_run("PARKED", parked_by="BREAKER", parked_at=after(seconds=3), episode_id="p1", attempts=())
    (_, opened) = history_of(run, letters={}, breakers={TARGET: a_breaker("OPEN", opened_at=after(seconds=9))})
    assert (opened.label, opened.said) == ("opened", f"again, as a probe of {TARGET} had failed")


def test_a_later_outage_of_the_target_is_not_this_run_s() -> None:
    run = a_run("PARKED", parked_by="BREAKER", parked_at=after(seconds=3), episode_id="p0", attempts=())
    assert told(run, a_breaker("OPEN", opened_at=after(seconds=2))) == [("parked", 3, None)]


@pytest.mark.parametrize(("known", "labels"), [(True, ["quarantine 1", "letter"]), (False, ["quarantine 1"])])
def test_a_letter_that_has_not_arrived_is_told_from_one_that_could_not_be_asked_for(
    known: bool, labels: list[str]
) -> None:
    run = a_run("QUARANTINED", attempts=(an_attempt(1, 0, 1),), quarantines=(a_quarantine(1, 1),))
    assert [label for label, _, _ in told(run, letters_known=known)] == ["attempt 1", *labels]


def test_a_resolution_stands_before_the_attempt_that_it_caused() -> None:
    run = a_run(
        attempts=(an_attempt(1, 0, 1), an_attempt(2, 50, 51, "SUCCESS")),
        quarantines=(a_quarantine(1, 1, resolved=50.001),),
    )
    assert [label for label, _, _ in told(run)] == ["attempt 1", "quarantine 1", "requeued", "attempt 2"]


def test_every_quarantine_has_its_own_end() -> None:
    run = a_run(
        "FAILED",
        attempts=(an_attempt(1, 0, 1), an_attempt(2, 50, 51)),
        quarantines=(a_quarantine(1, 1, resolved=50), a_quarantine(2, 51, resolved=60, resolution="DISCARDED")),
    )
    labels = [label for label, _, _ in told(run)]
    assert labels == ["attempt 1", "quarantine 1", "requeued", "attempt 2", "quarantine 2", "discarded"]


@pytest.mark.parametrize(
    ("execution", "end"),
    [
        (an_execution("RUNNING", deadline=after(seconds=9)), "deadline +9.000 s - ends it then at the latest"),
        (an_execution("SUCCESS", deadline=after(seconds=9)), "deadline +9.000 s - was not reached"),
        (an_execution("FAILED", deadline=after(seconds=9), error_type="TIMEOUT"), "deadline +9.000 s - ended it"),
        (an_execution(cancel_requested=True), "cancel - - requested; runs under way are told, and have their grace"),
        (
            an_execution("CANCELLED", cancel_requested=True, finished_at=after(seconds=2)),
            "cancel +2.000 s - what had not ended by then was CANCELLED",
        ),
    ],
    ids=["to come", "not reached", "reached", "cancel requested", "cancelled"],
)
def test_what_ends_an_execution_from_outside_stands_last(execution: Any, end: str) -> None:
    lines = [line.plain for line in trace_tree(execution, [plain_run("a")], a_graph("a"))]
    assert " ".join(lines[-1].split()) == f"└─ {end}"


def test_what_is_far_away_has_its_date_and_columns_stay_columns() -> None:
    execution = an_execution("RUNNING", deadline=after(days=90_000))
    runs = [
        plain_run("long", started_at=after(seconds=0), finished_at=after(minutes=119, seconds=59)),
        plain_run("short", started_at=after(hours=2), finished_at=after(hours=2, seconds=1)),
    ]
    first, second, deadline = [line.plain for line in trace_tree(execution, runs, a_graph("long, short"))][1:]
    assert "+0.000 s  119 min 59 s  0 attempts" in first
    assert "  +7200.000 s        1.00 s  0 attempts" in second
    assert re.search(r"^└─ deadline  2\d{3}-\d\d-\d\d \d\d:00:00 +-", deadline)
    assert first.index("0 attempts") == second.index("0 attempts") == deadline.index("ends it") - 12


def test_who_is_away_is_said_below_the_tree() -> None:
    known = Known(away=("the dead letter queue cannot be reached: letters are left out",))
    lines = [line.plain for line in trace_tree(an_execution(), [plain_run("a")], a_graph("a"), known=known)]
    assert lines[-1] == "! the dead letter queue cannot be reached: letters are left out"


def test_a_run_that_a_pause_holds_says_so() -> None:
    (parked,) = history_of(
        plain_run("charge", "PARKED", parked_by="PAUSE", parked_at=after(seconds=3)), letters={}, breakers={}
    )
    assert (parked.label, parked.at, parked.said, parked.service) == (
        "parked",
        after(seconds=3),
        "its execution is paused",
        "",
    )


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("", "waited: its execution was paused"),
        (TARGET, f"waited: its execution was paused, or {TARGET} was not to be called"),
    ],
)
def test_a_run_that_was_parked_without_an_outage_was_held_by_a_pause(target: str, said: str) -> None:
    run = plain_run(
        "charge", target=target, parked_duration=timedelta(seconds=4), attempts=(an_attempt(1, 5, 6, "SUCCESS"),)
    )
    parked, attempt = history_of(run, letters={}, breakers={})
    assert (parked.at, parked.took, parked.said, parked.service) == (after(seconds=1), timedelta(seconds=4), said, "")
    assert attempt.label == "attempt 1"


def test_parking_that_is_longer_than_all_waits_was_before_the_first_attempt() -> None:
    run = a_run(
        parked_duration=timedelta(seconds=4),
        attempts=(an_attempt(1, 5, 6), an_attempt(2, 7, 8, "SUCCESS")),
    )
    assert told(run) == [("parked", 1, 4), ("attempt 1", 5, 1), ("back-off", 6, 1), ("attempt 2", 7, 1)]


def test_a_paused_execution_says_who_paused_it_and_why() -> None:
    execution = an_execution("PAUSED", paused_by="bob", pause_reason="to look", paused_at=after(seconds=2))
    lines = [line.plain for line in trace_tree(execution, [plain_run("a", "PENDING")], a_graph("a"))]
    assert lines[-1].startswith("└─ paused")
    assert lines[-1].endswith("by bob: to look; nothing of it is started until it is resumed")
