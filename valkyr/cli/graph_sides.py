"""Which graph is meant: a file, a version of a workflow (`orders`, `orders@3`), or one's draft (`orders@draft`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from valkyr.cli.graph_files import STDIN, GraphFile, read_graph_file
from valkyr.cli.workflows import LATEST, find_named, workflow_id_of
from valkyr.client import Client, StoredGraph
from valkyr.errors import InvalidRequest, WorkflowNotFound
from valkyr.graph.model import Graph, WorkflowInfo

SIDE = "FILE|WORKFLOW[@N]"
SideArgument = Annotated[
    str, typer.Argument(metavar=SIDE, help="A file, or a workflow: orders, orders@3, orders@draft.")
]
_SUFFIXES = frozenset({".yaml", ".yml", ".json"})
_DRAFT = "draft"


@dataclass(frozen=True, slots=True)
class Side:
    """A graph to be looked at, and what it is called. `workflow.version` is its version, or the one it began as."""

    label: str
    workflow: WorkflowInfo
    graph: Graph


@dataclass(frozen=True, slots=True)
class Reference:
    """A workflow as the command line names it; `which` is digits, "latest" or "draft"."""

    workflow: str
    which: str = LATEST

    @property
    def version(self) -> int | None:
        return int(self.which) if self.which.isdecimal() else None

    @property
    def is_draft(self) -> bool:
        return self.which == _DRAFT


def is_file(text: str) -> bool:
    """Whether a side is a file: by its suffix, standard input, or a path that is there (`./orders`)."""
    return text == STDIN or Path(text).suffix.lower() in _SUFFIXES or ("/" in text and Path(text).is_file())


def read_files(*texts: str | None) -> dict[str, GraphFile]:
    """Those of the sides that are files, by their names. BadGraphFile."""
    return {text: read_graph_file(text) for text in texts if text is not None and is_file(text)}


def namespace_of(files: Mapping[str, GraphFile]) -> str:
    """The namespace that the files name, if any does. InvalidRequest where they name two."""
    named = {file.envelope.namespace for file in files.values()} - {""}
    if len(named) > 1:
        raise InvalidRequest(f"the files are of different namespaces: {', '.join(sorted(named))}")
    return named.pop() if named else ""


def reference_of(text: str) -> Reference:
    """`orders@3` as what it names; what follows the last @ is a version only if it looks like one."""
    workflow, at, which = text.rpartition("@")
    if at and workflow and (which in (LATEST, _DRAFT) or (which.isdecimal() and 0 < int(which[:11]) < 2**31)):
        return Reference(workflow, which)
    return Reference(text)


def side_of_file(file: GraphFile) -> Side:
    return Side(file.source, file.workflow, file.graph)


def side_of_version(stored: StoredGraph) -> Side:
    workflow = stored.workflow
    return Side(f"{workflow.name or workflow.id}@{workflow.version}", workflow.edited, stored.graph)


async def read_side(client: Client, text: str, files: Mapping[str, GraphFile]) -> Side:
    """The graph that `text` means; `files` are those that were read.

    WorkflowNotFound, VersionNotFound, DraftNotFound.
    """
    if text in files:
        return side_of_file(files[text])
    reference = reference_of(text)
    workflow_id = await workflow_id_of(client, reference.workflow)
    if not reference.is_draft:
        return side_of_version(await client.graphs.get(workflow_id, version=reference.version))
    draft = await client.graphs.drafts.get(workflow_id)
    workflow = replace(draft.workflow, id=workflow_id, version=draft.base_version or None)
    return Side(f"{draft.workflow.name or workflow_id}@{_DRAFT}", workflow, draft.graph)


async def side_before(client: Client, side: Side, *, of_version: bool) -> Side:
    """What a graph that stands alone is compared with.

    A version with the one before it; a file or a draft with the version that it was edited from, where it does not say
    so with the latest; where there is none, with nothing.
    """
    workflow_id, version = side.workflow.id, side.workflow.version
    if workflow_id is None and side.workflow.name is not None:
        found = await find_named(client, side.workflow.name)
        workflow_id = None if found is None else found.id
    if of_version:
        version = (version or 1) - 1
    nothing = Side("nothing", WorkflowInfo(), Graph())
    if workflow_id is None or version == 0:
        return nothing
    try:
        return side_of_version(await client.graphs.get(workflow_id, version=version))
    except WorkflowNotFound:
        if version is not None:
            raise
        return nothing
