"""valkyr run list: runs over executions."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from valkyr.cli.by_example import Asked, by_example
from valkyr.cli.documents import document_of
from valkyr.cli.exits import ExitCode
from valkyr.cli.printing import moment, seconds, state_text
from valkyr.cli.session import Session
from valkyr.cli.workflows import workflow_id_of
from valkyr.client import RunState


@by_example(time="startTime")
async def list_(
    session: Session,
    asked: Asked,
    execution: Annotated[str, typer.Option(metavar="EXECUTION", help="Only of this one.")] = "",
    workflow: Annotated[str | None, typer.Option(metavar="WORKFLOW", help="Only of this one: id or name.")] = None,
    state: Annotated[
        list[RunState] | None, typer.Option(case_sensitive=False, help="Only in this state; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 20,
) -> ExitCode:
    """Lists runs: of all executions, those of the newest one first.

    --example is an object in the shape of what --json prints; what it does not say does not matter.

    \b
    Examples:
      valkyr run list --workflow orders --state QUARANTINED
      valkyr run list --state LEASED --order-by startTime
      valkyr run list --example '{"nodeId": "charge_card", "attempts": [{"outcome": "TIMEOUT"}]}'
      valkyr run list --workflow orders --since 1h --order-by "durationMs desc" --json
    """
    async with session.client() as client:
        pages = client.executions.list_runs(
            execution,
            workflow_id="" if workflow is None else await workflow_id_of(client, workflow),
            states=state or (),
            page_size=min(limit, 1000),
            **asked.arguments(),
        )
        runs = await pages.first(limit)
    if session.printer.as_json:
        session.printer.document({"runs": document_of(runs)})
    elif runs:
        rows: list[list[str | Text]] = [
            [
                run.execution_id,
                run.node_id if run.map_index < 0 else f"{run.node_id}[{run.map_index}]",
                state_text(run.state),
                "reused" if run.reused_from is not None else str(run.attempt),
                moment(run.started_at),
                seconds(run.duration_ms / 1000) if run.finished_at else "-",
                run.error,
            ]
            for run in runs
        ]
        session.printer.table(["EXECUTION", "NODE", "STATE", "ATTEMPT", "STARTED", "TOOK", "ERROR"], rows)
    else:
        session.printer.remark("no such runs")
    return ExitCode.OK
