"""valkyr execution: get, list, watch, pause, resume and cancel."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Annotated

import typer
from rich.text import Text

from valkyr.cli.by_example import Asked, by_example
from valkyr.cli.documents import document_of
from valkyr.cli.exits import ExitCode
from valkyr.cli.following import follow
from valkyr.cli.option_values import read_duration
from valkyr.cli.printing import moment, state_text
from valkyr.cli.run_command import exit_code_after, failures_of, print_result
from valkyr.cli.session import Session, command
from valkyr.cli.views import RUN_COLUMNS, counts_text, paused_text, run_row, view_for
from valkyr.cli.workflows import workflow_id_of
from valkyr.client import Execution, ExecutionState, RunState

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Executions: what ran, how far it is, how it ended."
)


@app.command(no_args_is_help=True)
@command
async def get(
    session: Session,
    execution_id: Annotated[str, typer.Argument(metavar="EXECUTION", help="Its id.")],
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="At most so many runs.")] = 1000,
) -> ExitCode:
    """Prints an execution with its runs, and its outputs.

    \b
    Examples:
      valkyr execution get 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80
      valkyr execution get 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80 --json
    """
    async with session.client() as client:
        execution = await client.executions.get(execution_id)
        pages = client.executions.list_runs(
            execution_id, include_outputs=session.printer.as_json, page_size=max(1, min(limit, 1000))
        )
        runs = await pages.first(limit)
    printer = session.printer
    if printer.as_json:
        printer.document({"execution": document_of(execution), "runs": document_of(runs)})
        return ExitCode.OK
    _print_head(session, execution)
    if runs:
        printer.table(RUN_COLUMNS, [run_row(run) for run in runs])
    if any(run.state is RunState.QUARANTINED for run in runs):
        printer.remark(f"`valkyr dlq list --execution {execution.id}` shows what can be done about it")
    if execution.outputs:
        printer.line("outputs:")
        printer.text(json.dumps(execution.outputs, indent=2, ensure_ascii=False))
    return ExitCode.OK


@app.command(name="list")
@command
@by_example(time="createTime")
async def list_(
    session: Session,
    asked: Asked,
    workflow: Annotated[str | None, typer.Option(metavar="WORKFLOW", help="Only of this one: id or name.")] = None,
    state: Annotated[
        list[ExecutionState] | None, typer.Option(case_sensitive=False, help="Only in this state; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 20,
) -> ExitCode:
    """Lists executions, newest first.

    --example is an object in the shape of what --json prints; what it does not say does not matter.

    \b
    Examples:
      valkyr execution list
      valkyr execution list --workflow orders --state FAILED --json
      valkyr execution list --since 2h --example '{"errorType": "TIMEOUT"}'
      valkyr execution list --example '{"triggerPayload": {"order": 17}}'
    """
    async with session.client() as client:
        workflow_id = "" if workflow is None else await workflow_id_of(client, workflow)
        pages = client.executions.list(
            workflow_id=workflow_id, states=state or (), page_size=min(limit, 1000), **asked.arguments()
        )
        executions = await pages.first(limit)
    if session.printer.as_json:
        session.printer.document({"executions": document_of(executions)})
    elif executions:
        rows: list[list[str | Text]] = [
            [found.id, state_text(found.state), found.workflow_id, str(found.version), moment(found.created_at)]
            for found in executions
        ]
        session.printer.table(["ID", "STATE", "WORKFLOW", "VERSION", "CREATED"], rows)
    else:
        none = "no such executions" if asked.narrows or workflow or state else "no executions"
        session.printer.remark(f"{none}; start one with `valkyr run WORKFLOW`")
    return ExitCode.OK


@app.command(no_args_is_help=True)
@command
async def watch(
    session: Session,
    execution_id: Annotated[str, typer.Argument(metavar="EXECUTION", help="Its id.")],
    timeout: Annotated[
        timedelta | None, typer.Option(parser=read_duration, metavar="DURATION", help="Stop watching then.")
    ] = None,
) -> ExitCode:
    """Shows an execution and its runs until it ends.

    On a terminal as a table that moves, else as a line for each run that ended, waits or is tried again.

    Ends with 0 if the execution was a SUCCESS, 1 if it FAILED or was CANCELLED, 6 if --timeout came first. The
    execution goes on whether it is watched or not.

    \b
    Examples:
      valkyr execution watch 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80
      valkyr execution watch 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80 --timeout 2m --json
    """
    async with session.client() as client:
        execution = await client.executions.get(execution_id)
        with view_for(session.printer) as view:
            execution = await follow(client, execution, view, timeout=timeout)
        failures = await failures_of(client, execution)
    print_result(session.printer, execution, failures, as_stream=True)
    return exit_code_after(execution)


@app.command(no_args_is_help=True)
@command
async def pause(
    session: Session,
    execution_id: Annotated[str, typer.Argument(metavar="EXECUTION", help="Its id.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for those who come after you.")] = "",
) -> ExitCode:
    """Lets nothing of an execution start until it is resumed.

    Runs under way finish, timers and deadlines go on; what would start is PARKED. It may end while it is paused, when
    the last run under way was its last one. Pausing twice is fine; what has ended cannot be paused (exit code 5).

    \b
    Examples:
      valkyr execution pause 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80 --reason "the warehouse moves"
    """
    async with session.client() as client:
        execution = await client.executions.pause(execution_id, reason=reason)
    _print_changed(session, execution)
    if execution.state is ExecutionState.PAUSED:
        session.printer.line(paused_text(execution))
        under_way = execution.run_counts.get("LEASED", 0)
        rest = f"; {under_way} of its runs are under way and finish" if under_way else ""
        session.printer.remark(f"`valkyr execution resume {execution.id}` lets it go on{rest}")
    return ExitCode.OK


@app.command(no_args_is_help=True)
@command
async def resume(
    session: Session,
    execution_id: Annotated[str, typer.Argument(metavar="EXECUTION", help="Its id.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for those who come after you.")] = "",
) -> ExitCode:
    """Lets a paused execution go on.

    What was parked by the pause is ready again; a run that was waiting for its next attempt waits as long as it would
    have. Resuming what is not paused changes nothing.

    \b
    Examples:
      valkyr execution resume 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80
    """
    async with session.client() as client:
        execution = await client.executions.resume(execution_id, reason=reason)
    _print_changed(session, execution)
    return ExitCode.OK


@app.command(no_args_is_help=True)
@command
async def cancel(
    session: Session,
    execution_id: Annotated[str, typer.Argument(metavar="EXECUTION", help="Its id.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for those who come after you.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until nothing of it runs any more.")] = False,
) -> ExitCode:
    """Ends an execution. What nobody works on is CANCELLED at once.

    Runs under way are told, and have 10 s to end: a success that still arrives is kept, but nothing follows it. Letters
    of runs that failed before stay, and can only be discarded then. Cancelling twice is fine; what has ended in SUCCESS
    or FAILED cannot be cancelled (exit code 5).

    \b
    Examples:
      valkyr execution cancel 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80 --reason "wrong order"
      valkyr execution cancel 0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80 --wait
    """
    async with session.client() as client:
        execution = await client.executions.cancel(execution_id, reason=reason)
        if wait and not execution.settled:
            execution = await client.executions.wait(execution_id)
    _print_changed(session, execution)
    if not execution.settled:
        session.printer.remark("it is CANCELLED when the runs under way have ended; --wait waits for that")
    return ExitCode.OK


def _print_changed(session: Session, execution: Execution) -> None:
    if session.printer.as_json:
        session.printer.document({"execution": document_of(execution)})
    else:
        session.printer.line(f"{execution.id}  ", state_text(execution.state))


def _print_head(session: Session, execution: Execution) -> None:
    line = session.printer.line
    line(f"{execution.id}  ", state_text(execution.state), f"  revision {execution.revision}")
    line(f"workflow {execution.workflow_id} version {execution.version}, started by {execution.created_by or '-'}")
    line(f"created {moment(execution.created_at)}, finished {moment(execution.finished_at)}")
    line(f"trace {execution.trace_id or '-'}")
    if execution.deadline is not None:
        line(f"deadline {moment(execution.deadline)}")
    if execution.cancel_requested and not execution.settled:
        line("cancel was requested; it is CANCELLED when the runs under way have ended")
    if execution.state is ExecutionState.PAUSED:
        line(paused_text(execution))
    line(f"runs: {counts_text(execution.run_counts)}")
    if execution.error_message:
        line(f"error: {execution.error_type}: {execution.error_message}")
