"""Predicates, order and place as SQL text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.example.ordering import Term
from services.chassis.example.predicates import (
    EVERYTHING,
    Absent,
    All,
    AnyOf,
    At,
    Blank,
    Contains,
    Equals,
    Matches,
    Nothing,
    Predicate,
    Some,
    StringMode,
    Within,
)
from services.chassis.example.query import read_query
from services.chassis.example.resource import Many, integer, text, time, worked_out
from services.chassis.example.statement import Parameters, after, condition, order
from tests.example_lab import TOYS, asking

NAME, COUNT, MADE = text("t.name"), integer("t.count"), time("t.made", nullable=False)
BLANK = text("t.note", nullable=False, blank_is_absent=True)
EITHER = text("t.note", blank_is_absent=True)
SHOWN = worked_out("f(e.state)", ("RUNNING", "FAILED"), stored="e.state", stored_as={"RUNNING": ("RUNNING", "PENDING")})
PARTS = Many("public.part AS p", "p.toy_id = t.id", {})
DAY = datetime(2026, 11, 22, tzinfo=UTC)


def matches(value: str, mode: StringMode, *, ignore_case: bool = False, place: Any = NAME) -> Matches:
    return Matches(place, value, mode, ignore_case)


CONDITIONS: list[tuple[Predicate, str, list[Any]]] = [
    (EVERYTHING, "true", []),
    (Equals(COUNT, 5), "t.count = $1::bigint", [5]),
    (Equals(SHOWN, "FAILED"), "(e.state = $2::text AND f(e.state) = $1::text)", ["FAILED", "FAILED"]),
    (
        Equals(SHOWN, "RUNNING"),
        "(e.state = ANY($2::text[]) AND f(e.state) = $1::text)",
        ["RUNNING", ["RUNNING", "PENDING"]],
    ),
    (All((Equals(COUNT, 5),)), "t.count = $1::bigint", [5]),
    (All((Equals(COUNT, 5), Absent(NAME))), "(t.count = $1::bigint AND t.name IS NULL)", [5]),
    (
        All((Equals(COUNT, 1), AnyOf((Equals(COUNT, 2), Equals(COUNT, 3))))),
        "(t.count = $1::bigint AND (t.count = $2::bigint OR t.count = $3::bigint))",
        [1, 2, 3],
    ),
    (matches("a%", StringMode.EXACT), "t.name = $1::text", ["a%"]),
    (matches("a%", StringMode.EXACT, ignore_case=True), "lower(t.name) = lower($1::text)", ["a%"]),
    (matches("a%_\\", StringMode.STARTS_WITH), "t.name ^@ $1::text", ["a%_\\"]),
    (matches("a", StringMode.STARTS_WITH, ignore_case=True), "lower(t.name) ^@ lower($1::text)", ["a"]),
    (matches("a%_\\", StringMode.CONTAINS), "t.name LIKE $1::text", ["%a\\%\\_\\\\%"]),
    (matches("a%", StringMode.ENDS_WITH), "t.name LIKE $1::text", ["%a\\%"]),
    (matches("a", StringMode.CONTAINS, ignore_case=True), "lower(t.name) LIKE lower($1::text)", ["%a%"]),
    (
        matches("x", StringMode.EXACT, ignore_case=True, place=At("t.labels", ("a.b",))),
        "lower((t.labels #>> $1::text[])) = lower($2::text)",
        [["a.b"], "x"],
    ),
    (Absent(BLANK), "t.note = ''", []),
    (Absent(EITHER), "(t.note IS NULL OR t.note = '')", []),
    (Absent(At("t.config", ())), "(t.config #>> $1::text[]) IS NULL", [[]]),
    (Blank("t.labels"), "(t.labels IS NULL OR t.labels = '{}'::jsonb)", []),
    (Contains("t.config", '{"a": 1}'), "t.config @> $1::jsonb", ['{"a": 1}']),
    (Some(PARTS, EVERYTHING), "EXISTS (SELECT FROM public.part AS p WHERE p.toy_id = t.id AND true)", []),
    (Nothing(PARTS), "NOT EXISTS (SELECT FROM public.part AS p WHERE p.toy_id = t.id)", []),
    (Within(MADE, DAY, DAY), "(t.made >= $1::timestamptz AND t.made < $2::timestamptz)", [DAY, DAY]),
    (Within(MADE, None, DAY), "(t.made < $1::timestamptz)", [DAY]),
]


@pytest.mark.parametrize(("predicate", "sql", "values"), CONDITIONS, ids=[sql for _, sql, _ in CONDITIONS])
def test_a_predicate_is_told_with_its_values_apart(predicate: Predicate, sql: str, values: list[Any]) -> None:
    parameters = Parameters()
    assert condition(predicate, parameters) == sql
    assert parameters.values == values


def terms(*names: str) -> list[Term]:
    columns = {"name": NAME, "count": COUNT, "made": MADE, "key": integer("t.key", nullable=False)}
    return [Term(name.strip("-"), columns[name.strip("-")], name.startswith("-")) for name in names]


@pytest.mark.parametrize(
    ("of", "place", "sql"),
    [
        (["-made", "-key"], [DAY, 7], ["(t.made, t.key) < ($1::timestamptz, $2::bigint)"]),
        (["key"], [7], ["(t.key) > ($1::bigint)"]),
        (
            ["made", "-key"],
            [DAY, 7],
            [
                "t.made >= $1::timestamptz AND "
                "(t.made > $2::timestamptz OR t.made = $3::timestamptz AND t.key < $4::bigint)"
            ],
        ),
        (
            ["count", "key"],
            [5, 7],
            [
                "t.count >= $1::bigint AND (t.count > $2::bigint OR (t.count = $3::bigint AND (t.key) > ($4::bigint)))",
                "t.count IS NULL",
            ],
        ),
        (["count", "key"], [None, 7], ["(t.count IS NULL AND t.key > $1::bigint)"]),
        (
            ["-count", "-key"],
            [5, 7],
            ["t.count <= $1::bigint AND (t.count < $2::bigint OR t.count = $3::bigint AND t.key < $4::bigint)"],
        ),
        (["-count", "-key"], [None, 7], ["t.count IS NULL AND (t.key) < ($1::bigint)", "t.count IS NOT NULL"]),
        (
            ["made", "count", "key"],
            [DAY, 5, 7],
            [
                "t.made >= $1::timestamptz AND (t.made > $2::timestamptz"
                " OR t.made = $3::timestamptz AND (t.count > $4::bigint OR t.count IS NULL)"
                " OR t.made = $5::timestamptz AND t.count = $6::bigint AND t.key > $7::bigint)"
            ],
        ),
    ],
    ids=["rows", "one", "mixed", "nullable", "null", "nullable down", "null down", "nullable second"],
)
def test_a_place_is_found_again_by_the_ordering_columns(of: list[str], place: list[Any], sql: list[str]) -> None:
    assert after(terms(*of), place, Parameters()) == sql


def test_an_order_names_its_directions() -> None:
    assert order(terms("-made", "name", "-key")) == "t.made DESC, t.name, t.key DESC"


def test_a_statement_has_the_scope_first_and_one_row_more_than_the_page() -> None:
    request = asking({"name": "x"}, pageSize=10, timeRanges=[{"field": "endTime", "startTime": "2026-11-22T00:00:00Z"}])
    statement = read_query(request, TOYS).statement("t.id", "public.toy AS t", "t.shelf = $1::text", ["a"])
    assert statement.text == (
        "SELECT t.id, t.created_date AS place_1, t.id AS place_2\n"
        "FROM public.toy AS t\n"
        "WHERE (t.shelf = $1::text) AND ((t.ended_at >= $2::timestamptz) AND t.name = $3::text)\n"
        "ORDER BY t.created_date DESC, t.id DESC\n"
        "LIMIT $4::bigint"
    )
    assert statement.parameters == ("a", DAY, "x", 11)


_STRINGS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(_STRINGS, _STRINGS, _STRINGS, st.sampled_from(StringMode), st.booleans())
def test_nothing_that_a_caller_sends_stands_in_the_text(
    name: str, label: str, inner: str, mode: StringMode, ignore_case: bool
) -> None:
    def told(*strings: str) -> str:
        one, two, three = strings
        example = {"name": one, "labels": {two: one}, "config": {two: {"k": three}}, "parts": [{"className": three}]}
        request = asking(example, matcher={"stringMode": mode.value, "ignoreCase": ignore_case})
        return read_query(request, TOYS).statement("t.id", "public.toy AS t", "true").text

    assert told(name, label, inner) == told("a", "b", "c")
