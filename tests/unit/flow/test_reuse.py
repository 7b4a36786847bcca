"""The success of an equal run, found for one that was READY: applied once, and only where nothing happened since."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import a_graph
from tests.unit.executor.executions import EXECUTION
from tests.unit.flow.batches import NOON, Batch, a_pause, a_resume, an_end
from valkyr.flow.attempts import Fence
from valkyr.flow.events import Resolution, Reused
from valkyr.flow.ids import run_id
from valkyr.flow.results import Failure, FailureType
from valkyr.flow.states import Ending, ExecutionState, RunState
from valkyr.graph.model import FailurePolicy, Settings

R = RunState
ELSEWHERE = (run_id(EXECUTION, 7), run_id(EXECUTION, 8))


def batch_of(arrows: str = "a -> b", state: RunState = R.READY, **more: Any) -> Batch:
    """Nothing is decided about a yet, which was quarantined once."""
    graph = a_graph(arrows, **{name: more.pop(name) for name in ("edges", "settings", "modules") if name in more})
    return Batch(graph, {"a": state}, **{"undecided": True, **more})


def reused(batch: Batch, node: str = "a", *, number: int = 1, outputs: str = '{"ok":true}') -> Reused:
    return Reused(EXECUTION, batch.run(node), number, ELSEWHERE, outputs, "key", "inputs", "config")


def test_the_run_is_a_success_with_the_outputs_found_and_what_follows_is_readied() -> None:
    batch = batch_of()
    event = reused(batch)
    assert batch.apply(event) == [Fence.ACCEPTED]
    (run,) = batch.writes.changed
    assert (run.key, run.state, run.outputs, run.revision) == ((EXECUTION, batch.run("a")), R.SUCCESS, '{"ok":true}', 7)
    assert batch.writes.reused == [event]
    assert batch.states == {"a": R.SUCCESS, "b": R.READY}
    assert batch.execution == (ExecutionState.RUNNING, 7, 1, 0)
    assert (batch.writes.finished, batch.writes.attempts, batch.writes.calls) == ([], [], [])


def test_the_last_one_ends_its_execution() -> None:
    batch = batch_of("a")
    batch.apply(reused(batch))
    assert batch.execution == (ExecutionState.SUCCESS, 7, 0, 0)


@pytest.mark.parametrize("state", [state for state in R if state is not R.READY])
def test_in_every_other_state_it_changes_nothing(state: RunState) -> None:
    batch = batch_of(state=state)
    assert batch.apply(reused(batch)) == [Fence.LEASE_LOST]
    assert batch.is_untouched


@pytest.mark.parametrize(
    "changed",
    [{"undecided": False}, {"quarantine_number": 2}],
    ids=["nothing was found by another replica", "it was requeued since"],
)
def test_i06_a_late_one_changes_nothing_though_the_run_is_ready(changed: dict[str, Any]) -> None:
    batch = batch_of(**changed)
    assert batch.apply(reused(batch)) == [Fence.LEASE_LOST]
    assert batch.is_untouched


def test_i07_of_two_replicas_that_found_one_the_first_counts() -> None:
    batch = batch_of("a -> c, b -> c")
    first, second = reused(batch, outputs="1"), reused(batch, outputs="2")
    assert batch.apply(first, second) == [Fence.ACCEPTED, Fence.LEASE_LOST]
    assert [run.outputs for run in batch.writes.changed if run.state is R.SUCCESS] == ["1"]
    assert {run.key[1]: run.gate.unmet for run in batch.writes.changed}[batch.run("c")] == 1
    assert batch.writes.reused == [first]


@pytest.mark.parametrize("ending", Ending)
def test_nothing_is_reused_in_an_execution_that_ends(ending: Ending) -> None:
    batch = batch_of(execution={"ending": ending})
    assert batch.apply(reused(batch)) == [Fence.LEASE_LOST]
    assert batch.is_untouched


def test_nor_behind_an_end_of_the_same_batch() -> None:
    batch = batch_of()
    assert batch.apply(an_end(), reused(batch)) == [Fence.ACCEPTED, Fence.LEASE_LOST]
    assert batch.writes.reused == []


def test_a_pause_of_the_same_batch_comes_first() -> None:
    batch = batch_of()
    assert batch.apply(a_pause(), reused(batch)) == [Fence.ACCEPTED, Fence.LEASE_LOST]
    assert (batch.writes.reused, batch.writes.paused) == ([], [EXECUTION])


def test_what_is_parked_by_a_pause_is_not_ended_by_a_resume_of_the_same_batch() -> None:
    batch = batch_of(state=R.PARKED, execution={"state": ExecutionState.PAUSED}, parked_by="PAUSE")
    assert batch.apply(a_resume(), reused(batch)) == [Fence.ACCEPTED, Fence.LEASE_LOST]


def test_conditions_read_the_outputs_that_were_found() -> None:
    edges = {"a->b": {"condition": "outputs.ok"}, "a->c": {"condition": "!outputs.ok"}}
    batch = batch_of("a -> b, a -> c", edges=edges)
    batch.apply(reused(batch))
    assert batch.states == {"a": R.SUCCESS, "b": R.READY, "c": R.SKIPPED}


def test_outputs_that_no_expression_asks_for_are_not_read() -> None:
    batch = batch_of()
    batch.apply(reused(batch, outputs="this is no JSON"))
    assert batch.writes.changed[0].outputs == "this is no JSON"


def test_where_what_follows_cannot_be_carried_on_the_run_is_quarantined_and_has_reused_nothing() -> None:
    batch = batch_of()
    assert batch.step.take(reused(batch)) is Fence.ACCEPTED
    batch.step.write(batch.step.give_up("it cannot be"), batch.writes)
    assert (batch.states, batch.writes.reused) == ({"a": R.QUARANTINED}, [])
    assert batch.writes.changed[0].outputs is None


def test_a_requeue_and_what_was_found_before_it_are_not_one() -> None:
    batch = Batch(a_graph("a -> b"), {"a": R.QUARANTINED}, undecided=True)
    resolve = batch.resolve("a", Resolution.REQUEUED)
    assert batch.apply(resolve, reused(batch)) == [Fence.ACCEPTED, Fence.LEASE_LOST]
    assert batch.states == {"a": R.READY}


def test_what_was_found_is_kept_where_the_execution_fails_fast_in_the_same_batch_and_nothing_follows() -> None:
    batch = batch_of("a -> c, b", settings=Settings(failure_policy=FailurePolicy.FAIL_FAST))
    broke = batch.ended("b", Failure(FailureType.PERMANENT, "it broke"))
    assert batch.apply(broke, reused(batch)) == [Fence.ACCEPTED, Fence.ACCEPTED]
    assert batch.states == {"a": R.SUCCESS, "b": R.QUARANTINED}


def test_a_deadline_that_came_first_has_failed_the_run() -> None:
    batch = batch_of(deadline_passed=True, execution={"now": NOON})
    assert batch.apply(batch.deadline("a"), reused(batch)) == [Fence.ACCEPTED, Fence.LEASE_LOST]
    assert batch.states == {"a": R.QUARANTINED}
