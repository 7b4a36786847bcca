"""valkyr runners: who runs modules, and how one is told to take no more."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from valkyr.cli.documents import document_of
from valkyr.cli.exits import ExitCode
from valkyr.cli.printing import moment, state_text
from valkyr.cli.session import Session, command
from valkyr.client import Runner

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    short_help="Runners: who runs modules, and what they hold.",
    help="""Runners: the processes that run modules, `valkyr runner` and executors with a pool of their own.

    A runner is LOST when nobody has heard of it for longer than its leases last; what it held, others take over.
    """,
)


@app.command(name="list")
@command
async def list_(
    session: Session,
    pool: Annotated[str, typer.Option(metavar="NAME", help="Only of this pool.")] = "",
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 100,
) -> ExitCode:
    """Lists runners by pool and id: whether they are there, what they hold, and how much they take.

    \b
    Examples:
      valkyr runners list
      valkyr runners list --pool payments
      valkyr runners list --json        with the classes of each
    """
    async with session.client() as client:
        runners = await client.runners.list(pool=pool, page_size=min(limit, 1000)).first(limit)
    if session.printer.as_json:
        session.printer.document({"runners": document_of(runners)})
    elif runners:
        session.printer.table(COLUMNS, [_row(runner) for runner in runners])
    else:
        session.printer.remark(f"no runners of pool {pool}" if pool else "no runners")
    return ExitCode.OK


@app.command(no_args_is_help=True)
@command
async def drain(
    session: Session,
    runner_id: Annotated[str, typer.Argument(metavar="RUNNER", help="Its id, as `valkyr runners list` has it.")],
) -> ExitCode:
    """Tells a runner to take nothing new: it ends what it has begun within its --grace, and then its process ends.

    \b
    Examples:
      valkyr runners drain payments-1
    """
    async with session.client() as client:
        runner = await client.runners.drain(runner_id)
    if session.printer.as_json:
        session.printer.document({"runner": document_of(runner)})
        return ExitCode.OK
    session.printer.line(f"{runner.id}  ", state_text(str(runner.state)), "  takes nothing new")
    return ExitCode.OK


COLUMNS = ("POOL", "RUNNER", "STATE", "HOLDS", "SEEN", "HOST", "CLASSES")


def _row(runner: Runner) -> list[str | Text]:
    return [
        runner.pool,
        runner.id,
        state_text(str(runner.state)),
        f"{runner.leases} of {runner.capacity}",
        moment(runner.last_seen_at),
        runner.host or "-",
        "every class" if runner.serves_all else str(len(runner.class_names)),
    ]
