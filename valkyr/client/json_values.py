"""JSON values to and from google.protobuf.Value as a caller needs them: strict on the way out, lenient with answers.

The mirror of valkyr.rpc.values, which is strict with what comes in. Numbers are doubles, so an integer of magnitude
2^53 or more is refused, with the advice to send it as a string.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from google.protobuf import struct_pb2

from valkyr.errors import InvalidRequest, LimitExceeded
from valkyr.graph.fields import short_number
from valkyr.graph.limits import CARRIED_DEPTH

EXACT_INTEGERS = 2**53


def value_of(json_value: Any, *, path: str) -> struct_pb2.Value:
    """A Value holding `json_value`. InvalidRequest naming the path of what JSON, a double or a message cannot hold."""
    value = struct_pb2.Value()
    _fill(value, json_value, path, 1)
    return value


def json_of(value: struct_pb2.Value) -> Any:
    """The JSON value; whole numbers come back as int."""
    match value.WhichOneof("kind"):
        case "struct_value":
            return json_object_of(value.struct_value)
        case "list_value":
            return [json_of(item) for item in value.list_value.values]
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) < EXACT_INTEGERS else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def json_object_of(struct: struct_pb2.Struct) -> dict[str, Any]:
    """The JSON object; whole numbers come back as int."""
    return {name: json_of(value) for name, value in struct.fields.items()}


def _fill(value: struct_pb2.Value, given: Any, path: str, depth: int) -> None:
    if depth > CARRIED_DEPTH and isinstance(given, Mapping | list | tuple):
        raise LimitExceeded.of_field(
            path,
            f"is nested deeper than {CARRIED_DEPTH} levels of objects and lists, which is what messages carry; "
            "flatten it, or send the deep part as a string of JSON",
        )
    if given is None:
        value.null_value = struct_pb2.NULL_VALUE
    elif isinstance(given, bool):
        value.bool_value = given
    elif isinstance(given, int | float):
        value.number_value = _double(given, path)
    elif isinstance(given, str):
        value.string_value = _text(given, path)
    elif isinstance(given, Mapping):
        _fill_struct(value.struct_value, given, path, depth)
    elif isinstance(given, list | tuple):
        value.list_value.SetInParent()
        for index, item in enumerate(given):
            _fill(value.list_value.values.add(), item, f"{path}[{index}]", depth + 1)
    else:
        raise InvalidRequest.of_field(path, f"is a {type(given).__name__}, which JSON cannot hold")


def _fill_struct(struct: struct_pb2.Struct, given: Mapping[Any, Any], path: str, depth: int) -> None:
    struct.SetInParent()
    for name, item in given.items():
        if not isinstance(name, str):
            raise InvalidRequest.of_field(path, f"has the key {name!r}; keys of a JSON object are strings")
        _fill(struct.fields[_text(name, path)], item, f"{path}.{name}", depth + 1)


def _double(number: int | float, path: str) -> float:
    if isinstance(number, int) and abs(number) >= EXACT_INTEGERS:
        hint = "send it as a string"
        raise InvalidRequest.of_field(
            path, f"the integer {short_number(number)} cannot be carried exactly; {hint}", hint=hint
        )
    if not math.isfinite(number):
        raise InvalidRequest.of_field(path, f"{number} is no JSON number")
    return float(number)


def _text(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest.of_field(path, f"{text[:40]!r} is no valid Unicode text (a lone surrogate)") from None
    return text
