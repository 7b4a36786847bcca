"""Sentences about values that do not fit: what was found, and what is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from valkyr.graph.schemas.fits import Unknown

MAX_SHOWN = 100
_ARTICLES = {"integer": "an integer", "object": "an object", "array": "an array", "null": "null"}

Say = Callable[[Any, Any], str]


def shown(value: Any) -> str:
    """JSON, cut to 100 characters."""
    if isinstance(value, str):
        value = value[: MAX_SHOWN + 1]
    text = orjson.dumps(value, default=_unknown_text, option=orjson.OPT_NON_STR_KEYS).decode(errors="replace")
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def known_names(schema: Mapping[str, Any]) -> list[str]:
    """The names that a schema gives to what is in an object."""
    return list(schema.get("properties", ()))


def sentence(keyword: str, schema: Mapping[str, Any], value: Any) -> Iterator[str]:
    """What is wrong, for a keyword that the value does not fit."""
    said = schema[keyword]
    match keyword:
        case "required":
            yield from (f"{shown(name)} is missing" for name in said if name not in value)
        case "dependentRequired":
            for name, others in said.items():
                if name in value:
                    yield from (
                        f"{shown(other)} is missing beside {shown(name)}" for other in others if other not in value
                    )
        case "contains":
            least = schema.get("minContains", 1)
            yield f"has not the right number of items of the kind it has to hold (at least {least})"
        case _:
            yield _SENTENCES[keyword](said, value)


def _types(said: Any, value: Any) -> str:
    names = [said] if isinstance(said, str) else said
    return f"{shown(value)} is not {' or '.join(_ARTICLES.get(name, f'a {name}') for name in names)}"


def _enum(said: Any, value: Any) -> str:
    options = ", ".join(map(shown, said[:10])) + (", ..." if len(said) > 10 else "")
    return f"{shown(value)} is none of {options}"


def _compared(words: str) -> Say:
    return lambda said, value: f"{shown(value)} is {words} {said}"


def _counted(words: str, unit: str) -> Say:
    return lambda said, value: f"has {len(value):,} {unit}; {words} {said:,} are allowed"


_SENTENCES: Mapping[str, Say] = {
    "type": _types,
    "enum": _enum,
    "const": lambda said, value: f"{shown(value)} is not {shown(said)}",
    "multipleOf": _compared("no multiple of"),
    "maximum": _compared("more than"),
    "exclusiveMaximum": _compared("not less than"),
    "minimum": _compared("less than"),
    "exclusiveMinimum": _compared("not more than"),
    "maxLength": _counted("at most", "characters"),
    "minLength": _counted("no fewer than", "characters"),
    "pattern": lambda said, value: f"{shown(value)} does not match the pattern {shown(said)}",
    "maxItems": _counted("at most", "items"),
    "minItems": _counted("no fewer than", "items"),
    "uniqueItems": lambda _said, _value: "has the same item twice",
    "maxProperties": _counted("at most", "members"),
    "minProperties": _counted("no fewer than", "members"),
    "not": lambda _said, value: f"{shown(value)} is what is not allowed here",
}


def _unknown_text(value: Any) -> str:
    if isinstance(value, Unknown):
        return repr(value)
    raise TypeError
