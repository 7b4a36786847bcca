"""What a wait asks of the database, and how its statement is carried out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest

from services.executor import executions as reads
from services.executor import feed as feeds
from services.executor import queries_reading
from services.executor.executions import Executions
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


@pytest.mark.parametrize(
    ("unasked", "statements"),
    [(LONG, 1), (timedelta(), 2)],
    ids=["soon after its start", "long after its start"],
)
async def test_a_wait_asks_when_it_has_ended_and_at_most_once_before(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, unasked: timedelta, statements: int
) -> None:
    monkeypatch.setattr(reads, "UNASKED", unasked)
    monkeypatch.setattr(feeds, "LOOK_INTERVAL", LONG)
    execution_id = UUID(await stack.start(a_graph("a", modules={"a": "HeldModule"})))
    await until_true(lambda: GATES.running == 1, "it runs")
    executions, session = counted(stack)
    waiting = asyncio.create_task(executions.wait("default", execution_id, LONG))
    await until_true(lambda: bool(stack.app.parts.feed._waiting), "it waits")
    await until_true(lambda: session.statements == statements - 1, "it has asked")
    GATES.open.set()
    view = await waiting
    assert (view.state, view.run_counts, view.outputs) == (ExecutionState.SUCCESS, {"SUCCESS": 1}, {"a": OUTPUTS})
    assert session.statements == statements


async def test_a_wait_soon_after_its_start_hears_of_an_end_that_another_replica_made(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "LOOK_INTERVAL", LONG)
    execution_id = UUID(await stack.start(a_graph("a", nodes={"a": {"pool": "elsewhere"}})))
    await stack.sql.execute("UPDATE executor.workflow_execution SET state = 'CANCELLED', revision = 2")
    assert stack.app.parts.feed.goes_on("default", execution_id)
    assert not stack.app.parts.feed.goes_on("other", execution_id)
    executions, session = counted(stack)
    async with asyncio.timeout(20):
        view = await executions.wait("default", execution_id, LONG)
    assert (view.state, session.statements) == (ExecutionState.CANCELLED, 1)


async def test_of_what_has_ended_here_nobody_believes_that_it_goes_on(stack: Stack) -> None:
    delay = ("DelayModule", {"duration": "PT0S"})
    for graph in (a_graph("a -> b, c"), a_graph("d", modules={"d": delay}), a_graph("e", modules={"e": None})):
        execution_id = UUID((await stack.run(graph)).id)
        assert not stack.app.parts.feed.goes_on("default", execution_id)


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
