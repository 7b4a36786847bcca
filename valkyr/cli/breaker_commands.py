"""valkyr breaker: which targets are down, and when they are tried again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.text import Text

from valkyr.cli.by_example import Asked, by_example
from valkyr.cli.documents import document_of
from valkyr.cli.exits import ExitCode
from valkyr.cli.printing import moment, seconds, state_text
from valkyr.cli.session import Session, command
from valkyr.client import Breaker, BreakerState

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    short_help="Breakers: which targets are down.",
    help="""Breakers: which targets are down. While one is OPEN, runs that call its target are PARKED and wait.

    Nothing has to be done: after a while a few runs are let through as probes, and if they succeed all go on.
    """,
)


@app.command(name="list")
@command
@by_example(time="updateTime")
async def list_(
    session: Session,
    asked: Asked,
    state: Annotated[
        list[BreakerState] | None, typer.Option(case_sensitive=False, help="Only in this state; may be repeated.")
    ] = None,
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="Only targets that begin so, such as http:")] = "",
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 50,
) -> ExitCode:
    """Lists the breakers of targets that were called, by target.

    --example is an object in the shape of what --json prints; what it does not say does not matter.

    \b
    Examples:
      valkyr breaker list
      valkyr breaker list --since 1h --time openedTime --order-by "openedTime desc"
      valkyr breaker list --example '{"target": "stripe"}' --match contains
      valkyr breaker list --state OPEN --state HALF_OPEN
    """
    async with session.client() as client:
        pages = client.breakers.list(
            states=state or (), target_prefix=prefix, page_size=min(limit, 1000), **asked.arguments()
        )
        breakers = await pages.first(limit)
    if session.printer.as_json:
        session.printer.document({"breakers": document_of(breakers)})
    elif breakers:
        session.printer.table(BREAKER_COLUMNS, [breaker_row(breaker) for breaker in breakers])
    else:
        session.printer.remark(
            "no such breakers" if state or prefix or asked.narrows else "no breakers: no target has failed yet"
        )
    return ExitCode.OK


@app.command(no_args_is_help=True)
@command
async def get(
    session: Session,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Such as http:api.example.com")],
) -> ExitCode:
    """Prints the breaker of a target: its state, since when, and what happens next.

    \b
    Examples:
      valkyr breaker get http:api.example.com
    """
    async with session.client() as client:
        breaker = await client.breakers.get(target)
    if session.printer.as_json:
        session.printer.document({"breaker": document_of(breaker)})
        return ExitCode.OK
    if not breaker.generation and breaker.updated_at is None:
        session.printer.line(f"{target}  never heard of: no call to this target has failed yet; calls go through")
        session.printer.remark("`valkyr breaker list` lists the targets that have a breaker")
        return ExitCode.OK
    session.printer.line(f"{breaker.target}  ", state_text(breaker.state), f"  {meaning_of(breaker)}")
    for label, text in _facts(breaker):
        session.printer.line(Text(label.ljust(9), "bold"), text)
    return ExitCode.OK


BREAKER_COLUMNS = ("TARGET", "STATE", "OPENED", "FAILURES", "")


def breaker_row(breaker: Breaker) -> list[str | Text]:
    """The cells of BREAKER_COLUMNS."""
    return [
        breaker.target,
        state_text(breaker.state),
        moment(breaker.opened_at),
        str(breaker.failure_count),
        meaning_of(breaker),
    ]


def meaning_of(breaker: Breaker) -> str:
    """What its state means for runs that call the target."""
    match breaker.state:
        case BreakerState.CLOSED:
            return "calls go through"
        case BreakerState.OPEN:
            return f"runs wait; the next probe {_when(breaker.next_retry_at)}"
        case BreakerState.HALF_OPEN:
            needed = breaker.policy.half_open_success_threshold if breaker.policy else "?"
            return f"probes go through; {breaker.success_count} of {needed} successes that close it"
        case BreakerState.FORCED_OPEN:
            return "an operator holds it open; runs wait"
        case BreakerState.DISABLED:
            return "an operator switched it off; calls go through"
        case BreakerState.METRICS_ONLY:
            return "it only counts; calls go through"


def _facts(breaker: Breaker) -> Iterator[tuple[str, str]]:
    if breaker.opened_at is not None:
        yield "opened", moment(breaker.opened_at)
    yield "failures", f"{breaker.failure_count} in a row, the last {moment(breaker.last_failure_at)}"
    if breaker.state is BreakerState.HALF_OPEN:
        yield "probes", f"{breaker.permits_in_flight} under way"
    policy = breaker.policy
    if policy is not None:
        pause = seconds(policy.timeout_duration.total_seconds())
        yield (
            "policy",
            (
                f"opens after {policy.failure_threshold} failures in a row, "
                f"lets {policy.half_open_permits} at a time through after {pause}, "
                f"closes after {policy.half_open_success_threshold} successes"
            ),
        )
    if breaker.episode_id:
        yield "outage", breaker.episode_id
    yield "changes", f"{breaker.generation} transitions, the last update {moment(breaker.updated_at)}"


def _when(when: datetime | None) -> str:
    if when is None:
        return "-"
    left = (when - datetime.now(UTC)).total_seconds()
    return f"in {seconds(left)}" if left > 0 else "is due"
