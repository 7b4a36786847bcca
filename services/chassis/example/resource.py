"""What a list can be asked: the JSON shape of its resource, and where each field of it is stored.

The SQL in a description is written by us and stands in statements as it is; what callers send is always a parameter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What a column holds; values of examples are coerced to it."""

    TEXT = "text"
    INTEGER = "integer"
    LONG = "long"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TIME = "time"
    DURATION = "duration"
    UUID = "uuid"
    ENUM = "enum"


@dataclass(frozen=True, slots=True)
class Column:
    """A field that is one column, or an expression over columns. Made by `text`, `integer` and their like.

    `blank_is_absent`: the absent value is stored as the empty string. `names`: the values of an enum, as answered.
    `stored`: where `sql` works an enum out of a column, that column, so that its indexes serve; a name that is worked
    out of other names than itself has them in `stored_as`.
    """

    sql: str
    kind: Kind
    nullable: bool = True
    orderable: bool = False
    blank_is_absent: bool = False
    names: tuple[str, ...] = ()
    stored: str = ""
    stored_as: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Labels:
    """A map of strings, stored as a jsonb object."""

    sql: str


@dataclass(frozen=True, slots=True)
class Document:
    """Any JSON, as jsonb: an example is contained in it.

    Not every JSON text can be cast to jsonb, and one that cannot would fail the list: cast it by the function `as_json`
    of the room's schema.
    """

    sql: str


@dataclass(frozen=True, slots=True)
class Group:
    """An object whose fields are columns of the same row."""

    fields: Mapping[str, Field]


@dataclass(frozen=True, slots=True)
class Many:
    """A list of objects, each a row of `rows` (`graph_store.module AS m`) that belongs to the outer row by `on`."""

    rows: str
    on: str
    fields: Mapping[str, Field]


@dataclass(frozen=True, slots=True)
class Unsearchable:
    """A field that is answered but cannot be asked for; `instead` says what to do, as a sentence's end."""

    instead: str = "leave it out, or name it in matcher.ignoredPaths"


Field = Column | Labels | Document | Group | Many | Unsearchable


@dataclass(frozen=True, slots=True)
class Resource:
    """`name` as in messages (`workflow`); `key`: the paths that tell every row from every other, never null;
    `default_order` as in a request's order_by. ValueError if the description contradicts itself."""

    name: str
    fields: Mapping[str, Field]
    key: tuple[str, ...]
    default_order: str

    def __post_init__(self) -> None:
        columns = dict(columns_of(self.fields))
        for path in self.key:
            if path not in columns or columns[path].nullable:
                raise ValueError(f"{self.name}: the key {path!r} is not a column that is never null")
        for term in self.default_order.split(","):
            path = term.split()[0]
            if path not in columns or not (columns[path].orderable or path in self.key):
                raise ValueError(f"{self.name}: the default order's {path!r} is not orderable")


def columns_of(fields: Mapping[str, Field], prefix: str = "") -> Iterator[tuple[str, Column]]:
    """Every column of the row itself by its path, those of groups included and those of lists left out."""
    for name, described in fields.items():
        match described:
            case Column():
                yield prefix + name, described
            case Group(inner):
                yield from columns_of(inner, f"{prefix}{name}.")


def text(sql: str, *, nullable: bool = True, orderable: bool = False, blank_is_absent: bool = False) -> Column:
    return Column(sql, Kind.TEXT, nullable, orderable, blank_is_absent)


def integer(sql: str, *, nullable: bool = True, orderable: bool = False) -> Column:
    """Of 32 bits."""
    return Column(sql, Kind.INTEGER, nullable, orderable)


def long(sql: str, *, nullable: bool = True, orderable: bool = False) -> Column:
    """An integer of 64 bits."""
    return Column(sql, Kind.LONG, nullable, orderable)


def number(sql: str, *, nullable: bool = True, orderable: bool = False) -> Column:
    """A double; cast a numeric column to float8."""
    return Column(sql, Kind.NUMBER, nullable, orderable)


def boolean(sql: str, *, nullable: bool = True, orderable: bool = False) -> Column:
    return Column(sql, Kind.BOOLEAN, nullable, orderable)


def time(sql: str, *, nullable: bool = True, orderable: bool = False) -> Column:
    """A timestamptz."""
    return Column(sql, Kind.TIME, nullable, orderable)


def duration(sql: str, *, nullable: bool = True, orderable: bool = False) -> Column:
    """An interval of days, hours and seconds; multiply a count of milliseconds by `interval '1 ms'`."""
    return Column(sql, Kind.DURATION, nullable, orderable)


def uuid(sql: str, *, nullable: bool = True, orderable: bool = False) -> Column:
    return Column(sql, Kind.UUID, nullable, orderable)


def enum(sql: str, names: Iterable[str], *, nullable: bool = True, orderable: bool = False) -> Column:
    """Stored by name; `names` may be a StrEnum."""
    return Column(sql, Kind.ENUM, nullable, orderable, names=tuple(map(str, names)))


def worked_out(
    sql: str, names: Iterable[str], *, stored: str, stored_as: Mapping[str, tuple[str, ...]], nullable: bool = True
) -> Column:
    """An enum that `sql` works out of the column `stored`: `stored_as={"RUNNING": ("RUNNING", "PENDING")}`."""
    return Column(sql, Kind.ENUM, nullable, names=tuple(map(str, names)), stored=stored, stored_as=stored_as)
