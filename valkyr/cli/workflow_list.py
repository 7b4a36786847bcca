"""valkyr graph list and find: which workflows there are."""

from __future__ import annotations

from typing import Annotated

import typer

from valkyr.cli.by_example import Asked, by_example
from valkyr.cli.documents import document_of
from valkyr.cli.exits import ExitCode
from valkyr.cli.printing import moment
from valkyr.cli.session import Session
from valkyr.cli.workflows import is_id
from valkyr.client import Workflow

Limit = Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")]


@by_example(time="createTime")
async def list_(
    session: Session,
    asked: Asked,
    workflow: Annotated[str, typer.Argument(metavar="[WORKFLOW]", help="Only this one: id or exact name.")] = "",
    limit: Limit = 50,
) -> ExitCode:
    """Lists workflows, newest first.

    \b
    Examples:
      valkyr graph list
      valkyr graph list orders --json
      valkyr graph list --order-by "updateTime desc" --limit 5
    """
    named = {"id" if is_id(workflow) else "name": workflow} if workflow else {}
    return await _print_found(session, asked, limit, named)


@by_example(time="createTime")
async def find(session: Session, asked: Asked, limit: Limit = 50) -> ExitCode:
    """Finds workflows by what they look like.

    --example is an object in the shape of what --json prints, with the `nodes`, `edges` and `modules` of the latest
    version in lists beside it. What it does not say does not matter; null finds what has no such value.

    \b
    Examples:
      valkyr graph find --example '{"name": "order"}' --match contains --ignore-case
      valkyr graph find --example '{"labels": {"team": "shop"}, "archived": false}'
      valkyr graph find --example '{"modules": [{"className": "HttpRequestModule"}]}'
      valkyr graph find --example '{"nodes": [{"nodeId": "charge_card"}]}' --order-by name
      valkyr graph find --since 7d --time updateTime
    """
    return await _print_found(session, asked, limit, {})


async def _print_found(session: Session, asked: Asked, limit: int, named: dict[str, str]) -> ExitCode:
    async with session.client() as client:
        workflows = await client.graphs.find(**asked.arguments(**named), page_size=min(limit, 1000)).first(limit)
    if session.printer.as_json:
        session.printer.document({"workflows": document_of(workflows)})
    elif workflows:
        rows = [
            [
                found.id,
                found.name,
                str(found.version),
                moment(found.updated_at),
                _described(found),
            ]
            for found in workflows
        ]
        session.printer.table(["ID", "NAME", "VERSION", "UPDATED", "DESCRIPTION"], rows)
    elif asked.narrows or named:
        session.printer.remark("no such workflows; `valkyr graph list` shows all there are")
    else:
        session.printer.remark("no workflows; save one with `valkyr graph save FILE`")
    return ExitCode.OK


def _described(workflow: Workflow) -> str:
    return f"(archived) {workflow.description}".strip() if workflow.archived else workflow.description
