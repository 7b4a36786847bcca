"""Pause and resume: nothing new starts, what is leased finishes, timers and deadlines go on, and then all goes on."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from tests.builders import a_chain, a_graph
from tests.executor_lab import DONE, Lab
from tests.executor_modules import GATES
from tests.executor_stack import Stack, until_true
from tests.integration.executor.conftest import OpenStack
from tests.integration.executor.pauses import a_request, held_back, pause, resume, state_of
from valkyr.client import ExecutionState
from valkyr.errors import ExecutionNotFound, ExecutionSettled, RequestIdReused
from valkyr.flow.events import Event, PauseExecution, ResumeExecution
from valkyr.flow.results import Failure, FailureType, Lost, Release, Snooze

BROKE = Failure(FailureType.TRANSIENT, "it broke")


async def held_at(stack: Stack, node: str) -> None:
    await until_true(lambda: GATES.started[node], f"{node} has started")


async def test_a_chain_that_is_paused_in_its_midst_finishes_what_runs_and_goes_on_when_resumed(stack: Stack) -> None:
    execution = await stack.start(a_graph("a -> b -> c", modules={"a": "HeldModule"}))
    await held_at(stack, "a")
    assert (await pause(stack, execution)).state is ExecutionState.PAUSED
    assert await stack.states(execution) == {"a": "LEASED", "b": "PENDING", "c": "PENDING"}
    GATES.open.set()
    await stack.until("SELECT state = 'PARKED' FROM executor.run WHERE node_id = 'b'")
    assert await held_back(stack, execution) == {"b": "PAUSE"}
    assert await state_of(stack, execution) == "PAUSED"
    assert (await resume(stack, execution)).state is ExecutionState.RUNNING
    assert (await stack.wait(execution)).state is ExecutionState.SUCCESS
    row = await stack.row(execution, "b")
    assert (row["parked_by"], row["parked_at"], row["attempt"]) == (None, None, 1)


async def test_what_is_paused_before_anything_was_leased_waits_and_then_runs(make_stack: OpenStack) -> None:
    async with make_stack(runner={"concurrency": 1}) as stack:
        first = await stack.start(a_graph("a", modules={"a": "HeldModule"}))
        await held_at(stack, "a")
        execution = await stack.start(a_graph("x, y, z -> w", modules={"z": None}))
        assert await state_of(stack, execution) == "RUNNING"
        await pause(stack, execution)
        assert await held_back(stack, execution) == {"x": "PAUSE", "y": "PAUSE", "w": "PAUSE"}
        GATES.open.set()
        await stack.wait(first)
        await resume(stack, execution)
        assert (await stack.wait(execution)).state is ExecutionState.SUCCESS


async def test_an_execution_that_is_paused_while_its_last_run_is_leased_ends(stack: Stack) -> None:
    execution = await stack.start(a_graph("a", modules={"a": "HeldModule"}))
    await held_at(stack, "a")
    await pause(stack, execution)
    GATES.open.set()
    assert (await stack.wait(execution)).state is ExecutionState.SUCCESS


async def test_a_delay_that_is_over_succeeds_and_what_follows_it_is_parked(stack: Stack) -> None:
    graph = a_graph("wait -> pass -> end", modules={"wait": ("DelayModule", {"duration": "PT1H"}), "pass": None})
    execution = await stack.start(graph)
    await pause(stack, execution)
    await stack.sql.execute("UPDATE executor.run SET retry_after = now() WHERE node_id = 'wait'")
    stack.app.parts.signals.timers_changed.set()
    await stack.until("SELECT state = 'PARKED' FROM executor.run WHERE node_id = 'pass'")
    assert await stack.states(execution) == {"wait": "SUCCESS", "pass": "PARKED", "end": "PENDING"}
    await resume(stack, execution)
    assert (await stack.wait(execution)).state is ExecutionState.SUCCESS


async def test_thousands_of_control_nodes_are_decided_when_the_execution_is_resumed(stack: Stack) -> None:
    """More than one transaction decides."""
    count = 2_500
    names = [f"n{index}" for index in range(count)]
    graph = a_graph(
        "\n".join(f"first -> {name}" for name in names),
        modules={"first": "HeldModule"} | dict.fromkeys(names),
    )
    execution = await stack.start(graph)
    await held_at(stack, "first")
    await pause(stack, execution)
    GATES.open.set()
    await stack.until("SELECT count(*) = $1 FROM executor.run WHERE state = 'PARKED' AND is_control", count)
    await resume(stack, execution)
    assert (await stack.wait(execution)).state is ExecutionState.SUCCESS


@pytest.mark.parametrize(
    ("result", "seconds"),
    [
        pytest.param(
            Failure(FailureType.RATE_LIMITED, "slow down", retry_after=timedelta(minutes=5)), 300, id="failure"
        ),
        pytest.param(Snooze(timedelta(minutes=7)), 420, id="snooze"),
        pytest.param(Release(), 0, id="release"),
    ],
)
async def test_what_comes_back_is_parked_and_waits_as_long_as_it_would_have(
    make_stack: OpenStack, result: Failure | Snooze | Release, seconds: int
) -> None:
    async with make_stack(runner={"concurrency": 0}) as stack:
        execution, lab = await stack.start(a_graph("a -> b")), Lab(stack)
        await lab.lease(execution, "a")
        await pause(stack, execution)
        assert await lab.report(execution, "a", result) == "ACCEPTED"
        assert await held_back(stack, execution) == {"a": "PAUSE"}
        await resume(stack, execution)
        assert (await stack.states(execution))["a"] == "READY"
        waits = "SELECT extract(epoch FROM {} - now())::float8 FROM executor.run WHERE node_id = 'a'"
        ahead = await stack.sql.fetchval(waits.format("ready_at"))
        assert seconds - 10 < ahead <= seconds
        assert bool(await stack.sql.fetchval(waits.format("retry_after"))) == bool(seconds)


async def test_a_lost_run_is_parked_under_a_new_epoch(make_stack: OpenStack) -> None:
    async with make_stack(runner={"concurrency": 0}) as stack:
        execution, lab = await stack.start(a_graph("a")), Lab(stack)
        await lab.lease(execution, "a", seconds=-1)
        await pause(stack, execution)
        assert await lab.report(execution, "a", Lost(), only_if_expired=True) == "ACCEPTED"
        row = await stack.row(execution, "a")
        assert (row["state"], row["parked_by"], row["epoch"], row["lost_leases"]) == ("PARKED", "PAUSE", 2, 1)
        assert await lab.report(execution, "a", DONE, epoch=1) == "LEASE_LOST"


async def test_a_run_that_its_breaker_holds_back_is_the_pauses_and_meets_the_breaker_when_resumed(
    make_stack: OpenStack,
) -> None:
    async with make_stack(runner={"concurrency": 0}) as stack:
        execution = await stack.start(a_graph("a, b"))
        await stack.sql.execute(
            """UPDATE executor.run SET state = 'PARKED', parked_by = 'BREAKER', target = 't',
                   parked_at = now() - interval '1 min', retry_after = now() + interval '1 h' WHERE node_id = 'a'"""
        )
        await pause(stack, execution)
        assert await held_back(stack, execution) == {"a": "PAUSE", "b": "PAUSE"}
        await resume(stack, execution)
        row = await stack.row(execution, "a")
        assert (row["state"], row["parked_by"], row["retry_after"]) == ("READY", None, None)
        assert 60_000 <= row["parked_ms"] < 120_000


async def test_i19_the_deadline_of_a_run_holds_while_the_execution_is_paused(stack: Stack) -> None:
    graph = a_graph(
        "a -> b, b -> rescue",
        modules={"a": "HeldModule"},
        nodes={"b": {"deadline": timedelta(milliseconds=300)}},
        edges={"b->rescue": {"kind": "FAILURE"}},
    )
    execution = await stack.start(graph)
    await held_at(stack, "a")
    await pause(stack, execution)
    GATES.open.set()
    await stack.until("SELECT state = 'PARKED' FROM executor.run WHERE node_id = 'rescue'")
    b = await stack.row(execution, "b")
    assert (b["state"], b["error_type"], b["parked_by"]) == ("FAILED", "TIMEOUT", None)
    await resume(stack, execution)
    assert (await stack.wait(execution)).state is ExecutionState.SUCCESS


async def test_a_paused_execution_can_be_cancelled(stack: Stack) -> None:
    graph = a_graph("a -> b, c", modules={"a": "StubbornModule"}, nodes={"c": {"pool": "elsewhere"}})
    execution = await stack.start(graph)
    await held_at(stack, "a")
    await pause(stack, execution)
    await stack.client.executions.cancel(execution)
    GATES.open.set()
    assert (await stack.wait(execution)).state is ExecutionState.CANCELLED
    assert await stack.states(execution) == {"a": "SUCCESS", "b": "CANCELLED", "c": "CANCELLED"}


async def test_the_deadline_of_a_paused_execution_ends_it(stack: Stack) -> None:
    graph = a_graph("a", nodes={"a": {"pool": "elsewhere"}})
    execution = await stack.start(graph)
    await pause(stack, execution)
    await stack.sql.execute("UPDATE executor.workflow_execution SET deadline = now()")
    stack.app.parts.signals.deadlines_changed.set()
    ended = await stack.wait(execution)
    assert (ended.state, ended.error_type) == (ExecutionState.FAILED, "TIMEOUT")


async def test_a_requeue_into_a_paused_execution_is_parked_and_one_into_a_failed_one_runs(
    make_stack: OpenStack,
) -> None:
    graph = a_graph("a, held", modules={"a": ("FailModule", {"times": 1}), "held": "HeldModule"})
    async with make_stack(runner={"retry": {"max_attempts": 1}}) as stack:
        execution = await stack.start(graph)
        await held_at(stack, "held")
        await stack.until("SELECT state = 'QUARANTINED' FROM executor.run WHERE node_id = 'a'")
        await pause(stack, execution)
        a = (await stack.runs(execution))["a"]
        await stack.client.runs.requeue(execution, a.id, quarantine_number=1)
        assert await held_back(stack, execution) == {"a": "PAUSE"}
        GATES.open.set()
        await resume(stack, execution)
        assert (await stack.wait(execution)).state is ExecutionState.SUCCESS

        GATES.reset()
        again = await stack.start(graph)
        await held_at(stack, "held")
        await stack.until(
            "SELECT state = 'QUARANTINED' FROM executor.run WHERE node_id = 'a' AND execution_id = $1", UUID(again)
        )
        await pause(stack, again)
        GATES.open.set()
        assert (await stack.wait(again)).state is ExecutionState.FAILED
        await stack.client.runs.requeue(again, (await stack.runs(again))["a"].id, quarantine_number=1)
        assert (await stack.wait(again)).state is ExecutionState.SUCCESS


async def test_to_pause_or_resume_twice_changes_nothing_and_answers_with_the_execution(stack: Stack) -> None:
    execution = await stack.start(a_graph("a", nodes={"a": {"pool": "elsewhere"}}))
    running = await resume(stack, execution)
    paused = await pause(stack, execution)
    again = await pause(stack, execution)
    assert (again.state, again.revision) == (paused.state, paused.revision) == ("PAUSED", running.revision + 1)
    resumed = await resume(stack, execution)
    assert (resumed.state, resumed.revision) == ("RUNNING", paused.revision + 1)
    assert (await resume(stack, execution)).revision == resumed.revision


async def test_a_request_that_comes_again_late_does_not_pause_again(stack: Stack) -> None:
    execution = await stack.start(a_graph("a", nodes={"a": {"pool": "elsewhere"}}))
    await pause(stack, execution, a_request("one"))
    await pause(stack, execution, a_request("two"))
    await resume(stack, execution, a_request("one"))
    assert (await pause(stack, execution, a_request("one"))).state == "RUNNING"
    assert (await pause(stack, execution, a_request("two"))).state == "RUNNING"
    assert (await pause(stack, execution, a_request("three"))).state == "PAUSED"
    assert (await resume(stack, execution, a_request("one"))).state == "PAUSED"


async def test_a_request_id_with_another_body_or_for_another_execution_is_refused(stack: Stack) -> None:
    graph = a_graph("a", nodes={"a": {"pool": "elsewhere"}})
    one, other = await stack.start(graph), await stack.start(graph)
    await pause(stack, one, a_request("r"))
    with pytest.raises(RequestIdReused):
        await pause(stack, one, a_request("r", body=b"something else"))
    with pytest.raises(RequestIdReused):
        await pause(stack, other, a_request("r"))
    assert await state_of(stack, other) == "PENDING"


async def test_request_ids_of_another_namespace_are_others(stack: Stack) -> None:
    execution = await stack.start(a_graph("a", nodes={"a": {"pool": "elsewhere"}}))
    await stack.sql.execute(
        """INSERT INTO executor.execution_intervention
               (namespace, execution_id, kind, principal, request_id, request_hash, took_effect)
           VALUES ('other', $1, 'PAUSE', 'Eve', 'r', 'x', true)""",
        uuid4(),
    )
    assert (await pause(stack, execution, a_request("r"))).state == "PAUSED"


async def test_one_request_at_many_callers_pauses_once_and_all_are_answered(stack: Stack) -> None:
    execution = await stack.start(a_graph("a", nodes={"a": {"pool": "elsewhere"}}))
    answers = await asyncio.gather(*(pause(stack, execution, a_request("r")) for _ in range(8)))
    assert {(answer.state, answer.revision) for answer in answers} == {("PAUSED", answers[0].revision)}
    assert await stack.sql.fetchval("SELECT count(*) FROM executor.execution_intervention") == 1


async def test_request_ids_are_forgotten_after_a_day_in_steps_and_who_paused_is_not(stack: Stack) -> None:
    execution = await stack.start(a_graph("a", nodes={"a": {"pool": "elsewhere"}}))
    for name in ("first", "changes nothing"):
        await pause(stack, execution, a_request(name))
    await resume(stack, execution, a_request("first"))
    await pause(stack, execution, a_request("second"))
    table = "executor.execution_intervention"
    await stack.sql.execute(f"UPDATE {table} SET created_date = now() - interval '1 day' WHERE request_id <> 'second'")
    forget, day = stack.app.parts.interventions.forget_requests, timedelta(days=1)
    assert await forget(timedelta(hours=25)) is None
    assert [await forget(day, limit=2) for _ in range(3)] == [timedelta(), None, None]
    rows = await stack.sql.fetch(f"SELECT kind, request_id, request_hash IS NULL FROM {table} ORDER BY id")
    assert [tuple(row) for row in rows] == [("PAUSE", None, True), ("RESUME", None, True), ("PAUSE", "second", False)]
    await resume(stack, execution)
    assert (await pause(stack, execution, a_request("second"))).state != "PAUSED"
    assert (await pause(stack, execution, a_request("first"))).state == "PAUSED"


async def test_what_is_settled_or_unknown_or_ending_is_refused(make_stack: OpenStack) -> None:
    async with make_stack(runner={"concurrency": 0}) as stack:
        execution, lab = await stack.start(a_graph("a")), Lab(stack)
        await lab.lease(execution, "a")
        await stack.client.executions.cancel(execution)
        for change in (pause, resume):
            with pytest.raises(ExecutionSettled, match="ending"):
                await change(stack, execution)
        await lab.report(execution, "a", DONE)
        for change in (pause, resume):
            with pytest.raises(ExecutionSettled, match="CANCELLED"):
                await change(stack, execution)
            with pytest.raises(ExecutionNotFound):
                await change(stack, str(uuid4()))


async def test_who_paused_and_why_is_kept(stack: Stack) -> None:
    execution = await stack.start(a_graph("a", nodes={"a": {"pool": "elsewhere"}}))
    await pause(stack, execution)
    await pause(stack, execution)
    await resume(stack, execution)
    rows = await stack.sql.fetch("SELECT kind, principal, reason FROM executor.execution_intervention ORDER BY id")
    assert [tuple(row) for row in rows] == [("PAUSE", "Eve", "to look at it"), ("RESUME", "Eve", "to look at it")]


async def test_in_one_batch_a_pause_comes_before_what_else_happens_and_a_resume_undoes_it(
    make_stack: OpenStack,
) -> None:
    async with make_stack(runner={"concurrency": 0}) as stack:
        execution, lab = await stack.start(a_chain(3)), Lab(stack, room=5)
        await lab.lease(execution, "n0")
        done = await lab.event(execution, "n0", DONE)
        await lab.progress.apply([done, PauseExecution(UUID(execution), a_request())])
        assert await stack.states(execution) == {"n0": "SUCCESS", "n1": "PARKED", "n2": "PENDING"}
        await lab.progress.apply([ResumeExecution(UUID(execution), a_request())])
        await lab.lease(execution, "n1")
        both: list[Event] = [
            PauseExecution(UUID(execution), a_request()),
            ResumeExecution(UUID(execution), a_request()),
        ]
        await lab.progress.apply([await lab.event(execution, "n1", DONE), *both])
        assert (await state_of(stack, execution), lab.pool.given[0].node_id) == ("RUNNING", "n2")
