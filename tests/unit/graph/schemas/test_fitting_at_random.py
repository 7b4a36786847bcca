"""What fits, held against jsonschema-rs on random schemas and values, and with expressions against every value."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
from hypothesis import given, settings
from hypothesis import strategies as st

from valkyr.graph.schemas import Steps, compile_schema

NAMES = st.sampled_from(["a", "b", "ab", "c"])
TEXTS = st.sampled_from(["", "a", "b", "ab", "xyz", "12"])
SCALARS = st.none() | st.booleans() | st.integers(-3, 12) | st.sampled_from([0.5, 1.0, -2.5, 12.0]) | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=3)
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "null", "object", "array"])
SMALL = st.integers(0, 3)
PATTERNS = st.sampled_from(["^a", "b$", "[0-9]+", "^(?=a)a", "x|y"])


def keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A schema of some keywords, with subschemas from `inner`."""
    several, named = st.lists(inner, min_size=1, max_size=3), st.dictionaries(NAMES, inner, max_size=3)
    known: dict[str, st.SearchStrategy[Any]] = {
        "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
        "const": VALUES,
        "enum": st.lists(VALUES, min_size=1, max_size=3),
        "multipleOf": st.sampled_from([1, 2, 0.5, 0.1]),
        "maximum": SMALL,
        "exclusiveMaximum": SMALL,
        "minimum": SMALL,
        "exclusiveMinimum": SMALL,
        "maxLength": SMALL,
        "minLength": SMALL,
        "pattern": PATTERNS,
        "maxItems": SMALL,
        "minItems": SMALL,
        "uniqueItems": st.booleans(),
        "contains": inner,
        "minContains": SMALL,
        "maxContains": SMALL,
        "maxProperties": SMALL,
        "minProperties": SMALL,
        "required": st.lists(NAMES, max_size=2, unique=True),
        "dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, max_size=2, unique=True), max_size=2),
        "dependentSchemas": named,
        "properties": named,
        "patternProperties": st.dictionaries(PATTERNS, inner, max_size=2),
        "additionalProperties": inner,
        "propertyNames": inner,
        "prefixItems": several,
        "items": inner,
        "unevaluatedProperties": inner,
        "unevaluatedItems": inner,
        "allOf": several,
        "anyOf": several,
        "oneOf": several,
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
        "$ref": st.sampled_from(["#/$defs/one", "#/$defs/two", "#three"]),
    }
    chosen = st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=4, unique=True)
    return chosen.flatmap(lambda names: st.fixed_dictionaries({name: known[name] for name in names}))


NO_REFERENCE = st.recursive(st.booleans() | st.just({}), keywords, max_leaves=4).map(lambda schema: unreferring(schema))
SCHEMAS = st.builds(
    lambda root, one, two, three: {
        **(root if isinstance(root, dict) else {"not": {}} if not root else {}),
        "$defs": {"one": one, "two": {"allOf": [one, two]}, "three": {"$anchor": "three", "items": three}},
    },
    st.recursive(st.booleans() | st.just({}), keywords, max_leaves=6),
    NO_REFERENCE,
    NO_REFERENCE,
    NO_REFERENCE,
)


def unreferring(schema: Any) -> Any:
    """The schema without references, so that none leads back to where it began."""
    if isinstance(schema, dict):
        return {key: unreferring(item) for key, item in schema.items() if key != "$ref"}
    return [unreferring(item) for item in schema] if isinstance(schema, list) else schema


def fits(schema: dict[str, Any], value: Any, *, templates: bool = False) -> bool:
    """By counted steps only."""
    compiled = compile_schema(schema)
    compiled.__dict__["_quick"] = None
    return not compiled.misfits(value, None, Steps(1_000_000), most=3, templates=templates)


def is_valid(schema: dict[str, Any], value: Any) -> bool:
    return bool(jsonschema_rs.Draft202012Validator(schema, offline=True).is_valid(value))


@settings(max_examples=400, deadline=None)
@given(SCHEMAS, OBJECTS)
def test_what_fits_is_what_another_validator_says(schema: dict[str, Any], value: dict[str, Any]) -> None:
    assert fits(schema, value) is is_valid(schema, value)


@settings(max_examples=300, deadline=None)
@given(SCHEMAS, OBJECTS, SCALARS | VALUES)
def test_an_expression_is_refused_only_where_no_value_would_fit(
    schema: dict[str, Any], value: dict[str, Any], worth: Any
) -> None:
    def put(item: Any, stand_in: Any) -> Any:
        if item == "12":
            return stand_in
        if isinstance(item, dict):
            return {key: put(inner, stand_in) for key, inner in item.items()}
        return [put(inner, stand_in) for inner in item] if isinstance(item, list) else item

    if is_valid(schema, put(value, worth)):
        assert fits(schema, put(value, "${trigger}"), templates=True)
