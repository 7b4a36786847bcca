"""Values of examples as their columns' types: every type, every spelling, every refusal."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.example.coercion import MAX_TEXT, coerce
from services.chassis.example.resource import Kind, boolean, duration, enum, integer, long, number, text, time, uuid
from tests.example_lab import State
from valkyr.errors import InvalidRequest
from valkyr.graph.fields import Problems

ONE = UUID("0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80")
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
COLUMNS = {
    "integer": integer("c"),
    "long": long("c"),
    "number": number("c"),
    "boolean": boolean("c"),
    "time": time("c"),
    "duration": duration("c"),
    "uuid": uuid("c"),
    "enum": enum("c", State),
    "text": text("c"),
}

TAKEN: list[tuple[str, Any, Any]] = [
    ("integer", 5, 5),
    ("integer", 5.0, 5),
    ("integer", "5", 5),
    ("integer", "+5", 5),
    ("integer", "-5", -5),
    ("integer", "5.0", 5),
    ("integer", -0.0, 0),
    ("integer", "007", 7),
    ("integer", 2.0**31 - 1, 2**31 - 1),
    ("integer", "-2147483648", -(2**31)),
    ("long", 2**53 - 1, 2**53 - 1),
    ("long", "9007199254740993", 2**53 + 1),
    ("long", "9223372036854775807", 2**63 - 1),
    ("long", "-9223372036854775808", -(2**63)),
    ("number", 5, 5.0),
    ("number", 5.5, 5.5),
    ("number", "5.5", 5.5),
    ("number", "-1e3", -1000.0),
    ("number", ".5", 0.5),
    ("boolean", True, True),
    ("boolean", False, False),
    ("boolean", "true", True),
    ("boolean", "TRUE", True),
    ("boolean", "False", False),
    ("time", "2026-11-22T12:00:00Z", NOON),
    ("time", "2026-11-22T12:00:00z", NOON),
    ("time", "2026-11-22t12:00:00", NOON),
    ("time", "2026-11-22 12:00", NOON),
    ("time", "2026-11-22T14:00:00+02:00", NOON),
    ("time", "2026-11-22T06:30:00-0530", NOON),
    ("time", "20261122T120000Z", NOON),
    ("time", "2026-11-22", NOON - timedelta(hours=12)),
    ("time", "2026-11-22T12:00:00.5Z", NOON + timedelta(microseconds=500_000)),
    ("time", "2026-11-22T12:00:00,25", NOON + timedelta(microseconds=250_000)),
    ("time", "2026-11-22T12:00:00.000001Z", NOON + timedelta(microseconds=1)),
    ("time", "2026-11-22T12:00:00.000001000Z", NOON + timedelta(microseconds=1)),
    ("time", "0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    ("duration", "30s", timedelta(seconds=30)),
    ("duration", "1.5s", timedelta(seconds=1.5)),
    ("duration", "PT2M", timedelta(minutes=2)),
    ("uuid", str(ONE), ONE),
    ("uuid", str(ONE).upper(), ONE),
    ("uuid", ONE.hex, ONE),
    ("uuid", ONE.urn, ONE),
    ("uuid", f"{{{ONE}}}", ONE),
    ("uuid", f"URN:UUID:{ONE}", ONE),
    ("uuid", "0198-c5a2-7e1c-7f3a-9d52-0c4b-7a1e-6f80", ONE),
    ("enum", "READY", "READY"),
    ("enum", "ready", "READY"),
    ("enum", "BroKen", "BROKEN"),
    ("text", "", ""),
    ("text", " %_\\'\"💥 ", " %_\\'\"💥 "),
    ("text", 0, "0"),
    ("text", 5.0, "5"),
    ("text", 5.5, "5.5"),
    ("text", "x" * MAX_TEXT, "x" * MAX_TEXT),
]

REFUSED: list[tuple[str, Any, str]] = [
    ("integer", "5.5", r"'5\.5' is not an integer from -2147483648 to 2147483647"),
    ("integer", 5.5, r"5\.5 is not an integer"),
    ("integer", "five", r"'five' is not an integer"),
    ("integer", "", r"'' is not an integer"),
    ("integer", " 5", r"' 5' is not an integer"),
    ("integer", "5_0", r"is not an integer"),
    ("integer", "٥", r"is not an integer"),
    ("integer", "1e3", r"is not an integer"),
    ("integer", "0x10", r"is not an integer"),
    ("integer", True, r"true is not an integer"),
    ("integer", [5], r"\[5\] is not an integer"),
    ("integer", {"a": 5}, r"is not an integer"),
    ("integer", math.nan, r"nan is not an integer"),
    ("integer", math.inf, r"inf is not an integer"),
    ("integer", 2**31, r"2147483648 is not an integer from"),
    ("integer", 2.0**63, r"is not an integer from"),
    ("integer", "9" * 101, r"is not an integer from"),
    ("long", 2**63, r"9223372036854775808 is not an integer from -9223372036854775808 to 9223372036854775807"),
    ("long", 2.0**63, r"is not an integer from"),
    ("long", "9223372036854775808", r"is not an integer from"),
    ("long", "-9223372036854775809", r"is not an integer from"),
    ("long", 2.0**53, r"9007199254740992 is an integer of 2\^53 or more.*quotes"),
    ("number", "five", r"'five' is not a finite number"),
    ("number", math.nan, r"nan is not a finite number"),
    ("number", "inf", r"is not a finite number"),
    ("number", "1e400", r"is not a finite number"),
    ("number", 10**400, r"is not a finite number"),
    ("number", True, r"true is not a finite number"),
    ("number", "", r"is not a finite number"),
    ("number", ".", r"is not a finite number"),
    ("boolean", 1, r"1 is not a boolean"),
    ("boolean", "1", r"'1' is not a boolean"),
    ("boolean", "yes", r"'yes' is not a boolean"),
    ("boolean", "", r"'' is not a boolean"),
    ("time", "yesterday", r"'yesterday' is not an ISO 8601 time"),
    ("time", 1_700_000_000, r"1700000000 is not an ISO 8601 time"),
    ("time", "", r"is not an ISO 8601 time"),
    ("time", "2026-13-01T00:00:00Z", r"is not an ISO 8601 time"),
    ("time", "2026-02-30", r"is not an ISO 8601 time"),
    ("time", "2026-11-22T25:00:00Z", r"is not an ISO 8601 time"),
    ("time", "2026-11-22T12:00:60Z", r"is not an ISO 8601 time"),
    ("time", "2026-11-22X12:00:00Z", r"is not an ISO 8601 time"),
    ("time", "2026-11-22T12:00:00Z ", r"is not an ISO 8601 time"),
    ("time", "2026-11-22T12:00:00+25:00", r"is not an ISO 8601 time"),
    ("time", "0000-01-01T00:00:00Z", r"is not an ISO 8601 time"),
    ("time", "0001-01-01T00:00:00+01:00", r"is not an ISO 8601 time"),
    ("time", "9999-12-31T23:59:59-01:00", r"is not an ISO 8601 time"),
    ("time", "2026-11-22T12:00:00.0000001Z", r"is finer than a microsecond"),
    ("duration", 30, r"30 is not a duration"),
    ("duration", "soon", r"soon"),
    ("uuid", "", r"'' is not a UUID"),
    ("uuid", "0198c5a2", r"is not a UUID"),
    ("uuid", f"{{{ONE}", r"is not a UUID"),
    ("uuid", f"{ONE}}}", r"is not a UUID"),
    ("uuid", f" {ONE}", r"is not a UUID"),
    ("uuid", ONE.hex[:-1] + "g", r"is not a UUID"),
    ("uuid", ONE.hex[:-3] + "_80", r"is not a UUID"),
    ("uuid", ONE.hex[:-1] + "٣", r"is not a UUID"),
    ("uuid", 7, r"7 is not a UUID"),
    ("enum", "REDY", r"'REDY' is none of READY, BROKEN; did you mean \"READY\""),
    ("enum", "", r"'' is none of READY, BROKEN"),
    ("enum", 1, r"1 is none of READY, BROKEN"),
    ("enum", "STATE_UNSPECIFIED", r"is none of READY, BROKEN"),
    ("text", True, r"true is not a string"),
    ("text", ["a"], r"is not a string"),
    ("text", {}, r"is not a string"),
    ("text", 2.0**53, r"is not a string; put it in quotes"),
    ("text", math.nan, r"is not a string"),
    ("text", "a\0b", r"NUL"),
    ("text", "\ud800", r"surrogate"),
    ("text", "x" * (MAX_TEXT + 1), r"10001 characters"),
]


def _ids(cases: list[tuple[str, Any, Any]]) -> list[str]:
    return [f"{i}-{kind}" for i, (kind, _, _) in enumerate(cases)]


@pytest.mark.parametrize(("kind", "value", "expected"), TAKEN, ids=_ids(TAKEN))
def test_a_value_becomes_what_its_column_holds(kind: str, value: Any, expected: Any) -> None:
    problems = Problems()
    found = coerce(value, COLUMNS[kind], "example.field", problems)
    problems.raise_if_any()
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(("kind", "value", "message"), REFUSED, ids=_ids(REFUSED))
def test_a_value_that_is_not_of_the_type_is_refused_with_path_value_and_type(
    kind: str, value: Any, message: str
) -> None:
    problems = Problems()
    coerce(value, COLUMNS[kind], "example.field", problems)
    with pytest.raises(InvalidRequest, match=message) as refusal:
        problems.raise_if_any()
    assert [violation.field for violation in refusal.value.details.violations] == ["example.field"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


@given(_JSON.filter(lambda value: value is not None), st.sampled_from(sorted(COLUMNS)))
def test_any_json_is_taken_or_told_of_and_breaks_nothing(value: Any, kind: str) -> None:
    problems = Problems()
    found = coerce(value, COLUMNS[kind], "example.field", problems)
    if found is None:
        with pytest.raises(InvalidRequest):
            problems.raise_if_any()


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])))
def test_a_time_is_read_back_from_its_iso_text(moment: datetime) -> None:
    if not datetime(1, 1, 2, tzinfo=UTC) <= moment <= datetime(9999, 12, 30, tzinfo=UTC):
        return
    assert coerce(moment.isoformat(), time("c"), "example.field", Problems()) == moment


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_long_is_read_back_from_its_decimal_text(value: int) -> None:
    assert coerce(str(value), long("c"), "example.field", Problems()) == value


def test_every_kind_of_column_is_covered_here() -> None:
    assert {column.kind for column in COLUMNS.values()} == set(Kind)
