"""valkyr run: `run WORKFLOW` starts one; `run get` and `list` show runs; `run requeue`, `complete` and `discard` are
the ways out of QUARANTINED."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import typer
from typer.core import TyperGroup

from valkyr.cli import run_command, run_list
from valkyr.cli.documents import document_of
from valkyr.cli.exits import ExitCode
from valkyr.cli.option_values import JSON_METAVAR, read_json_value, read_moment
from valkyr.cli.run_view import print_run
from valkyr.cli.session import Session, command
from valkyr.client import Client, Run, RunState
from valkyr.errors import InvalidRequest, NotQuarantined, RunNotFound

DEFAULT = "start"

ExecutionId = Annotated[str, typer.Argument(metavar="EXECUTION", help="Its id.")]
NodeOrRun = Annotated[str, typer.Argument(metavar="NODE_OR_RUN", help="A node's id, or a run's where it has several.")]
Number = Annotated[
    int | None,
    typer.Option("--quarantine", min=1, metavar="N", help="Which of its quarantines is meant; the last by default."),
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for those who come after you.")]
Inputs = Annotated[
    str | None,
    typer.Option(metavar=JSON_METAVAR, help="Replaces the whole inputs: an object with `trigger` and `nodes`."),
]
Outputs = Annotated[str, typer.Option(metavar=JSON_METAVAR, help="What it would have answered; null is an answer.")]
NewKey = Annotated[
    bool, typer.Option("--new-key", help="Another idempotency key: the target is to do again what it may have done.")
]
Deadline = Annotated[
    datetime | None,
    typer.Option(
        parser=read_moment, metavar="TIME", help="A new end of an execution whose deadline has passed: 2h, or a time."
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Although it was requeued so often that it should be looked into.")
]


class RunGroup(TyperGroup):
    """A group whose first word, where it is none of the commands, is the workflow that is to be started."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, _ctx: Any) -> list[str]:
        return ["WORKFLOW [OPTIONS] | COMMAND [ARGS]..."]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        self.commands[DEFAULT].format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


app = typer.Typer(
    cls=RunGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    short_help="Starts a workflow; shows a run, settles one that failed for good.",
    help="""Starts a workflow, shows one run of it, or settles a run that failed for good.

    Prints the execution's id, at once unless --wait or --watch is given. Ends with 0 if the execution was a SUCCESS (or
    was only started), 1 if it FAILED or was CANCELLED, 6 if --timeout came first: the execution then goes on.

    \b
    Examples:
      valkyr run orders
      valkyr run orders --payload '{"order": 17}' --watch
      valkyr run orders --payload @order.json --wait --timeout 2m --json
      valkyr run list --workflow orders --state QUARANTINED
      valkyr run get EXECUTION charge_card
      valkyr run requeue EXECUTION charge_card --reason "the bank is back"

    A workflow that is called as one of the commands is started with `valkyr run start NAME`.
    """,
)
app.command(name=DEFAULT, no_args_is_help=True)(command(run_command.start))
app.command(name="list")(command(run_list.list_))


@app.command(no_args_is_help=True)
@command
async def get(session: Session, execution_id: ExecutionId, node: NodeOrRun) -> ExitCode:
    """Shows one run: what it does, and all that happened to it.

    Its attempts, who made them and how they ended, the waits between them, parking, failures for good and what was done
    about them; then the last stack trace, and its outputs.

    \b
    Examples:
      valkyr run get 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80 charge_card
      valkyr run get 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80 charge_card --json
    """
    async with session.client() as client:
        run = await _run_named(client, execution_id, node)
    if session.printer.as_json:
        session.printer.document({"run": document_of(run)})
    else:
        print_run(session.printer, run)
    return ExitCode.OK


@app.command(no_args_is_help=True)
@command
async def requeue(
    session: Session,
    execution_id: ExecutionId,
    node: NodeOrRun,
    quarantine: Number = None,
    inputs: Inputs = None,
    new_key: NewKey = False,
    deadline: Deadline = None,
    force: Force = False,
    reason: Reason = "",
) -> ExitCode:
    """Does a quarantined run again.

    It gets fresh attempts; its execution goes on and keeps what it has done. `valkyr dlq requeue` does the same from
    the letter; this one needs no dead letter queue, and the letter follows by itself. If somebody was faster, you are
    told who, and nothing happens twice.

    \b
    Examples:
      valkyr run requeue 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80 charge_card --reason "the bank is back"
      valkyr run requeue 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80 charge_card --inputs @mended.json
    """
    given = None if inputs is None else read_json_value(inputs, "inputs")
    async with session.client() as client:
        found, number = await quarantined(client, execution_id, node, quarantine)
        run = await client.runs.requeue(
            execution_id,
            found.id,
            quarantine_number=number,
            inputs=given,
            new_key=new_key,
            deadline=deadline,
            force=force,
            reason=reason,
        )
    return _print_settled(session, run, number, "requeued", "its execution goes on")


@app.command(no_args_is_help=True)
@command
async def complete(
    session: Session,
    execution_id: ExecutionId,
    node: NodeOrRun,
    outputs: Outputs,
    quarantine: Number = None,
    reason: Reason = "",
) -> ExitCode:
    """Gives a quarantined run its outputs.

    Those that it should have had; its execution goes on as after a success.

    \b
    Examples:
      valkyr run complete 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80 charge_card --outputs '{"charge": "C-17"}'
    """
    given = read_json_value(outputs, "outputs")
    async with session.client() as client:
        found, number = await quarantined(client, execution_id, node, quarantine)
        run = await client.runs.complete(execution_id, found.id, quarantine_number=number, outputs=given, reason=reason)
    return _print_settled(session, run, number, "completed", "its execution goes on")


@app.command(no_args_is_help=True)
@command
async def discard(
    session: Session,
    execution_id: ExecutionId,
    node: NodeOrRun,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it has to be said.")],
    quarantine: Number = None,
) -> ExitCode:
    """Gives a quarantined run up.

    It is FAILED for good, and what waits for its success is skipped.

    \b
    Examples:
      valkyr run discard 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80 charge_card --reason "the customer cancelled"
    """
    async with session.client() as client:
        found, number = await quarantined(client, execution_id, node, quarantine)
        run = await client.runs.discard(execution_id, found.id, quarantine_number=number, reason=reason)
    return _print_settled(session, run, number, "discarded", "what waits for its success is skipped")


async def _run_named(client: Client, execution_id: str, name: str) -> Run:
    """The run with this id, or else that of the node: ids of nodes may look like anything."""
    try:
        if _is_uuid(name):
            with contextlib.suppress(RunNotFound):
                return await client.runs.get(execution_id, name)
        return await client.runs.get(execution_id, node_id=name)
    except RunNotFound as error:
        raise RunNotFound(error.message) from error  # the hint is said in the words of the command line


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


async def quarantined(client: Client, execution_id: str, node: str, quarantine: int | None) -> tuple[Run, int]:
    """The run that `node` (a node's or a run's id) means, and the number of the quarantine that is meant.

    ExecutionNotFound, RunNotFound; InvalidRequest where the node has several; NotQuarantined where it never was.
    """
    runs = await client.executions.list_runs(execution_id, page_size=1000).all()
    found = [run for run in runs if node in (run.id, run.node_id)]
    if len(found) > 1:
        found = [run for run in found if run.state is RunState.QUARANTINED] or found
    if not found:
        raise RunNotFound(f"execution {execution_id} has no node or run {node!r}", hint=_there_are(runs))
    if len(found) > 1:
        raise InvalidRequest.of_field("run", f"{node!r} has {len(found)} runs; name one", hint=_there_are(found))
    (run,) = found
    if not run.quarantine_number:
        message = f"run {run.node_id} is {run.state} and never failed for good"
        raise NotQuarantined(message, hint=_there_are(runs))
    return run, quarantine or run.quarantine_number


def _there_are(runs: Sequence[Run]) -> str:
    bad = [run for run in runs if run.state is RunState.QUARANTINED]
    if not bad:
        return "none of its runs is QUARANTINED"
    shown = ", ".join(run.node_id if run.map_index < 0 else f"{run.node_id} {run.id}" for run in bad[:10])
    return f"QUARANTINED are {shown}{', ...' if len(bad) > 10 else ''}"


def _print_settled(session: Session, run: Run, number: int, what: str, then: str) -> ExitCode:
    if session.printer.as_json:
        session.printer.document({"run": document_of(run)})
    else:
        session.printer.line(f"{what} {run.node_id} (run {run.id}, quarantine {number}): it is {run.state}; {then}")
        session.printer.remark(f"`valkyr trace {run.execution_id}` shows what becomes of it")
    return ExitCode.OK
