"""Failures, ends and deadlines over rows in memory: answers, writes, counters, and two of them at once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.builders import a_graph
from tests.unit.executor.executions import EXECUTION
from tests.unit.flow.batches import Batch, an_end
from valkyr.errors import ExecutionSettled
from valkyr.flow.attempts import Fence
from valkyr.flow.events import EndExecution, Event, TimerDue
from valkyr.flow.facts import Replay
from valkyr.flow.results import Failure, FailureType, Lost, Omitted, Release, Snooze, Success
from valkyr.flow.states import Ending, ExecutionState, RunState, StopReason
from valkyr.graph.model import FailurePolicy, Settings

R, E = RunState, ExecutionState
DONE = Success(b'{"ok":true}')
BROKE = Failure(FailureType.TRANSIENT, "it broke", "a stack")
QUARANTINED_A = {"a": R.QUARANTINED}
FAILED = {"state": E.FAILED}
FAST = Settings(failure_policy=FailurePolicy.FAIL_FAST)


def test_i10_a_failure_within_its_budget_goes_back_to_ready_with_its_error_and_nothing_else_is_written() -> None:
    batch = Batch(a_graph("a -> b"), failures=1, lost_leases=2)
    assert batch.apply(batch.ended("a", BROKE)) == [Fence.ACCEPTED]
    (ended,) = batch.writes.ended
    assert (ended.state, ended.failures, ended.lost_leases, ended.raise_epoch) == (R.READY, 2, 2, False)
    assert (ended.error, ended.error_type, ended.revision) == ("it broke", "TRANSIENT", None)
    assert ended.wait is not None
    assert timedelta() <= ended.wait <= timedelta(seconds=2)
    assert [attempt.outcome for attempt in batch.writes.attempts] == ["TRANSIENT"]
    assert (batch.writes.executions, batch.writes.quarantines, batch.writes.outbox) == ([], [], [])


def test_i10_the_last_failure_of_the_budget_is_quarantined_as_such() -> None:
    batch = Batch(a_graph("a -> b"), failures=2)
    batch.apply(batch.ended("a", BROKE))
    (quarantine,) = batch.writes.quarantines
    assert (quarantine.failure_type, quarantine.error_type, quarantine.revision) == ("MAX_RETRIES", "TRANSIENT", 7)
    assert batch.writes.ended[0].always_decided
    assert batch.execution == (E.FAILED, 7, 0, 1)


def test_a_snooze_waits_as_long_as_it_said_and_is_noted_as_one() -> None:
    batch = Batch(a_graph("a"), failures=1, lost_leases=1)
    assert batch.apply(batch.ended("a", Snooze(timedelta(minutes=5)))) == [Fence.ACCEPTED]
    (ended,) = batch.writes.ended
    assert (ended.state, ended.wait, ended.failures, ended.lost_leases) == (R.READY, timedelta(minutes=5), 1, 1)
    assert (batch.writes.attempts[0].outcome, ended.error) == ("SNOOZED", None)


@pytest.mark.parametrize(
    ("result", "noted"),
    [
        pytest.param(DONE, [], id="success"),
        pytest.param(BROKE, ["TRANSIENT"], id="failure"),
        pytest.param(Release(), ["RELEASED"], id="release"),
        pytest.param(Omitted(), ["OMITTED"], id="omitted"),
        pytest.param(Lost(), ["RUNNER_LOST"], id="lost"),
    ],
)
def test_every_end_of_a_lease_but_a_success_is_an_attempt_in_the_history_and_each_of_a_target_is_told(
    result: Any, noted: list[str]
) -> None:
    batch = Batch(a_graph("a"), target="http:api", replay=Replay(traceparent="00-replay"))
    batch.apply(batch.ended("a", result))
    assert [attempt.outcome for attempt in batch.writes.attempts] == noted
    (call,) = batch.writes.calls
    assert (call.namespace, call.target, call.run_id, call.epoch) == ("default", "http:api", batch.run("a"), 4)
    assert (call.result, call.duration_ms, call.traceparent) == (result, 12, "00-replay")
    untargeted = Batch(a_graph("a"))
    untargeted.apply(untargeted.ended("a", result))
    assert untargeted.writes.calls == []


@pytest.mark.parametrize("ending", [Ending.CANCEL, Ending.DEADLINE])
@pytest.mark.parametrize("state", [E.PENDING, E.RUNNING, E.PAUSED])
def test_an_execution_that_ends_is_written_with_the_leases_it_has_left(state: ExecutionState, ending: Ending) -> None:
    batch = Batch(a_graph("a -> b, c"), execution={"state": state, "deadline_passed": True})
    event = an_end(ending)
    assert batch.apply(event) == [Fence.ACCEPTED]
    [(written, step)] = batch.writes.endings
    assert (written, batch.writes.executions) == (event, [])
    settled = E.CANCELLED if ending is Ending.CANCEL else E.FAILED
    assert step.changed_execution(1).state is (E.PAUSED if state is E.PAUSED else E.RUNNING)
    assert (step.changed_execution(0).state, step.changed_execution(0).revision) == (settled, 7)
    assert step.changed_execution(0).error_type == ("TIMEOUT" if ending is Ending.DEADLINE else None)


def test_a_deadline_of_an_execution_that_has_not_passed_ends_nothing() -> None:
    batch = Batch(a_graph("a"))
    assert batch.apply(an_end(Ending.DEADLINE)) == [Fence.ALREADY_REPORTED]
    assert batch.is_untouched


@pytest.mark.parametrize(
    ("state", "ending", "answer"),
    [
        (E.CANCELLED, Ending.CANCEL, Fence.ALREADY_REPORTED),
        (E.SUCCESS, Ending.DEADLINE, Fence.LEASE_LOST),
        (E.FAILED, Ending.DEADLINE, Fence.LEASE_LOST),
        (E.CANCELLED, Ending.DEADLINE, Fence.LEASE_LOST),
    ],
)
def test_i05_an_end_does_not_act_on_a_settled_execution(state: ExecutionState, ending: Ending, answer: Fence) -> None:
    batch = Batch(a_graph("a"), {"a": R.SUCCESS}, execution={"state": state, "deadline_passed": True})
    assert batch.apply(an_end(ending)) == [answer]
    assert batch.is_untouched


@pytest.mark.parametrize("state", [E.SUCCESS, E.FAILED])
def test_i05_a_cancel_of_an_execution_that_ended_otherwise_is_told_so(state: ExecutionState) -> None:
    refused = Batch(a_graph("a"), {"a": R.SUCCESS}, execution={"state": state}).refused(an_end())
    assert isinstance(refused, ExecutionSettled)
    assert refused.details.metadata == {"state": state}


@pytest.mark.parametrize("ending", Ending)
def test_an_execution_that_ends_already_is_not_ended_again(ending: Ending) -> None:
    batch = Batch(a_graph("a"), execution={"ending": ending, "deadline_passed": True})
    cancelled, passed = batch.apply(an_end(), an_end(Ending.DEADLINE))
    assert passed is Fence.ALREADY_REPORTED
    if ending is Ending.CANCEL:
        assert cancelled is Fence.ALREADY_REPORTED
    else:
        assert isinstance(cancelled, ExecutionSettled), "it ends as FAILED, and a cancel does not change that"
    assert batch.is_untouched


def test_of_two_ends_of_one_batch_the_first_counts() -> None:
    batch = Batch(a_graph("a"), execution={"deadline_passed": True})
    assert batch.apply(an_end(), an_end(Ending.DEADLINE)) == [Fence.ACCEPTED, Fence.ALREADY_REPORTED]
    [(written, step)] = batch.writes.endings
    assert (written.ending, step.changed_execution(0).state) == (Ending.CANCEL, E.CANCELLED)


def test_a_cancel_behind_a_deadline_of_its_batch_is_told_what_ends_the_execution() -> None:
    batch = Batch(a_graph("a"), execution={"deadline_passed": True})
    passed, cancelled = batch.apply(an_end(Ending.DEADLINE), an_end())
    assert passed is Fence.ACCEPTED
    assert isinstance(cancelled, ExecutionSettled)
    assert "DEADLINE" in str(cancelled)
    [(written, step)] = batch.writes.endings
    assert (written.ending, step.changed_execution(0).state) == (Ending.DEADLINE, E.FAILED)


@pytest.mark.parametrize("together", [True, False], ids=["in the same batch", "before"])
@pytest.mark.parametrize(
    ("result", "state"),
    [
        pytest.param(DONE, R.SUCCESS, id="success"),
        pytest.param(BROKE, R.CANCELLED, id="failure"),
        pytest.param(Failure(FailureType.CANCELLED, "told to stop"), R.CANCELLED, id="cancelled"),
        pytest.param(Snooze(timedelta(hours=1)), R.CANCELLED, id="snooze"),
        pytest.param(Release(), R.CANCELLED, id="release"),
        pytest.param(Omitted(), R.CANCELLED, id="omitted"),
        pytest.param(Lost(), R.CANCELLED, id="lost"),
    ],
)
def test_in_an_execution_that_ends_a_success_is_kept_and_any_other_end_is_a_cancel(
    result: Any, state: RunState, together: bool
) -> None:
    edges = {"a->c": {"kind": "ALWAYS"}, "a->h": {"kind": "FAILURE"}}
    graph = a_graph("a -> b, a -> c, a -> h", edges=edges)
    batch = Batch(graph, execution={} if together else {"ending": Ending.CANCEL}, failures=2, lost_leases=2)
    batch.apply(*([an_end()] if together else []), batch.ended("a", result))
    assert batch.states == {"a": state}, "nothing follows"
    assert (batch.writes.quarantines, batch.writes.outbox) == ([], [])
    assert len(batch.writes.attempts) == (result is not DONE)
    if together:
        assert len(batch.writes.endings) == 1
    else:
        assert batch.execution == (E.CANCELLED, 7, 0, 0)


def test_a_run_that_was_told_to_stop_for_a_cancel_is_one_whatever_it_reports() -> None:
    batch = Batch(a_graph("a -> b"), ending=True)
    batch.apply(batch.ended("a", BROKE))
    assert batch.states == {"a": R.CANCELLED}


def test_a_quarantine_that_fails_fast_ends_the_execution_with_it() -> None:
    batch = Batch(a_graph("a -> b, c -> d, e", settings=FAST), failures=2)
    assert batch.apply(batch.ended("c", DONE), batch.ended("a", BROKE)) == [Fence.ACCEPTED] * 2
    assert batch.states == {"c": R.SUCCESS, "a": R.QUARANTINED, "d": R.CANCELLED}
    [(event, step)] = batch.writes.endings
    assert event == EndExecution(EXECUTION, Ending.FAIL_FAST)
    assert step.changed_execution(1).state is E.RUNNING
    ended = step.changed_execution(0)
    assert (ended.state, ended.bad_runs, ended.error_message) == (E.FAILED, 1, "node 'a': it broke")
    assert not batch.writes.ended[0].always_decided


def test_two_failures_of_one_batch_that_fails_fast_leave_one_quarantine() -> None:
    batch = Batch(a_graph("a, b", settings=FAST), failures=2)
    assert batch.apply(batch.ended("a", BROKE), batch.ended("b", BROKE)) == [Fence.ACCEPTED] * 2
    assert batch.states == {"a": R.QUARANTINED, "b": R.CANCELLED}
    assert (len(batch.writes.quarantines), len(batch.writes.outbox)) == (1, 1)


@pytest.mark.parametrize("state", [R.READY, R.WAITING, R.PARKED])
def test_a_run_that_nobody_holds_fails_for_good_at_its_deadline(state: RunState) -> None:
    batch = Batch(a_graph("a -> b"), {"a": state}, deadline_passed=True)
    assert batch.apply(batch.deadline("a")) == [Fence.ACCEPTED]
    (quarantine,) = batch.writes.quarantines
    assert (quarantine.failure_type, quarantine.error_type) == ("TIMEOUT", "TIMEOUT")
    assert state in quarantine.error
    assert batch.execution == (E.FAILED, 7, 0, 1)


@pytest.mark.parametrize(("by", "letter"), [("BREAKER", "CIRCUIT_BREAKER"), ("PAUSE", "TIMEOUT")])
def test_a_letter_says_whether_a_breaker_held_the_run_back(by: str, letter: str) -> None:
    batch = Batch(a_graph("a"), {"a": R.PARKED}, deadline_passed=True, parked_by=by, target="http:api")
    batch.apply(batch.deadline("a"))
    (quarantine,) = batch.writes.quarantines
    assert (quarantine.failure_type, quarantine.error_type) == (letter, "TIMEOUT")
    assert ("'http:api'" in quarantine.error) is (by == "BREAKER")


def test_a_deadline_may_be_handled_like_any_failure() -> None:
    graph = a_graph("a -> h", edges={"a->h": {"kind": "FAILURE", "condition": "error.type == 'TIMEOUT'"}})
    batch = Batch(graph, {"a": R.READY}, deadline_passed=True)
    batch.apply(batch.deadline("a"))
    assert batch.states == {"a": R.FAILED, "h": R.READY}
    assert batch.writes.outbox == []


def test_a_leased_run_is_told_at_its_deadline_and_nothing_else_happens() -> None:
    batch = Batch(a_graph("a -> b"), deadline_passed=True)
    assert batch.apply(batch.deadline("a")) == [Fence.ACCEPTED]
    assert batch.writes.stopped == [(EXECUTION, batch.run("a"))]
    assert (batch.states, batch.writes.executions) == ({}, [])


@pytest.mark.parametrize(
    ("state", "changes"),
    [
        pytest.param(R.READY, {}, id="not passed"),
        pytest.param(R.LEASED, {}, id="leased, not passed"),
        pytest.param(R.LEASED, {"deadline_passed": True, "stop_reason": StopReason.DEADLINE}, id="told before"),
        pytest.param(R.LEASED, {"deadline_passed": True, "stop_reason": StopReason.CANCEL}, id="told for a cancel"),
        *(
            pytest.param(state, {"deadline_passed": True}, id=state)
            for state in (R.PENDING, R.SUCCESS, R.FAILED, R.SKIPPED, R.CANCELLED, R.QUARANTINED)
        ),
    ],
)
def test_a_deadline_that_finds_nothing_to_do_changes_nothing(state: RunState, changes: dict[str, Any]) -> None:
    batch = Batch(a_graph("a -> b"), {"a": state}, **changes)
    assert batch.apply(batch.deadline("a")) == [Fence.LEASE_LOST]
    assert batch.is_untouched


@pytest.mark.parametrize("ending", Ending)
def test_deadlines_and_timers_do_nothing_in_an_execution_that_ends(ending: Ending) -> None:
    states = {"a": R.READY, "b": R.WAITING}
    batch = Batch(a_graph("a, b"), states, execution={"ending": ending}, deadline_passed=True)
    assert batch.apply(batch.deadline("a"), TimerDue(EXECUTION, batch.run("b"))) == [Fence.LEASE_LOST] * 2
    assert batch.is_untouched


@pytest.mark.parametrize("order", ["timer first", "deadline first"])
def test_i07_a_timer_and_a_deadline_of_one_batch_count_once(order: str) -> None:
    batch = Batch(a_graph("a -> b"), {"a": R.WAITING}, deadline_passed=True)
    events: list[Event] = [TimerDue(EXECUTION, batch.run("a")), batch.deadline("a")]
    answers = batch.apply(*(events if order == "timer first" else events[::-1]))
    assert answers == [Fence.ACCEPTED, Fence.LEASE_LOST]
    assert batch.states["a"] is (R.SUCCESS if order == "timer first" else R.QUARANTINED)


def test_i07_a_report_and_a_deadline_of_one_batch_count_once() -> None:
    batch = Batch(a_graph("a -> b"), deadline_passed=True)
    assert batch.apply(batch.ended("a", DONE), batch.deadline("a")) == [Fence.ACCEPTED, Fence.LEASE_LOST]
    assert (batch.states, batch.writes.stopped) == ({"a": R.SUCCESS, "b": R.READY}, [])


@pytest.mark.parametrize(("result", "state"), [(DONE, R.SUCCESS), (BROKE, R.QUARANTINED), (Release(), R.QUARANTINED)])
def test_past_its_deadline_only_a_success_saves_a_run(result: Any, state: RunState) -> None:
    batch = Batch(a_graph("a"), deadline_passed=True, stop_reason=StopReason.DEADLINE)
    batch.apply(batch.ended("a", result))
    assert batch.states == {"a": state}
    assert [quarantine.failure_type for quarantine in batch.writes.quarantines] == ["TIMEOUT"] * (
        state is not R.SUCCESS
    )


def test_what_was_given_up_is_quarantined_with_its_reason_and_always_edges_undecided() -> None:
    batch = Batch(a_graph("a -> b, a -> c", edges={"a->c": {"kind": "ALWAYS"}}), failures=1)
    batch.step.take(batch.ended("a", DONE))
    changes = batch.step.give_up("unforeseen")
    batch.step.write(changes, batch.writes)
    assert batch.states == {"a": R.QUARANTINED}
    (ended,) = batch.writes.ended
    assert (ended.error, ended.error_type, ended.failures, ended.always_decided) == (
        "unforeseen",
        "PERMANENT",
        1,
        False,
    )
    assert [quarantine.failure_type for quarantine in batch.writes.quarantines] == ["PERMANENT_ERROR"]
    assert batch.execution == (E.FAILED, 7, 0, 1)
