"""A value of an example as its column's type, where nothing is lost by that; else a problem naming path, value, type.

Null never comes here. What a function answers beside a problem is of no use.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any
from uuid import UUID

from services.chassis.example.resource import Column, Kind
from valkyr.graph.fields import EXACT_INTEGER, Problems, check_text, read_duration, shown

MAX_TEXT = 10_000
_WHOLE = re.compile(r"[+-]?[0-9]{1,100}(?:\.0{1,100})?")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,5})?")
_UUID = re.compile(r"(?:urn:uuid:)?(\{)?([0-9a-f]{4}(?:-?[0-9a-f]{4}){7})(?(1)\})", re.IGNORECASE | re.ASCII)
_TIME = re.compile(
    r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}(?:[Tt ]"
    r"[0-9]{2}(?::?[0-9]{2}(?::?[0-9]{2}(?:[.,](?P<fraction>[0-9]{1,9}))?)?)?"
    r"(?:[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)
_BOOLEANS = {"true": True, "false": False}
_GUESSED = 64
_BITS = {Kind.INTEGER: 32, Kind.LONG: 64}


def coerce(value: Any, column: Column, path: str, problems: Problems) -> Any:
    """What the column is compared with: str, int, float, bool, aware datetime, timedelta or UUID."""
    if column.kind is Kind.ENUM:
        return _enum(value, column.names, path, problems)
    if column.kind in _BITS:
        return _integer(value, _BITS[column.kind], path, problems)
    return _COERCIONS[column.kind](value, path, problems)


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean "className"?`, or nothing."""
    if len(name) > _GUESSED:
        return ""
    by_lower = {one.lower(): one for one in known}
    found = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f'; did you mean "{by_lower[found[0]]}"?' if found else ""


def coerce_text(value: Any, path: str, problems: Problems) -> str | None:
    """Strings as they are; numbers as JSON writes them, so that an unquoted id of digits is found."""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer() and abs(value) < EXACT_INTEGER:
        value = int(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value) or abs(value) >= EXACT_INTEGER:
            problems.add(path, f"{shown(value)} is not a string; put it in quotes")
            return None
        return str(value)
    if not isinstance(value, str):
        problems.add(path, f"{shown(value)} is not a string")
        return None
    if len(value) > MAX_TEXT:
        problems.add(path, f"has {len(value)} characters; a string to look for has at most {MAX_TEXT}")
        return None
    check_text(value, path, problems)
    return value


def _integer(value: Any, bits: int, path: str, problems: Problems) -> int | None:
    top = 2 ** (bits - 1)
    whole: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        whole = value
    elif isinstance(value, float) and value.is_integer():
        whole = int(value)
        if EXACT_INTEGER <= abs(whole) < top:
            problems.add(path, f"{whole} is an integer of 2^53 or more, which a double may not hold; put it in quotes")
            return None
    elif isinstance(value, str) and _WHOLE.fullmatch(value):
        whole = int(value.partition(".")[0])
    if whole is None or not -top <= whole < top:
        problems.add(path, f"{shown(value)} is not an integer from {-top} to {top - 1}")
        return None
    return whole


def _number(value: Any, path: str, problems: Problems) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
    found = float(value) if is_number or (isinstance(value, str) and _DECIMAL.fullmatch(value)) else math.nan
    if not math.isfinite(found):
        problems.add(path, f"{shown(value)} is not a finite number, such as 2.5")
        return None
    return found


def _boolean(value: Any, path: str, problems: Problems) -> bool | None:
    found = value if isinstance(value, bool) else _BOOLEANS.get(value.lower()) if isinstance(value, str) else None
    if found is None:
        problems.add(path, f"{shown(value)} is not a boolean; give true or false")
    return found


def _time(value: Any, path: str, problems: Problems) -> datetime | None:
    parts = _TIME.fullmatch(value) if isinstance(value, str) else None
    if parts is not None and (parts["fraction"] or "")[6:].strip("0"):
        problems.add(path, f"{shown(value)} is finer than a microsecond, which no time here is")
        return None
    try:
        if parts is not None:
            moment = datetime.fromisoformat(value.upper().replace(",", "."))
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # told below, with the other things that are no time
    problems.add(path, f"{shown(value)} is not an ISO 8601 time, such as 2026-11-22T09:30:00Z (UTC without a zone)")
    return None


def _duration(value: Any, path: str, problems: Problems) -> timedelta | None:
    if not isinstance(value, str):
        problems.add(path, f"{shown(value)} is not a duration, such as 30s or PT30S")
        return None
    return read_duration(value, path, problems)


def _uuid(value: Any, path: str, problems: Problems) -> UUID | None:
    spelling = _UUID.fullmatch(value) if isinstance(value, str) else None
    if spelling is None:
        problems.add(path, f"{shown(value)} is not a UUID, such as 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80")
        return None
    return UUID(hex=spelling[2].replace("-", ""))


def _enum(value: Any, names: tuple[str, ...], path: str, problems: Problems) -> str | None:
    if isinstance(value, str) and value.isascii() and value.upper() in names:
        return value.upper()
    hint = nearest(value, names) if isinstance(value, str) else ""
    problems.add(path, f"{shown(value)} is none of {', '.join(names)}{hint}")
    return None


_LARGEST = 1.7976931348623157e308
_COERCIONS: dict[Kind, Callable[[Any, str, Problems], Any]] = {
    Kind.TEXT: coerce_text,
    Kind.NUMBER: _number,
    Kind.BOOLEAN: _boolean,
    Kind.TIME: _time,
    Kind.DURATION: _duration,
    Kind.UUID: _uuid,
}
