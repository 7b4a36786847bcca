"""valkyr graph show, diff and merge: look at graphs, and put together what two people have changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from valkyr.cli.diff_view import conflicts_text, diff_text, drawing_text
from valkyr.cli.documents import document_of, graph_file_of, merged_document
from valkyr.cli.exits import ExitCode
from valkyr.cli.graph_files import PlacedFinding, place, read_graph_file
from valkyr.cli.graph_sides import SIDE, SideArgument, is_file, namespace_of, read_files, read_side, side_before
from valkyr.cli.session import Session, command
from valkyr.cli.workflows import described_by, existing_id
from valkyr.cli.yaml_text import read_yaml
from valkyr.cli.yaml_writing import yaml_of
from valkyr.client import MergedGraph
from valkyr.errors import InvalidRequest, WorkflowNotFound
from valkyr.graph.diff import diff_graphs, differences_of
from valkyr.graph.drawing import WIDTH, drawing_lines

app = typer.Typer()


@app.command(no_args_is_help=True)
@command
async def show(
    session: Session,
    graph: SideArgument,
    width: Annotated[
        int | None, typer.Option(min=20, metavar="N", help="Columns; those of the terminal by default.")
    ] = None,
) -> ExitCode:
    """Draws a graph in the terminal.

    Layer by layer, each node with the edges that leave it. ● is a node that runs a module, ○ one that only passes
    through. However large the graph, the drawing fits on a few screens, and says what it leaves out. A file is drawn
    as it is, with errors and cycles too; that needs no service.

    \b
    Examples:
      valkyr graph show orders.yaml
      valkyr graph show orders
      valkyr graph show orders@3
    """
    files = read_files(graph)
    async with session.client(of_file=namespace_of(files)) as client:
        side = await read_side(client, graph, files)
    screen = session.printer.screen
    lines = drawing_lines(side.graph, width=width or (screen.width if screen.is_terminal else WIDTH))
    if session.printer.as_json:
        session.printer.document({"graph": side.label, "lines": lines})
    for line in drawing_text(lines):
        session.printer.line(line)
    return ExitCode.OK


@app.command(no_args_is_help=True)
@command
async def diff(
    session: Session,
    old: SideArgument,
    new: Annotated[str | None, typer.Argument(metavar=f"[{SIDE}]", help="What it has become.")] = None,
) -> ExitCode:
    """Shows what one graph has become in another.

    What became of each node, edge, module and setting; moves in the picture come last. One alone is compared with
    what came before: a version with the one before it, a file or a draft with the version that it was edited from.

    \b
    Examples:
      valkyr graph diff orders                     what the last save has changed
      valkyr graph diff orders@3 orders            what became of version 3
      valkyr graph diff orders.yaml                what saving the file would change
      valkyr graph diff orders.yaml orders@draft
      valkyr graph diff old.yaml new.yaml          two files; needs no service
    """
    files = read_files(old, new)
    async with session.client(of_file=namespace_of(files)) as client:
        first = await read_side(client, old, files)
        if new is None:
            is_version = not is_file(old) and not first.label.endswith("@draft")
            first, second = await side_before(client, first, of_version=is_version), first
        else:
            second = await read_side(client, new, files)
    found = diff_graphs(first.graph, second.graph, workflows=(first.workflow, second.workflow))
    if session.printer.as_json:
        document = {
            "old": first.label,
            "new": second.label,
            "differences": document_of(differences_of(found)),
            "reordered": [part.value for part in found.reordered],
            "layout": found.is_layout,
        }
        session.printer.document(document)
    for line in diff_text(found, old=first.label, new=second.label):
        session.printer.line(line)
    if not found:
        session.printer.remark(f"no difference between {first.label} and {second.label}")
    return ExitCode.OK


@app.command(no_args_is_help=True)
@command
async def merge(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="What you have made of it; - is standard input.")],
    base: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="The version that the file was edited from."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there instead of printing it.")
    ] = None,
) -> ExitCode:
    """Puts a file together with what others have saved.

    Three-way: what the version that the file was edited from has become in the file, and in the current version.
    Prints the result as a graph file, to be saved over the current version; saves nothing. Changes in different
    places both stand. Where two have changed the same, nothing is printed but the conflicts, and it ends with 5;
    where the changes of both together make an error, such as a cycle, it is printed with its findings, and it ends
    with 3.

    \b
    Examples:
      valkyr graph merge orders.yaml > merged.yaml
      valkyr graph merge orders.yaml -o orders.yaml && valkyr graph save orders.yaml
    """
    graph_file = read_graph_file(file)
    async with session.client(of_file=graph_file.envelope.namespace) as client:
        workflow_id = await existing_id(client, graph_file.workflow)
        if workflow_id is None:
            raise WorkflowNotFound(
                f"{graph_file.source} names no stored workflow", hint="put `workflow: {id: ..., version: ...}` into it"
            )
        version = base or graph_file.workflow.version
        if version is None:
            hint = "name it with --base N; `valkyr graph versions` lists them"
            raise InvalidRequest(
                f"{graph_file.source} does not say which version it was edited from; {hint}", hint=hint
            )
        info = await described_by(client, graph_file, workflow_id, version)
        merged = await client.graphs.merge(workflow_id, graph_file.graph, workflow=info, base_version=version)
    return _print_merged(session, graph_file.source, merged, output)


def _print_merged(session: Session, source: str, merged: MergedGraph, output: str | None) -> ExitCode:
    printer = session.printer
    if merged.stored is None:
        printer.remark_lines(conflicts_text(merged.conflicts))
        count, current = merged.total_conflicts, merged.current_version
        what = "a place where it does" if count == 1 else f"{count:,} places where they do"
        printer.remark(f"nothing was merged: {source} and version {current} have {what} not go together")
    else:
        document = graph_file_of(merged.stored)
        text = yaml_of(document)
        if output is not None:
            _write(output, text)
        elif not printer.as_json:
            printer.text(text)
        _remark_merged(session, merged, placed_in(text, output or "<merged>", merged), output)
    if printer.as_json:
        printer.document(merged_document(merged))
    if merged.stored is None:
        return ExitCode.CONFLICT
    return ExitCode.OK if merged.is_valid else ExitCode.BAD_INPUT


def placed_in(text: str, source: str, merged: MergedGraph) -> list[PlacedFinding]:
    """The findings of a merge at the lines of the text that it was written as."""
    document = read_yaml(text, source)
    return [place(document, finding) for finding in merged.findings]


def _remark_merged(session: Session, merged: MergedGraph, findings: list[PlacedFinding], output: str | None) -> None:
    printer = session.printer
    printer.remark_findings(findings)
    if merged.both_moved:
        printer.remark(f"both have moved {', '.join(merged.both_moved)}: it stands where the file has it")
    where = f"written to {output}: " if output is not None else ""
    advice = "`valkyr graph save` saves it" if merged.is_valid else "mend it before it is saved"
    printer.remark(f"{where}put together with version {merged.current_version}; {advice}")


def _write(name: str, text: str) -> None:
    try:
        Path(name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidRequest.of_field("--output", f"{name} cannot be written: {error.strerror or error}") from None
