"""Executions whose graph no plan can be made of any more: they can be ended, and hold up nobody."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from services.executor.deadlines import Deadlines
from services.executor.reaper import end_older_incarnations
from services.executor.timers import STUCK_PAUSE
from tests.builders import a_graph
from tests.executor_lab import DONE, Lab, end_loop
from tests.executor_stack import Stack
from tests.integration.executor.conftest import OpenStack
from valkyr.client import ExecutionState
from valkyr.errors import WrongState
from valkyr.flow.results import Failure, FailureType
from valkyr.flow.states import RunState
from valkyr.graph.model import Graph

IDLE = {"concurrency": 0, "poll_interval": timedelta(hours=1)}
PATIENCE = 30.0
"""For what must not go on for ever."""
DELAY = ("DelayModule", {"duration": "PT1H"})


def a_conditional_graph(**options: object) -> Graph:
    return a_graph("a -> b", edges={"a->b": {"condition": "1 == 1"}}, **options)  # type: ignore[arg-type]


async def spoiled(stack: Stack, execution_id: str) -> None:
    """As if it was saved when the expression language was another."""
    document = "UPDATE executor.pinned_graph SET document = replace(document, '1 == 1', '1 ==') WHERE workflow_id = "
    workflow_id = "(SELECT workflow_id FROM executor.workflow_execution WHERE id = $1)"
    assert await stack.sql.execute(document + workflow_id, UUID(execution_id)) == "UPDATE 1"
    stack.app.parts.plans._planned.clear()


async def test_it_can_be_cancelled(make_stack: OpenStack) -> None:
    async with make_stack(runner=IDLE) as stack:
        execution_id = await stack.start(a_conditional_graph())
        await spoiled(stack, execution_id)
        execution = await stack.client.executions.cancel(execution_id)
        assert (execution.state, execution.cancel_requested) == (ExecutionState.CANCELLED, True)
        assert await stack.states(execution_id) == {"a": "CANCELLED", "b": "CANCELLED"}


async def test_a_cancel_tells_its_leases_and_ends_with_the_last_of_them(make_stack: OpenStack) -> None:
    async with make_stack(runner=IDLE) as stack:
        lab = Lab(stack)
        execution_id = await stack.start(a_graph("a, b, c, d -> e", edges={"d->e": {"condition": "1 == 1"}}))
        await lab.lease(execution_id, "a", "b")
        await spoiled(stack, execution_id)
        assert await lab.report(execution_id, "a", DONE) == "LEASE_LOST", "nobody knows what follows"
        assert (await stack.client.executions.cancel(execution_id)).state is ExecutionState.RUNNING
        assert (await stack.row(execution_id, "a"))["stop_reason"] == "CANCEL"
        assert await lab.report(execution_id, "a", DONE) == "ACCEPTED"
        await stack.sql.execute("UPDATE executor.run SET lease_until = now() - interval '1 s' WHERE node_id = 'b'")
        await Deadlines(lab.session, lab.progress).step()
        assert (await stack.wait(execution_id)).state is ExecutionState.CANCELLED
        assert await stack.states(execution_id) == {"a": "SUCCESS", **dict.fromkeys("bcde", "CANCELLED")}
        assert await stack.sql.fetchval("SELECT open_runs FROM executor.workflow_execution") == 0


async def test_its_letters_can_be_discarded_once_it_is_cancelled_and_not_before(make_stack: OpenStack) -> None:
    async with make_stack(runner=IDLE) as stack:
        lab = Lab(stack)
        execution_id = await stack.start(a_graph("a -> b, c", edges={"a->b": {"condition": "1 == 1"}}))
        await lab.lease(execution_id, "a")
        assert await lab.report(execution_id, "a", Failure(FailureType.PERMANENT, "broken")) == "ACCEPTED"
        run_id = str((await stack.row(execution_id, "a"))["id"])
        await spoiled(stack, execution_id)
        runs = stack.client.runs
        with pytest.raises(WrongState) as refused:
            await runs.discard(execution_id, run_id, quarantine_number=1, reason="not needed")
        assert "cancel the execution" in refused.value.hint
        await stack.client.executions.cancel(execution_id)
        with pytest.raises(WrongState):
            await runs.requeue(execution_id, run_id, quarantine_number=1)
        run = await runs.discard(execution_id, run_id, quarantine_number=1, reason="not needed")
        assert (run.state, run.quarantines[0].resolution) == (RunState.FAILED, "DISCARDED")
        assert (await stack.client.executions.get(execution_id)).state is ExecutionState.CANCELLED


async def test_its_letters_can_be_discarded_once_it_has_failed(make_stack: OpenStack) -> None:
    async with make_stack(runner=IDLE) as stack:
        lab = Lab(stack)
        execution_id = await stack.start(a_conditional_graph())
        await lab.lease(execution_id, "a")
        assert await lab.report(execution_id, "a", Failure(FailureType.PERMANENT, "broken")) == "ACCEPTED"
        run_id = str((await stack.row(execution_id, "a"))["id"])
        await spoiled(stack, execution_id)
        runs = stack.client.runs
        with pytest.raises(WrongState) as refused:
            await runs.requeue(execution_id, run_id, quarantine_number=1)
        assert refused.value.hint == "discard the run"
        run = await runs.discard(execution_id, run_id, quarantine_number=1, reason="not needed")
        assert (run.state, run.quarantines[0].resolution) == (RunState.FAILED, "DISCARDED")
        assert (await stack.client.executions.get(execution_id)).state is ExecutionState.FAILED
        assert await stack.states(execution_id) == {"a": "FAILED", "b": "PENDING"}


async def test_its_deadline_ends_it_with_others_of_the_batch(make_stack: OpenStack) -> None:
    async with make_stack(runner=IDLE) as stack:
        lab = Lab(stack)
        unusable, other = await stack.start(a_conditional_graph()), await stack.start(a_graph("a"))
        await spoiled(stack, unusable)
        await stack.sql.execute("UPDATE executor.workflow_execution SET deadline = now()")
        async with asyncio.timeout(PATIENCE):
            assert await Deadlines(lab.session, lab.progress, batch=1).step() is None
        for execution_id in (unusable, other):
            execution = await stack.client.executions.get(execution_id)
            assert (execution.state, execution.error_type) == (ExecutionState.FAILED, "TIMEOUT")


async def test_deadlines_of_its_runs_do_not_make_the_loop_spin(make_stack: OpenStack) -> None:
    async with make_stack(runner=IDLE) as stack:
        lab = Lab(stack)
        execution_id = await stack.start(a_conditional_graph())
        await spoiled(stack, execution_id)
        await stack.sql.execute("UPDATE executor.run SET deadline = now() WHERE node_id = 'a'")
        async with asyncio.timeout(PATIENCE):
            pause = await Deadlines(lab.session, lab.progress, batch=1).step()
        assert pause is not None
        assert pause > timedelta()


async def test_its_timers_do_not_make_the_loop_spin(make_stack: OpenStack) -> None:
    async with make_stack(runner=IDLE) as stack:
        await end_loop("timers")
        lab = Lab(stack)
        execution_id = await stack.start(a_conditional_graph(modules={"a": DELAY}))
        await spoiled(stack, execution_id)
        await stack.sql.execute("UPDATE executor.run SET retry_after = now() WHERE state = 'WAITING'")
        async with asyncio.timeout(PATIENCE):
            assert await lab.timers(batch=1).wake_due() == STUCK_PAUSE
            assert await lab.timers().wake_due() == STUCK_PAUSE


async def test_timers_that_can_be_woken_are_all_woken(make_stack: OpenStack) -> None:
    async with make_stack(runner=IDLE) as stack:
        await end_loop("timers")
        lab = Lab(stack)
        execution_id = await stack.start(a_graph("a, b, c", modules=dict.fromkeys("abc", DELAY)))
        await stack.sql.execute("UPDATE executor.run SET retry_after = now() WHERE state = 'WAITING'")
        assert await lab.timers(batch=1).wake_due() is None
        assert set((await stack.states(execution_id)).values()) == {"SUCCESS"}


async def test_its_control_nodes_do_not_make_the_loop_spin(make_stack: OpenStack) -> None:
    async with make_stack(runner=IDLE) as stack:
        lab = Lab(stack)
        execution_id = await stack.start(a_conditional_graph(modules={"a": DELAY}))
        await spoiled(stack, execution_id)
        await stack.sql.execute("UPDATE executor.run SET state = 'READY', retry_after = NULL WHERE node_id = 'a'")
        async with asyncio.timeout(PATIENCE):
            await lab.timers(batch=1).decide_first()
        assert (await stack.row(execution_id, "a"))["state"] == "READY"


async def test_its_leases_that_ran_out_do_not_make_the_reaper_spin(make_stack: OpenStack) -> None:
    async with make_stack(runner=IDLE) as stack:
        lab = Lab(stack)
        execution_id = await stack.start(a_conditional_graph())
        await lab.lease(execution_id, "a", seconds=-1)
        await spoiled(stack, execution_id)
        assert await lab.reaper().step() is None, "not at once again"


@pytest.mark.parametrize("batch", [1, 2])
async def test_its_leases_of_an_older_incarnation_do_not_stop_the_start(make_stack: OpenStack, batch: int) -> None:
    async with make_stack(runner=IDLE) as stack:
        lab = Lab(stack)
        other, execution_id = await stack.start(a_graph("a")), await stack.start(a_conditional_graph())
        for key in (other, execution_id):
            await lab.lease(key, "a", runner=f"{lab.lease_policy.runner_id}/older")
        await spoiled(stack, execution_id)
        async with asyncio.timeout(PATIENCE):
            assert await end_older_incarnations(lab.session, lab.progress, lab.lease_policy, batch=batch) == 1
        assert (await stack.row(other, "a"))["state"] == "READY"
