"""Which workflow is meant: an id, or a name that is looked up; and on top of which version a file is saved."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace

import typer

from valkyr.cli.graph_files import GraphFile
from valkyr.client import Client, Workflow
from valkyr.errors import VersionRequired, WorkflowNotFound
from valkyr.graph.model import WorkflowInfo

LATEST = "latest"


@dataclass(frozen=True, slots=True)
class SaveBase:
    """What a save starts from: the workflow's id (None: a new one), its version, and why, for people."""

    workflow_id: str | None
    version: int | None
    reason: str


async def workflow_id_of(client: Client, workflow: str) -> str:
    """The id that `workflow` is, or that the workflow of this name has. WorkflowNotFound."""
    if is_id(workflow):
        return workflow
    found = await find_named(client, workflow)
    if found is None:
        raise WorkflowNotFound(
            f"there is no workflow called {workflow!r} in the namespace {client.namespace!r}",
            hint="`valkyr graph list` shows those there are",
        )
    return found.id


async def find_named(client: Client, name: str) -> Workflow | None:
    """The workflow with exactly this name."""
    page = await client.graphs.find(example={"name": name}, page_size=1).page()
    return page.items[0] if page.items else None


def is_id(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


async def choose_base(client: Client, info: WorkflowInfo, version: str | None, *, principal: str) -> SaveBase:
    """What a file is saved on top of. `version` is the option: a number, "latest", or None to go by the file.

    Without any version the latest is taken only if `principal` saved it: nobody's work is overwritten unseen. In any
    case the version chosen is sent along, so that a save that comes in between is a VersionConflict.
    VersionRequired where somebody else saved last.
    """
    workflow_id = await existing_id(client, info)
    if version is not None and version != LATEST:
        return SaveBase(workflow_id, int(version), f"on top of version {version}, as --version says")
    if version is None and info.version is not None:
        return SaveBase(workflow_id, info.version, f"on top of version {info.version}, as the file says")
    if workflow_id is None:
        return SaveBase(None, None, "a new workflow")
    try:
        (latest,) = await client.graphs.versions(workflow_id, page_size=1).first(1)
    except WorkflowNotFound:
        return SaveBase(workflow_id, None, "a new workflow with the id in the file")
    if version == LATEST:
        return SaveBase(workflow_id, latest.version, f"on top of version {latest.version}, the latest")
    if latest.author == principal:
        return SaveBase(workflow_id, latest.version, f"on top of version {latest.version}, the latest, which is yours")
    raise VersionRequired(
        f"the file does not say which version it was edited from, and {latest.author or 'somebody'} saved version "
        f"{latest.version} last",
        hint=f"look at it with `valkyr graph get {workflow_id}`, then save with --version {latest.version}",
        metadata={"currentVersion": str(latest.version)},
    )


async def choose_current(client: Client, workflow_id: str, version: str | None, *, principal: str) -> SaveBase:
    """What a restore is saved on top of, by the same rule; `version` is the option. VersionRequired."""
    if version is not None and version != LATEST:
        return SaveBase(workflow_id, int(version), f"on top of version {version}, as --current says")
    (latest,) = await client.graphs.versions(workflow_id, page_size=1).first(1)
    if version == LATEST:
        return SaveBase(workflow_id, latest.version, f"on top of version {latest.version}, the latest")
    if latest.author == principal:
        return SaveBase(workflow_id, latest.version, f"on top of version {latest.version}, the latest, which is yours")
    raise VersionRequired(
        f"{latest.author or 'somebody'} saved version {latest.version} last",
        hint=f"look at it with `valkyr graph diff {workflow_id}`, then restore with --current {latest.version}",
        metadata={"currentVersion": str(latest.version)},
    )


async def described_by(
    client: Client, graph_file: GraphFile, workflow_id: str, version: int | None
) -> WorkflowInfo | None:
    """What a file says beside its graph, the rest as this version has it, the latest if None; None where the file says
    nothing of it."""
    unsaid = [key for key in ("name", "description", "labels") if not graph_file.says(key)]
    if len(unsaid) == 3:
        return None
    if not unsaid:
        return graph_file.workflow
    if version is not None:
        stored = (await client.graphs.get(workflow_id, version=version)).workflow
    else:
        page = await client.graphs.find(example={"id": workflow_id}, page_size=1).page()
        if not page.items:
            return graph_file.workflow
        stored = page.items[0]
    return replace(graph_file.workflow, **{key: getattr(stored, key) for key in unsaid})


async def existing_id(client: Client, info: WorkflowInfo) -> str | None:
    """The id that a file names, or that the workflow of its name has; None for a new workflow."""
    if info.id is not None or info.name is None:
        return info.id
    found = await find_named(client, info.name)
    return None if found is None else found.id


def read_version(text: str) -> str:
    """What --version says, "latest" or the digits of a number; a bad one is a usage error."""
    if text != LATEST and not (text.isdecimal() and len(text) <= 10 and 0 < int(text) < 2**31):
        raise typer.BadParameter(f"{text[:40]!r} is no version; give a number, or latest")
    return text
