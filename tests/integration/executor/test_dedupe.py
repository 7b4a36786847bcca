"""Modules with `dedupe`: a run ends with what an equal one has come to, and is not run again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.builders import a_graph
from tests.executor_modules import GATES
from tests.executor_stack import Stack, add_executor
from tests.integration.executor.conftest import OpenStack
from valkyr.client import Client, ExecutionState, ReusedRun, Run, RunState
from valkyr.graph.catalogue import CatalogueModule
from valkyr.graph.model import Dedupe, DedupeScope, Graph, WorkflowInfo

QUICK = {"retry": {"backoff_base_ms": 10, "backoff_max_ms": 40, "max_attempts": 2}}


def deduping(arrows: str = "a", class_name: str = "DedupedModule", **config: Any) -> Graph:
    return a_graph(arrows, modules={"a": (class_name, config)})


async def ran(stack: Stack, workflow_id: str, node: str = "a", **options: Any) -> Run:
    """The run of one more execution, which is settled."""
    execution = await stack.client.executions.start(workflow_id, **options)
    await stack.wait(execution.id)
    return (await stack.runs(execution.id))[node]


def source(run: Run) -> ReusedRun:
    return ReusedRun(run.execution_id, run.id)


async def test_the_second_execution_has_what_the_first_has_come_to(stack: Stack) -> None:
    workflow_id = await stack.save(deduping("a -> b", order=1))
    first = await ran(stack, workflow_id)
    second = await ran(stack, workflow_id)
    assert (first.state, first.reused_from, first.attempt) == (RunState.SUCCESS, None, 1)
    assert (second.state, second.reused_from, second.attempt) == (RunState.SUCCESS, source(first), 0)
    assert second.outputs == first.outputs == {"order": 1, "run": 1}
    assert second.idempotency_key == first.idempotency_key != ""
    assert (second.cost_tokens, first.cost_tokens, len(second.attempts)) == (0, 7, 0)
    assert GATES.started == {"a": 1}
    assert set((await stack.states(second.execution_id)).values()) == {"SUCCESS"}, "what follows goes on"


async def test_what_reads_the_outputs_reads_those_that_were_reused(stack: Stack) -> None:
    graph = a_graph(
        "a -> b",
        modules={
            "a": ("DedupedModule", {"order": 5}),
            "b": ("TransformModule", {"output": "${nodes['a'].outputs.order}"}),
        },
        edges={"a->b": {"condition": "outputs.order == 5"}},
    )
    workflow_id = await stack.save(graph)
    await ran(stack, workflow_id)
    assert (await ran(stack, workflow_id, "b")).outputs == 5
    assert GATES.started == {"a": 1}


async def test_another_payload_or_config_is_another_run(stack: Stack) -> None:
    by_payload = await stack.save(deduping())
    runs = [await ran(stack, by_payload, payload=payload) for payload in ({"n": 1}, {"n": 2}, {"n": 1})]
    assert [run.reused_from for run in runs] == [None, None, source(runs[0])]
    await stack.client.graphs.save(deduping(order=2), workflow=WorkflowInfo(id=by_payload, version=1))
    assert (await ran(stack, by_payload, payload={"n": 1})).reused_from is None


async def test_a_new_version_of_the_workflow_is_still_the_same_workflow(stack: Stack) -> None:
    workflow_id = await stack.save(deduping(order=1))
    first = await ran(stack, workflow_id)
    await stack.client.graphs.save(deduping("x -> y, a", order=1), workflow=WorkflowInfo(id=workflow_id, version=1))
    assert (await ran(stack, workflow_id)).reused_from == source(first)


async def test_what_ended_longer_ago_than_the_time_to_live_is_run_again(stack: Stack) -> None:
    workflow_id = await stack.save(deduping())
    first = await ran(stack, workflow_id)
    await ended_ago(stack, first, timedelta(hours=24))
    second = await ran(stack, workflow_id)
    assert second.reused_from is None
    assert (await ran(stack, workflow_id)).reused_from == source(second)


async def test_a_run_that_was_reused_itself_makes_nothing_live_longer(stack: Stack) -> None:
    workflow_id = await stack.save(deduping())
    first = await ran(stack, workflow_id)
    await ended_ago(stack, first, timedelta(hours=23, minutes=59))
    assert (await ran(stack, workflow_id)).reused_from == source(first)
    await ended_ago(stack, first, timedelta(hours=24))
    assert (await ran(stack, workflow_id)).reused_from is None


async def ended_ago(stack: Stack, run: Run, ago: timedelta) -> None:
    await stack.sql.execute(
        "UPDATE executor.run SET finished_at = now() - $2::interval WHERE execution_id = $1",
        UUID(run.execution_id),
        ago,
    )


@pytest.mark.parametrize(
    ("class_name", "reused"),
    [("DedupedModule", False), ("DedupedEverywhereModule", True)],
    ids=["of the same workflow", "of any"],
)
async def test_whose_success_is_reused_is_as_the_module_says(stack: Stack, class_name: str, reused: bool) -> None:
    first, second = [await stack.save(deduping(class_name=class_name)) for _ in range(2)]
    found = await ran(stack, first)
    assert (await ran(stack, second)).reused_from == (source(found) if reused else None)


async def test_what_the_catalogue_says_goes_before_what_the_code_says(stack: Stack) -> None:
    await stack.client.modules.register([CatalogueModule("DedupedModule", dedupe=Dedupe(DedupeScope.GLOBAL))])
    first, second = [await stack.save(deduping()) for _ in range(2)]
    found = await ran(stack, first)
    assert (await ran(stack, second)).reused_from == source(found)


async def test_another_namespace_has_its_own(stack: Stack) -> None:
    graph = deduping(class_name="DedupedEverywhereModule")
    first = await ran(stack, await stack.save(graph))
    async with Client(stack.graph_store.server.address, stack.app.server.address, namespace="elsewhere") as elsewhere:
        saved = await elsewhere.graphs.save(graph)
        started = await elsewhere.executions.start(saved.workflow.id)
        await elsewhere.executions.wait(started.id)
        there = await elsewhere.runs.get(started.id, node_id="a")
    assert (there.state, there.reused_from) == (RunState.SUCCESS, None)
    assert there.idempotency_key != first.idempotency_key


async def test_a_run_in_the_middle_of_a_graph_is_looked_for_when_it_becomes_ready(stack: Stack) -> None:
    graph = a_graph(
        "x -> a -> y, x -> z", modules={"x": ("TransformModule", {"output": 3}), "a": ("DedupedModule", {})}
    )
    workflow_id = await stack.save(graph)
    first = await ran(stack, workflow_id)
    second = await ran(stack, workflow_id)
    assert (first.reused_from, second.reused_from) == (None, source(first))
    assert set((await stack.states(second.execution_id)).values()) == {"SUCCESS"}


async def test_what_failed_is_not_reused(make_stack: OpenStack) -> None:
    async with make_stack(runner=QUICK) as stack:
        workflow_id = await stack.save(deduping(broken=True))
        first, second = await ran(stack, workflow_id), await ran(stack, workflow_id)
        assert (first.state, second.state, second.attempt) == (RunState.QUARANTINED, RunState.QUARANTINED, 1)


async def test_what_an_operator_fixed_is_reused(make_stack: OpenStack) -> None:
    async with make_stack(runner=QUICK) as stack:
        workflow_id = await stack.save(deduping(broken=True))
        first = await ran(stack, workflow_id)
        await stack.client.runs.complete(first.execution_id, first.id, quarantine_number=1, outputs={"by": "hand"})
        await stack.wait(first.execution_id)
        second = await ran(stack, workflow_id)
        assert (second.state, second.reused_from, second.outputs) == (RunState.SUCCESS, source(first), {"by": "hand"})


async def test_a_retry_is_not_looked_for(make_stack: OpenStack) -> None:
    async with make_stack(runner=QUICK) as stack:
        workflow_id = await stack.save(deduping(flaky=True))
        started = await stack.client.executions.start(workflow_id)
        await stack.wait(started.id)
        run = (await stack.runs(started.id))["a"]
        assert (run.state, run.attempt, run.reused_from) == (RunState.SUCCESS, 2, None)


async def test_a_requeue_is_looked_for_and_one_with_a_new_key_is_run(make_stack: OpenStack) -> None:
    async with make_stack(runner=QUICK) as stack:
        workflow_id = await stack.save(deduping(broken=True))
        failed = [await ran(stack, workflow_id) for _ in range(4)]
        fixed, plain, *anew = failed
        await stack.client.runs.complete(fixed.execution_id, fixed.id, quarantine_number=1, outputs=1)
        await stack.client.runs.requeue(plain.execution_id, plain.id, quarantine_number=1)
        assert (await stack.wait(plain.execution_id)).state is ExecutionState.SUCCESS
        reused = (await stack.runs(plain.execution_id))["a"]
        assert (reused.reused_from, reused.attempt, len(reused.attempts)) == (source(fixed), 1, 1)
        assert (reused.error, reused.error_type) == ("", "")
        for run in anew:
            await stack.client.runs.requeue(run.execution_id, run.id, quarantine_number=1, new_key=True)
            await stack.until(
                "SELECT quarantine_number = 2 FROM executor.run WHERE execution_id = $1", UUID(run.execution_id)
            )
            again = (await stack.runs(run.execution_id))["a"]
            assert (again.reused_from, again.attempt) == (None, 2)
            assert again.idempotency_key != run.idempotency_key


async def test_a_requeue_with_other_inputs_is_looked_for_with_these(make_stack: OpenStack) -> None:
    async with make_stack(runner=QUICK) as stack:
        workflow_id = await stack.save(deduping(broken="${trigger.broken}"))
        runs = [await ran(stack, workflow_id, payload={"broken": True, "n": n}) for n in range(2)]
        inputs = {"trigger": {"broken": False}, "nodes": {}}
        after = []
        for run in runs:
            await stack.client.runs.requeue(run.execution_id, run.id, quarantine_number=1, inputs=inputs)
            await stack.wait(run.execution_id)
            after.append((await stack.runs(run.execution_id))["a"])
        assert [(run.state, run.attempt) for run in after] == [(RunState.SUCCESS, 2), (RunState.SUCCESS, 1)]
        assert [run.reused_from for run in after] == [None, source(after[0])]


async def test_a_config_that_cannot_be_made_fails_as_ever_and_is_the_equal_of_none(make_stack: OpenStack) -> None:
    async with make_stack(runner=QUICK) as stack:
        broken = await stack.save(deduping(order="${trigger.nothing.of.it}", class_name="DedupedEverywhereModule"))
        bad = await ran(stack, broken)
        assert (bad.state, bad.error_type) == (RunState.QUARANTINED, "PERMANENT")
        await stack.client.runs.complete(bad.execution_id, bad.id, quarantine_number=1, outputs="of nobody")
        well = await ran(stack, await stack.save(deduping(class_name="DedupedEverywhereModule")))
        assert (well.reused_from, well.idempotency_key) == (None, bad.idempotency_key)


async def test_two_equal_runs_that_are_under_way_at_once_both_run_with_one_key(make_stack: OpenStack) -> None:
    """A look-up is no lock: the target has to tell the two by the key."""
    async with make_stack(runner={"concurrency": 0}) as stack:
        workflow_id = await stack.save(deduping())
        await asyncio.gather(*(stack.client.executions.start(workflow_id) for _ in range(2)))
        await stack.until("SELECT count(*) = 2 FROM executor.run WHERE NOT is_control AND state = 'READY'")
        async with add_executor(stack, name="two"):
            await stack.until("SELECT count(*) = 2 FROM executor.run WHERE state = 'SUCCESS'")
    assert GATES.started == {"a": 2}
    assert len({context.idempotency_key for context in GATES.contexts}) == 1


async def test_what_is_paused_while_it_is_ready_is_looked_for_when_it_goes_on(make_stack: OpenStack) -> None:
    async with make_stack(runner={"concurrency": 2}) as stack:
        workflow_id = await stack.save(a_graph("x -> a", modules={"x": "HeldModule", "a": ("DedupedModule", {})}))
        paused = await stack.client.executions.start(workflow_id)
        await stack.until("SELECT state = 'LEASED' FROM executor.run WHERE node_id = 'x'")
        await stack.client.executions.pause(paused.id)
        GATES.open.set()
        await stack.until("SELECT state = 'PARKED' FROM executor.run WHERE node_id = 'a'")
        first = await ran(stack, workflow_id)
        assert (await stack.states(paused.id))["a"] == "PARKED"
        await stack.client.executions.resume(paused.id)
        await stack.wait(paused.id)
        assert (await stack.runs(paused.id))["a"].reused_from == source(first)


async def test_the_executor_of_another_replica_finds_it_as_well(make_stack: OpenStack, tmp_path: Path) -> None:
    async with make_stack(names=("one", "two")) as stack:
        workflow_id = await stack.save(deduping())
        first = await ran(stack, workflow_id)
        started = await stack.clients[1].executions.start(workflow_id)
        await stack.wait(started.id)
        assert (await stack.runs(started.id))["a"].reused_from == source(first)
