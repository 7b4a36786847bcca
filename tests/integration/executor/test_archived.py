"""Archived workflows: none is started, and what runs goes on."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.builders import a_graph
from tests.executor_modules import GATES
from tests.executor_stack import Stack
from tests.integration.executor.conftest import OpenStack
from valkyr.client import ExecutionState, Start
from valkyr.errors import WorkflowArchived

VERSIONS = pytest.mark.parametrize("version", [None, 1], ids=["latest", "named"])


@VERSIONS
async def test_an_archived_workflow_is_not_started_until_it_is_back(stack: Stack, version: int | None) -> None:
    workflow_id = await stack.save(a_graph("a"))
    await stack.client.executions.start(workflow_id, version=version)
    await stack.client.graphs.archive(workflow_id)
    with pytest.raises(WorkflowArchived):
        await stack.client.executions.start(workflow_id, version=version)
    await stack.client.graphs.unarchive(workflow_id)
    await stack.client.executions.start(workflow_id, version=version)
    assert await stack.sql.fetchval("SELECT count(*) FROM executor.workflow_execution") == 2


async def test_of_a_batch_with_an_archived_one_none_is_started(stack: Stack) -> None:
    archived, other = await stack.save(a_graph("a")), await stack.save(a_graph("a"))
    await stack.client.graphs.archive(archived)
    with pytest.raises(WorkflowArchived) as refused:
        await stack.client.executions.start_many([Start(other), Start(archived, version=1)])
    assert refused.value.details.metadata["workflowId"] == archived
    assert await stack.sql.fetchval("SELECT count(*) FROM executor.workflow_execution") == 0


@VERSIONS
async def test_i09_a_repeated_start_is_answered_though_the_workflow_was_archived_since(
    stack: Stack, version: int | None
) -> None:
    workflow_id = await stack.save(a_graph("a"))
    first = await stack.client.executions.start(workflow_id, version=version, request_id="same")
    await stack.client.graphs.archive(workflow_id)
    again = await stack.client.executions.start(workflow_id, version=version, request_id="same")
    assert again.id == first.id


async def test_what_runs_of_an_archived_workflow_goes_on(stack: Stack) -> None:
    execution = await stack.start(a_graph("a -> b", modules={"a": "HeldModule"}))
    await stack.client.graphs.archive((await stack.client.executions.get(execution)).workflow_id)
    GATES.open.set()
    assert (await stack.wait(execution)).state is ExecutionState.SUCCESS


async def test_i16_with_the_graph_store_down_a_version_that_ran_before_starts_if_nothing_is_known_against_it(
    make_stack: OpenStack,
) -> None:
    async with make_stack() as stack:
        archived, known = await stack.save(a_graph("a")), await stack.save(a_graph("a"))
        for workflow_id in (archived, known):
            await stack.wait((await stack.client.executions.start(workflow_id, version=1)).id)
        await stack.client.graphs.archive(known)
        with pytest.raises(WorkflowArchived):
            await stack.client.executions.start(known, version=1)
        await stack.client.graphs.archive(archived)
        await stack.graph_store.server.stop(timedelta())
        await stack.wait((await stack.client.executions.start(archived, version=1)).id)
        with pytest.raises(WorkflowArchived):
            await stack.client.executions.start(known, version=1)
