"""The options that every list command shares: what is looked for by example, in what order, since when."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, TypedDict

import typer

from valkyr.cli.option_values import JSON_METAVAR, read_json_value, read_past_moment
from valkyr.cli.session import Command
from valkyr.client import Matcher, StringMode, TimeRange
from valkyr.errors import InvalidRequest


class Match(StrEnum):
    """StringMode, as it is typed."""

    EXACT = "exact"
    CONTAINS = "contains"
    STARTS_WITH = "starts-with"
    ENDS_WITH = "ends-with"


class ListArguments(TypedDict):
    """What every list of the client takes."""

    example: Mapping[str, Any]
    matcher: Matcher
    order_by: str
    time_ranges: Sequence[TimeRange]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the options say."""

    example: Mapping[str, Any]
    matcher: Matcher
    order_by: str
    time_ranges: Sequence[TimeRange]

    def arguments(self, **more: Any) -> ListArguments:
        """For a list of the client; `more` are fields of the example that other options say.

        InvalidRequest where --example says one of them too.
        """
        for name, value in more.items():
            if self.example.get(name, value) != value:
                raise InvalidRequest.of_field("example", f"says {name} as well; say it once")
        return {
            "example": {**self.example, **more},
            "matcher": self.matcher,
            "order_by": self.order_by,
            "time_ranges": self.time_ranges,
        }

    @property
    def narrows(self) -> bool:
        """Whether not everything was asked for."""
        return bool(self.example or self.time_ranges)


def _options(time: str) -> dict[str, tuple[Any, Any]]:
    """The options by their names; `time` is what --since and --until mean unless --time says otherwise."""
    return {
        "example": (
            Annotated[
                str,
                typer.Option(
                    metavar=JSON_METAVAR, help="What they look like: an object in the shape of what --json prints."
                ),
            ],
            "",
        ),
        "match": (
            Annotated[Match, typer.Option(case_sensitive=False, help="How strings of the example are compared.")],
            Match.EXACT,
        ),
        "ignore_case": (Annotated[bool, typer.Option("--ignore-case", help="Capitals do not matter.")], False),
        "match_any": (Annotated[bool, typer.Option("--any", help="One value of the example is enough.")], False),
        "ignored": (
            Annotated[
                list[str] | None,
                typer.Option("--ignore", metavar="PATH", help="Pass over this of the example; may be repeated."),
            ],
            None,
        ),
        "order_by": (
            Annotated[str, typer.Option(metavar="FIELDS", help='Such as "name" or "updateTime desc, name".')],
            "",
        ),
        "since": (
            Annotated[
                datetime | None,
                typer.Option(parser=read_past_moment, metavar="TIME", help="From then on: 2h (ago), or a time."),
            ],
            None,
        ),
        "until": (
            Annotated[datetime | None, typer.Option(parser=read_past_moment, metavar="TIME", help="Before then.")],
            None,
        ),
        "time": (
            Annotated[str, typer.Option("--time", metavar="FIELD", help="Which time --since and --until mean.")],
            time,
        ),
    }


def by_example(*, time: str) -> Callable[[Callable[..., Any]], Command]:
    """Gives a coroutine of (session, asked, ...) the options in place of `asked`. Stands below `command`."""
    options = _options(time)

    def decorate(function: Callable[..., Any]) -> Command:
        @functools.wraps(function)
        async def run(session: Any, **arguments: Any) -> Any:
            asked = _asked(**{name: arguments.pop(name) for name in options})
            return await function(session, asked, **arguments)

        session, _, *own = inspect.signature(function, eval_str=True).parameters.values()
        shared = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, (annotation, default) in options.items()
        ]
        keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        run.__signature__ = inspect.Signature([session, *keyword_only, *shared])  # type: ignore[attr-defined]
        return run

    return decorate


def _asked(
    *,
    example: str,
    match: Match,
    ignore_case: bool,
    match_any: bool,
    ignored: list[str] | None,
    order_by: str,
    since: datetime | None,
    until: datetime | None,
    time: str,
) -> Asked:
    """InvalidRequest where the example is no JSON object."""
    value = read_json_value(example, "example") if example else {}
    if not isinstance(value, Mapping):
        raise InvalidRequest.of_field("example", f'{example[:40]!r} is not a JSON object, such as \'{{"name": "x"}}\'')
    ranges = [TimeRange(time, since, until)] if since or until else []
    return Asked(value, Matcher(StringMode[match.name], ignore_case, match_any, ignored or ()), order_by, ranges)
