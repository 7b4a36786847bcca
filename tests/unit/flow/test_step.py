"""What a batch of events means for one execution, over rows in memory: answers, writes, counters."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.builders import a_graph
from tests.unit.executor.executions import EXECUTION, plan_of
from tests.unit.flow.batches import Batch
from valkyr.flow.attempts import Fence
from valkyr.flow.events import ControlReady, TimerDue
from valkyr.flow.ids import run_id
from valkyr.flow.results import Failure, FailureType, Lost, Omitted, Release, Success
from valkyr.flow.states import ExecutionState, RunState
from valkyr.flow.step import touched_nodes

R = RunState
DONE = Success(b'{"ok":true}')
BROKE = Failure(FailureType.PERMANENT, "it broke", "a stack")


def test_a_success_is_written_once_with_what_it_readies() -> None:
    batch = Batch(a_graph("a -> b"))
    assert batch.apply(batch.ended("a", Success(b"[1]", cost_tokens=2.5))) == [Fence.ACCEPTED]
    (finished,) = batch.writes.finished
    assert (finished.key, finished.epoch, finished.outputs) == ((EXECUTION, batch.run("a")), 4, "[1]")
    assert (finished.cost_tokens, finished.duration_ms, finished.revision) == (2.5, 12, 7)
    assert [(run.key[1], run.state, run.revision) for run in batch.ready] == [(batch.run("b"), R.READY, 7)]
    assert batch.execution == (ExecutionState.RUNNING, 7, 1, 0)
    assert batch.writes.attempts == []


def test_a_failure_is_quarantined_with_its_letter_and_its_attempt() -> None:
    batch = Batch(a_graph("a -> b"))
    assert batch.apply(batch.ended("a", BROKE)) == [Fence.ACCEPTED]
    (ended,) = batch.writes.ended
    assert (ended.state, ended.failures, ended.lost_leases, ended.raise_epoch) == (R.QUARANTINED, 1, 0, False)
    assert (ended.error, ended.error_type, ended.wait) == ("it broke", "PERMANENT", None)
    (attempt,) = batch.writes.attempts
    assert (attempt.attempt, attempt.outcome, attempt.stack_trace) == (4, "PERMANENT", "a stack")
    (letter,) = batch.writes.outbox
    assert (letter.namespace, letter.quarantine_number, letter.kind) == ("default", 2, "QUARANTINED")
    (quarantine,) = batch.writes.quarantines
    assert (quarantine.key, quarantine.quarantine_number) == (letter.key, 2)
    assert (quarantine.failure_type, quarantine.error_type, quarantine.error) == (
        "PERMANENT_ERROR",
        "PERMANENT",
        "it broke",
    )
    assert batch.execution == (ExecutionState.FAILED, 7, 0, 1)
    assert batch.writes.executions[0].error_message == "node 'a': it broke"


def test_i15_a_handled_failure_has_no_letter() -> None:
    batch = Batch(a_graph("a -> b", edges={"a->b": {"kind": "FAILURE"}}))
    batch.apply(batch.ended("a", BROKE))
    assert (batch.writes.ended[0].state, batch.writes.outbox) == (R.FAILED, [])
    assert batch.execution == (ExecutionState.RUNNING, 7, 1, 0)


def test_i10_a_lost_lease_goes_back_to_ready_under_a_new_epoch_and_the_execution_is_not_written() -> None:
    batch = Batch(a_graph("a -> b"))
    assert batch.apply(batch.ended("a", Lost())) == [Fence.ACCEPTED]
    (ended,) = batch.writes.ended
    assert (ended.state, ended.lost_leases, ended.failures, ended.raise_epoch) == (R.READY, 1, 0, True)
    assert ended.wait is not None
    assert timedelta() <= ended.wait <= timedelta(seconds=1)
    assert (batch.writes.executions, batch.writes.attempts[0].outcome) == ([], "RUNNER_LOST")


def test_i10_the_last_lost_lease_of_the_budget_is_quarantined() -> None:
    batch = Batch(a_graph("a -> b"), lost_leases=2)
    batch.apply(batch.ended("a", Lost()))
    (ended,) = batch.writes.ended
    assert (ended.state, ended.lost_leases, ended.raise_epoch) == (R.QUARANTINED, 3, True)
    assert (batch.writes.quarantines[0].failure_type, len(batch.writes.outbox)) == ("RUNNER_LOST", 1)


@pytest.mark.parametrize(("result", "raises_epoch"), [(Release(), False), (Omitted(), True)])
def test_what_was_not_started_is_ready_at_once_and_only_a_report_keeps_the_epoch(
    result: Any, raises_epoch: bool
) -> None:
    batch = Batch(a_graph("a"), lost_leases=2)
    assert batch.apply(batch.ended("a", result)) == [Fence.ACCEPTED]
    (ended,) = batch.writes.ended
    assert (ended.state, ended.wait, ended.lost_leases) == (R.READY, timedelta(), 2)
    assert ended.raise_epoch is raises_epoch


@pytest.mark.parametrize(
    "result", [DONE, BROKE, Release(), Lost(), Omitted()], ids=lambda result: type(result).__name__
)
@pytest.mark.parametrize("epoch", [3, 5])
def test_i06_a_report_under_another_epoch_changes_nothing(result: Any, epoch: int) -> None:
    batch = Batch(a_graph("a -> b"))
    assert batch.apply(batch.ended("a", result, epoch=epoch)) == [Fence.LEASE_LOST]
    assert batch.is_untouched


@pytest.mark.parametrize("state", [R.READY, R.SUCCESS, R.FAILED, R.QUARANTINED, R.CANCELLED])
def test_i06_a_report_for_a_run_that_is_not_leased_changes_nothing(state: RunState) -> None:
    batch = Batch(a_graph("a -> b"), {"a": state})
    assert batch.apply(batch.ended("a", DONE)) == [Fence.ALREADY_REPORTED]
    assert batch.is_untouched


def test_i06_a_report_for_another_executions_run_or_no_run_changes_nothing() -> None:
    batch = Batch(a_graph("a -> b"))
    stranger = replace(batch.ended("a", DONE), run_id=run_id(EXECUTION, 0, 3))
    nobody = replace(batch.ended("a", DONE), run_id=run_id(EXECUTION, 77))
    assert batch.apply(stranger, nobody) == [Fence.LEASE_LOST, Fence.LEASE_LOST]
    assert batch.is_untouched


@pytest.mark.parametrize(
    ("first", "second", "answer"),
    [
        (DONE, DONE, Fence.ALREADY_REPORTED),
        (DONE, BROKE, Fence.ALREADY_REPORTED),
        (BROKE, DONE, Fence.ALREADY_REPORTED),
        (DONE, Lost(), Fence.ALREADY_REPORTED),
        (Release(), DONE, Fence.ALREADY_REPORTED),
        (Lost(), DONE, Fence.LEASE_LOST),
        (Omitted(), DONE, Fence.LEASE_LOST),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_i07_two_ends_of_one_lease_in_one_batch_are_applied_once(first: Any, second: Any, answer: Fence) -> None:
    batch = Batch(a_graph("a -> c, b -> c"))
    alone = Batch(a_graph("a -> c, b -> c"))
    assert batch.apply(batch.ended("a", first), batch.ended("a", second)) == [Fence.ACCEPTED, answer]
    alone.apply(alone.ended("a", first))
    waits = [[replace(run, wait=None) for run in writes.ended] for writes in (batch.writes, alone.writes)]
    assert waits[0] == waits[1]
    assert (batch.writes.finished, batch.writes.changed) == (alone.writes.finished, alone.writes.changed)
    assert (batch.writes.executions, batch.writes.attempts) == (alone.writes.executions, alone.writes.attempts)


def test_i07_a_timer_that_is_brought_twice_in_one_batch_counts_once() -> None:
    graph = a_graph("d -> c, b -> c", modules={"d": ("DelayModule", {"duration": "PT1S"})})
    batch = Batch(graph, {"d": R.WAITING})
    timer = TimerDue(EXECUTION, batch.run("d"))
    assert batch.apply(timer, timer) == [Fence.ACCEPTED, Fence.LEASE_LOST]
    assert {run.key[1]: run.gate.unmet for run in batch.writes.changed}[batch.run("c")] == 1
    assert batch.ready == []


def test_i07_a_control_node_that_is_brought_twice_in_one_batch_is_decided_once() -> None:
    batch = Batch(a_graph("p -> c, b -> c", modules={"p": None}), {"p": R.READY})
    control = ControlReady(EXECUTION, batch.run("p"))
    assert batch.apply(control, control) == [Fence.ACCEPTED, Fence.LEASE_LOST]
    assert {run.key[1]: run.gate.unmet for run in batch.writes.changed}[batch.run("c")] == 1


@pytest.mark.parametrize(("state", "due"), [(R.WAITING, False), (R.READY, True), (R.SUCCESS, True)])
def test_a_timer_that_is_not_due_or_was_taken_changes_nothing(state: RunState, due: bool) -> None:
    batch = Batch(a_graph("a -> b"), {"a": state}, due=due)
    assert batch.apply(TimerDue(EXECUTION, batch.run("a"))) == [Fence.LEASE_LOST]
    assert batch.is_untouched


@pytest.mark.parametrize("state", [R.PENDING, R.WAITING, R.SUCCESS])
def test_a_control_node_that_is_not_ready_any_more_changes_nothing(state: RunState) -> None:
    batch = Batch(a_graph("a -> b", modules={"a": None}), {"a": state})
    assert batch.apply(ControlReady(EXECUTION, batch.run("a"))) == [Fence.LEASE_LOST]
    assert batch.is_untouched


@pytest.mark.parametrize(("expired", "answer"), [(True, Fence.ACCEPTED), (False, Fence.LEASE_LOST)])
def test_i11_the_reaper_takes_only_what_is_still_expired(expired: bool, answer: Fence) -> None:
    batch = Batch(a_graph("a"), lease_expired=expired)
    assert batch.apply(batch.ended("a", Lost(), only_if_expired=True)) == [answer]
    assert batch.is_untouched is not expired


def test_outcomes_of_one_batch_open_their_join_together() -> None:
    batch = Batch(a_graph("a -> c, b -> c"))
    batch.apply(batch.ended("a", DONE), batch.ended("b", DONE))
    assert [run.key[1] for run in batch.ready] == [batch.run("c")]
    assert batch.execution == (ExecutionState.RUNNING, 7, 1, 0)


def test_a_delay_is_written_with_how_long_it_waits() -> None:
    batch = Batch(a_graph("a -> d", modules={"d": ("DelayModule", {"duration": "PT90S"})}))
    batch.apply(batch.ended("a", DONE))
    (run,) = batch.writes.changed
    assert (run.state, run.wake_after) == (R.WAITING, timedelta(seconds=90))
    assert batch.execution == (ExecutionState.RUNNING, 7, 1, 0)


def test_conditions_read_the_outputs_that_were_just_reported() -> None:
    graph = a_graph("a -> b, a -> c", edges={"a->b": {"condition": "outputs.ok"}, "a->c": {"condition": "!outputs.ok"}})
    batch = Batch(graph)
    batch.apply(batch.ended("a", DONE))
    assert [run.key[1] for run in batch.ready] == [batch.run("b")]
    assert [(run.key[1], run.state) for run in batch.writes.changed] == [(batch.run("c"), R.SKIPPED)]


def test_conditions_read_the_type_of_a_failure_as_text() -> None:
    condition = "error.type == 'PERMANENT' && error.message == 'it broke' && outputs == null"
    batch = Batch(a_graph("a -> b", edges={"a->b": {"kind": "FAILURE", "condition": condition}}))
    batch.apply(batch.ended("a", BROKE))
    assert [run.key[1] for run in batch.ready] == [batch.run("b")]


def test_outputs_that_no_expression_asks_for_are_not_read() -> None:
    batch = Batch(a_graph("a -> b"))
    batch.apply(batch.ended("a", Success(b"this is no JSON, and nobody looks")))
    assert batch.writes.finished[0].outputs == "this is no JSON, and nobody looks"


def test_touched_are_the_nodes_of_the_events_and_what_their_edges_lead_to() -> None:
    plan = plan_of(a_graph("a -> b -> c, a -> c, x -> y"))
    assert touched_nodes(plan, [plan.index_of["a"]]) == {plan.index_of[name] for name in ("a", "b", "c")}
