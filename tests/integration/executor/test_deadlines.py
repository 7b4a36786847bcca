"""Deadlines of runs and of executions, and cancelling: what is held by nobody ends at once, what is leased is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from tests.builders import a_graph
from tests.executor_modules import GATES
from tests.executor_stack import Stack, until_true
from tests.integration.executor.conftest import OpenStack
from valkyr.client import ExecutionState, RunState
from valkyr.errors import ExecutionSettled, InvalidRequest, RequestIdReused
from valkyr.graph.model import Graph, Settings

SOON = timedelta(milliseconds=300)
FAR = timedelta(hours=1)
"""Where something has to happen before: then `Stack.pass_deadlines`."""
GRACE = {"cancel_grace": timedelta(milliseconds=400), "retry": {"backoff_base_ms": 10, "backoff_max_ms": 40}}


async def started(stack: Stack, graph: Graph, node: str = "a", **options: object) -> str:
    execution_id = await stack.start(graph, **options)
    await until_true(lambda: GATES.started[node] > 0, f"{node} has started")
    return execution_id


async def stopped() -> None:
    await until_true(lambda: GATES.running == 0, "the module is stopped")


async def test_a_leased_run_past_its_deadline_is_told_and_fails_for_good(make_stack: OpenStack) -> None:
    graph = a_graph("a -> b", modules={"a": "HeldModule"}, nodes={"a": {"deadline": SOON}})
    async with make_stack(runner=GRACE) as stack:
        execution = await stack.run(graph)
        assert execution.state is ExecutionState.FAILED
        run = (await stack.runs(execution.id))["a"]
        assert run.state is RunState.QUARANTINED
        assert [quarantine.failure_type for quarantine in run.quarantines] == ["TIMEOUT"]
        assert "deadline" in run.error
        await stopped()


async def test_a_success_within_the_grace_of_a_deadline_is_kept(make_stack: OpenStack) -> None:
    graph = a_graph("a -> b", modules={"a": "StubbornModule"}, nodes={"a": {"deadline": FAR}})
    async with make_stack(runner={"cancel_grace": timedelta(seconds=30)}) as stack:
        execution_id = await started(stack, graph)
        await stack.pass_deadlines()
        await stack.until("SELECT stop_reason = 'DEADLINE' FROM executor.run WHERE node_id = 'a'")
        GATES.open.set()
        assert (await stack.wait(execution_id)).state is ExecutionState.SUCCESS


async def test_a_run_that_ignores_its_deadline_is_ended_after_the_grace(make_stack: OpenStack) -> None:
    graph = a_graph("a", modules={"a": "StubbornModule"}, nodes={"a": {"deadline": SOON}})
    async with make_stack(runner=GRACE) as stack:
        execution = await stack.run(graph)
        assert execution.state is ExecutionState.FAILED
        run = (await stack.runs(execution.id))["a"]
        assert run.quarantines[0].failure_type == "TIMEOUT"
        GATES.open.set()


async def test_the_deadline_runs_while_a_run_waits_for_its_retry(make_stack: OpenStack) -> None:
    graph = a_graph("a", modules={"a": ("FailModule", {})}, nodes={"a": {"deadline": FAR}})
    slow = {"retry": {"backoff_base_ms": 3_000_000, "backoff_max_ms": 3_000_000}}
    async with make_stack(runner=slow) as stack:
        execution_id = await stack.start(graph)
        await stack.until("SELECT failures = 1 FROM executor.run")
        await stack.pass_deadlines()
        await stack.wait(execution_id)
        run = (await stack.runs(execution_id))["a"]
        assert (run.quarantines[0].failure_type, run.failures) == ("TIMEOUT", 1)


async def test_the_deadline_of_a_waiting_node_may_be_handled_by_an_edge(make_stack: OpenStack) -> None:
    graph = a_graph(
        "a -> b",
        modules={"a": ("DelayModule", {"duration": "PT1H"})},
        nodes={"a": {"deadline": SOON}},
        edges={"a->b": {"kind": "FAILURE", "condition": "error.type == 'TIMEOUT'"}},
    )
    async with make_stack(runner=GRACE) as stack:
        execution = await stack.run(graph)
        assert execution.state is ExecutionState.SUCCESS
        assert await stack.states(execution.id) == {"a": "FAILED", "b": "SUCCESS"}


@pytest.mark.parametrize("said_by", ["graph", "request"])
async def test_an_execution_past_its_deadline_ends_like_a_cancel_as_failed(make_stack: OpenStack, said_by: str) -> None:
    settings = Settings(timeout=FAR) if said_by == "graph" else Settings()
    graph = a_graph(
        "a -> b, c", modules={"a": "HeldModule", "c": ("DelayModule", {"duration": "PT1H"})}, settings=settings
    )
    async with make_stack(runner=GRACE) as stack:
        options = {"deadline": datetime.now(UTC) + FAR} if said_by == "request" else {}
        execution_id = await started(stack, graph, **options)
        await stack.pass_deadlines("workflow_execution")
        execution = await stack.wait(execution_id)
        assert (execution.state, execution.error_type) == (ExecutionState.FAILED, "TIMEOUT")
        assert await stack.states(execution_id) == {"a": "CANCELLED", "b": "CANCELLED", "c": "CANCELLED"}
        assert await stack.sql.fetchval("SELECT count(*) FROM executor.outbox") == 0


async def test_cancel_ends_what_nobody_holds_at_once_and_tells_what_is_leased(make_stack: OpenStack) -> None:
    graph = a_graph("a -> b, c -> d", modules={"a": "HeldModule", "c": ("DelayModule", {"duration": "PT1H"})})
    async with make_stack(runner=GRACE) as stack:
        execution_id = await started(stack, graph)
        answer = await stack.client.executions.cancel(execution_id, reason="no longer wanted")
        assert answer.cancel_requested
        assert (answer.cancelled_by, answer.cancel_reason) == ("tester", "no longer wanted")
        assert (await stack.states(execution_id))["b"] == "CANCELLED"
        execution = await stack.wait(execution_id)
        assert execution.state is ExecutionState.CANCELLED
        assert await stack.states(execution_id) == dict.fromkeys("abcd", "CANCELLED")
        await stopped()
        row = await stack.sql.fetchrow("SELECT * FROM executor.workflow_execution WHERE id = $1", UUID(execution_id))
        assert (row["open_runs"], row["ended_by"], row["ended_reason"]) == (0, "tester", "no longer wanted")


async def test_a_success_that_arrives_after_a_cancel_is_kept_and_nothing_follows(make_stack: OpenStack) -> None:
    graph = a_graph("a -> b", modules={"a": "StubbornModule"})
    async with make_stack(runner={"cancel_grace": timedelta(seconds=30)}) as stack:
        execution_id = await started(stack, graph)
        await stack.client.executions.cancel(execution_id)
        GATES.open.set()
        assert (await stack.wait(execution_id)).state is ExecutionState.CANCELLED
        assert await stack.states(execution_id) == {"a": "SUCCESS", "b": "CANCELLED"}


async def test_a_failure_after_a_cancel_is_no_letter_and_no_retry(make_stack: OpenStack) -> None:
    graph = a_graph("a -> b", modules={"a": "StubbornModule"}, edges={"a->b": {"kind": "FAILURE"}})
    async with make_stack(runner=GRACE) as stack:
        execution_id = await started(stack, graph)
        await stack.client.executions.cancel(execution_id)
        execution = await stack.wait(execution_id)
        assert execution.state is ExecutionState.CANCELLED
        assert await stack.states(execution_id) == {"a": "CANCELLED", "b": "CANCELLED"}
        assert await stack.sql.fetchval("SELECT count(*) FROM executor.run_quarantine") == 0
        GATES.open.set()


async def test_cancelling_twice_changes_nothing_and_after_the_end_says_so(make_stack: OpenStack) -> None:
    async with make_stack(runner=GRACE) as stack:
        execution_id = await stack.start(a_graph("a", modules={"a": ("DelayModule", {"duration": "PT1H"})}))
        first = await stack.client.executions.cancel(execution_id)
        again = await stack.client.executions.cancel(execution_id)
        assert (first.state, again.state) == (ExecutionState.CANCELLED, ExecutionState.CANCELLED)
        assert first.revision == again.revision
        done = await stack.run(a_graph("a"))
        with pytest.raises(ExecutionSettled, match="SUCCESS"):
            await stack.client.executions.cancel(done.id)


async def test_a_request_id_cancels_one_execution(make_stack: OpenStack) -> None:
    async with make_stack(runner=GRACE) as stack:
        waiting = a_graph("a", modules={"a": ("DelayModule", {"duration": "PT1H"})})
        one, other = await stack.start(waiting), await stack.start(waiting)
        await stack.client.executions.cancel(one, request_id="once")
        await stack.client.executions.cancel(one, request_id="once")
        with pytest.raises(RequestIdReused):
            await stack.client.executions.cancel(other, request_id="once")
        assert (await stack.client.executions.get(other)).state is not ExecutionState.CANCELLED


async def test_i25_a_deadline_that_has_passed_is_refused(make_stack: OpenStack) -> None:
    async with make_stack(runner=GRACE) as stack:
        workflow_id = await stack.save(a_graph("a"))
        with pytest.raises(InvalidRequest, match="deadline"):
            await stack.client.executions.start(workflow_id, deadline=datetime.now(UTC) - timedelta(seconds=1))
