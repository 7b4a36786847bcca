"""valkyr graph draft: save, get, discard and publish your own draft of a workflow."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from valkyr.cli.documents import document_of, draft_document, finding_of, graph_file_of_draft, placed_finding_of
from valkyr.cli.exits import ExitCode
from valkyr.cli.graph_commands import Version
from valkyr.cli.graph_files import GraphFile, PlacedFinding, place, read_graph_file
from valkyr.cli.graph_history_commands import WorkflowArgument, refused_graph
from valkyr.cli.printing import moment
from valkyr.cli.session import Session, command
from valkyr.cli.workflows import SaveBase, choose_base, described_by, existing_id, workflow_id_of
from valkyr.cli.yaml_writing import yaml_of
from valkyr.client import Client, Draft, PublishedDraft, SavedDraft
from valkyr.client.ids import new_request_id
from valkyr.errors import DraftNotFound, InvalidGraph, MergeConflict
from valkyr.graph.model import WorkflowInfo

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    short_help="Drafts: your own work on a workflow, until it is published.",
    help="""Drafts: your own work on a workflow, apart from what is published and from the drafts of others.

    There is one for each workflow and person. It may hold errors, and is kept for 90 days after its last save.

    \b
    From a draft to a version:
      valkyr graph get orders > orders.yaml        and edit it
      valkyr graph draft save orders.yaml          as often as you like
      valkyr graph diff orders@draft               what it changes
      valkyr graph draft publish orders -m "why"
    """,
)

_MEANT = "The draft's revision that is meant; if it has another by now, exit code 5."
Revision = Annotated[int | None, typer.Option(min=1, metavar="N", help=_MEANT)]
EditedRevision = Annotated[int | None, typer.Option(min=0, metavar="N", help=f"{_MEANT} 0: there is to be none yet.")]


@app.command(no_args_is_help=True)
@command
async def save(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="YAML or JSON; - is standard input.")],
    version: Version = None,
    revision: EditedRevision = None,
) -> ExitCode:
    """Keeps a file as your draft of its workflow, errors and all, and says what keeps it from being published.

    Which workflow: `workflow.id` of the file, else the one that has its `workflow.name`, else a new one, whose id is
    printed. Edited from --version, else the file's `workflow.version`, else what your draft began as, else the latest
    if you saved that: what others have saved since is merged with, and not overwritten unseen. A description or
    labels that the file has no key for stay as they are.

    \b
    Examples:
      valkyr graph draft save orders.yaml
      valkyr graph draft save orders.yaml --version 4 --revision 2
    """
    graph_file = read_graph_file(file)
    async with session.client(of_file=graph_file.envelope.namespace) as client:
        base = await _base_of(client, graph_file, version, principal=session.principal)
        workflow_id, said = base.workflow_id, graph_file.workflow
        if workflow_id is not None:
            said = await described_by(client, graph_file, workflow_id, base.version) or WorkflowInfo()
        saved = await client.graphs.drafts.save(
            workflow_id or new_request_id(),
            graph_file.graph,
            workflow=said if said.name or said.description or said.labels else None,
            base_version=base.version,
            revision=revision,
        )
    _print_saved(session, graph_file, saved, is_new=workflow_id is None)
    return ExitCode.OK


async def _base_of(client: Client, graph_file: GraphFile, version: str | None, *, principal: str) -> SaveBase:
    """By the rule of saves; a draft that is replaced says what it began as. VersionRequired."""
    info = graph_file.workflow
    if version is None and info.version is None:
        workflow_id = await existing_id(client, info)
        with suppress(DraftNotFound):
            if workflow_id is not None:
                draft = await client.graphs.drafts.get(workflow_id)
                return SaveBase(workflow_id, draft.base_version or None, "as your draft began")
    return await choose_base(client, info, version, principal=principal)


@app.command(no_args_is_help=True)
@command
async def get(session: Session, workflow: WorkflowArgument) -> ExitCode:
    """Prints your draft as a graph file: YAML, or with all that is known of it as JSON with --json.

    It names the version that it began as, so it can be edited and saved, as a draft or as a version.

    \b
    Examples:
      valkyr graph draft get orders > orders.yaml
    """
    async with session.client() as client:
        draft = await client.graphs.drafts.get(await workflow_id_of(client, workflow))
    if session.printer.as_json:
        session.printer.document({"draft": draft_document(draft)})
    else:
        session.printer.text(yaml_of(graph_file_of_draft(draft)))
    session.printer.remark(f"revision {draft.revision}, {_begun(draft)}; kept until {moment(draft.expires_at)}")
    return ExitCode.OK


@app.command(no_args_is_help=True)
@command
async def discard(session: Session, workflow: WorkflowArgument, revision: Revision = None) -> ExitCode:
    """Throws your draft away. What is published stays as it is.

    \b
    Examples:
      valkyr graph draft discard orders
      valkyr graph draft discard orders --revision 3
    """
    async with session.client() as client:
        workflow_id = await workflow_id_of(client, workflow)
        await client.graphs.drafts.discard(workflow_id, revision=revision)
    if session.printer.as_json:
        session.printer.document({"workflowId": workflow_id})
    session.printer.line(f"your draft of {workflow} is gone")
    return ExitCode.OK


@app.command(no_args_is_help=True)
@command
async def publish(
    session: Session,
    workflow: WorkflowArgument,
    revision: Revision = None,
    message: Annotated[str, typer.Option("--message", "-m", metavar="TEXT", help="Why, for the history.")] = "",
) -> ExitCode:
    """Saves your draft as a new version; the draft is gone then.

    If others have saved since it began, their changes and yours are put together. Where two have changed the same, or
    both together have errors, nothing is saved, that is printed, and it ends with 5; where your draft has errors by
    itself it ends with 3. The draft is kept in each case.

    \b
    Examples:
      valkyr graph draft publish orders -m "charge before shipping"
    """
    async with session.client() as client:
        workflow_id = await workflow_id_of(client, workflow)
        try:
            published = await client.graphs.drafts.publish(workflow_id, revision=revision, message=message)
        except InvalidGraph as error:
            return refused_graph(session, error, f"{workflow}@draft")
        except MergeConflict as error:
            if not error.findings:
                raise
            return refused_graph(session, error, f"{workflow}@draft+{error.current_version}", ExitCode.CONFLICT)
    _print_published(session, published)
    return ExitCode.OK


def _print_saved(session: Session, graph_file: GraphFile, saved: SavedDraft, *, is_new: bool) -> None:
    draft, printer = saved.draft, session.printer
    findings = [place(graph_file.document, finding) for finding in saved.findings]
    if printer.as_json:
        document = {"draft": draft_document(draft), "findings": [placed_finding_of(found) for found in findings]}
        printer.document(document)
        return
    printer.remark_findings(findings)
    errors = sum(found.finding.is_error for found in findings)
    verdict = f"; {errors} error{'s' if errors > 1 else ''} to mend before it is published" if errors else ""
    name = draft.workflow.name or "workflow"
    printer.line(
        f"kept as your draft of {name} ({draft.workflow_id}), revision {draft.revision}, {_begun(draft)}{verdict}"
    )
    if is_new:
        printer.remark(f"put `workflow: {{id: {draft.workflow_id}}}` into the file to save this draft again")


def _print_published(session: Session, published: PublishedDraft) -> None:
    workflow, printer = published.stored.workflow, session.printer
    if printer.as_json:
        document = {"workflow": document_of(workflow), "merged": published.merged, "unchanged": published.unchanged}
        printer.document(document | {"warnings": [finding_of(warning) for warning in published.warnings]})
        return
    name = workflow.name or "workflow"
    label = f"{workflow.name or workflow.id}@{workflow.version}"
    printer.remark_findings([PlacedFinding(label, None, warning) for warning in published.warnings])
    if published.unchanged:
        printer.line(f"unchanged: {name} ({workflow.id}) says at version {workflow.version} what the draft said")
    else:
        merged = ", put together with what others have saved since" if published.merged else ""
        printer.line(f"published {name} ({workflow.id}) as version {workflow.version}{merged}")


def _begun(draft: Draft) -> str:
    if not draft.base_version:
        return "of a workflow that is not published yet" if not draft.current_version else "begun as a new workflow"
    if draft.current_version > draft.base_version:
        return f"begun as version {draft.base_version}; others have saved up to version {draft.current_version} since"
    return f"begun as version {draft.base_version}, the latest"
