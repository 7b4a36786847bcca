"""`order_by` and time ranges -> values. Pure; every problem is collected by its path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from services.chassis.example.coercion import nearest
from services.chassis.example.predicates import Within
from services.chassis.example.resource import Column, Kind, Resource, columns_of
from valkyr.graph.fields import Problems, shown

_DIRECTIONS = {"asc": False, "desc": True}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_ORDER = 1_000
MAX_RANGES = 20


@dataclass(frozen=True, slots=True)
class Term:
    """One column that rows are ordered by. What is absent counts as larger than everything: last, or first if
    `descending`, as an ordinary index has it."""

    path: str
    column: Column
    descending: bool


def order_of(order_by: str, resource: Resource, problems: Problems) -> tuple[Term, ...]:
    """`createTime desc, name` as terms, the default order if empty. The key is appended where it is missing, in the
    direction of the last term, so that no two rows stand in one place."""
    columns = dict(columns_of(resource.fields))
    if len(order_by) > MAX_ORDER:
        problems.add("orderBy", f"has {len(order_by)} characters; takes at most {MAX_ORDER}")
        order_by = ""
    terms: dict[str, Term] = {}
    for written in (order_by if order_by.strip() else resource.default_order).split(","):
        term = _term(written, columns, resource, problems)
        if term is None:
            continue
        if term.path in terms:
            problems.add("orderBy", f"names {term.path} twice")
        terms[term.path] = term
    descending = list(terms.values())[-1].descending if terms else False
    for path in resource.key:
        terms.setdefault(path, Term(path, columns[path], descending))
    return tuple(terms.values())


def _term(written: str, columns: dict[str, Column], resource: Resource, problems: Problems) -> Term | None:
    words = written.split()
    orderable = [path for path, column in columns.items() if column.orderable or path in resource.key]
    direction = words[1].lower() if len(words) == 2 else "asc"
    if len(words) not in (1, 2) or direction not in _DIRECTIONS:
        problems.add("orderBy", f"{shown(written.strip())} is not a field with or without asc or desc behind it")
        return None
    if words[0] not in orderable:
        hint = nearest(words[0], orderable) or f"; takes {', '.join(orderable)}"
        problems.add("orderBy", f"{shown(words[0])} is nothing that this list can be ordered by{hint}")
        return None
    return Term(words[0], columns[words[0]], _DIRECTIONS[direction])


def ranges_of(ranges: Sequence[Any], resource: Resource, problems: Problems) -> tuple[Within, ...]:
    """`valkyr.api.common.v1.TimeRange` messages as predicates; all of them hold, whatever the matcher says."""
    times = {path: column for path, column in columns_of(resource.fields) if column.kind is Kind.TIME}
    if len(ranges) > MAX_RANGES:
        problems.add("timeRanges", f"are {len(ranges)}; takes at most {MAX_RANGES}")
        return ()
    found = (_range(message, f"timeRanges[{i}]", times, problems) for i, message in enumerate(ranges))
    return tuple(within for within in found if within is not None)


def _range(message: Any, path: str, times: dict[str, Column], problems: Problems) -> Within | None:
    if message.field not in times:
        hint = nearest(message.field, times) or _takes(times)
        problems.add(f"{path}.field", f"{shown(message.field)} is no time of this list{hint}")
        return None
    start = _moment(message, "start_time", f"{path}.startTime", problems)
    end = _moment(message, "end_time", f"{path}.endTime", problems)
    if not message.HasField("start_time") and not message.HasField("end_time"):
        problems.add(path, "has neither startTime nor endTime; give one of them or both")
    elif start is not None and end is not None and end <= start:
        problems.add(path, f"ends at {end.isoformat()}, not after it starts at {start.isoformat()}")
    return Within(times[message.field], start, end)


def _moment(message: Any, field: str, path: str, problems: Problems) -> datetime | None:
    """Rounded up to microseconds: for both ends of a range that changes nothing, as no stored time is finer."""
    if not message.HasField(field):
        return None
    stamp = getattr(message, field)
    try:
        if not 0 <= stamp.nanos < 10**9:
            raise OverflowError
        return _EPOCH + timedelta(seconds=stamp.seconds, microseconds=-(-stamp.nanos // 1_000))
    except OverflowError:
        problems.add(path, f"{stamp.seconds} s {stamp.nanos} ns is not a time of the years 1 to 9999")
        return None


def _takes(names: Iterable[str]) -> str:
    return f"; takes {', '.join(names)}"
