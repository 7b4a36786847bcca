"""valkyr graph versions, restore, archive, unarchive, audit and watch: what was done to workflows, and undoing it."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from valkyr.cli.documents import document_of, finding_of
from valkyr.cli.exits import ExitCode
from valkyr.cli.graph_files import PlacedFinding
from valkyr.cli.printing import moment
from valkyr.cli.session import Session, command
from valkyr.cli.workflows import choose_current, read_version, workflow_id_of
from valkyr.client import AuditEvent, RestoredGraph, Workflow, WorkflowChange, WorkflowVersion
from valkyr.errors import InvalidGraph, MergeConflict

app = typer.Typer()

WorkflowArgument = Annotated[str, typer.Argument(metavar="WORKFLOW", help="Id or name.")]
WhyArchived = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the audit.")]


@app.command(no_args_is_help=True)
@command
async def versions(
    session: Session,
    workflow: WorkflowArgument,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 20,
) -> ExitCode:
    """Lists the versions of a workflow, newest first.

    Who saved what, when and why. `layout` marks those that only moved nodes in the picture, `restores N` those that
    are version N again.

    \b
    Examples:
      valkyr graph versions orders
      valkyr graph versions orders --limit 100 --json
    """
    async with session.client() as client:
        workflow_id = await workflow_id_of(client, workflow)
        found = await client.graphs.versions(workflow_id, page_size=min(limit, 1000)).first(limit)
    if session.printer.as_json:
        session.printer.document({"versions": document_of(found)})
    else:
        columns = ["VERSION", "SAVED", "BY", "NODES", "EDGES", "", "WHY"]
        session.printer.table(columns, [_version_row(version) for version in found])
    return ExitCode.OK


@app.command(no_args_is_help=True)
@command
async def restore(
    session: Session,
    workflow: WorkflowArgument,
    version: Annotated[int, typer.Argument(min=1, metavar="VERSION", help="Whose graph it is to be again.")],
    current: Annotated[
        str | None,
        typer.Option(parser=read_version, metavar="N|latest", help="The version that it is to replace."),
    ] = None,
    message: Annotated[str, typer.Option("--message", "-m", metavar="TEXT", help="Why, for the history.")] = "",
) -> ExitCode:
    """Saves an earlier version as a new one: undo.

    What is there by now stays in the history.

    On top of which version: --current. Without it the latest, but only if you saved that one; if somebody else did,
    nothing is saved (exit code 5) and you say --current N, or --current latest.

    \b
    Examples:
      valkyr graph diff orders orders@3            what it would change
      valkyr graph restore orders 3 -m "the van is back"
      valkyr graph restore orders 3 --current 7
    """
    async with session.client() as client:
        workflow_id = await workflow_id_of(client, workflow)
        base = await choose_current(client, workflow_id, current, principal=session.principal)
        try:
            restored = await client.graphs.restore(workflow_id, version, current_version=base.version, message=message)
        except InvalidGraph as error:
            return refused_graph(session, error, f"{workflow}@{version}")
    _print_restored(session, restored, version, base.reason)
    return ExitCode.OK


@app.command(no_args_is_help=True)
@command
async def archive(session: Session, workflow: WorkflowArgument, reason: WhyArchived = "") -> ExitCode:
    """Takes a workflow out of use.

    It is started, saved, restored and published no more. What runs goes on, and all of it can still be read.
    Archiving twice is fine.

    \b
    Examples:
      valkyr graph archive orders --reason "the shop has closed"
    """
    async with session.client() as client:
        archived = await client.graphs.archive(await workflow_id_of(client, workflow), reason=reason)
    _print_workflow(session, archived, "archived")
    session.printer.remark(f"what runs goes on; `valkyr graph unarchive {archived.id}` puts it back in use")
    return ExitCode.OK


@app.command(no_args_is_help=True)
@command
async def unarchive(session: Session, workflow: WorkflowArgument, reason: WhyArchived = "") -> ExitCode:
    """Puts an archived workflow back in use, as it was.

    \b
    Examples:
      valkyr graph unarchive orders --reason "the shop is open again"
    """
    async with session.client() as client:
        unarchived = await client.graphs.unarchive(await workflow_id_of(client, workflow), reason=reason)
    _print_workflow(session, unarchived, "in use again:")
    return ExitCode.OK


@app.command()
@command
async def audit(
    session: Session,
    workflow: Annotated[str, typer.Argument(metavar="[WORKFLOW]", help="Only of this one: id or name.")] = "",
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 50,
) -> ExitCode:
    """Lists who changed what and when, newest first. Nothing in it is ever changed or removed.

    \b
    Examples:
      valkyr graph audit
      valkyr graph audit orders --limit 1000 --json
    """
    async with session.client() as client:
        workflow_id = await workflow_id_of(client, workflow) if workflow else ""
        events = await client.graphs.audit(workflow_id, page_size=min(limit, 1000)).first(limit)
    if session.printer.as_json:
        session.printer.document({"events": document_of(events)})
    elif events:
        columns = ["TIME", "WHAT", "BY", "VERSION", "WORKFLOW", "WHY"]
        session.printer.table(columns, [_event_row(event) for event in events])
    else:
        session.printer.remark("nothing was changed yet")
    return ExitCode.OK


@app.command()
@command
async def watch(
    session: Session,
    workflows: Annotated[
        list[str] | None, typer.Argument(metavar="[WORKFLOW]...", help="Only these: ids or names.")
    ] = None,
    resume: Annotated[
        str, typer.Option(metavar="TOKEN", help="Go on where another watch ended; nothing is missed or told twice.")
    ] = "",
) -> ExitCode:
    """Prints every change of workflows as it is made.

    Saves, restores, publishing and archiving, from now on. Ctrl-C ends it (exit code 130), and the command that goes on
    from there is printed.

    \b
    Examples:
      valkyr graph watch
      valkyr graph watch orders --json
    """
    told = _Told(session)
    try:
        async with session.client() as client:
            ids = [await workflow_id_of(client, workflow) for workflow in workflows or ()]
            async for change in client.graphs.watch(ids, resume_token=resume, on_token=told.token):
                told.change(change)
    finally:
        if told.last_token:
            again = ["valkyr", "graph", "watch", *(workflows or ()), "--resume", told.last_token]
            if session.namespace:
                again += ["--namespace", session.namespace]
            session.printer.remark(f"`{shlex.join(again)}` goes on here")
    return ExitCode.OK


class _Told:
    """What a watch has told: a line for each change; as JSON one for each token, too."""

    def __init__(self, session: Session) -> None:
        self._printer = session.printer
        self.last_token = ""

    def change(self, change: WorkflowChange) -> None:
        if self._printer.as_json:
            self._printer.json_line({"change": document_of(change)})
            return
        workflow, layout = change.workflow, "  layout" if change.layout else ""
        who = f"{workflow.name or workflow.id}  version {workflow.version}  by {change.principal or '-'}"
        self._printer.line(f"{moment(workflow.updated_at)}  {change.action:<20}  {who}{layout}")

    def token(self, token: str) -> None:
        if self._printer.as_json:
            self._printer.json_line({"resumeToken": token})
        elif not self.last_token:
            self._printer.remark("watching; Ctrl-C ends it")
        self.last_token = token


def refused_graph(
    session: Session, error: InvalidGraph | MergeConflict, label: str, code: ExitCode = ExitCode.BAD_INPUT
) -> ExitCode:
    """Prints an invalid graph that stands in no file."""
    session.printer.refused(error, code, [PlacedFinding(label, None, finding) for finding in error.findings])
    return code


def _print_restored(session: Session, restored: RestoredGraph, version: int, reason: str) -> None:
    workflow, printer = restored.stored.workflow, session.printer
    if printer.as_json:
        document = {"workflow": document_of(workflow), "unchanged": restored.unchanged}
        printer.document(
            document | {"warnings": [finding_of(warning) for warning in restored.warnings], "base": reason}
        )
        return
    label = f"{workflow.name or workflow.id}@{version}"
    printer.remark_findings([PlacedFinding(label, None, warning) for warning in restored.warnings])
    who = f"{workflow.name or 'workflow'} ({workflow.id})"
    if restored.unchanged:
        printer.line(f"unchanged: {who} is at version {workflow.version}, which has the graph of version {version}")
    else:
        printer.line(f"restored version {version} of {who} as version {workflow.version}; {reason}")


def _print_workflow(session: Session, workflow: Workflow, done: str) -> None:
    if session.printer.as_json:
        session.printer.document({"workflow": document_of(workflow)})
    else:
        name = workflow.name or "workflow"
        session.printer.line(f"{done} {name} ({workflow.id}), at version {workflow.version}")


def _version_row(version: WorkflowVersion) -> list[str]:
    marks = ["layout"] if version.layout else []
    if version.restored_from:
        marks.append(f"restores {version.restored_from}")
    counts = [str(version.node_count), str(version.edge_count)]
    saved = [str(version.version), moment(version.created_at), version.author or "-"]
    return [*saved, *counts, ", ".join(marks), version.message]


def _event_row(event: AuditEvent) -> list[str]:
    before = f"{event.from_version} -> " if event.from_version not in (0, event.to_version) else ""
    versions = f"{before}{event.to_version}" if event.to_version else "-"
    who = [moment(event.created_at), event.action, event.principal or "-"]
    return [*who, versions, event.workflow_id or "-", event.message]
