"""A list request -> a query, its statement, and the page and token of the rows that came back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.struct_pb2 import Struct, Value

from services.chassis.example.matching import Matcher, ignored_path, predicate_of
from services.chassis.example.ordering import Term, order_of, ranges_of
from services.chassis.example.places import read_place, write_place
from services.chassis.example.predicates import All, Predicate, StringMode, Within
from services.chassis.example.resource import Resource
from services.chassis.example.statement import Parameters, after, condition, order
from services.chassis.paging import bad_page_token, page_place, page_size_of, page_token
from valkyr.graph.fields import Problems

if TYPE_CHECKING:
    import asyncpg

MAX_IGNORED = 100
MAX_EXAMPLE = 64 * 1024

# Lists are of any shape, and their values decide which index serves them: each is planned for its own values, whatever
# the pool's hot statements are pinned to.
_PLANNER = "; ".join(
    (
        "SET LOCAL plan_cache_mode = force_custom_plan",
        "SET LOCAL enable_seqscan = on",
        "SET LOCAL enable_bitmapscan = on",
        "SET LOCAL enable_hashjoin = on",
        "SET LOCAL enable_mergejoin = on",
    )
)


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL text and the values of its numbered parameters."""

    text: str
    parameters: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """What a list request asks for. Made by `read_query`."""

    request: Any
    predicate: Predicate
    ranges: tuple[Within, ...]
    terms: tuple[Term, ...]
    place: tuple[Any, ...] | None
    size: int

    def statement(self, columns: str, rows: str, scope: str, values: Sequence[Any] = ()) -> Statement:
        """`SELECT columns FROM rows WHERE scope AND ...` in order, one row more than the page holds.

        `scope` is the room's own condition (the namespace's), with `values` for its `$1`, `$2`, ... The columns that
        the next page's token needs are selected beside `columns`, as `place_1`, `place_2`, ...
        """
        parameters = Parameters(list(values))
        conditions = [f"({scope})", condition(All((*self.ranges, self.predicate)), parameters)]
        begins = [] if self.place is None else after(self.terms, self.place, parameters)
        places = ", ".join(f"{term.column.sql} AS place_{i}" for i, term in enumerate(self.terms, 1))
        limit = parameters.add(self.size + 1, "bigint")
        selects = [
            "\n".join(
                (
                    f"SELECT {columns}, {places}",
                    f"FROM {rows}",
                    f"WHERE {' AND '.join([*conditions, *begin])}",
                    f"ORDER BY {order(self.terms)}",
                    f"LIMIT {limit}",
                )
            )
            for begin in ([[begin] for begin in begins] or [[]])
        ]
        return Statement(_one_after_the_other(selects, self.terms, limit), tuple(parameters.values))

    def page(self, rows: Sequence[Any], *, kept: int | None = None) -> tuple[Sequence[Any], str]:
        """The rows of this page, and the next one's token: empty if there is none. `kept`: how many of them the answer
        holds, one at least, where not as many as were asked for fit into a message."""
        count = self.size if kept is None else kept
        if len(rows) <= count:
            return rows, ""
        last = rows[count - 1]
        place = write_place([last[f"place_{i}"] for i in range(1, len(self.terms) + 1)], self.terms)
        return rows[:count], page_token(self.request, place)


def read_query(request: Any, resource: Resource) -> Query:
    """Of a request with `example`, `matcher`, `order_by`, `time_ranges`, `page_size` and `page_token`.

    InvalidRequest naming every bad path.
    """
    problems = Problems()
    matcher = _matcher(request.matcher, resource, problems)
    example = _example(request.example, problems)
    predicate = predicate_of(example, resource.fields, matcher, problems)
    ranges = ranges_of(request.time_ranges, resource, problems)
    terms = order_of(request.order_by, resource, problems)
    problems.raise_if_any()
    return Query(request, predicate, ranges, terms, _place(request, terms), page_size_of(request))


def _one_after_the_other(selects: Sequence[str], terms: Sequence[Term], limit: str) -> str:
    """All in one order; each select has no more than the limit."""
    if len(selects) == 1:
        return selects[0]
    every = " UNION ALL ".join(f"({select})" for select in selects)
    by = ", ".join(f"place_{i}{' DESC' if term.descending else ''}" for i, term in enumerate(terms, 1))
    return f"SELECT * FROM ({every}) AS found\nORDER BY {by}\nLIMIT {limit}"  # noqa: S608 - values are parameters


async def fetch(connection: asyncpg.Connection, statement: Statement) -> list[asyncpg.Record]:
    """The rows of a query's statement. Asked as a statement of its own, so that the many shapes of examples do not push
    the hot statements out of the connection's cache. Driver errors as they are: `Database.acquire` translates them."""
    async with connection.transaction(readonly=True):
        await connection.execute(_PLANNER)
        prepared = await connection.prepare(statement.text)
        rows: list[asyncpg.Record] = await prepared.fetch(*statement.parameters)
        return rows


def _matcher(message: Any, resource: Resource, problems: Problems) -> Matcher:
    modes = type(message).DESCRIPTOR.fields_by_name["string_mode"].enum_type.values_by_number
    number = message.string_mode
    if number not in modes:
        problems.add("matcher.stringMode", f"{number} is none of {', '.join(StringMode)}")
    mode = StringMode(modes[number].name) if number and number in modes else StringMode.EXACT
    if len(message.ignored_paths) > MAX_IGNORED:
        problems.add("matcher.ignoredPaths", f"are {len(message.ignored_paths)}; takes at most {MAX_IGNORED}")
    ignored = frozenset(
        ignored_path(path, resource.fields, f"matcher.ignoredPaths[{i}]", problems)
        for i, path in enumerate(message.ignored_paths[:MAX_IGNORED])
    )
    return Matcher(mode, message.ignore_case, message.match_any, ignored)


def _place(request: Any, terms: tuple[Term, ...]) -> tuple[Any, ...] | None:
    written = page_place(request)
    if written is None:
        return None
    try:
        return tuple(read_place(written, terms))
    except ValueError:
        raise bad_page_token(request.page_token) from None


def _example(struct: Struct, problems: Problems) -> dict[str, Any]:
    size = struct.ByteSize()
    if size > MAX_EXAMPLE:
        problems.add("example", f"has {size} bytes; takes at most {MAX_EXAMPLE}")
        return {}
    return _plain_object(struct)


def _plain_object(struct: Struct) -> dict[str, Any]:
    return {key: _plain(value) for key, value in struct.fields.items()}


def _plain(value: Value) -> Any:
    """Doubles stay doubles: only the column that one meets says what it has to be. The recursion is bounded by the
    depth that protobuf parses."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _plain_object(value.struct_value)
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    return None if kind in ("null_value", None) else getattr(value, kind)
