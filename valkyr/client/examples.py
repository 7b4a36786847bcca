"""Lists by example: what an example, a matcher, an order and time ranges are in a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from valkyr.api.common.v1 import common_pb2
from valkyr.client.json_values import EXACT_INTEGERS, value_of
from valkyr.client.wire import timestamp
from valkyr.errors import InvalidRequest
from valkyr.graph.fields import duration_text
from valkyr.graph.limits import CARRIED_DEPTH


class StringMode(StrEnum):
    """How strings are compared; every other type is compared for equality."""

    EXACT = "EXACT"
    CONTAINS = "CONTAINS"
    STARTS_WITH = "STARTS_WITH"
    ENDS_WITH = "ENDS_WITH"


@dataclass(frozen=True, slots=True)
class Matcher:
    """How an example is matched. With `match_any` one matching value is enough, wherever in the example it stands.

    `ignored_paths` are passed over with everything below them, so that an object that was read may be the example.
    """

    string_mode: StringMode = StringMode.EXACT
    ignore_case: bool = False
    match_any: bool = False
    ignored_paths: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Only what has the time `field` (its path: `createTime`) from `start` on and before `end`; give one or both."""

    field: str
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class ListQuery:
    """The four fields that a list takes for what it is asked."""

    example: Mapping[str, Any] | None = None
    matcher: Matcher | None = None
    order_by: str = ""
    time_ranges: Sequence[TimeRange] = ()

    def put_into(self, request: Any) -> None:
        """InvalidRequest naming the path of what cannot be sent."""
        if self.example:
            request.example.CopyFrom(value_of(_plain(self.example, "example"), path="example").struct_value)
        if self.matcher is not None:
            request.matcher.CopyFrom(_matcher_to_wire(self.matcher))
        request.order_by = self.order_by
        request.time_ranges.extend(_range_to_wire(one, f"timeRanges[{i}]") for i, one in enumerate(self.time_ranges))


def _matcher_to_wire(matcher: Matcher) -> common_pb2.Matcher:
    return common_pb2.Matcher(
        string_mode=common_pb2.Matcher.StringMode.Value(matcher.string_mode),
        ignore_case=matcher.ignore_case,
        match_any=matcher.match_any,
        ignored_paths=matcher.ignored_paths,
    )


def _range_to_wire(asked: TimeRange, path: str) -> common_pb2.TimeRange:
    return common_pb2.TimeRange(
        field=asked.field,
        start_time=None if asked.start is None else timestamp(asked.start, path=f"{path}.startTime"),
        end_time=None if asked.end is None else timestamp(asked.end, path=f"{path}.endTime"),
    )


def _plain(given: Any, path: str, depth: int = 1) -> Any:
    """As JSON, with times, durations, UUIDs and large integers in the words that every list takes. What is too deep for
    a message stays as it is, to be refused."""
    match given:
        case Mapping() if depth <= CARRIED_DEPTH:
            return {name: _plain(value, f"{path}.{name}", depth + 1) for name, value in given.items()}
        case list() | tuple() if depth <= CARRIED_DEPTH:
            return [_plain(value, f"{path}[{i}]", depth + 1) for i, value in enumerate(given)]
        case datetime():
            if given.tzinfo is None:
                hint = "give it one, such as datetime.now(UTC)"
                raise InvalidRequest.of_field(path, f"{given.isoformat()} has no time zone; {hint}", hint=hint)
            return given.isoformat()
        case timedelta():
            return duration_text(given)
        case UUID():
            return str(given)
        case int() if abs(given) >= EXACT_INTEGERS:
            return str(given)
        case _:
            return given
