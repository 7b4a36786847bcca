"""Where a page ended <-> what its token carries: JSON that loses nothing of any column's type."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from services.chassis.example.ordering import Term
from services.chassis.example.resource import Column, Kind

_MICROSECOND = timedelta(microseconds=1)
_LONG = 2**63


def write_place(values: Sequence[Any], terms: Sequence[Term]) -> list[str | int | None]:
    """The ordering columns of a row, as the driver answered them."""
    return [
        None if value is None else _WRITERS[term.column.kind](value) for value, term in zip(values, terms, strict=True)
    ]


def read_place(written: Sequence[Any], terms: Sequence[Term]) -> list[Any]:
    """The values again. ValueError if they are not what `write_place` gives for these terms."""
    if len(written) != len(terms):
        raise ValueError(f"{len(written)} values for {len(terms)} columns")
    return [_read(value, term.column) for value, term in zip(written, terms, strict=True)]


def _read(value: Any, column: Column) -> Any:
    if value is None:
        if not column.nullable:
            raise ValueError("null in a column that has none")
        return None
    expected = int if column.kind in _AS_INTEGERS else str
    if type(value) is not expected:
        raise ValueError(f"a {type(value).__name__} in a column of {column.kind}")
    if isinstance(value, str) and "\0" in value:
        raise ValueError("NUL")
    try:
        return _READERS[column.kind](value)
    except OverflowError as error:
        raise ValueError(str(error)) from None


def _read_long(value: int) -> int:
    if not -_LONG <= value < _LONG:
        raise ValueError("an integer of more than 64 bits")
    return value


def _read_boolean(value: int) -> bool:
    if value not in (0, 1):
        raise ValueError("neither 0 nor 1")
    return bool(value)


def _read_number(value: str) -> float:
    number = float(value)
    if math.isnan(number) and value != "nan":
        raise ValueError("not as it was written")
    return number


def _read_time(value: str) -> datetime:
    return datetime.fromisoformat(value).replace(tzinfo=UTC)


def _write_time(value: datetime) -> str:
    return value.astimezone(UTC).replace(tzinfo=None).isoformat()


_AS_INTEGERS = (Kind.INTEGER, Kind.LONG, Kind.BOOLEAN, Kind.DURATION)
_WRITERS: dict[Kind, Callable[[Any], str | int]] = {
    Kind.TEXT: str,
    Kind.ENUM: str,
    Kind.INTEGER: int,
    Kind.LONG: int,
    Kind.NUMBER: lambda value: repr(float(value)),
    Kind.BOOLEAN: int,
    Kind.TIME: _write_time,
    Kind.DURATION: lambda value: value // _MICROSECOND,
    Kind.UUID: str,
}
_READERS: dict[Kind, Callable[[Any], Any]] = {
    Kind.TEXT: str,
    Kind.ENUM: str,
    Kind.INTEGER: _read_long,
    Kind.LONG: _read_long,
    Kind.NUMBER: _read_number,
    Kind.BOOLEAN: _read_boolean,
    Kind.TIME: _read_time,
    Kind.DURATION: lambda value: value * _MICROSECOND,
    Kind.UUID: UUID,
}
