"""Templates: JSON whose strings hold expressions."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from valkyr.expressions import ExpressionError, Scope, compile_template, has_expressions

SCOPE = Scope(
    trigger={"n": 1, "f": 2.5, "s": "x", "list": [3, 1], "map": {"z": 1, "a": {"y": 2, "b": None}}, "big": 2**63 - 1},
    execution={"id": "e-1"},
    nodes={"a": {"outputs": {"total": 120}, "error": None}},
)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("${trigger.n}", 1),
        ("${trigger.f}", 2.5),
        ("${ trigger.n }", 1),
        ("${trigger.big}", 2**63 - 1),
        ("${trigger.list}", [3, 1]),
        ("${null}", None),
        ("${trigger.n == 1}", True),
        ("${trigger}", SCOPE.trigger),
        ('${nodes["a"].outputs}', {"total": 120}),
        ("n=${trigger.n}", "n=1"),
        ("${trigger.s}${trigger.n}", "x1"),
        ("${trigger.map}!", '{"a":{"b":null,"y":2},"z":1}!'),
        ("${trigger.s} and ${null}, ${true}", "x and null, true"),
        ("$${trigger.n}", "${trigger.n}"),
        ("$${a} ${trigger.n} $${b}", "${a} 1 ${b}"),
        ("$$${trigger.n}", "$${trigger.n}"),
        ("a $ b {c} }", "a $ b {c} }"),
        ("${ {'a': {'b': 1}}.a }", {"b": 1}),
        ("${'}'}", "}"),
        ('${"{"}', "{"),
        ("${'a' + '\\'}'}", "a'}"),
        ("${r'a}\\d'}", "a}\\d"),
        ("${'''a}'b'''}", "a}'b"),
        ('${"""a}"b"""}', 'a}"b'),
        ("${'a' // a } in a comment\n}", "a"),
        ({"a": ["${trigger.n}", {"b": "$${"}], "c": 1}, {"a": [1, {"b": "${"}], "c": 1}),
        ({"${trigger.n}": "kept"}, {"${trigger.n}": "kept"}),
        ("${timestamp('2020-01-01T00:00:00Z')}", "2020-01-01T00:00:00Z"),
        ("${duration('90s')}", "PT1M30S"),
        ("${[1, 2].map(x, x * 1.5)}", [1.5, 3.0]),
    ],
)
def test_a_template_gives_what_it_says(template: Any, expected: Any) -> None:
    value = compile_template(template).evaluate(SCOPE)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize("value", [{"a": [1, {"b": "x"}]}, "plain", "", 5, None, [], {"a": "$"}])
def test_what_has_no_expressions_is_returned_as_the_same_object(value: Any) -> None:
    template = compile_template(value)
    assert template.evaluate(SCOPE) is value
    assert not template.references
    assert not template.uses_trigger
    assert not has_expressions(value)


def test_what_stands_beside_an_expression_is_shared() -> None:
    config = {"fixed": {"large": [1, 2, 3]}, "moving": "${trigger.n}"}
    assert compile_template(config).evaluate(SCOPE)["fixed"] is config["fixed"]
    assert config["moving"] == "${trigger.n}"


def test_references_of_all_expressions_are_collected() -> None:
    template = compile_template({"a": '${nodes["x"].outputs}', "b": ['${nodes["y"].error} ${trigger.n}']})
    assert template.references == {"x", "y"}
    assert template.uses_trigger
    assert has_expressions({"a": ["$${escaped}"]})


def test_maps_come_out_sorted() -> None:
    value = compile_template("${trigger.map}").evaluate(SCOPE)
    assert orjson.dumps(value) == b'{"a":{"b":null,"y":2},"z":1}'


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("${trigger.n", "closing } is missing"),
        ("${'a}", "Syntax error"),
        ("${'a}'", "closing } is missing"),
        ("${}", "empty"),
        ("${outputs.x}", "no name 'outputs.x'"),
        ("${nodes[trigger.s].outputs}", "literal"),
        ("${__import__('os')}", "undeclared|no name"),
        ("${trigger.__class__", "missing"),
        ({"deep": ["ok", {"er": "${1 +}"}]}, "Syntax error"),
    ],
)
def test_a_bad_expression_does_not_compile(template: Any, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        compile_template(template)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("${trigger.missing}", "no 'missing'"),
        ("${b'bytes'}", "of type bytes"),
        ("${type(1)}", "of type type"),
        ("${1.0 / 0.0}", "inf"),
        ("${double('nan')}", "nan"),
        ("${{1: 2}}", "keys have to be strings"),
        ("x ${[double('nan')]}", "nan"),
        ("${trigger.__class__}", "no '__class__'"),
    ],
)
def test_a_result_that_is_no_json_is_an_error(template: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        compile_template(template).evaluate(SCOPE)


def test_a_huge_result_stops_early() -> None:
    template = compile_template("${trigger.rows.map(row, trigger.text)}")
    with pytest.raises(ExpressionError, match="larger than"):
        template.evaluate(Scope(trigger={"rows": [0] * 1000, "text": "x" * 100_000}))


def test_a_config_deeper_than_64_levels_is_refused() -> None:
    value: Any = "x"
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ExpressionError, match="deeper than 64"):
        compile_template(value)
    assert not has_expressions(value)
