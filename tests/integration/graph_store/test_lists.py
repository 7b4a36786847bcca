"""Finding workflows and their versions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf import json_format

from services.chassis.example.query import read_query
from services.graph_store.examples import WORKFLOWS
from services.graph_store.model import StoredWorkflow
from services.graph_store.workflows import Workflows
from tests.integration.graph_store.conftest import Saves
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.errors import WorkflowNotFound

Sql = Callable[..., Any]
ID = "0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80"


async def test_versions_come_newest_first_page_by_page(save: Saves, workflows: Workflows) -> None:
    for version in range(5):
        await save(f"a -> b{version}", id=ID, version=version or None, message=f"step {version}")
    first = await workflows.list_versions("default", ID, below=None, limit=3)
    rest = await workflows.list_versions("default", ID, below=first[-1].version, limit=3)
    assert [summary.version for summary in [*first, *rest]] == [5, 4, 3, 2, 1]
    assert (first[0].author, first[0].message, first[0].node_count, first[0].edge_count) == ("tester", "step 4", 2, 1)
    assert await workflows.list_versions("default", ID, below=1, limit=3) == []
    with pytest.raises(WorkflowNotFound):
        await workflows.list_versions("elsewhere", ID, below=None, limit=3)


async def test_latest_versions_of_many_come_in_one_call(save: Saves, workflows: Workflows) -> None:
    first, second = (await save("a"), await save("b"))
    await save("c", id=first.stored.workflow.id, version=1)
    ids = [first.stored.workflow.id, second.stored.workflow.id, ID]
    known, revision = await workflows.resolve_versions("default", ids)
    assert {workflow_id: latest.version for workflow_id, latest in known.items()} == {ids[0]: 2, ids[1]: 1}
    assert (await workflows.resolve_versions("elsewhere", ids), revision) == (({}, 0), 0)


async def test_workflows_are_found_page_by_page_newest_first(save: Saves, workflows: Workflows, sql: Sql) -> None:
    saved = [(await save("a", name=f"w{number}")).stored.workflow for number in range(5)]
    # Same time for all: the id decides, so that no page misses or repeats one.
    await sql("update graph_store.workflow set created_date = '2026-01-01T00:00:00Z'")
    request = pb.FindWorkflowsRequest(page_size=2)
    pages: list[list[StoredWorkflow]] = []
    while not pages or request.page_token:
        query = read_query(request, WORKFLOWS)
        found_rows = await workflows.find_workflows("default", query)
        _, request.page_token = query.page(found_rows.rows)
        pages.append(list(found_rows.workflows[:2]))
    assert [len(page) for page in pages] == [2, 2, 1]
    found = [workflow for page in pages for workflow in page]
    newest = sorted(saved, key=lambda workflow: workflow.id, reverse=True)
    assert found == [replace(workflow, created_at=found[0].created_at) for workflow in newest]


async def test_workflows_are_found_by_id_and_name_within_the_namespace(save: Saves, workflows: Workflows) -> None:
    saved = [(await save("a", name=f"w{number}")).stored.workflow for number in range(5)]

    async def find(namespace: str = "default", **example: str) -> list[str | None]:
        request = json_format.ParseDict({"example": example}, pb.FindWorkflowsRequest())
        found = await workflows.find_workflows(namespace, read_query(request, WORKFLOWS))
        return [workflow.name for workflow in found.workflows]

    assert await find(name="w3") == ["w3"]
    assert await find(id=saved[2].id) == ["w2"]
    assert await find(id=saved[2].id, name="w3") == []
    assert await find(name="W3") == []
    assert await find(name="w%") == []
    assert await find("elsewhere", name="w3") == []
