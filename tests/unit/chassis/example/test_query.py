"""A list request as a query: matcher, places, tokens, limits."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.example.ordering import Term, order_of
from services.chassis.example.places import read_place, write_place
from services.chassis.example.predicates import Contains, Matches, StringMode
from services.chassis.example.query import MAX_EXAMPLE, read_query
from services.chassis.example.resource import columns_of
from services.chassis.paging import page_token
from tests.example_lab import TOYS, asking
from valkyr.errors import InvalidRequest
from valkyr.graph.fields import Problems

DAY = datetime(2026, 11, 22, tzinfo=UTC)
ONE = UUID(int=1)
ROW = {"place_1": DAY, "place_2": ONE}


@pytest.mark.parametrize("mode", StringMode)
def test_the_matcher_says_the_mode(mode: StringMode) -> None:
    query = read_query(asking({"name": "x"}, matcher={"stringMode": mode.value, "ignoreCase": True}), TOYS)
    assert isinstance(query.predicate, Matches)
    assert (query.predicate.mode, query.predicate.ignore_case) == (mode, True)


def test_without_a_matcher_strings_are_equal() -> None:
    query = read_query(asking({"name": "x"}), TOYS)
    assert isinstance(query.predicate, Matches)
    assert (query.predicate.mode, query.predicate.ignore_case) == (StringMode.EXACT, False)


def test_every_part_of_a_request_tells_its_problems_at_once() -> None:
    request = asking(
        {"count": "five"},
        matcher={"ignoredPaths": ["oops"]},
        orderBy="oops",
        timeRanges=[{"field": "oops"}],
    )
    request.matcher.string_mode = 17
    with pytest.raises(InvalidRequest) as refusal:
        read_query(request, TOYS)
    assert [violation.field for violation in refusal.value.details.violations] == [
        "matcher.stringMode",
        "matcher.ignoredPaths[0]",
        "example.count",
        "timeRanges[0].field",
        "orderBy",
    ]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"pageSize": -1}, "pageSize"),
        ({"pageSize": 1001}, "pageSize"),
        ({"pageToken": "x"}, "pageToken"),
        ({"example": {"name": "x" * MAX_EXAMPLE}}, "example"),
        ({"matcher": {"ignoredPaths": ["name"] * 101}}, "matcher.ignoredPaths"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_i25_what_is_out_of_bounds_is_refused_by_name(fields: dict[str, Any], path: str) -> None:
    request = asking(**fields)
    with pytest.raises(InvalidRequest) as refusal:
        read_query(request, TOYS)
    assert refusal.value.details.violations[0].field == path


def test_an_example_is_read_as_deep_as_the_wire_carries_it() -> None:
    value: Any = 1
    for _ in range(31):
        value = {"a": value}
    assert isinstance(read_query(asking({"config": value}), TOYS).predicate, Contains)


def test_the_last_page_has_no_token() -> None:
    query = read_query(asking(pageSize=2), TOYS)
    assert query.page([ROW, ROW]) == ([ROW, ROW], "")
    assert query.page([]) == ([], "")


def test_a_token_leads_behind_the_last_row_of_its_page() -> None:
    rows, token = read_query(asking({"name": "x"}, pageSize=1), TOYS).page([ROW, ROW])
    assert rows == [ROW]
    assert read_query(asking({"name": "x"}, pageSize=7, pageToken=token), TOYS).place == (DAY, ONE)


def test_a_page_that_holds_fewer_than_were_asked_for_goes_on_behind_those_that_it_holds() -> None:
    query = read_query(asking(pageSize=3), TOYS)
    later = {**ROW, "place_1": DAY + timedelta(days=1)}
    rows, token = query.page([ROW, later], kept=1)
    assert rows == [ROW]
    assert read_query(asking(pageToken=token), TOYS).place == (DAY, ONE)
    assert query.page([ROW, later], kept=2) == ([ROW, later], "")


@pytest.mark.parametrize(
    ("example", "change"),
    [
        ({"name": "y"}, {}),
        ({}, {}),
        ({"name": "x"}, {"matcher": {"matchAny": True}}),
        ({"name": "x"}, {"orderBy": "createTime"}),
        ({"name": "x"}, {"namespace": "other"}),
        ({"name": "x"}, {"timeRanges": [{"field": "createTime", "endTime": "2026-11-22T00:00:00Z"}]}),
    ],
    ids=["value", "nothing", "matcher", "order", "namespace", "range"],
)
def test_i25_a_token_of_another_query_is_refused(example: dict[str, Any], change: dict[str, Any]) -> None:
    _, token = read_query(asking({"name": "x"}, pageSize=1), TOYS).page([ROW, ROW])
    with pytest.raises(InvalidRequest, match="pageToken"):
        read_query(asking(example, pageToken=token, **change), TOYS)


def all_terms() -> list[Term]:
    return [Term(path, column, False) for path, column in columns_of(TOYS.fields) if column.orderable]


_LONGS = st.integers(-(2**63), 2**63 - 1)
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "name": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    "count": st.integers(-(2**31), 2**31 - 1),
    "revision": _LONGS,
    "weight": st.floats(allow_nan=False),
    "broken": st.booleans(),
    "createTime": st.datetimes(timezones=st.just(UTC)),
    "endTime": st.datetimes(timezones=st.just(UTC)),
    "took": st.timedeltas(timedelta(days=-100_000_000), timedelta(days=100_000_000)),
    "state": st.sampled_from(["READY", "BROKEN"]),
}


@given(st.data())
def test_a_place_survives_its_token_whatever_the_types(data: st.DataObject) -> None:
    terms = all_terms()
    values = [
        data.draw(_VALUES[term.path] if not term.column.nullable else st.none() | _VALUES[term.path]) for term in terms
    ]
    written = orjson.loads(orjson.dumps(write_place(values, terms)))
    assert read_place(written, terms) == values


_FORGED = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.lists(st.none())


@given(st.lists(_FORGED, max_size=4), st.sampled_from(["", "took", "weight desc", "broken, revision", "name"]))
def test_i25_a_forged_place_is_refused_or_of_the_right_types(place: list[Any], order_by: str) -> None:
    request = asking(orderBy=order_by)
    terms = order_of(order_by, TOYS, Problems())
    try:
        request.page_token = page_token(request, place)
        query = read_query(request, TOYS)
    except (InvalidRequest, orjson.JSONEncodeError):
        return
    assert query.place is not None
    types = {"took": timedelta, "weight": float, "broken": bool, "revision": int, "name": str, "createTime": datetime}
    for term, value in zip(terms, query.place, strict=True):
        assert value is None or type(value) is types.get(term.path, UUID)


@pytest.mark.parametrize("tail", [b"[]", b'["x","x"]', b"[1,2]", b"[null,null]", b'["2026-11-22T00:00:00"]', b"{}"])
def test_i25_a_token_of_another_shape_is_refused(tail: bytes) -> None:
    request = asking()
    head = base64.urlsafe_b64decode(page_token(request, []) + "==")[: -len(b"[]")]
    request.page_token = base64.urlsafe_b64encode(head + tail).decode().rstrip("=")
    with pytest.raises(InvalidRequest, match="pageToken"):
        read_query(request, TOYS)
