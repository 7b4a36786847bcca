"""Resolutions over rows in memory: answers, writes, counters, and two of them at once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.builders import a_graph
from tests.unit.executor.executions import EXECUTION
from tests.unit.flow.batches import NOON, Batch, a_request, an_end
from valkyr.errors import ExecutionEnded, QuarantineResolved, RunNotFound
from valkyr.flow.attempts import Fence
from valkyr.flow.events import Event, Resolution
from valkyr.flow.facts import Replay
from valkyr.flow.ids import run_id
from valkyr.flow.joins import Gate
from valkyr.flow.outcomes import RunFacts
from valkyr.flow.plan import Sight
from valkyr.flow.results import Failure, FailureType, Success
from valkyr.flow.states import Ending, ExecutionState, RunState
from valkyr.graph.model import FailurePolicy, Settings

R, E = RunState, ExecutionState
DONE = Success(b'{"ok":true}')
BROKE = Failure(FailureType.TRANSIENT, "it broke", "a stack")
QUARANTINED_A = {"a": R.QUARANTINED}
FAILED = {"state": E.FAILED}
FAST = Settings(failure_policy=FailurePolicy.FAIL_FAST)


def test_a_requeue_reopens_the_execution_and_tells_the_dlq() -> None:
    batch = Batch(a_graph("a -> b"), QUARANTINED_A, execution=FAILED)
    event = batch.resolve("a", Resolution.REQUEUED)
    assert batch.apply(event) == [Fence.ACCEPTED]
    assert batch.states == {"a": R.READY}
    assert batch.writes.resolved == [event]
    (told,) = batch.writes.outbox
    assert (told.kind, told.quarantine_number, told.key) == ("RESOLVED", 1, (EXECUTION, batch.run("a")))
    assert batch.execution == (E.RUNNING, 7, 1, 0)
    assert (batch.writes.quarantines, batch.writes.attempts) == ([], [])


def test_a_fix_writes_the_operator_s_outputs_as_they_were_given() -> None:
    graph = a_graph("a -> b, a -> c", edges={"a->b": {"condition": "outputs.n == 1"}})
    batch = Batch(graph, QUARANTINED_A, execution=FAILED)
    batch.apply(batch.resolve("a", Resolution.FIXED, outputs='{"n": 1}'))
    assert batch.states == {"a": R.SUCCESS, "b": R.READY, "c": R.READY}
    assert [run.outputs for run in batch.writes.changed] == ['{"n": 1}']
    assert batch.execution == (E.RUNNING, 7, 2, 0)


def test_a_fix_whose_outputs_nobody_looks_at_writes_them_too() -> None:
    batch = Batch(a_graph("a"), QUARANTINED_A, execution=FAILED)
    batch.apply(batch.resolve("a", Resolution.FIXED, outputs="[1]"))
    assert [run.outputs for run in batch.writes.changed] == ["[1]"]
    assert batch.execution == (E.SUCCESS, 7, 0, 0)


def test_a_discard_fails_the_run_for_good_and_leaves_the_execution_failed() -> None:
    batch = Batch(a_graph("a -> b -> c"), QUARANTINED_A, execution=FAILED)
    batch.apply(batch.resolve("a", Resolution.DISCARDED))
    assert batch.states == {"a": R.FAILED, "b": R.SKIPPED, "c": R.SKIPPED}
    assert batch.execution == (E.FAILED, 7, 0, 1)
    assert batch.writes.executions[0].error_type is None, "the first reason stays"


@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize("ending", Ending)
def test_in_an_execution_that_ended_only_a_discard_works_and_nothing_follows_it(ending: Ending, settled: bool) -> None:
    state = {Ending.CANCEL: E.CANCELLED}.get(ending, E.FAILED) if settled else E.RUNNING
    states = {"a": R.QUARANTINED, "b": R.CANCELLED, "x": R.SUCCESS if settled else R.LEASED}

    def batch() -> Batch:
        return Batch(a_graph("a -> b, x"), states, execution={"ending": ending, "state": state})

    for resolution in (Resolution.REQUEUED, Resolution.FIXED):
        one = batch()
        assert isinstance(one.refused(one.resolve("a", resolution)), ExecutionEnded)
    discarded = batch()
    assert discarded.apply(discarded.resolve("a", Resolution.DISCARDED)) == [Fence.ACCEPTED]
    assert discarded.states == {"a": R.FAILED}
    assert discarded.execution == (state, 7, 0 if settled else 1, 1)


def test_i22_of_two_resolutions_of_one_batch_the_second_is_told_who_won() -> None:
    batch = Batch(a_graph("a -> b"), QUARANTINED_A, execution=FAILED)
    first = batch.resolve("a", Resolution.REQUEUED)
    second = batch.resolve("a", Resolution.DISCARDED, request=a_request(principal="Mallory"))
    answers = batch.apply(first, second)
    assert answers[0] is Fence.ACCEPTED
    assert isinstance(answers[1], QuarantineResolved)
    assert answers[1].details.metadata["resolution"] == "REQUEUED"
    assert answers[1].details.metadata["resolvedBy"] == "Eve"
    assert (batch.states, batch.writes.resolved) == ({"a": R.READY}, [first])


def test_i22_the_same_resolution_twice_in_one_batch_counts_once() -> None:
    batch = Batch(a_graph("a -> b"), QUARANTINED_A, execution=FAILED)
    event = batch.resolve("a", Resolution.REQUEUED, request=a_request("the same"))
    assert batch.apply(event, event) == [Fence.ACCEPTED, Fence.ALREADY_REPORTED]
    assert (len(batch.writes.outbox), batch.execution) == (1, (E.RUNNING, 7, 1, 0))


@pytest.mark.parametrize("order", ["resolution first", "report first"])
def test_i07_a_late_report_beside_a_resolution_changes_nothing(order: str) -> None:
    batch = Batch(a_graph("a -> b"), QUARANTINED_A, execution=FAILED)
    events: list[Event] = [batch.resolve("a", Resolution.REQUEUED), batch.ended("a", DONE)]
    answers = batch.apply(*(events if order == "resolution first" else events[::-1]))
    assert sorted(map(str, answers)) == ["ACCEPTED", "ALREADY_REPORTED"]
    assert batch.states == {"a": R.READY}


def test_resolutions_and_ends_of_one_batch_are_counted_together() -> None:
    batch = Batch(a_graph("a -> j, b -> j, c -> j"), {"a": R.QUARANTINED, "b": R.QUARANTINED})
    answers = batch.apply(
        batch.resolve("a", Resolution.FIXED), batch.resolve("b", Resolution.REQUEUED), batch.ended("c", DONE)
    )
    assert answers == [Fence.ACCEPTED] * 3
    assert batch.states == {"a": R.SUCCESS, "b": R.READY, "c": R.SUCCESS, "j": R.PENDING}
    assert batch.execution == (E.RUNNING, 7, 1, 0)


def test_an_execution_that_is_cancelled_in_the_same_batch_refuses_a_requeue() -> None:
    batch = Batch(a_graph("a -> b, c"), QUARANTINED_A)
    answers = batch.apply(an_end(), batch.resolve("a", Resolution.REQUEUED))
    assert answers[0] is Fence.ACCEPTED
    assert isinstance(answers[1], ExecutionEnded)
    assert batch.states == {}


def test_a_requeued_run_that_is_quarantined_at_once_makes_the_next_quarantine() -> None:
    graph = a_graph("x -> a", modules={"a": ("DelayModule", {"duration": "soon"})})
    batch = Batch(graph, {"x": R.SUCCESS, "a": R.QUARANTINED}, execution=FAILED)
    batch.apply(batch.resolve("a", Resolution.REQUEUED))
    assert [(told.kind, told.quarantine_number) for told in batch.writes.outbox] == [
        ("RESOLVED", 1),
        ("QUARANTINED", 2),
    ]
    assert [quarantine.quarantine_number for quarantine in batch.writes.quarantines] == [2]
    assert batch.execution == (E.FAILED, 7, 0, 1)


BEFORE = Replay(inputs='{"old": 1}', key_number=3, traceparent="00-old", after_attempt=2)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, replace(BEFORE, traceparent="00-new", after_attempt=4), id="nothing new"),
        pytest.param(
            {"inputs": '{"new": 2}', "new_key": True},
            Replay('{"new": 2}', key_number=1, traceparent="00-new", after_attempt=4),
            id="inputs and key",
        ),
        pytest.param(
            {"request": a_request()}, replace(BEFORE, traceparent=None, after_attempt=4), id="without a trace"
        ),
    ],
)
def test_a_requeue_leaves_inputs_key_and_trace_for_the_attempts_that_follow(
    changes: dict[str, Any], expected: Replay
) -> None:
    batch = Batch(a_graph("a -> b"), QUARANTINED_A, execution=FAILED, replay=BEFORE)
    batch.apply(batch.resolve("a", Resolution.REQUEUED, **{"request": a_request(traceparent="00-new"), **changes}))
    assert batch.step.replay_of(0) == expected
    assert batch.step.replay_of(1) == BEFORE
    assert batch.step.ready_revision_of(0) == 2, "frozen when it became ready first"


def test_a_discard_in_the_batch_that_ends_the_execution_decides_nothing_behind_it() -> None:
    batch = Batch(a_graph("a -> b, c"), QUARANTINED_A)
    assert batch.apply(an_end(), batch.resolve("a", Resolution.DISCARDED)) == [Fence.ACCEPTED] * 2
    assert batch.states == {"a": R.FAILED}, "the others are cancelled with everything else"


def test_a_discard_that_readies_a_join_reopens_the_execution() -> None:
    graph = a_graph("a -> j, b -> j", edges={"a->j": {"kind": "FAILURE", "condition": "false"}})
    batch = Batch(graph, {"a": R.QUARANTINED, "b": R.SUCCESS}, execution=FAILED)
    join = batch.plan.index_of["j"]
    batch.step.rows[join] = replace(batch.step.rows[join], facts=RunFacts(R.PENDING, Gate(1, taken=1)))
    batch.apply(batch.resolve("a", Resolution.DISCARDED))
    assert batch.states == {"a": R.FAILED, "j": R.READY}
    assert batch.execution == (E.RUNNING, 7, 1, 1)


TOMORROW = NOON + timedelta(days=1)


@pytest.mark.parametrize(
    ("resolution", "deadline", "passed", "written"),
    [
        pytest.param(Resolution.REQUEUED, None, False, [], id="requeue"),
        pytest.param(Resolution.REQUEUED, TOMORROW, False, [(EXECUTION, TOMORROW)], id="requeue with a new one"),
        pytest.param(Resolution.REQUEUED, TOMORROW, True, [(EXECUTION, TOMORROW)], id="requeue after the old one"),
        pytest.param(Resolution.FIXED, None, False, [], id="fix"),
        pytest.param(Resolution.FIXED, None, True, [(EXECUTION, None)], id="fix after the deadline lifts it"),
        pytest.param(Resolution.DISCARDED, None, True, [], id="discard"),
    ],
)
def test_what_goes_on_by_a_resolution_is_not_ended_at_once_by_the_old_deadline(
    resolution: Resolution, deadline: Any, passed: bool, written: list[Any]
) -> None:
    execution = {**FAILED, "deadline_passed": passed, "now": NOON}
    batch = Batch(a_graph("a -> b"), QUARANTINED_A, execution=execution)
    assert batch.apply(batch.resolve("a", resolution, deadline=deadline)) == [Fence.ACCEPTED]
    assert batch.writes.deadlines == written


def test_control_nodes_that_look_at_something_are_shown_what_a_requeue_left() -> None:
    modules = {
        "looks": ("DelayModule", {"duration": "${trigger}"}),
        "knows": ("DelayModule", {"duration": "PT1H"}),
        "passes": None,
    }
    graph = a_graph("looks, knows, passes, work", modules=modules)
    batch = Batch(graph, dict.fromkeys(["looks", "knows", "passes", "work"], R.QUARANTINED), execution=FAILED)
    for node in ("looks", "knows", "passes", "work"):
        batch.step.take(batch.resolve(node, Resolution.REQUEUED))
    assert batch.step.controls() == [0]
    batch.step.show(0, Sight(trigger="PT5S"))
    assert batch.apply() == []
    assert batch.states == {"looks": R.WAITING, "knows": R.WAITING, "passes": R.SUCCESS, "work": R.READY}
    assert [run.wake_after for run in batch.writes.changed][:2] == [timedelta(seconds=5), timedelta(hours=1)]


def test_a_letter_of_an_execution_that_was_cancelled_is_discarded_though_its_graph_cannot_be_planned() -> None:
    cancelled = {"state": E.CANCELLED, "ending": Ending.CANCEL}
    batch = Batch(a_graph("a -> b"), QUARANTINED_A, execution=cancelled, planned=False)
    assert batch.apply(batch.resolve("a", Resolution.DISCARDED)) == [Fence.ACCEPTED]
    assert (batch.states, batch.ready) == ({"a": R.FAILED}, [])
    assert batch.execution == (E.CANCELLED, 7, 0, 1)


def test_a_letter_of_an_execution_that_failed_is_discarded_though_its_graph_cannot_be_planned() -> None:
    batch = Batch(a_graph("a -> b"), QUARANTINED_A, execution=FAILED, planned=False)
    assert batch.apply(batch.resolve("a", Resolution.DISCARDED)) == [Fence.ACCEPTED]
    assert batch.states == {"a": R.FAILED}, "nobody knows what follows, and nothing does"
    assert [told.kind for told in batch.writes.outbox] == ["RESOLVED"]
    assert batch.execution == (E.FAILED, 7, 0, 1)
    assert batch.writes.endings == []


@pytest.mark.parametrize("resolution", [Resolution.REQUEUED, Resolution.FIXED])
def test_what_goes_on_needs_a_plan(resolution: Resolution) -> None:
    batch = Batch(a_graph("a -> b"), QUARANTINED_A, execution=FAILED, planned=False)
    refused = batch.refused(batch.resolve("a", resolution))
    assert "discard the run" in refused.hint


def test_where_something_moves_yet_a_discard_without_a_plan_waits_for_a_cancel() -> None:
    graph, states = a_graph("a -> b, c"), {"a": R.QUARANTINED, "c": R.LEASED}
    refused = Batch(graph, states, planned=False)
    assert "cancel the execution" in refused.refused(refused.resolve("a", Resolution.DISCARDED)).hint
    cancelled = Batch(graph, states, planned=False)
    assert cancelled.apply(an_end(), cancelled.resolve("a", Resolution.DISCARDED)) == [Fence.ACCEPTED] * 2


def test_who_asks_about_a_quarantine_is_told_what_is_so_though_there_is_no_plan() -> None:
    graph, discarded = a_graph("a"), {"resolution": Resolution.DISCARDED, "request_hash": b"all that was asked"}
    batch = Batch(graph, {"a": R.FAILED}, record={**discarded, "request_id": "r"}, planned=False)
    again = batch.resolve("a", Resolution.DISCARDED, request=a_request("r"))
    assert batch.apply(again) == [Fence.ALREADY_REPORTED]
    assert isinstance(batch.refused(batch.resolve("a", Resolution.DISCARDED)), QuarantineResolved)
    unknown = replace(again, run_id=run_id(EXECUTION, 7))
    assert isinstance(batch.refused(unknown), RunNotFound)
