"""Where the next lease query begins: never behind a run that is ready, and seldom before rows that are not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from services.executor.dispatcher import OVERLAP, RESCAN, Watermarks
from services.executor.model import Candidate, new_id

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
BEGINNING = ("A", -32_768, datetime(1, 1, 1, tzinfo=UTC))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def a_candidate(rank: int, ready_at: datetime) -> Candidate:
    return Candidate(
        execution_id=new_id(),
        id=new_id(),
        node_index=0,
        epoch=0,
        attempt=0,
        excluded=(),
        chosen=None,
        ready_revision=1,
        rank=rank,
        ready_at=ready_at,
        idempotency_key=None,
    )


def marks_after(*leased: tuple[int, datetime]) -> tuple[Watermarks, Clock]:
    clock = Clock()
    marks = Watermarks(clock)
    marks.of(["A"])
    for rank, ready_at in leased:
        marks.advance("A", a_candidate(rank, ready_at))
    return marks, clock


def test_the_first_look_begins_at_the_beginning_for_every_class_in_order() -> None:
    marks = Watermarks(Clock())
    assert [name for name, *_ in marks.of({"B", "A"})] == ["A", "B"]
    assert marks.of(["A"]) == [BEGINNING]


def test_the_next_look_begins_a_little_before_the_last_that_was_leased() -> None:
    marks, _ = marks_after((0, NOON), (3, NOON + timedelta(seconds=2)))
    assert marks.of(["A"]) == [("A", 3, NOON + timedelta(seconds=2) - OVERLAP)]


def test_a_mark_never_goes_back_by_itself() -> None:
    marks, _ = marks_after((3, NOON), (3, NOON - timedelta(seconds=5)), (0, NOON + timedelta(seconds=9)))
    assert marks.of(["A"]) == [("A", 3, NOON - OVERLAP)]


def test_classes_have_marks_of_their_own() -> None:
    marks, _ = marks_after((3, NOON))
    assert marks.of(["A", "B"])[1] == ("B", *BEGINNING[1:])


def test_a_more_urgent_run_that_becomes_ready_is_looked_for() -> None:
    marks, _ = marks_after((3, NOON))
    marks.notice(2)
    assert marks.of(["A"]) == [BEGINNING]


def test_a_run_as_urgent_or_less_leaves_the_mark_since_it_stands_behind_it() -> None:
    marks, _ = marks_after((3, NOON))
    marks.notice(3)
    marks.notice(50)
    assert marks.of(["A"]) == [("A", 3, NOON - OVERLAP)]


def test_once_a_while_everything_is_looked_at() -> None:
    marks, clock = marks_after((3, NOON))
    clock.now += RESCAN * 0.99
    assert marks.of(["A"]) != [BEGINNING]
    clock.now += RESCAN * 0.02
    assert marks.of(["A"]) == [BEGINNING]
    marks.advance("A", a_candidate(3, NOON))
    assert marks.of(["A"]) == [("A", 3, NOON - OVERLAP)]


def test_a_look_from_the_marks_is_repeated_once_from_the_beginning_even_if_there_is_nothing_to_look_for() -> None:
    marks, _ = marks_after((3, NOON))
    marks.of(["A"])
    assert marks.restart()
    assert not marks.restart(), "no class had anything ready, so nobody asked where to begin: that would go on for ever"
