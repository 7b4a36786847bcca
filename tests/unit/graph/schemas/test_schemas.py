"""Schemas of others: what is refused before it is used, what is said of configs, and that nothing takes long."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest

from tests.builders import a_graph
from valkyr.graph.module_checks import MAX_STEPS
from valkyr.graph.schemas import BadSchema, Steps, TooManySteps, compile_schema
from valkyr.graph.validate import validate
from valkyr.modules import catalogue

CHARGE = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "amount": {"type": "integer", "minimum": 1},
        "currency": {"enum": ["EUR", "USD"]},
        "cards": {"type": "array", "items": {"$ref": "#/$defs/Card"}, "uniqueItems": True},
        "when": {"anyOf": [{"$ref": "#/$defs/At"}, {"type": "null"}], "default": None},
    },
    "required": ["amount"],
    "additionalProperties": False,
    "$defs": {
        "Card": {"type": "object", "properties": {"number": {"type": "string", "pattern": "^[0-9]{4}$"}}},
        "At": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
    },
}


def misfits(
    schema: dict[str, Any], value: Any, *, templates: bool = True, steps: int = MAX_STEPS
) -> list[tuple[str, str]]:
    found = compile_schema(schema).misfits(value, None, Steps(steps), most=10, templates=templates)
    return [(".".join(map(str, misfit.place)), misfit.message) for misfit in found]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"amount": 5, "currency": "EUR"}, []),
        ({"amount": 5.0}, []),
        ({"amount": "5"}, [("amount", '"5" is not an integer')]),
        ({}, [("", '"amount" is missing')]),
        ({"amount": 0}, [("amount", "0 is less than 1")]),
        ({"amount": 1, "currency": "GBP"}, [("currency", '"GBP" is none of "EUR", "USD"')]),
        (
            {"amount": 1, "curency": "EUR"},
            [("curency", '"curency" is not known here; takes amount, currency, cards, when; did you mean "currency"?')],
        ),
        (
            {"amount": 1, "cards": [{"number": "1234"}, {"number": "12"}]},
            [("cards.1.number", '"12" does not match the pattern "^[0-9]{4}$"')],
        ),
        ({"amount": 1, "cards": [{}, {}]}, [("cards", "has the same item twice")]),
        ({"amount": 1, "when": {"at": 5}}, [("when.at", "5 is not a string")]),
        ({"amount": 1, "when": {}}, [("when", '"at" is missing')]),
        ({"amount": True, "cards": 1}, [("amount", "true is not an integer"), ("cards", "1 is not an array")]),
    ],
    ids=lambda value: None if isinstance(value, list) else str(value),
)
def test_what_does_not_fit_is_told_at_its_place(config: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert misfits(CHARGE, config) == expected


@pytest.mark.parametrize(
    "config",
    [
        {"amount": "${trigger.n}", "currency": "${trigger.c}", "cards": "${trigger.cards}", "when": "${null}"},
        {"amount": 1, "cards": ["${trigger}", "${trigger}"], "when": {"at": "${trigger}"}},
        {"amount": 1, "cards": [{"number": "${trigger}"}, {"number": "12${trigger}"}]},
    ],
    ids=["everywhere", "inside", "in part"],
)
def test_a_string_with_an_expression_fits_any_type(config: dict[str, Any]) -> None:
    assert misfits(CHARGE, config) == []
    assert misfits(CHARGE, config, templates=False) != []


def test_an_expression_excuses_nothing_beside_it() -> None:
    config = {"currency": "${trigger}", "other": "${trigger}", "cards": ["${trigger}", {"number": "x"}]}
    assert [place for place, _ in misfits(CHARGE, config)] == ["cards.1.number", "", "other"]


def test_what_depends_on_an_expression_is_left_open() -> None:
    either = {
        "if": {"properties": {"kind": {"const": "card"}}},
        "then": {"required": ["number"]},
        "else": {"required": ["account"]},
        "properties": {"kind": {}, "number": {"type": "string"}},
        "oneOf": [{"properties": {"kind": {"const": "card"}}}, {"properties": {"kind": {"const": "bank"}}}],
        "unevaluatedProperties": False,
    }
    assert misfits(either, {"kind": "${trigger.kind}", "number": "1"}) == []
    assert misfits(either, {"kind": "bank"}) == [("", '"account" is missing')]
    assert misfits({"not": {"required": ["a"], "properties": {"a": {"const": 1}}}}, {"a": "${1}"}) == []


def test_a_literal_is_held_against_the_schema_as_it_will_be_read() -> None:
    two = {"properties": {"a": {"maxLength": 2, "pattern": "^[$][{]$"}}}
    assert misfits(two, {"a": "$${"}) == []
    assert misfits(two, {"a": "$${"}, templates=False) != []
    assert [place for place, _ in misfits({"properties": {"a": {"type": "integer"}}}, {"a": "$${1}"})] == ["a"]


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "a type that is none": ({"properties": {"a": {"type": "strng"}}}, ".properties.a.type", "strng"),
    "a bound below zero": ({"properties": {"a": {"minLength": -1}}}, ".properties.a.minLength", "less than"),
    "a pattern that is none": (
        {"properties": {"a": {"pattern": "("}}},
        ".properties.a.pattern",
        "no regular expression",
    ),
    "a name that is no pattern": ({"patternProperties": {"(": {}}}, ".patternProperties.(", "no regular expression"),
    "a pattern that is too long": ({"pattern": "a" * 1_001}, ".pattern", "1,001 characters; at most 1,000"),
    "a pattern that grows": ({"pattern": "(a{1000}){1000}"}, ".pattern", "too large a one"),
    "a file": ({"$ref": "file:///etc/passwd"}, ".$ref", "another document"),
    "an address": ({"items": {"$ref": "http://169.254.169.254/"}}, ".items.$ref", "another document"),
    "a relative address": ({"$ref": "other.json#/a"}, ".$ref", "another document"),
    "the schema of schemas": ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, ".$ref", "another document"),
    "a dynamic address": ({"$dynamicRef": "http://127.0.0.1/#x"}, ".$dynamicRef", "another document"),
    "a reference to nothing": ({"properties": {"x": {"$ref": "#/$defs/no"}}}, ".properties.x.$ref", "leads to nothing"),
    "an anchor of nothing": ({"$ref": "#no"}, ".$ref", "leads to nothing"),
    "another dialect": ({"$schema": "http://json-schema.org/draft-07/schema#"}, "$schema", "is not the dialect"),
    "another dialect inside": (
        {"$defs": {"a": {"$id": "x", "$schema": "http://json-schema.org/draft-07/schema#"}}},
        ".$defs.a.$schema",
        "is not the dialect",
    ),
    "no schema behind a reference": ({"$ref": "#/x", "x": {"type": 5}}, ".$ref.type", "5"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_schema_is_refused_with_its_place(case: str) -> None:
    schema, path, words = BAD[case]
    with pytest.raises(BadSchema) as caught:
        compile_schema(schema)
    assert (caught.value.path, words in str(caught.value)) == (path, True), str(caught.value)


def test_sizes_are_refused_over_the_limit_and_taken_at_it() -> None:
    around = len('{"description":""}')
    compile_schema({"description": "x" * (64 * 1024 - around)})
    with pytest.raises(BadSchema, match=r"65,537 bytes as JSON; at most 65,536"):
        compile_schema({"description": "x" * (64 * 1024 - around + 1)})
    deep: dict[str, Any] = {}
    for _ in range(31):
        deep = {"not": deep}
    compile_schema(deep)
    with pytest.raises(BadSchema, match="nested deeper than 32 levels"):
        compile_schema({"not": deep})


def test_an_identity_that_nobody_can_read_harms_nothing() -> None:
    assert misfits({"$id": "http://[bad", "properties": {"a": {"type": "string"}}}, {"a": 1}) == [
        ("a", "1 is not a string")
    ]


def test_references_inside_a_schema_are_followed() -> None:
    schema = {
        "$id": "https://example.com/root",
        "properties": {
            "a": {"$ref": "#/$defs/a~1b"},
            "b": {"$ref": "inner#here"},
            "c": {"$ref": "https://example.com/root#/$defs/a~1b"},
            "d": {"$dynamicRef": "#only"},
        },
        "$defs": {
            "a/b": {"type": "integer"},
            "inner": {"$id": "inner", "$defs": {"x": {"$anchor": "here", "type": "boolean"}}},
            "only": {"$dynamicAnchor": "only", "type": "null"},
        },
    }
    assert misfits(schema, {"a": 1, "b": True, "c": 1, "d": None}) == []
    assert [place for place, _ in misfits(schema, {"a": "1", "b": 1, "c": "1", "d": 1})] == ["a", "b", "c", "d"]


def _doubling(levels: int, leaf: dict[str, Any]) -> dict[str, Any]:
    """Written out it has 2 ** levels parts."""
    parts = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(levels)}
    return {"$defs": {**parts, f"a{levels}": leaf}, "$ref": "#/$defs/a0"}


def _nested(levels: int) -> dict[str, Any]:
    value: Any = "s"
    for _ in range(levels):
        value = [value]
    return {"x": value}


LIST = {"type": "array", "items": {"$ref": "#/$defs/l"}}
HOSTILE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "itself": ({"$ref": "#"}, {}),
    "itself, by ways": (
        {"$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {},
    ),
    "doubling": (_doubling(40, {"required": ["x"]}), {}),
    "doubling what is evaluated": (
        {**_doubling(40, {"properties": {"x": {}}}), "unevaluatedProperties": False},
        {"x": 1, "y": 2},
    ),
    "alternatives at every depth": (
        {"properties": {"x": {"$ref": "#/$defs/l"}}, "$defs": {"l": {"anyOf": [{**LIST, "minItems": 2}, LIST, LIST]}}},
        _nested(30),
    ),
    "a long chain of references": (
        {
            "$defs": {**{f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(1_500)}, "a1500": {}},
            "$ref": "#/$defs/a0",
        },
        {},
    ),
    "many options, many items": (
        {"properties": {"x": {"items": {"enum": list(range(8_000))}}}},
        {"x": [-1] * 50_000},
    ),
    "options that are nearly equal": (
        {"properties": {"x": {"items": {"enum": [[[[i]]] for i in range(3_000)]}}}},
        {"x": [[[[-1]]]] * 20_000},
    ),
    "many patterns, many names": (
        {"patternProperties": {f"^a{i}[0-9]*x": {} for i in range(64)}},
        {f"a{i}": 1 for i in range(20_000)},
    ),
    "much that is not counted by itself": (
        {"allOf": [{"additionalProperties": True, "propertyNames": True}] * 900},
        {f"a{i}": 1 for i in range(20_000)},
    ),
    "a pattern that backtracks": (
        {"properties": {"x": {"pattern": "^(a+)+$"}}},
        {"x": "a" * 100_000 + "b"},
    ),
    "a pattern that looks around": (
        {"properties": {"x": {"items": {"pattern": "(?=[a-z]*z)b"}}}},
        {"x": ["a" * 100_000 + f"{i}" for i in range(10)]},
    ),
    "patterns over long texts": (
        {"allOf": [{"properties": {"x": {"pattern": f"[ab]*a[ab]{{{700 + i}}}[cd]"}}} for i in range(4)]},
        {"x": "ab" * 100_000},
    ),
    "multiples of very little": (
        {"properties": {"x": {"items": {"multipleOf": 5e-324}}}},
        {"x": [1e308, 0.1] * 5_000},
    ),
    "many items, all the same but the last": (
        {"properties": {"x": {"uniqueItems": True}}},
        {"x": [{"a": [i]} for i in range(20_000)]},
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_no_schema_and_no_config_makes_it_take_long(case: str) -> None:
    schema, config = HOSTILE[case]
    began = time.process_time()
    compiled = compile_schema(schema)
    with suppress(TooManySteps):
        compiled.misfits(config, b"", Steps(MAX_STEPS), most=10, templates=True)
    assert time.process_time() - began < 20


def test_a_config_that_takes_too_many_steps_is_over_a_limit() -> None:
    schema, config = HOSTILE["many patterns, many names"]
    (found,) = validate(a_graph("a", modules={"a": ("M", config)}), catalogue={"M": compile_schema(schema)})
    assert (found.code, found.path, found.is_error) == ("LIMIT_EXCEEDED", "modules[0].config", True)
    assert "200,000 steps" in found.message


@pytest.mark.parametrize("class_name", sorted(catalogue()))
def test_the_schemas_of_modules_that_come_with_it_may_be_registered(class_name: str) -> None:
    compile_schema(catalogue()[class_name])


@pytest.mark.parametrize(
    ("schema", "quick"),
    [
        (CHARGE, False),
        ({**CHARGE, "properties": {"amount": {"type": "integer"}}}, True),
        ({"properties": {"a": {"$ref": "#"}}}, False),
        (_doubling(3, {}), True),
        (_doubling(20, {}), False),
        ({"pattern": "(?=a)b"}, False),
        (catalogue()["HttpRequestModule"], True),
    ],
    ids=["unique items", "plain", "recursive", "small", "doubling", "looks around", "ours"],
)
def test_only_what_stays_small_when_it_is_written_out_is_given_to_the_fast_validator(
    schema: dict[str, Any], quick: bool
) -> None:
    assert (compile_schema(schema)._quick is not None) is quick
