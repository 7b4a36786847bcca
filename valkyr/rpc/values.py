"""google.protobuf Struct and Value <-> plain Python values, within the limits that user-facing payloads have.

On the way in, what JSON or PostgreSQL cannot keep is refused with its path: NaN, infinities, integers of magnitude 2^53
or more, NUL. On the way out such integers are decimal strings; what is nested too deep for the wire is JSON text in a
Value, which shows somebody a payload or outputs, and refused in a Struct, which holds a config that is saved again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from google.protobuf.struct_pb2 import ListValue, NullValue, Struct, Value

from valkyr.errors import InvalidRequest, LimitExceeded
from valkyr.graph.depths import is_deeper
from valkyr.graph.fields import short_number
from valkyr.graph.limits import CARRIED_DEPTH

MAX_DEPTH = 64
MAX_SAFE_INTEGER = 2**53 - 1
_WIRE_LEVELS = 84
"""Protobuf refuses nesting deeper than 100: an object takes three levels, a list two, the envelope the rest."""

_UNBOUNDED = 1_000


class _Refused(Exception):
    """A bad value; the path gathers on the way out, so that good values pay nothing for it."""

    def __init__(self, description: str, kind: type[InvalidRequest] = InvalidRequest) -> None:
        super().__init__(description)
        self.description = description
        self.kind = kind
        self.steps: list[str] = []


def value_to_plain(value: Value, path: str) -> Any:
    """The plain value; whole doubles become int. InvalidRequest naming the place below `path`."""
    try:
        return _plain(value, MAX_DEPTH)
    except _Refused as refusal:
        raise _located(refusal, path) from None


def struct_to_plain(struct: Struct, path: str) -> dict[str, Any]:
    """As `value_to_plain`, for an object."""
    try:
        return _plain_fields(struct.fields, MAX_DEPTH)
    except _Refused as refusal:
        raise _located(refusal, path) from None


def plain_to_value(plain: Any) -> Value:
    """A Value of anything JSON can hold, to be looked at: integers of magnitude 2^53 or more become decimal strings,
    and what is nested too deep for the wire JSON text."""
    value = Value()
    fill_value(value, plain)
    return value


def fill_value(value: Value, plain: Any) -> None:
    """As `plain_to_value`, in the place of a message: nothing is copied."""
    _fill(value, plain, _WIRE_LEVELS)


def plain_to_struct(plain: Mapping[str, Any], path: str) -> Struct:
    """A Struct that reads back as the object given. LimitExceeded naming `path` if it is too deep for the wire."""
    if is_deeper(plain, CARRIED_DEPTH):
        raise LimitExceeded.of_field(path, f"is nested deeper than {CARRIED_DEPTH} levels; flatten it")
    struct = Struct()
    fields = struct.fields
    for key, item in plain.items():
        _fill(fields[_text(key)], item, _UNBOUNDED)
    return struct


def _plain(value: Value, depth: int) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return _checked_text(value.string_value)
    if kind == "number_value":
        return _number(value.number_value)
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return _plain_fields(value.struct_value.fields, depth)
    if kind == "list_value":
        return _plain_items(value.list_value, depth)
    return None


def _plain_fields(fields: Mapping[str, Value], depth: int) -> dict[str, Any]:
    if depth == 0:
        raise _too_deep()
    plain: dict[str, Any] = {}
    for key, item in fields.items():
        try:
            plain[_checked_text(key)] = _plain(item, depth - 1)
        except _Refused as refusal:
            refusal.steps.append(f".{key}" if key.isidentifier() else f"[{key!r}]")
            raise
    return plain


def _plain_items(items: ListValue, depth: int) -> list[Any]:
    if depth == 0:
        raise _too_deep()
    plain: list[Any] = []
    for index, item in enumerate(items.values):
        try:
            plain.append(_plain(item, depth - 1))
        except _Refused as refusal:
            refusal.steps.append(f"[{index}]")
            raise
    return plain


def _number(number: float) -> int | float:
    if number.is_integer():
        if -MAX_SAFE_INTEGER <= number <= MAX_SAFE_INTEGER:
            return int(number)
        raise _Refused(
            f"{short_number(number)} is an integer of magnitude 2^53 or more, which loses digits; send it as a string"
        )
    if number - number != 0:
        raise _Refused(f"{number} is no JSON number; leave it out or send null")
    return number


def _checked_text(text: str) -> str:
    if "\x00" in text:
        raise _Refused("holds the character NUL (\\u0000), which cannot be stored; remove it")
    return text


def _too_deep() -> _Refused:
    return _Refused(f"is nested deeper than {MAX_DEPTH} levels; flatten it", LimitExceeded)


def _located(refusal: _Refused, path: str) -> InvalidRequest:
    where = path + "".join(reversed(refusal.steps))
    return refusal.kind.of_field(where.removeprefix("."), refusal.description)


def _fill(value: Value, plain: Any, levels: int) -> None:
    if plain is None:
        value.null_value = NullValue.NULL_VALUE
    elif isinstance(plain, str):
        value.string_value = _text(plain)
    elif isinstance(plain, bool):
        value.bool_value = plain
    elif isinstance(plain, int):
        if -MAX_SAFE_INTEGER <= plain <= MAX_SAFE_INTEGER:
            value.number_value = plain
        else:
            value.string_value = str(plain)
    elif isinstance(plain, float):
        value.number_value = plain
    elif isinstance(plain, Mapping):
        _fill_fields(value, plain, levels - 3)
    elif isinstance(plain, list | tuple):
        _fill_items(value, plain, levels - 2)
    else:
        raise TypeError(f"{type(plain).__name__} is no JSON value")


def _fill_fields(value: Value, plain: Mapping[str, Any], levels: int) -> None:
    if levels < 0:
        value.string_value = orjson.dumps(plain).decode()
        return
    value.struct_value.SetInParent()
    fields = value.struct_value.fields
    for key, item in plain.items():
        _fill(fields[_text(key)], item, levels)


def _fill_items(value: Value, plain: list[Any] | tuple[Any, ...], levels: int) -> None:
    if levels < 0:
        value.string_value = orjson.dumps(plain).decode()
        return
    value.list_value.SetInParent()
    values = value.list_value.values
    for item in plain:
        _fill(values.add(), item, levels)


def _text(text: str) -> str:
    """Protobuf refuses lone surrogates; they are shown escaped."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
