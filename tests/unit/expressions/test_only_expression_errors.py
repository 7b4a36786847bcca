"""Whatever CEL gives, a template or condition ends in a JSON value or in an ExpressionError that can be stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valkyr.expressions import ExpressionError, Scope, compile_condition, compile_template

RESULTS = [
    'duration("-5s")',
    'duration("315576000000s")',
    'duration("-315576000000s")',
    'timestamp("2020-01-01T00:00:00Z") - timestamp("2021-01-01T00:00:00Z")',
    'timestamp("0001-01-01T00:00:00Z")',
    'timestamp("9999-12-31T23:59:59.999999999Z")',
    'timestamp("9999-12-31T23:59:59Z") + duration("100h")',
    "timestamp(-62135596801)",
    "timestamp(trigger)",
    "google.protobuf.Duration{seconds: -1, nanos: -5}",
    "google.protobuf.Timestamp{seconds: -99999999999}",
    "google.protobuf.Struct{}",
    "google.protobuf.Any{}",
    "google.protobuf.BytesValue{value: b'a'}",
    "b'\\xff'",
    "string(b'\\xff')",
    "type(trigger)",
    "[1u, 18446744073709551615u]",
    "9223372036854775807 + 1",
    "-9223372036854775808",
    "9223372036854775807 * 1.5",
    "trigger * 1.5",
    "trigger / 0",
    "1.0 / 0.0",
    "double('nan')",
    "int(1e300)",
    "uint(-1)",
    "{1: 2, true: 3}",
    "{'a': [duration('-1s')]}",
    "{'a': b'x', 'b': type(1)}",
    "[trigger].map(x, {'x': x})",
    "trigger.a.b",
    "trigger[0]",
    "trigger == trigger",
    "optional.none()",
    "'\\u0000'",
    r'"x".matches("(\x00((")',
    r'"x".matches("(\u001b[31m" + "y".matches("z") ? "" : "((")',
    "'a'.matches(string(trigger))",
    "nodes['a'].outputs",
    "nodes['none'].error",
]

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text() | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.just("a"), inner, max_size=3),
    max_leaves=6,
)


def is_storable(text: str) -> bool:
    return text.isprintable() and text.encode("utf-8").find(b"\0") < 0 and len(text) <= 1000


def check(expression: str, value: Any) -> None:
    scope = Scope(trigger=value, nodes={"a": {"outputs": value, "error": None}}, outputs=value)
    attempts: list[Callable[[], object]] = [
        lambda: orjson.dumps(compile_template("${" + expression + "}").evaluate(scope)),
        lambda: orjson.dumps(compile_template("shown: ${" + expression + "}").evaluate(scope)),
        lambda: compile_condition(expression).evaluate(scope),
    ]
    for attempt in attempts:
        try:
            attempt()
        except ExpressionError as error:
            message = str(error)
        else:
            message = ""
        assert is_storable(message), message


@pytest.mark.parametrize("expression", RESULTS)
@pytest.mark.parametrize(
    "value",
    [None, 5, -5, 2**63 - 1, 2**70, 1e308, float("nan"), "x", "-5s", "(", "\ud800", "\0", b"x", {1: 2}, object()],
    ids=lambda value: type(value).__name__ if type(value) is object else ascii(value),
)
def test_nothing_but_an_expression_error_comes_out(expression: str, value: Any) -> None:
    check(expression, value)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(RESULTS), VALUES)
def test_nothing_but_an_expression_error_comes_out_whatever_is_read(expression: str, value: Any) -> None:
    check(expression, value)


@pytest.mark.parametrize(
    "error",
    [ValueError("year 0"), OverflowError(), RecursionError("deep"), UnicodeDecodeError("utf-8", b"", 0, 1, "bad")],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_the_binding_is_the_expressions(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(result: object) -> None:
        raise error

    monkeypatch.setattr("valkyr.expressions.cel.plain", fail)
    monkeypatch.setattr("valkyr.expressions.cel._truth", fail)
    with pytest.raises(ExpressionError):
        compile_template("${1}").evaluate(Scope())
    with pytest.raises(ExpressionError):
        compile_condition("true").evaluate(Scope())


@pytest.mark.parametrize("expression", ['duration("-5s")', "[timestamp(0) - timestamp(5)]"])
def test_a_negative_duration_is_no_result(expression: str) -> None:
    with pytest.raises(ExpressionError, match=r"negative duration \(-5 s\)"):
        compile_template("${" + expression + "}").evaluate(Scope())


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("a\0b", "ab"),
        ("half \ud800", r"half \ud800"),
        ("\x1b[31mred\n", r"\x1b[31mred\n"),
        ("ä 😀", "ä 😀"),
        ("x" * 500, "x" * 500),
        ("x" * 501, "x" * 497 + "..."),
        ("\ud800" * 10**6, (r"\ud800" * 100)[:497] + "..."),
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_a_message_can_be_stored_and_shown(raw: str, shown: str) -> None:
    error = ExpressionError(raw, "x")
    assert error.message == shown
    assert str(error) == f"expression 'x': {shown}"


def test_a_message_of_cel_that_quotes_a_nul_is_cleaned() -> None:
    with pytest.raises(ExpressionError, match="regular expression") as caught:
        compile_template(r'${ "x".matches("(\x00((") }').evaluate(Scope())
    assert is_storable(str(caught.value))
