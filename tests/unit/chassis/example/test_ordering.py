"""`order_by` and time ranges."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from services.chassis.example.ordering import MAX_ORDER, MAX_RANGES, order_of, ranges_of
from services.chassis.example.predicates import Within
from tests.example_lab import TOYS, asking
from valkyr.errors import InvalidRequest
from valkyr.graph.fields import Problems


def ordered(order_by: str) -> list[str]:
    problems = Problems()
    terms = order_of(order_by, TOYS, problems)
    problems.raise_if_any()
    return [f"{term.path}{' desc' if term.descending else ''}" for term in terms]


def ranges(*messages: dict[str, str]) -> tuple[Within, ...]:
    problems = Problems()
    found = ranges_of(asking(timeRanges=list(messages)).time_ranges, TOYS, problems)
    problems.raise_if_any()
    return found


@pytest.mark.parametrize(
    ("order_by", "terms"),
    [
        ("", ["createTime desc", "id desc"]),
        ("  ", ["createTime desc", "id desc"]),
        ("name", ["name", "id"]),
        ("name ASC", ["name", "id"]),
        ("name, createTime DESC", ["name", "createTime desc", "id desc"]),
        ("id", ["id"]),
        ("id desc,name", ["id desc", "name"]),
        ("\tweight  desc ,count", ["weight desc", "count", "id"]),
    ],
)
def test_an_order_ends_with_the_key(order_by: str, terms: list[str]) -> None:
    assert ordered(order_by) == terms


@pytest.mark.parametrize(
    ("order_by", "message"),
    [
        ("nmae", r"'nmae' is nothing that this list can be ordered by; did you mean \"name\""),
        ("note", r"'note' is nothing that this list can be ordered by"),
        ("qqq", r"takes id, name, count, "),
        ("parts", r"is nothing"),
        ("labels.team", r"is nothing"),
        ("name up", r"'name up' is not a field with or without asc or desc"),
        ("name desc nulls", r"is not a field"),
        ("name,", r"'' is not a field"),
        ("name,name desc", r"names name twice"),
        ("name; drop table toy", r"is not a field"),
        ("x" * (MAX_ORDER + 1), r"takes at most"),
    ],
    ids=lambda value: value[:20],
)
def test_an_order_that_cannot_be_followed_is_refused(order_by: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^orderBy: .*" + message):
        ordered(order_by)


def test_a_range_is_from_its_start_on_and_before_its_end() -> None:
    column: Any = TOYS.fields["createTime"]
    day, next_day = datetime(2026, 11, 22, tzinfo=UTC), datetime(2026, 11, 23, tzinfo=UTC)
    start, end = "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z"
    assert ranges({"field": "createTime", "startTime": start, "endTime": end}) == (Within(column, day, next_day),)
    assert ranges({"field": "createTime", "startTime": start}) == (Within(column, day, None),)
    assert ranges({"field": "createTime", "endTime": end}) == (Within(column, None, next_day),)


def test_an_end_between_two_microseconds_is_rounded_up() -> None:
    (within,) = ranges({"field": "createTime", "startTime": "2026-11-22T00:00:00.000000001Z"})
    assert within.start == datetime(2026, 11, 22, 0, 0, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("message", "path", "described"),
    [
        ({"field": "craeteTime", "startTime": "2026-11-22T00:00:00Z"}, "timeRanges[0].field", "createTime"),
        ({"field": "name", "startTime": "2026-11-22T00:00:00Z"}, "timeRanges[0].field", "takes createTime, endTime"),
        ({"field": "", "startTime": "2026-11-22T00:00:00Z"}, "timeRanges[0].field", "is no time of this list"),
        ({"field": "createTime"}, "timeRanges[0]", "neither startTime nor endTime"),
        (
            {"field": "createTime", "startTime": "2026-11-22T00:00:00Z", "endTime": "2026-11-22T00:00:00Z"},
            "timeRanges[0]",
            "not after it starts",
        ),
    ],
    ids=["unknown", "no time", "none", "open", "empty"],
)
def test_a_range_that_says_nothing_is_refused(message: dict[str, str], path: str, described: str) -> None:
    with pytest.raises(InvalidRequest, match=described) as refusal:
        ranges(message)
    assert refusal.value.details.violations[0].field == path


@pytest.mark.parametrize("seconds", [2**62, -(2**62), 253402300800])
def test_a_range_beyond_the_calendar_is_refused(seconds: int) -> None:
    request = asking(timeRanges=[{"field": "createTime"}])
    request.time_ranges[0].end_time.seconds = seconds
    problems = Problems()
    ranges_of(request.time_ranges, TOYS, problems)
    with pytest.raises(InvalidRequest, match="timeRanges.0..endTime: .*years 1 to 9999"):
        problems.raise_if_any()


def test_too_many_ranges_are_refused() -> None:
    one = {"field": "createTime", "startTime": "2026-11-22T00:00:00Z"}
    with pytest.raises(InvalidRequest, match="timeRanges: are 21; takes at most 20"):
        ranges(*[one] * (MAX_RANGES + 1))
