"""The three ways out of QUARANTINED, asked of the executor: each quarantine once, and the execution goes on."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.builders import a_graph
from tests.executor_modules import GATES
from tests.executor_stack import Stack, until_true
from tests.integration.executor.conftest import OpenStack
from valkyr.client import Execution, ExecutionState, Run, RunState
from valkyr.errors import (
    DeadlinePassed,
    ExecutionEnded,
    ExecutionNotFound,
    InvalidRequest,
    NotQuarantined,
    QuarantineResolved,
    RequestIdReused,
    RunNotFound,
    TooManyRequeues,
    ValkyrError,
)
from valkyr.flow.attempts import Fence
from valkyr.flow.events import LeaseEnded
from valkyr.flow.results import Lost
from valkyr.graph.model import FailurePolicy, Graph, Settings

DEADLINE_PASSES = "UPDATE executor.workflow_execution SET deadline = now() - interval '1 s'"
QUICK = {"retry": {"backoff_base_ms": 10, "backoff_max_ms": 40, "max_attempts": 1}}


def failing_once(arrows: str, **changes: Any) -> Graph:
    """Node a fails in its first attempt."""
    return a_graph(arrows, modules={"a": ("FailModule", {"times": 1})}, **changes)


async def failed(stack: Stack, graph: Graph, node: str = "a", **options: Any) -> tuple[Execution, Run]:
    execution = await stack.run(graph, **options)
    assert execution.state is ExecutionState.FAILED, execution
    return execution, (await stack.runs(execution.id))[node]


async def test_a_requeued_run_goes_on_with_fresh_budgets_and_the_execution_reaches_success(
    make_stack: OpenStack,
) -> None:
    async with make_stack(runner=QUICK) as stack:
        execution, run = await failed(stack, failing_once("a -> b"))
        answer = await stack.client.runs.requeue(execution.id, run.id, quarantine_number=1, reason="mended")
        assert (answer.failures, answer.lost_leases) == (0, 0)
        done = await stack.wait(execution.id)
        assert (done.state, done.error_message, done.error_type) == (ExecutionState.SUCCESS, "", "")
        after = (await stack.runs(execution.id))["a"]
        assert after.outputs == {"attempt": 2}
        assert after.idempotency_key == run.idempotency_key
        [quarantine] = after.quarantines
        assert (quarantine.resolution, quarantine.resolved_by, quarantine.reason) == ("REQUEUED", "tester", "mended")


async def test_a_requeue_with_inputs_replaces_them_and_changes_the_key(make_stack: OpenStack) -> None:
    graph = a_graph(
        "a -> b",
        modules={
            "a": ("TransformModule", {"output": {"n": 1}}),
            "b": ("FailModule", {"times": "${nodes['a'].outputs.n}", "message": "${trigger.who}"}),
        },
    )
    async with make_stack(runner=QUICK) as stack:
        execution, run = await failed(stack, graph, "b", payload={"who": "first"})
        assert run.error.endswith("first")
        inputs = {"trigger": {"who": "second"}, "nodes": {"a": {"outputs": {"n": 0}}}}
        await stack.client.runs.requeue(execution.id, run.id, quarantine_number=1, inputs=inputs)
        assert (await stack.wait(execution.id)).state is ExecutionState.SUCCESS
        after = (await stack.runs(execution.id))["b"]
        assert after.inputs == inputs
        assert after.idempotency_key != run.idempotency_key


async def test_a_new_key_is_another_key_for_the_same_inputs(make_stack: OpenStack) -> None:
    async with make_stack(runner=QUICK) as stack:
        execution, run = await failed(stack, failing_once("a"))
        await stack.client.runs.requeue(execution.id, run.id, quarantine_number=1, new_key=True)
        await stack.wait(execution.id)
        assert (await stack.runs(execution.id))["a"].idempotency_key != run.idempotency_key


async def test_a_fixed_run_has_the_outputs_given_and_conditions_see_them(make_stack: OpenStack) -> None:
    graph = a_graph(
        "a -> b, a -> c",
        modules={"a": ("FailModule", {})},
        edges={"a->b": {"condition": "outputs.ok"}, "a->c": {"condition": "!outputs.ok"}},
    )
    async with make_stack(runner=QUICK) as stack:
        execution, run = await failed(stack, graph)
        await stack.client.runs.complete(execution.id, run.id, quarantine_number=1, outputs={"ok": True})
        assert (await stack.wait(execution.id)).state is ExecutionState.SUCCESS
        assert await stack.states(execution.id) == {"a": "SUCCESS", "b": "SUCCESS", "c": "SKIPPED"}
        fixed = (await stack.runs(execution.id))["a"]
        assert fixed.outputs == {"ok": True}
        assert [attempt.outcome for attempt in fixed.attempts] == ["TRANSIENT"]


async def test_a_discarded_run_is_failed_and_what_waits_behind_it_is_skipped(make_stack: OpenStack) -> None:
    async with make_stack(runner=QUICK) as stack:
        execution, run = await failed(stack, failing_once("a -> b -> c"))
        answer = await stack.client.runs.discard(execution.id, run.id, quarantine_number=1, reason="not needed")
        assert answer.state is RunState.FAILED
        assert answer.error == run.error
        assert await stack.states(execution.id) == {"a": "FAILED", "b": "SKIPPED", "c": "SKIPPED"}
        settled = await stack.client.executions.get(execution.id)
        assert settled.state is ExecutionState.FAILED
        assert settled.finished_at == execution.finished_at


async def test_always_edges_are_decided_once_also_when_a_requeued_run_succeeds(make_stack: OpenStack) -> None:
    graph = failing_once("a -> b, a -> c", edges={"a->c": {"kind": "ALWAYS"}})
    async with make_stack(runner=QUICK) as stack:
        execution, run = await failed(stack, graph)
        finished = (await stack.runs(execution.id))["c"].finished_at
        await stack.client.runs.requeue(execution.id, run.id, quarantine_number=1)
        assert (await stack.wait(execution.id)).state is ExecutionState.SUCCESS
        after = await stack.runs(execution.id)
        assert (after["c"].finished_at, after["c"].attempt) == (finished, 1)
        assert after["b"].state is RunState.SUCCESS


async def test_what_became_ready_behind_a_quarantine_sees_the_same_after_the_quarantine_was_requeued(
    make_stack: OpenStack,
) -> None:
    graph = a_graph(
        "a -> c",
        modules={"a": ("FailModule", {"times": 1, "message": "as it was"}), "c": "HeldModule"},
        edges={"a->c": {"kind": "ALWAYS"}},
    )
    async with make_stack(runner={**QUICK, "concurrency": 1}) as stack:
        execution_id = await stack.start(graph)
        await stack.until("SELECT count(*) = 1 FROM executor.run WHERE node_id = 'c' AND state = 'LEASED'")
        before = await stack.row(execution_id, "c")
        run = (await stack.runs(execution_id))["a"]
        await stack.client.runs.complete(execution_id, run.id, quarantine_number=1, outputs={"n": 1})
        # The lease is lost: the next attempt is made from the rows as they are now.
        lost = LeaseEnded(before["execution_id"], before["id"], before["epoch"], Lost())
        assert await stack.app.parts.progress.apply([lost]) == [Fence.ACCEPTED]
        GATES.open.set()
        assert (await stack.wait(execution_id)).state is ExecutionState.SUCCESS
        after = await stack.row(execution_id, "c")
        assert after["attempt"] == 2
        assert (after["idempotency_key"], after["inputs_hash"]) == (before["idempotency_key"], before["inputs_hash"])
        assert GATES.contexts[-1].inputs["nodes"]["a"]["error"]["message"].endswith("as it was")


async def test_i22_of_many_who_resolve_a_quarantine_at_once_one_wins_and_the_others_are_told_who(
    make_stack: OpenStack,
) -> None:
    async with make_stack(names=("one", "two"), runner=QUICK) as stack:
        execution, run = await failed(stack, failing_once("a -> b"))

        async def resolve(place: int) -> str:
            runs = stack.clients[place % 2].runs
            way = (
                runs.requeue(execution.id, run.id, quarantine_number=1),
                runs.complete(execution.id, run.id, quarantine_number=1, outputs={"by": place}),
                runs.discard(execution.id, run.id, quarantine_number=1, reason="too late"),
            )
            chosen = way[place % 3]
            for other in way:
                if other is not chosen:
                    other.close()
            try:
                await chosen
            except QuarantineResolved as lost:
                return lost.details.metadata["resolution"]
            return "won"

        answers = Counter(await asyncio.gather(*(resolve(place) for place in range(12))))
        assert answers["won"] == 1
        assert len(answers) == 2
        [quarantine] = (await stack.runs(execution.id))["a"].quarantines[:1]
        assert answers[quarantine.resolution] == 11


async def test_i22_a_repeated_request_gets_the_first_answer_and_another_body_is_refused(make_stack: OpenStack) -> None:
    async with make_stack(runner=QUICK) as stack:
        execution, run = await failed(stack, failing_once("a"))
        other_execution, other = await failed(stack, failing_once("a"))
        for _ in range(3):
            answer = await stack.client.runs.complete(
                execution.id, run.id, quarantine_number=1, outputs={"n": 1}, request_id="once"
            )
            assert answer.state is RunState.SUCCESS
        with pytest.raises(RequestIdReused):
            await stack.client.runs.complete(
                execution.id, run.id, quarantine_number=1, outputs={"n": 2}, request_id="once"
            )
        with pytest.raises(RequestIdReused):
            await stack.client.runs.complete(
                other_execution.id, other.id, quarantine_number=1, outputs={"n": 1}, request_id="once"
            )
        assert await stack.sql.fetchval("SELECT count(*) FROM executor.outbox WHERE kind = 'RESOLVED'") == 1


async def test_a_second_quarantine_has_its_own_number_and_the_first_cannot_be_resolved_again(
    make_stack: OpenStack,
) -> None:
    async with make_stack(runner=QUICK) as stack:
        execution, run = await failed(stack, a_graph("a", modules={"a": ("FailModule", {})}))
        await stack.client.runs.requeue(execution.id, run.id, quarantine_number=1)
        assert (await stack.wait(execution.id)).state is ExecutionState.FAILED
        await stack.until("SELECT quarantine_number = 2 FROM executor.run WHERE node_id = 'a'")
        with pytest.raises(QuarantineResolved) as told:
            await stack.client.runs.requeue(execution.id, run.id, quarantine_number=1)
        assert told.value.details.metadata["resolvedBy"] == "tester"
        with pytest.raises(NotQuarantined):
            await stack.client.runs.requeue(execution.id, run.id, quarantine_number=3)
        again = (await stack.runs(execution.id))["a"]
        assert [q.resolution for q in again.quarantines] == ["REQUEUED", "PENDING"]


async def test_more_requeues_than_allowed_need_force(make_stack: OpenStack) -> None:
    async with make_stack(runner={"retry": {**QUICK["retry"], "max_requeues": 1}}) as stack:
        execution, run = await failed(stack, a_graph("a", modules={"a": ("FailModule", {})}))
        await stack.client.runs.requeue(execution.id, run.id, quarantine_number=1)
        await stack.until("SELECT quarantine_number = 2 FROM executor.run WHERE node_id = 'a'")
        with pytest.raises(TooManyRequeues, match="requeued once"):
            await stack.client.runs.requeue(execution.id, run.id, quarantine_number=2)
        await stack.client.runs.requeue(execution.id, run.id, quarantine_number=2, force=True)
        await stack.until("SELECT quarantine_number = 3 FROM executor.run WHERE node_id = 'a'")


@pytest.mark.parametrize("ended_by", ["cancel", "fail fast", "deadline"])
async def test_nothing_of_an_execution_that_was_ended_runs_again_but_discard_works(
    make_stack: OpenStack, ended_by: str
) -> None:
    settings = {
        "cancel": Settings(),
        "fail fast": Settings(failure_policy=FailurePolicy.FAIL_FAST),
        "deadline": Settings(timeout=timedelta(hours=1)),
    }[ended_by]
    modules = {"a": ("FailModule", {"type": "PERMANENT"}), "w": ("DelayModule", {"duration": "PT1H"})}
    async with make_stack(runner=QUICK) as stack:
        execution_id = await stack.start(a_graph("a -> b, w", modules=modules, settings=settings))
        await stack.until("SELECT count(*) = 1 FROM executor.run WHERE state = 'QUARANTINED'")
        if ended_by == "cancel":
            await stack.client.executions.cancel(execution_id)
        if ended_by == "deadline":
            await stack.sql.execute(DEADLINE_PASSES)
            await stack.app.parts.deadlines.step()
        ended = await stack.wait(execution_id)
        run = (await stack.runs(execution_id))["a"]
        assert run.state is RunState.QUARANTINED
        with pytest.raises(ExecutionEnded, match="cancelled, failed fast"):
            await stack.client.runs.requeue(execution_id, run.id, quarantine_number=1)
        with pytest.raises(ExecutionEnded):
            await stack.client.runs.complete(execution_id, run.id, quarantine_number=1, outputs=None)
        await stack.client.runs.discard(execution_id, run.id, quarantine_number=1, reason="it is over")
        assert (await stack.client.executions.get(execution_id)).state is ended.state
        assert await stack.states(execution_id) == {"a": "FAILED", "b": "CANCELLED", "w": "CANCELLED"}


async def test_a_requeue_after_the_execution_s_deadline_needs_a_new_one(make_stack: OpenStack) -> None:
    graph = failing_once("a", settings=Settings(timeout=timedelta(hours=1)))
    async with make_stack(runner=QUICK) as stack:
        execution, run = await failed(stack, graph)
        await stack.sql.execute(DEADLINE_PASSES)
        with pytest.raises(DeadlinePassed):
            await stack.client.runs.requeue(execution.id, run.id, quarantine_number=1)
        later = datetime.now(UTC) + timedelta(hours=1)
        await stack.client.runs.requeue(execution.id, run.id, quarantine_number=1, deadline=later)
        done = await stack.wait(execution.id)
        assert (done.state, done.deadline) == (ExecutionState.SUCCESS, later)


async def test_a_deadline_does_not_act_on_a_settled_execution(make_stack: OpenStack) -> None:
    graph = failing_once("a", settings=Settings(timeout=timedelta(hours=1)))
    async with make_stack(runner=QUICK) as stack:
        execution, _ = await failed(stack, graph)
        await stack.sql.execute(DEADLINE_PASSES)
        await stack.app.parts.deadlines.step()
        again = await stack.client.executions.get(execution.id)
        assert (again.state, again.error_type, again.revision) == (
            ExecutionState.FAILED,
            "TRANSIENT",
            execution.revision,
        )


async def test_a_condition_that_cannot_be_evaluated_is_requeued_as_if_it_had_held(make_stack: OpenStack) -> None:
    graph = a_graph("a -> b", edges={"a->b": {"condition": "outputs.missing > 1"}})
    async with make_stack(runner=QUICK) as stack:
        execution, run = await failed(stack, graph, "b")
        assert (run.attempt, run.quarantines[0].failure_type) == (0, "PERMANENT_ERROR")
        assert "a->b" in run.error
        await stack.client.runs.requeue(execution.id, run.id, quarantine_number=1)
        assert (await stack.wait(execution.id)).state is ExecutionState.SUCCESS


async def test_unknown_and_foreign_ids_are_not_found(make_stack: OpenStack) -> None:
    async with make_stack(runner=QUICK) as stack:
        execution, run = await failed(stack, failing_once("a"))
        with pytest.raises(ExecutionNotFound):
            await stack.client.runs.discard(str(uuid4()), run.id, quarantine_number=1, reason="none")
        with pytest.raises(RunNotFound):
            await stack.client.runs.discard(execution.id, str(uuid4()), quarantine_number=1, reason="none")
        with pytest.raises(NotQuarantined):
            done = await stack.run(a_graph("x"))
            node = (await stack.runs(done.id))["x"]
            await stack.client.runs.discard(done.id, node.id, quarantine_number=1, reason="none")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        pytest.param({"inputs": [1]}, "inputs", id="no object"),
        pytest.param({"inputs": {"trigger": 1, "node": {}}}, "inputs.node", id="unknown part"),
        pytest.param({"inputs": {"trigger": 1, "nodes": {"a": 1}}}, "inputs.nodes.a", id="no result"),
        pytest.param({"quarantine_number": 0}, "quarantineNumber", id="no number"),
        pytest.param({"reason": "x" * 2001}, "reason", id="reason too long"),
    ],
)
async def test_i25_a_bad_requeue_is_told_the_field(stack: Stack, changes: dict[str, Any], field: str) -> None:
    arguments = {"quarantine_number": 1, **changes}
    with pytest.raises(InvalidRequest) as told:
        await stack.client.runs.requeue(str(uuid4()), str(uuid4()), **arguments)
    assert [violation.field for violation in told.value.details.violations] == [field]


async def test_i08_a_resolution_its_counters_and_its_outbox_row_are_one_transaction(make_stack: OpenStack) -> None:
    async with make_stack(runner=QUICK) as stack:
        execution, run = await failed(stack, failing_once("a -> b"))
        await stack.sql.execute(
            "ALTER TABLE executor.outbox ADD CONSTRAINT no_resolutions CHECK (kind <> 'RESOLVED') NOT VALID"
        )
        with pytest.raises(ValkyrError):
            await stack.client.runs.requeue(execution.id, run.id, quarantine_number=1)
        row = await stack.row(execution.id, "a")
        assert (row["state"], row["replay_traceparent"]) == ("QUARANTINED", None)
        assert (await stack.runs(execution.id))["a"].quarantines[0].resolution == "PENDING"
        execution_row = await stack.sql.fetchrow(
            "SELECT open_runs, bad_runs, state FROM executor.workflow_execution WHERE id = $1", UUID(execution.id)
        )
        assert tuple(execution_row) == (0, 1, "FAILED")


async def test_a_new_deadline_that_has_passed_is_refused_but_a_repeat_of_a_good_one_gets_its_answer(
    make_stack: OpenStack,
) -> None:
    async with make_stack(runner=QUICK) as stack:
        execution, run = await failed(stack, failing_once("a"))
        with pytest.raises(InvalidRequest, match="has passed"):
            await stack.client.runs.requeue(
                execution.id, run.id, quarantine_number=1, deadline=datetime.now(UTC) - timedelta(seconds=1)
            )
        later = datetime.now(UTC) + timedelta(hours=1)
        again = {"quarantine_number": 1, "deadline": later, "request_id": "once"}
        await stack.client.runs.requeue(execution.id, run.id, **again)
        await stack.wait(execution.id)
        await stack.sql.execute(DEADLINE_PASSES)
        assert (await stack.client.runs.requeue(execution.id, run.id, **again)).state is RunState.SUCCESS


async def test_a_fix_after_the_execution_s_deadline_lifts_it(make_stack: OpenStack) -> None:
    graph = failing_once("a -> b", settings=Settings(timeout=timedelta(hours=1)))
    async with make_stack(runner=QUICK) as stack:
        execution, run = await failed(stack, graph)
        await stack.sql.execute(DEADLINE_PASSES)
        await stack.client.runs.complete(execution.id, run.id, quarantine_number=1, outputs={})
        done = await stack.wait(execution.id)
        assert (done.state, done.deadline) == (ExecutionState.SUCCESS, None)


async def test_a_requeue_s_deadline_is_acted_upon_in_time(make_stack: OpenStack) -> None:
    modules = {"a": ("FailModule", {"times": 1}), "b": ("DelayModule", {"duration": "PT1H"})}
    async with make_stack(runner={**QUICK, "poll_interval": timedelta(minutes=10)}) as stack:
        execution, run = await failed(stack, a_graph("a -> b", modules=modules))
        soon = datetime.now(UTC) + timedelta(seconds=3)
        await stack.client.runs.requeue(execution.id, run.id, quarantine_number=1, deadline=soon)
        ended = await stack.wait(execution.id)
        assert (ended.state, ended.error_type) == (ExecutionState.FAILED, "TIMEOUT")


async def test_i12_a_requeue_does_not_start_a_run_beside_a_runner_that_may_still_be_at_it(
    make_stack: OpenStack,
) -> None:
    graph = a_graph("a", modules={"a": "StubbornModule"}, nodes={"a": {"deadline": timedelta(hours=1)}})
    async with make_stack(runner={"cancel_grace": timedelta(milliseconds=300)}) as stack:
        execution_id = await stack.start(graph)
        await until_true(lambda: GATES.running == 1, "it runs")
        await stack.pass_deadlines()
        execution = await stack.wait(execution_id)
        run = (await stack.runs(execution_id))["a"]
        # No report has come: the runner was promised its lease until much later.
        assert run.attempts[-1].outcome == "RUNNER_LOST"
        answer = await stack.client.runs.requeue(execution.id, run.id, quarantine_number=1)
        assert answer.state is RunState.READY
        assert answer.retry_after is not None
        left = (await stack.row(execution.id, "a"))["trusted_until"]
        assert answer.retry_after == left
        assert await stack.sql.fetchval("SELECT $1::timestamptz > now() + interval '30 s'", left)
        assert GATES.most == 1
        GATES.open.set()


async def test_i22_the_same_request_id_at_once_on_two_quarantines_resolves_one(make_stack: OpenStack) -> None:
    async with make_stack(runner=QUICK) as stack:
        pairs = [await failed(stack, failing_once("a")) for _ in range(6)]
        answers = await asyncio.gather(
            *(
                stack.client.runs.discard(e.id, r.id, quarantine_number=1, reason="x", request_id="same")
                for e, r in pairs
            ),
            return_exceptions=True,
        )
        refused = [answer for answer in answers if isinstance(answer, BaseException)]
        assert len(refused) == 5
        assert all(isinstance(answer, RequestIdReused) for answer in refused), refused


async def test_a_control_node_is_requeued_with_mended_inputs(make_stack: OpenStack) -> None:
    graph = a_graph("a -> b", modules={"b": ("DelayModule", {"duration": "${trigger.wait}"})})
    async with make_stack(runner=QUICK) as stack:
        execution, run = await failed(stack, graph, "b", payload={"wait": "soon"})
        inputs = {"trigger": {"wait": "PT0.01S"}, "nodes": {}}
        await stack.client.runs.requeue(execution.id, run.id, quarantine_number=1, inputs=inputs)
        assert (await stack.wait(execution.id)).state is ExecutionState.SUCCESS


async def test_a_page_of_runs_ends_where_what_requeues_put_in_fills_it(make_stack: OpenStack) -> None:
    big = {"trigger": "x" * 1_500_000, "nodes": {}}
    graph = a_graph("a, b, c", modules=dict.fromkeys("abc", ("FailModule", {})))
    async with make_stack(runner=QUICK) as stack:
        execution = await stack.run(graph)
        for run in (await stack.runs(execution.id)).values():
            await stack.client.runs.requeue(execution.id, run.id, quarantine_number=1, inputs=big)
        await stack.until("SELECT count(*) = 3 FROM executor.run WHERE quarantine_number = 2")
        runs = await stack.runs(execution.id)
        assert [run.inputs == big for run in runs.values()] == [True] * 3
