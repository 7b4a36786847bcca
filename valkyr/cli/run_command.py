"""valkyr run WORKFLOW: starts an execution; waits for it or shows it if asked."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Annotated

import typer

from valkyr.cli.documents import document_of
from valkyr.cli.exits import ExitCode
from valkyr.cli.following import follow
from valkyr.cli.option_values import JSON_METAVAR, read_duration, read_json_value, read_moment
from valkyr.cli.printing import Printer, seconds, state_text
from valkyr.cli.session import Session
from valkyr.cli.views import view_for
from valkyr.cli.workflows import workflow_id_of
from valkyr.client import Client, Execution, ExecutionState, Run, RunState

SHOWN_FAILURES = 10


async def start(
    session: Session,
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="Id or name.")],
    payload: Annotated[
        str | None,
        typer.Option(metavar=JSON_METAVAR, help="What expressions see as `trigger`; - is standard input."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; print the outputs.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show the runs until the end.")] = False,
    timeout: Annotated[
        timedelta | None,
        typer.Option(parser=read_duration, metavar="DURATION", help="With --wait or --watch: stop waiting then."),
    ] = None,
    version: Annotated[int | None, typer.Option(min=1, metavar="N", help="The latest by default.")] = None,
    priority: Annotated[int, typer.Option(min=-100, max=100, metavar="N", help="Higher goes first.")] = 0,
    deadline: Annotated[
        datetime | None,
        typer.Option(
            parser=read_moment, metavar="TIME", help="End it then at the latest: 2h, or 2026-03-01T18:00:00Z."
        ),
    ] = None,
    request_id: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Say the same again and it is started only once.")
    ] = None,
) -> ExitCode:
    """Starts a workflow, as `valkyr run WORKFLOW` does.

    Prints the execution's id, at once unless --wait or --watch is given.

    Ends with 0 if the execution was a SUCCESS (or was only started), 1 if it FAILED or was CANCELLED, 6 if --timeout
    came first: the execution then goes on.

    \b
    Examples:
      valkyr run orders
      valkyr run orders --payload '{"order": 17}' --watch
      valkyr run orders --payload @order.json --wait --timeout 2m --json
    """
    if timeout is not None and not (wait or watch):
        raise typer.BadParameter("--timeout needs --wait or --watch")
    trigger = None if payload is None else read_json_value(payload, "payload")
    async with session.client() as client:
        execution = await client.executions.start(
            await workflow_id_of(client, workflow),
            version=version,
            payload=trigger,
            priority=priority,
            request_id=request_id,
            deadline=deadline,
        )
        if not (wait or watch):
            _print_started(session.printer, execution)
            return ExitCode.OK
        execution = await _to_the_end(session.printer, client, execution, watch=watch, timeout=timeout)
        failures = await failures_of(client, execution)
    print_result(session.printer, execution, failures, as_stream=watch)
    return exit_code_after(execution)


def exit_code_after(execution: Execution) -> ExitCode:
    """By how it ended."""
    if not execution.settled:
        return ExitCode.UNAVAILABLE
    return ExitCode.OK if execution.state is ExecutionState.SUCCESS else ExitCode.WORK_FAILED


def print_result(printer: Printer, execution: Execution, failures: list[Run], *, as_stream: bool = False) -> None:
    """How it ended, what it gave, what went wrong; as JSON the execution, on one line after a stream of others."""
    if printer.as_json:
        write = printer.json_line if as_stream else printer.document
        write({"execution": document_of(execution)})
        return
    if not execution.settled:
        printer.remark(f"{execution.id} is still {execution.state}; `valkyr execution get {execution.id}` shows it")
        return
    began = execution.started_at or execution.created_at
    took = (execution.finished_at - began).total_seconds() if execution.finished_at and began else 0.0
    printer.line(f"{execution.id}  ", state_text(execution.state), f"  in {seconds(took)}")
    for run in failures:
        printer.line(f"  {run.node_id}  ", state_text(run.state), f"  {run.error_type}: {run.error}")
    if execution.error_message and not failures:
        printer.line(f"  {execution.error_type}: {execution.error_message}")
    if any(run.state is RunState.QUARANTINED for run in failures):
        printer.remark(f"`valkyr dlq list --execution {execution.id}` shows what can be done about it")
    if execution.outputs:
        printer.text(json.dumps(execution.outputs, indent=2, ensure_ascii=False))


async def _to_the_end(
    printer: Printer, client: Client, execution: Execution, *, watch: bool, timeout: timedelta | None
) -> Execution:
    if not watch:
        return await client.executions.wait(execution.id, timeout=timeout)
    printer.line(f"started {execution.id}")
    with view_for(printer) as view:
        return await follow(client, execution, view, timeout=timeout)


async def failures_of(client: Client, execution: Execution) -> list[Run]:
    """The first runs that failed, of an execution that is settled and was no success."""
    if not execution.settled or execution.state is ExecutionState.SUCCESS:
        return []
    bad = (RunState.QUARANTINED, RunState.FAILED)
    return list(await client.executions.list_runs(execution.id, states=bad).first(SHOWN_FAILURES))


def _print_started(printer: Printer, execution: Execution) -> None:
    if printer.as_json:
        printer.document({"execution": document_of(execution)})
    else:
        printer.line(execution.id)
