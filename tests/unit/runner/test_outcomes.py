"""Outputs as bounded JSON, exceptions as failures."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from valkyr.duration import MAX_DURATION
from valkyr.module import PermanentError, RetryLater
from valkyr.runner.leases import FailureType
from valkyr.runner.outcomes import (
    MAX_MESSAGE,
    MAX_STACK_TRACE,
    UnusableOutputs,
    describe_bad_config,
    encode_outputs,
    failure_of,
    success_of,
)
from valkyr.stored_json import MAX_OUTPUT_BYTES


@dataclasses.dataclass
class Point:
    x: float
    inner: Any = None


class Model(BaseModel):
    when: datetime
    value: float = 1.0


def nested(levels: int, inner: Any = None) -> list[Any]:
    value: list[Any] = [] if inner is None else [inner]
    for _ in range(levels - 1):
        value = [value]
    return value


def points(levels: int) -> Point | None:
    value = None
    for _ in range(levels):
        value = Point(1.0, value)
    return value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, b"{}"),
        (None, b"null"),
        ({"a": [1, 2.5, None, True, "ä"]}, '{"a":[1,2.5,null,true,"ä"]}'.encode()),
        ((1, 2), b"[1,2]"),
        (2**63, b"9223372036854775808"),
        (Point(1.0, Point(2.0)), b'{"x":1.0,"inner":{"x":2.0,"inner":null}}'),
        ({"m": Model(when=datetime(2030, 1, 1, tzinfo=UTC))}, b'{"m":{"when":"2030-01-01T00:00:00Z","value":1.0}}'),
        ("\\u0000", b'"\\\\u0000"'),
    ],
)
def test_what_json_can_hold_becomes_outputs(value: Any, expected: bytes) -> None:
    assert encode_outputs(value) == expected


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [math.nan]}, "nan"),
        (math.inf, "inf"),
        ((1, -math.inf), "-inf"),
        (Point(math.nan), "nan"),
        ({"deep": Point(1.0, [math.nan])}, "nan"),
        ({"m": Model(when=datetime(2030, 1, 1, tzinfo=UTC), value=math.nan)}, "nan"),
        (CYCLE, "contain themselves"),
        (nested(65), "deeper than 64"),
        (points(65), "deeper than 64"),
        (nested(60, Point(1.0, nested(5))), "deeper than 64"),
        ({1: 2}, "key must be str"),
        (2**64, "64-bit"),
        ("a\0b", "NUL"),
        ({"\0": 1}, "NUL"),
        ("\\\\\0", "NUL"),
        ("\ud800", "UTF-8"),
        (object(), "object"),
        ({"s": {1}}, "set"),
        (b"bytes", "bytes"),
        ("x" * MAX_OUTPUT_BYTES, "1048576 are allowed"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_a_reason(value: Any, message: str) -> None:
    with pytest.raises(UnusableOutputs, match=message):
        encode_outputs(value)


def test_outputs_on_the_limits_are_kept() -> None:
    assert len(encode_outputs("x" * (MAX_OUTPUT_BYTES - 2))) == MAX_OUTPUT_BYTES
    assert encode_outputs(nested(64))
    assert encode_outputs(points(64))


@pytest.mark.parametrize("cost", [math.nan, math.inf, -1, "5"])
def test_a_cost_that_is_no_number_is_refused(cost: Any) -> None:
    with pytest.raises(UnusableOutputs, match="cost_tokens"):
        success_of({}, cost)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (PermanentError("no such customer"), FailureType.PERMANENT, "no such customer"),
        (UnusableOutputs("too much"), FailureType.PERMANENT, "too much"),
        (RetryLater("busy"), FailureType.RATE_LIMITED, "busy"),
        (RetryLater(), FailureType.RATE_LIMITED, "asked to be tried again later"),
        (TimeoutError("slow"), FailureType.TIMEOUT, "TimeoutError: slow"),
        (KeyError("x"), FailureType.TRANSIENT, "KeyError: 'x'"),
        (ValueError(), FailureType.TRANSIENT, "ValueError"),
        (SystemExit(3), FailureType.TRANSIENT, "SystemExit: 3"),
    ],
)
def test_exceptions_mean_failure_types(error: BaseException, kind: FailureType, message: str) -> None:
    failure = failure_of(error)
    assert (failure.type, failure.message) == (kind, message)


def test_the_wish_to_be_retried_later_is_kept() -> None:
    assert failure_of(RetryLater("busy", after=timedelta(seconds=7))).retry_after == timedelta(seconds=7)


@pytest.mark.parametrize(
    ("wish", "kept"),
    [
        (timedelta(seconds=-5), timedelta(0)),
        (timedelta.max, MAX_DURATION),
        (5, None),
        ("PT5S", None),
        (float("nan"), None),
    ],
    ids=["negative", "for ever", "a number", "text", "nan"],
)
def test_a_wish_that_no_database_can_add_is_bounded_or_dropped(wish: Any, kept: timedelta | None) -> None:
    assert failure_of(RetryLater("later", after=wish)).retry_after == kept


def test_long_and_unstorable_texts_are_cut_and_escaped() -> None:
    failure = failure_of(raised(ValueError("\0\ud800" + "x" * 100_000)))
    assert len(failure.message) == MAX_MESSAGE
    assert failure.message.startswith("ValueError: \\0\\ud800x")
    assert len(failure.stack_trace) <= MAX_STACK_TRACE + 10
    assert "\0" not in failure.stack_trace
    failure.stack_trace.encode()


def test_the_stack_trace_shows_where_it_was_raised() -> None:
    assert "in deeper" in failure_of(raised(ValueError("here"))).stack_trace


def test_an_exception_that_cannot_be_shown_is_still_a_failure() -> None:
    class Rude(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    failure = failure_of(raised(Rude()))
    assert failure.type is FailureType.TRANSIENT
    assert "Rude" in failure.message


def test_a_bad_config_names_every_field_and_value() -> None:
    class Config(BaseModel):
        url: str
        count: int = Field(ge=1)

    with pytest.raises(ValidationError) as caught:
        Config.model_validate({"count": "many", "x" * 5: 1})
    text = describe_bad_config("CallModule", caught.value)
    assert text.startswith("the config of CallModule is wrong: url: Field required; count: ")
    assert "not 'many'" in text


def raised(error: BaseException) -> BaseException:
    def deeper() -> None:
        raise error

    try:
        deeper()
    except BaseException as caught:  # noqa: BLE001 - SystemExit too
        return caught
    raise AssertionError
