"""What may go into an expression, and what comes out of it: plain JSON values, bounded in depth and size."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from valkyr.duration import format_duration

MAX_DEPTH = 64
MAX_RESULT_BYTES = 4 * 1024 * 1024

_CONTAINERS = (dict, list)
_BINDING_DEPTH = 4  # {"nodes": {id: {"outputs": value}}} stands around a value of one level


class NotPlain(Exception):
    """A value is no plain JSON value, or is too deep or too large. The text completes "it ..."."""


def check_plain(value: Any) -> None:
    """NotPlain if a value bound to a name nests deeper than 64, or holds a NUL (CEL would cut there) or is no JSON."""
    check_depth(value, MAX_DEPTH + _BINDING_DEPTH)
    try:
        text = orjson.dumps(value)
    except TypeError as error:
        raise NotPlain(f"is no JSON value ({error})") from None
    if b"\\u0000" in text and _holds_nul(value):
        raise NotPlain("holds a NUL character")


def check_depth(value: Any, limit: int = MAX_DEPTH) -> None:
    """NotPlain if dicts and lists nest deeper than `limit`. Iterative: it has to survive what it refuses."""
    level = [value] if isinstance(value, _CONTAINERS) else []
    for _ in range(limit):
        if not level:
            return
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, _CONTAINERS)
        ]
    if level:
        raise NotPlain(f"nests deeper than {MAX_DEPTH} levels")


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_holds_nul(key) or _holds_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(_holds_nul(item) for item in value)


def plain(result: Any) -> Any:
    """A cel Value as a plain JSON value: maps sorted by key, times as RFC 3339, durations as ISO 8601.

    NotPlain for bytes, types, negative durations, NaN, infinities, keys that are no strings, more than 64 levels or
    4 MiB.
    """
    return _Conversion().convert(result, MAX_DEPTH)


class _Conversion:
    """One result: the room that is left is shared by all its parts, so that a huge one stops early."""

    def __init__(self) -> None:
        self._room = MAX_RESULT_BYTES

    def convert(self, result: Any, depth: int) -> Any:
        value = result.value()
        if value is None or isinstance(value, bool | int):
            self._take(8)
            return value
        if isinstance(value, str):
            self._take(len(value) + 2)
            return value
        if isinstance(value, float):
            return self._number(value)
        if isinstance(value, list | dict) and depth == 0:
            raise NotPlain(f"nests deeper than {MAX_DEPTH} levels")
        if isinstance(value, list):
            self._take(2)
            return [self.convert(item, depth - 1) for item in value]
        if isinstance(value, dict):
            return self._map(value, depth)
        return self._other(value, result)

    def _number(self, value: float) -> float:
        if not math.isfinite(value):
            raise NotPlain(f"is {value}, which JSON cannot hold")
        self._take(8)
        return value

    def _map(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        for key in value:
            if not isinstance(key, str):
                raise NotPlain(f"has the map key {key!r}: keys have to be strings")
            self._take(len(key) + 4)
        return {key: self.convert(value[key], depth - 1) for key in sorted(value)}

    def _other(self, value: Any, result: Any) -> Any:
        self._take(32)
        if isinstance(value, datetime):
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        if isinstance(value, timedelta):
            return self._duration(value)
        raise NotPlain(f"is of type {result.type().name().lower()}, which JSON cannot hold")

    def _duration(self, value: timedelta) -> str:
        if value < timedelta(0):
            raise NotPlain(f"is a negative duration ({value.total_seconds():g} s), which cannot be written")
        return format_duration(value)

    def _take(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise NotPlain(f"is larger than {MAX_RESULT_BYTES} bytes")
