"""The keywords that judge a value by itself: each says whether the value fits, given what the keyword is set to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from valkyr.graph.schemas.fits import Fit, equal, holds_unknown, is_number, key_of, size_of
from valkyr.graph.schemas.patterns import Pattern
from valkyr.graph.schemas.steps import Steps

Assertion = Callable[[Any, Any, Steps], bool | Fit]


def has_type(name: str, value: Any) -> bool:
    """Of one type as JSON Schema names it; 1.0 is an integer."""
    match name:
        case "string":
            return isinstance(value, str)
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "integer":
            return is_number(value) and (isinstance(value, int) or value.is_integer())
        case _:
            return name == "number" and is_number(value)


def _type(said: Any, value: Any, _steps: Steps) -> bool:
    return any(has_type(name, value) for name in ([said] if isinstance(said, str) else said))


def _const(said: Any, value: Any, steps: Steps) -> Fit:
    steps.take(size_of(said))
    return equal(said, value)


def _enum(said: list[Any], value: Any, steps: Steps) -> Fit:
    steps.take(size_of(said) if isinstance(value, dict | list) else len(said))
    return max((equal(option, value) for option in said), default=Fit.NO)


def _multiple_of(said: float, value: float, _steps: Steps) -> bool:
    return not _exact(value) % _exact(said)


def _exact(number: float) -> Fraction:
    """As it is written, in decimal."""
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))


def _unique(said: bool, value: list[Any], steps: Steps) -> Fit:
    if not said or len(value) < 2:
        return Fit.YES
    steps.take(size_of(value))
    known = [key_of(item) for item in value if not holds_unknown(item)]
    if len(set(known)) < len(known):
        return Fit.NO
    return Fit.YES if len(known) == len(value) else Fit.OPEN


def _required_by(said: Mapping[str, list[str]], value: dict[str, Any], steps: Steps) -> bool:
    steps.take(sum(map(len, said.values())))
    return all(name in value for key, names in said.items() if key in value for name in names)


def _required(said: list[str], value: dict[str, Any], steps: Steps) -> bool:
    steps.take(len(said))
    return all(name in value for name in said)


OF_ANY: Mapping[str, Assertion] = {"type": _type, "const": _const, "enum": _enum}
OF_NUMBERS: Mapping[str, Assertion] = {
    "multipleOf": _multiple_of,
    "maximum": lambda said, value, _: value <= said,
    "exclusiveMaximum": lambda said, value, _: value < said,
    "minimum": lambda said, value, _: value >= said,
    "exclusiveMinimum": lambda said, value, _: value > said,
}
OF_STRINGS: Mapping[str, Assertion] = {
    "maxLength": lambda said, value, _: len(value) <= said,
    "minLength": lambda said, value, _: len(value) >= said,
}
OF_LISTS: Mapping[str, Assertion] = {
    "maxItems": lambda said, value, _: len(value) <= said,
    "minItems": lambda said, value, _: len(value) >= said,
    "uniqueItems": _unique,
}
OF_OBJECTS: Mapping[str, Assertion] = {
    "maxProperties": lambda said, value, _: len(value) <= said,
    "minProperties": lambda said, value, _: len(value) >= said,
    "required": _required,
    "dependentRequired": _required_by,
}


def assertions_for(value: Any) -> Mapping[str, Assertion]:
    """Those that say something about values of its type, beside OF_ANY."""
    if isinstance(value, str):
        return OF_STRINGS
    if isinstance(value, list):
        return OF_LISTS
    if isinstance(value, dict):
        return OF_OBJECTS
    return OF_NUMBERS if is_number(value) else {}


KEYWORDS = frozenset({*OF_ANY, *OF_NUMBERS, *OF_STRINGS, *OF_LISTS, *OF_OBJECTS, "pattern"})


def matches(pattern: Pattern, text: str, steps: Steps) -> Fit:
    """OPEN where the text is too long to be looked at."""
    steps.take(1 + len(text) // 1_000)
    found = pattern.matches(text)
    return Fit.OPEN if found is None else Fit.of(found)
