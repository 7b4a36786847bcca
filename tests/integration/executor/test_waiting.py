"""What a wait asks of the database, and how its statement is carried out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest

from services.executor import queries_reading
from services.executor.executions import Executions
from services.executor.feed import Feed
from services.executor.store.session import PINNED_PLANNER
from tests.builders import a_fan, a_graph
from tests.counted_session import CountedSession
from tests.executor_modules import GATES
from tests.executor_stack import Stack, until_true
from tests.integration.executor.conftest import OpenStack
from tests.integration.executor.test_schema import explain, nodes_of
from valkyr.client import ExecutionState
from valkyr.flow.ids import run_id

LONG = timedelta(minutes=10)
OUTPUTS = '{"node":"a","attempt":1}'


@pytest.fixture
async def stack(make_stack: OpenStack) -> AsyncIterator[Stack]:
    async with make_stack() as stack:
        yield stack


def counted(stack: Stack) -> tuple[Executions, CountedSession]:
    """Reads of their own, whose statements are counted; the feed asks through another session."""
    parts = stack.app.parts
    session = CountedSession(parts.session)
    return Executions(session, parts.cache, parts.feed), session  # type: ignore[arg-type]


async def test_a_wait_asks_once_whether_it_has_ended_and_once_when_it_has(stack: Stack) -> None:
    execution_id = UUID(await stack.start(a_graph("a", modules={"a": "HeldModule"})))
    await until_true(lambda: GATES.running == 1, "it runs")
    executions, session = counted(stack)
    waiting = asyncio.create_task(executions.wait("default", execution_id, LONG))
    feed: Feed = stack.app.parts.feed
    await until_true(lambda: feed._seen is not None and session.statements >= 1, "it waits, and the feed has looked")
    asked = session.statements
    GATES.open.set()
    view = await waiting
    assert asked <= 2, "once more when the feed has first looked"
    assert session.statements == asked + 1
    assert (view.state, view.run_counts, view.outputs) == (
        ExecutionState.SUCCESS,
        {"SUCCESS": 1},
        {"a": OUTPUTS},
    )


async def test_a_wait_for_what_has_ended_asks_once(stack: Stack) -> None:
    execution_id = UUID((await stack.run(a_graph("a"))).id)
    executions, session = counted(stack)
    view = await executions.wait("default", execution_id, LONG)
    assert (view.state, view.run_counts) == (ExecutionState.SUCCESS, {"SUCCESS": 1})
    assert session.statements == 1


async def test_at_its_timeout_a_wait_tells_how_many_runs_are_where(stack: Stack) -> None:
    execution_id = UUID(await stack.start(a_graph("a -> b", nodes={"a": {"pool": "elsewhere"}})))
    executions, _ = counted(stack)
    view = await executions.wait("default", execution_id, timedelta(milliseconds=50))
    assert (view.state, view.run_counts, view.outputs) == (ExecutionState.PENDING, {"READY": 1, "PENDING": 1}, {})


@pytest.mark.parametrize("settled", [True, False], ids=["settled", "going on"])
async def test_runs_are_read_by_their_keys_and_only_of_what_has_ended(stack: Stack, settled: bool) -> None:
    execution_id = UUID((await stack.run(a_fan(50))).id)
    if not settled:
        await stack.sql.execute("UPDATE executor.workflow_execution SET state = 'RUNNING'")
    for name, value in PINNED_PLANNER.items():
        await stack.sql.execute(f"SET {name} = {value}")
    leaves = [run_id(execution_id, 51)]
    plan = await explain(stack.sql, queries_reading.READ_EXECUTION, "default", execution_id, leaves, 1_000, True)
    of_runs = [node for node in nodes_of(plan) if node.get("Relation Name") == "run"]
    assert {node["Index Name"] for node in of_runs} <= {"run_pkey", "run_execution"}, "never from end to end"
    assert sum(node["Actual Loops"] * node["Actual Rows"] for node in of_runs) == (52 + 1 if settled else 0)
