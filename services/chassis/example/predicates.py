"""What an example asks of a row, as values; `statement` writes them as SQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from services.chassis.example.resource import Column, Many


class StringMode(StrEnum):
    """How strings are compared; every other type is compared for equality."""

    EXACT = "EXACT"
    CONTAINS = "CONTAINS"
    STARTS_WITH = "STARTS_WITH"
    ENDS_WITH = "ENDS_WITH"


@dataclass(frozen=True, slots=True)
class At:
    """A value inside of a jsonb expression, as text."""

    sql: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Equals:
    column: Column
    value: Any


@dataclass(frozen=True, slots=True)
class Matches:
    """A string, by a mode."""

    place: Column | At
    value: str
    mode: StringMode
    ignore_case: bool


@dataclass(frozen=True, slots=True)
class Absent:
    """Null, or what is stored for it."""

    place: Column | At


@dataclass(frozen=True, slots=True)
class Contains:
    """A jsonb expression holds `document`, JSON text."""

    sql: str
    document: str


@dataclass(frozen=True, slots=True)
class Blank:
    """A jsonb expression is null, or the empty object."""

    sql: str


@dataclass(frozen=True, slots=True)
class Some:
    """A row of the list that meets `inner`."""

    many: Many
    inner: Predicate


@dataclass(frozen=True, slots=True)
class Nothing:
    """The list has no rows."""

    many: Many


@dataclass(frozen=True, slots=True)
class Within:
    """A time from `start` on and before `end`, either of which may be open."""

    column: Column
    start: datetime | None
    end: datetime | None


@dataclass(frozen=True, slots=True)
class All:
    """Every one; true if there are none."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one; there is at least one."""

    parts: tuple[Predicate, ...]


Predicate = Equals | Matches | Absent | Contains | Blank | Some | Nothing | Within | All | AnyOf
EVERYTHING = All(())
