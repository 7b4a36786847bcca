"""Where the next lease query begins: never behind a run that is ready, and seldom before rows that are not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from services.executor.dispatcher import OVERLAP, RESCAN, Watermarks
from services.executor.model import Candidate, new_id
from valkyr.flow.joins import Gate

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


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
        gate=Gate(0),
        ready_revision=1,
        rank=rank,
        ready_at=ready_at,
    )


def marks_after(*leased: tuple[int, datetime]) -> tuple[Watermarks, Clock]:
    clock = Clock()
    marks = Watermarks(clock)
    marks.to_begin_from()
    for rank, ready_at in leased:
        marks.advance("A", a_candidate(rank, ready_at))
    return marks, clock


def test_the_first_look_begins_at_the_beginning() -> None:
    assert Watermarks(Clock()).to_begin_from() == []


def test_the_next_look_begins_a_little_before_the_last_that_was_leased() -> None:
    marks, _ = marks_after((0, NOON), (3, NOON + timedelta(seconds=2)))
    assert marks.to_begin_from() == [("A", 3, NOON + timedelta(seconds=2) - OVERLAP)]


def test_a_mark_never_goes_back_by_itself() -> None:
    marks, _ = marks_after((3, NOON), (3, NOON - timedelta(seconds=5)), (0, NOON + timedelta(seconds=9)))
    assert marks.to_begin_from() == [("A", 3, NOON - OVERLAP)]


def test_classes_have_marks_of_their_own() -> None:
    marks, _ = marks_after((3, NOON))
    marks.advance("B", a_candidate(4, NOON))
    assert marks.to_begin_from() == [("A", 3, NOON - OVERLAP), ("B", 4, NOON - OVERLAP)]


def test_a_more_urgent_run_that_becomes_ready_is_looked_for() -> None:
    marks, _ = marks_after((3, NOON))
    marks.notice(2)
    assert marks.to_begin_from() == []


def test_a_run_as_urgent_or_less_leaves_the_mark_since_it_stands_behind_it() -> None:
    marks, _ = marks_after((3, NOON))
    marks.notice(3)
    marks.notice(50)
    assert marks.to_begin_from() == [("A", 3, NOON - OVERLAP)]


def test_once_a_while_everything_is_looked_at() -> None:
    marks, clock = marks_after((3, NOON))
    clock.now += RESCAN * 0.99
    assert marks.to_begin_from() != []
    clock.now += RESCAN * 0.02
    assert marks.to_begin_from() == []
    marks.advance("A", a_candidate(3, NOON))
    assert marks.to_begin_from() == [("A", 3, NOON - OVERLAP)]


def test_a_look_from_the_marks_is_repeated_once_from_the_beginning() -> None:
    marks, _ = marks_after((3, NOON))
    marks.to_begin_from()
    assert marks.restart()
    assert marks.to_begin_from() == []
    assert not marks.restart(), "that would go on for ever"
