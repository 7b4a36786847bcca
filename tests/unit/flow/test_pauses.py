"""Pause and resume over rows in memory: who is answered what, what is parked, what goes on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import a_graph
from tests.unit.executor.executions import EXECUTION
from tests.unit.flow.batches import Batch, a_pause, a_request, a_resume, an_end
from valkyr.errors import ExecutionSettled, RequestIdReused, ValkyrError
from valkyr.flow.attempts import Fence
from valkyr.flow.events import Event, PauseExecution, Resolution, ResumeExecution
from valkyr.flow.facts import Asked, LockedExecution
from valkyr.flow.pauses import answer_to_pause
from valkyr.flow.results import Failure, FailureType, Lost, Omitted, Release, Snooze, Success
from valkyr.flow.states import SETTLED_EXECUTION_STATES, Ending, ExecutionState, RunState
from valkyr.graph.model import FailurePolicy, Settings

R, E = RunState, ExecutionState
DONE = Success(b"{}")
BROKE = Failure(FailureType.TRANSIENT, "it broke")
PERMANENT = Failure(FailureType.PERMANENT, "it broke")
PAUSED = {"state": E.PAUSED}
ACCEPTED, AGAIN = Fence.ACCEPTED, Fence.ALREADY_REPORTED


@pytest.mark.parametrize("state", list(E))
@pytest.mark.parametrize("event", [a_pause(), a_resume()], ids=["pause", "resume"])
@pytest.mark.parametrize("ending", [False, True], ids=["runs on", "ends"])
def test_an_unsettled_execution_is_paused_and_resumed_once(
    state: ExecutionState, event: PauseExecution | ResumeExecution, ending: bool
) -> None:
    locked = LockedExecution(EXECUTION, state, revision=1, open_runs=1, bad_runs=0)
    answer = answer_to_pause(event, locked, ending=ending, paused=state is E.PAUSED, first=None)
    if state in SETTLED_EXECUTION_STATES or ending:
        assert isinstance(answer, ExecutionSettled)
        assert ("pause" if isinstance(event, PauseExecution) else "resume") in str(answer)
    else:
        changes = isinstance(event, PauseExecution) is not (state is E.PAUSED)
        assert answer is (ACCEPTED if changes else AGAIN)


@pytest.mark.parametrize("state", list(E))
@pytest.mark.parametrize("ending", [False, True], ids=["runs on", "ends"])
@pytest.mark.parametrize(
    ("first", "expected"),
    [
        pytest.param(Asked(EXECUTION, b"all that was asked"), AGAIN, id="the same"),
        pytest.param(Asked(EXECUTION, b"something else"), RequestIdReused, id="another body"),
        pytest.param(Asked(UUID(int=1), b"all that was asked"), RequestIdReused, id="of another"),
    ],
)
def test_a_request_that_comes_again_is_known_whatever_has_happened_since(
    state: ExecutionState, ending: bool, first: Asked, expected: Any
) -> None:
    locked = LockedExecution(EXECUTION, state, revision=1, open_runs=1, bad_runs=0)
    answer = answer_to_pause(a_pause("r"), locked, ending=ending, paused=state is E.PAUSED, first=first)
    assert answer is expected or isinstance(answer, expected)


def test_a_pause_is_written_with_who_asked_and_its_runs_are_left_to_be_parked_together() -> None:
    batch = Batch(a_graph("a, b"), {"a": R.READY, "b": R.LEASED})
    assert batch.apply(a_pause("r")) == [ACCEPTED]
    assert (batch.writes.paused, batch.writes.resumed, batch.states) == ([EXECUTION], [], {})
    assert batch.execution == (E.PAUSED, 7, 2, 0)
    [noted] = batch.writes.interventions
    assert (noted.kind, noted.execution_id, noted.request) == ("PAUSE", EXECUTION, a_request("r"))


def test_a_resume_takes_it_back_to_running() -> None:
    batch = Batch(a_graph("a"), {"a": R.PARKED}, execution=PAUSED)
    assert batch.apply(a_resume()) == [ACCEPTED]
    assert (batch.writes.paused, batch.writes.resumed) == ([], [EXECUTION])
    assert batch.execution == (E.RUNNING, 7, 1, 0)


@pytest.mark.parametrize(("state", "event"), [(E.PAUSED, a_pause()), (E.RUNNING, a_resume()), (E.PENDING, a_resume())])
def test_what_is_so_already_changes_nothing(state: ExecutionState, event: Event) -> None:
    batch = Batch(a_graph("a"), execution={"state": state})
    assert batch.apply(event) == [AGAIN]
    assert batch.is_untouched


def test_a_request_that_changed_nothing_is_noted_so_that_it_never_will() -> None:
    batch = Batch(a_graph("a"), execution=PAUSED)
    assert batch.apply(a_pause("late")) == [AGAIN]
    assert [noted.request.request_id for noted in batch.writes.interventions] == ["late"]
    assert (batch.writes.paused, batch.writes.executions) == ([], [])


def test_a_request_that_comes_again_is_not_noted_again() -> None:
    batch = Batch(a_graph("a"), asked={("PAUSE", "r"): Asked(EXECUTION, b"all that was asked")})
    assert batch.apply(a_pause("r")) == [AGAIN]
    assert batch.is_untouched


def test_a_request_that_comes_again_in_one_batch_changes_nothing_though_another_came_between() -> None:
    batch = Batch(a_graph("a"))
    assert batch.apply(a_pause("p"), a_resume("r"), a_pause("p")) == [ACCEPTED, ACCEPTED, AGAIN]
    assert [noted.request.request_id for noted in batch.writes.interventions] == ["p", "r"]
    assert (batch.writes.paused, batch.writes.resumed) == ([], [])


def test_a_request_that_changed_nothing_never_will_in_the_same_batch_either() -> None:
    batch = Batch(a_graph("a"), execution=PAUSED)
    assert batch.apply(a_pause("p"), a_resume("r"), a_pause("p")) == [AGAIN, ACCEPTED, AGAIN]
    assert batch.writes.resumed == [EXECUTION]


def test_a_request_id_that_comes_again_in_one_batch_with_another_request_is_refused() -> None:
    first, second = Batch(a_graph("a")).apply(a_pause("p"), a_pause("p", hash=b"something else"))
    assert first is ACCEPTED
    assert isinstance(second, RequestIdReused)


@pytest.mark.parametrize("event", [a_pause(), a_resume()], ids=["pause", "resume"])
@pytest.mark.parametrize("ending", list(Ending))
def test_an_execution_that_ends_is_neither_paused_nor_resumed(ending: Ending, event: Event) -> None:
    refused = Batch(a_graph("a"), execution={"ending": ending}).refused(event)
    assert isinstance(refused, ExecutionSettled)


@pytest.mark.parametrize(
    "result",
    [BROKE, Snooze(timedelta(minutes=1)), Release(), Lost(), Omitted()],
    ids=["failure", "snooze", "release", "lost", "omitted"],
)
@pytest.mark.parametrize("paused", [True, False], ids=["paused", "running"])
def test_what_comes_back_is_parked_with_the_wait_it_would_have_had(result: Any, paused: bool) -> None:
    batch = Batch(a_graph("a"), execution=PAUSED if paused else None)
    running = Batch(a_graph("a"))
    assert batch.apply(batch.ended("a", result)) == running.apply(running.ended("a", result)) == [ACCEPTED]
    assert batch.states == {"a": R.PARKED if paused else R.READY}
    assert batch.writes.ended[0].wait == running.writes.ended[0].wait
    assert batch.writes.attempts == running.writes.attempts


def test_leased_runs_finish_and_what_they_ready_is_parked_and_left_to_nobody() -> None:
    batch = Batch(a_graph("a -> b, a -> c -> d", modules={"c": None}), execution=PAUSED)
    assert batch.apply(batch.ended("a", DONE)) == [ACCEPTED]
    assert batch.states == {"a": R.SUCCESS, "b": R.PARKED, "c": R.PARKED}
    assert batch.ready == []
    assert batch.execution == (E.PAUSED, 7, 2, 0)


def test_skips_travel_and_broken_conditions_are_quarantined_while_paused() -> None:
    graph = a_graph("a -> b -> c, a -> d", edges={"a->b": {"condition": "false"}, "a->d": {"condition": "1/0 == 1"}})
    batch = Batch(graph, execution=PAUSED)
    batch.apply(batch.ended("a", DONE))
    assert batch.states == {"a": R.SUCCESS, "b": R.SKIPPED, "c": R.SKIPPED, "d": R.QUARANTINED}
    assert batch.execution == (E.FAILED, 7, 0, 1)


def test_a_delay_that_is_over_is_a_success_and_what_follows_is_parked() -> None:
    graph = a_graph("wait -> b", modules={"wait": ("DelayModule", {"duration": "PT1S"})})
    batch = Batch(graph, {"wait": R.WAITING}, execution=PAUSED)
    assert batch.apply(batch.due("wait")) == [ACCEPTED]
    assert batch.states == {"wait": R.SUCCESS, "b": R.PARKED}


def test_the_turn_of_a_control_node_does_not_come_while_paused() -> None:
    graph = a_graph("a", modules={"a": None})
    paused = Batch(graph, {"a": R.READY})
    assert paused.apply(a_pause(), paused.turn("a")) == [ACCEPTED, Fence.LEASE_LOST]
    assert paused.states == {}
    resumed = Batch(graph, {"a": R.READY})
    assert resumed.apply(a_pause(), a_resume(), resumed.turn("a")) == [ACCEPTED] * 3
    assert resumed.states == {"a": R.SUCCESS}
    assert (resumed.writes.paused, resumed.writes.resumed) == ([], [])


@pytest.mark.parametrize("control", [True, False], ids=["control", "module"])
def test_a_requeue_is_parked_while_paused(control: bool) -> None:
    graph = a_graph("a, b", modules={"a": None} if control else {})
    batch = Batch(graph, {"a": R.QUARANTINED}, execution=PAUSED)
    assert batch.apply(batch.resolve("a", Resolution.REQUEUED)) == [ACCEPTED]
    assert batch.states == {"a": R.PARKED}
    assert batch.execution == (E.PAUSED, 7, 2, 0)


@pytest.mark.parametrize("resolution", [Resolution.REQUEUED, Resolution.FIXED])
def test_a_pause_ends_with_its_execution_so_that_a_failed_one_is_left_to_running(resolution: Resolution) -> None:
    batch = Batch(a_graph("a -> b"), {"a": R.QUARANTINED}, execution={"state": E.FAILED, "open_runs": 0})
    batch.apply(batch.resolve("a", resolution, outputs="{}" if resolution is Resolution.FIXED else None))
    assert (batch.execution[0], len(batch.ready)) == (E.RUNNING, 1)


@pytest.mark.parametrize("state", [R.PARKED, R.WAITING])
def test_i19_the_deadline_of_a_run_holds_while_it_is_paused(state: RunState) -> None:
    batch = Batch(a_graph("a"), {"a": state}, execution=PAUSED, parked_by="PAUSE", target="t", deadline_passed=True)
    assert batch.apply(batch.deadline("a")) == [ACCEPTED]
    [quarantine] = batch.writes.quarantines
    assert (quarantine.failure_type, batch.execution[0]) == ("TIMEOUT", E.FAILED)


def test_the_last_lease_of_a_paused_execution_ends_it() -> None:
    batch = Batch(a_graph("a"))
    assert batch.apply(a_pause(), batch.ended("a", DONE)) == [ACCEPTED, ACCEPTED]
    assert batch.execution == (E.SUCCESS, 7, 0, 0)


@pytest.mark.parametrize("ending", [Ending.CANCEL, Ending.DEADLINE])
def test_what_ends_an_execution_ends_a_paused_one(ending: Ending) -> None:
    batch = Batch(a_graph("a"), {"a": R.PARKED}, execution={**PAUSED, "deadline_passed": True})
    assert batch.apply(an_end(ending)) == [ACCEPTED]
    [(_, step)] = batch.writes.endings
    assert step.changed_execution(0).state is (E.CANCELLED if ending is Ending.CANCEL else E.FAILED)


def test_fail_fast_ends_a_paused_execution() -> None:
    graph = a_graph("a, b", settings=Settings(failure_policy=FailurePolicy.FAIL_FAST))
    batch = Batch(graph, {"b": R.PARKED}, execution=PAUSED)
    batch.apply(batch.ended("a", PERMANENT))
    [(event, _)] = batch.writes.endings
    assert (event.ending, batch.writes.paused) == (Ending.FAIL_FAST, [])


def test_a_pause_and_an_end_in_one_batch_end_it() -> None:
    batch = Batch(a_graph("a"))
    assert batch.apply(a_pause(), an_end()) == [ACCEPTED, ACCEPTED]
    assert (len(batch.writes.endings), batch.writes.paused) == (1, [])
    after = Batch(a_graph("a")).apply(an_end(), a_pause())
    assert after[0] is ACCEPTED
    assert isinstance(after[1], ValkyrError)


GRAPH = a_graph("a -> c, b -> c, c -> d, a -> e, e -> d", modules={"e": None})
CHANGES = st.lists(st.sampled_from([a_pause(), a_resume()]), max_size=5)


@given(state=st.sampled_from([E.PENDING, E.RUNNING, E.PAUSED]), changes=CHANGES, ends=st.sets(st.sampled_from("ab")))
def test_a_batch_does_as_the_last_pause_or_resume_of_it_says(
    state: ExecutionState, changes: list[Any], ends: set[str]
) -> None:
    batch = Batch(GRAPH, execution={"state": state})
    batch.apply(*changes, *(batch.ended(node, DONE) for node in sorted(ends)))
    paused = isinstance(changes[-1], PauseExecution) if changes else state is E.PAUSED
    unpaused = Batch(GRAPH)
    unpaused.apply(*(unpaused.ended(node, DONE) for node in sorted(ends)))
    assert batch.writes.paused == ([EXECUTION] if paused and state is not E.PAUSED else [])
    was_paused = state is E.PAUSED or (state is E.PENDING and any(isinstance(it, PauseExecution) for it in changes))
    assert batch.writes.resumed == ([EXECUTION] if was_paused and not paused else [])
    if not paused:
        assert batch.states == unpaused.states
        return
    assert not batch.ready
    assert not {R.READY, R.LEASED, R.WAITING} & set(batch.states.values())
    assert ends == {node for node, after in batch.states.items() if after is R.SUCCESS}
    if batch.writes.executions:
        assert batch.execution[0] is E.PAUSED
