"""valkyr graph: validate, save, get and list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer

from valkyr.cli import workflow_list
from valkyr.cli.documents import graph_file_of, placed_finding_of, saved_of
from valkyr.cli.exits import ExitCode
from valkyr.cli.graph_files import BadGraphFile, GraphFile, PlacedFinding, place, read_graph_file
from valkyr.cli.printing import seconds
from valkyr.cli.session import Session, command
from valkyr.cli.workflows import SaveBase, choose_base, read_version, workflow_id_of
from valkyr.cli.yaml_writing import yaml_of
from valkyr.client import Client, SavedGraph, SaveRetry
from valkyr.client.graph_documents import one_message
from valkyr.client.graphs import refuse_errors
from valkyr.errors import InvalidGraph
from valkyr.graph.model import WorkflowInfo

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    short_help="Workflows: graph files, versions, drafts.",
    help="""Workflows: validate graph files, save them, read them back; compare versions, restore them, work on drafts.

    WORKFLOW is an id or an exact name. Where a graph is looked at, WORKFLOW@3 is its version 3, WORKFLOW@draft your
    draft of it, and what ends with .yaml, .yml or .json is a file.
    """,
)

Version = Annotated[
    str | None,
    typer.Option(
        "--version",
        parser=read_version,
        metavar="N|latest",
        help="The version that the file was edited from; wins over the file's.",
    ),
]


@app.command(no_args_is_help=True)
@command
async def validate(
    session: Session,
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="YAML or JSON; - is standard input.")],
    remote: Annotated[
        bool, typer.Option(help="Ask the graph store, which may know other modules than this command does.")
    ] = False,
) -> ExitCode:
    """Prints every finding with its line. Ends with 3 if a file has errors; warnings are fine.

    Needs no service unless --remote is given.

    \b
    Examples:
      valkyr graph validate orders.yaml
      valkyr graph validate *.yaml --json
      cat orders.yaml | valkyr graph validate -
    """
    reports = [await _validated(session, name, remote=remote) for name in files]
    if session.printer.as_json:
        session.printer.document({"files": reports})
    return ExitCode.OK if all(report["valid"] for report in reports) else ExitCode.BAD_INPUT


@app.command(no_args_is_help=True)
@command
async def save(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="YAML or JSON; - is standard input.")],
    version: Version = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The workflow's name, instead of the file's.")
    ] = None,
    message: Annotated[str, typer.Option("--message", "-m", metavar="TEXT", help="Why, for the history.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check it all, save nothing.")] = False,
) -> ExitCode:
    """Validates a file and saves it as a new version, whole or not at all.

    Which workflow: `workflow.id` of the file, else the one that has its `workflow.name`, else a new one.

    On top of which version: --version, else the file's `workflow.version`. If neither says so, the latest, but only if
    you saved that one; if somebody else did, nothing is saved (exit code 5) and you say --version N, or
    --version latest. Whoever saves in between makes it a conflict (5): nothing is ever overwritten unseen.

    A description or labels that the file has no key for stay as they are stored; an empty key empties them. The file
    may name its `namespace` and a `message`; another one on the command line is refused.

    \b
    Examples:
      valkyr graph save orders.yaml
      valkyr graph save orders.yaml --version 4 -m "charge before shipping"
      valkyr graph get orders > orders.yaml    # edit, then save: it knows its version
    """
    graph_file = read_graph_file(file)
    info = graph_file.workflow if name is None else replace(graph_file.workflow, name=name)
    message = one_message(message, graph_file.envelope)
    async with session.client(of_file=graph_file.envelope.namespace) as client:
        try:
            refuse_errors(graph_file.graph)
            base = await choose_base(client, info, version, principal=session.principal)
            info = await _with_what_is_stored(client, graph_file, info, base)
            saved = await client.graphs.save(
                graph_file.graph,
                workflow=replace(info, id=base.workflow_id, version=base.version),
                message=message,
                validate_only=dry_run,
                on_retry=lambda retry: _remark_retry(session, retry),
            )
        except InvalidGraph as error:
            placed = [place(graph_file.document, finding) for finding in error.findings]
            session.printer.refused(error, ExitCode.BAD_INPUT, placed)
            return ExitCode.BAD_INPUT
    _print_saved(session, graph_file, info, saved, dry_run=dry_run, reason=base.reason)
    return ExitCode.OK


@app.command(no_args_is_help=True)
@command
async def get(
    session: Session,
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="Id or name.")],
    version: Annotated[int | None, typer.Option(min=1, metavar="N", help="The latest by default.")] = None,
) -> ExitCode:
    """Prints a version as a graph file: YAML, or JSON with --json. It names its version, so it can be edited and saved.

    \b
    Examples:
      valkyr graph get orders
      valkyr graph get orders --version 3 --json
    """
    async with session.client() as client:
        stored = await client.graphs.get(await workflow_id_of(client, workflow), version=version)
    document = graph_file_of(stored)
    if session.printer.as_json:
        session.printer.document(document)
    else:
        session.printer.text(yaml_of(document))
    return ExitCode.OK


app.command(name="list")(command(workflow_list.list_))
app.command(name="find", no_args_is_help=True)(command(workflow_list.find))


async def _validated(session: Session, name: str, *, remote: bool) -> dict[str, Any]:
    """The report on one file, printed unless it is to be JSON."""
    try:
        graph_file = read_graph_file(name)
    except BadGraphFile as error:
        return _report(session, name, error.problems, counts="")
    async with session.client(of_file=graph_file.envelope.namespace) as client:
        findings = await client.graphs.validate(graph_file.document.value, local=not remote)
    placed = [place(graph_file.document, finding) for finding in findings]
    return _report(session, graph_file.source, placed, counts=_counts(graph_file))


def _report(session: Session, source: str, placed: Sequence[PlacedFinding], *, counts: str) -> dict[str, Any]:
    errors = [found for found in placed if found.finding.is_error]
    session.printer.findings(placed)
    verdict = "ok" if not errors else f"{len(errors)} error{'s' if len(errors) > 1 else ''}"
    warnings = len(placed) - len(errors)
    more = f", {warnings} warning{'s' if warnings > 1 else ''}" if warnings else ""
    session.printer.line(f"{source}: {verdict}{more}{counts}")
    return {"file": source, "valid": not errors, "findings": [placed_finding_of(found) for found in placed]}


async def _with_what_is_stored(
    client: Client, graph_file: GraphFile, info: WorkflowInfo, base: SaveBase
) -> WorkflowInfo:
    """The workflow with the stored description and labels where the file says nothing about them."""
    unsaid = [key for key in ("description", "labels") if not graph_file.says(key)]
    if base.version is None or base.workflow_id is None or not unsaid:
        return info
    for stored in await client.graphs.find(example={"id": base.workflow_id}, page_size=1).first(1):
        return replace(info, **{key: getattr(stored, key) for key in unsaid})
    return info


def _remark_retry(session: Session, retry: SaveRetry) -> None:
    delay = seconds(retry.delay.total_seconds())
    which = f"try {retry.retry} of {retry.max_retries}"
    session.printer.remark(f"not saved yet: {retry.error.message}; once more in {delay} ({which})")


def _print_saved(
    session: Session, graph_file: GraphFile, info: WorkflowInfo, saved: SavedGraph, *, dry_run: bool, reason: str
) -> None:
    warnings = [place(graph_file.document, warning) for warning in saved.warnings]
    if session.printer.as_json:
        session.printer.document(saved_of(saved, warnings) | {"base": reason, "dryRun": dry_run})
        return
    session.printer.remark_findings(warnings)
    who = f"{saved.workflow.name or info.name or 'workflow'} ({saved.workflow.id})"
    if saved.unchanged:
        session.printer.line(f"unchanged: {who} is still at version {saved.workflow.version}")
    else:
        done = "would save" if dry_run else "saved"
        session.printer.line(f"{done} {who} as version {saved.workflow.version}{_counts(graph_file)}; {reason}")
    if info.id is None and not saved.workflow.name and not dry_run:
        session.printer.remark("it has no name: put `workflow: {id: ...}` or a name into the file to save it again")


def _counts(graph_file: GraphFile) -> str:
    return f" ({len(graph_file.graph.nodes)} nodes, {len(graph_file.graph.edges)} edges)"
