"""The three ways out of a quarantine, case by case: what is decided again, what stays, and how the rest goes on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.builders import a_graph
from tests.unit.flow.driver import Driver
from tests.unit.flow.plans import Word, plan_of
from valkyr.flow.outcomes import Change, DecideControl, Discarded, Requeued
from valkyr.flow.plan import Sight
from valkyr.flow.results import LetterType
from valkyr.flow.states import ExecutionState, RunState
from valkyr.graph.model import Graph, Join

R = RunState
ANY = {"join": Join.ANY}
ALWAYS, FAILURE = {"kind": "ALWAYS"}, {"kind": "FAILURE"}
UNHELD = {"kind": "FAILURE", "condition": "no"}
BROKEN = {"condition": "broken"}


def a_run_of(graph: Graph, **settings: Any) -> Driver:
    return Driver(plan_of(graph), **settings)


def after_a_failure_of(node_id: str, graph: Graph) -> Driver:
    run = a_run_of(graph)
    run.fail(node_id)
    assert run.state_of(node_id) is R.QUARANTINED
    return run


def only(changes: list[Change]) -> Change:
    (change,) = changes
    return change


def test_a_requeued_run_goes_again_and_its_execution_with_it() -> None:
    run = after_a_failure_of("a", a_graph("a -> b"))
    assert run.state is ExecutionState.FAILED
    change = only(run.requeue("a"))
    assert (change.before, change.after, change.always_decided) == (R.QUARANTINED, R.READY, False)
    assert (run.state, run.open_runs, run.bad_runs) == (ExecutionState.RUNNING, 1, 0)
    run.succeed("a")
    run.succeed("b")
    assert run.state is ExecutionState.SUCCESS


def test_a_requeued_run_that_fails_again_is_quarantined_again() -> None:
    run = after_a_failure_of("a", a_graph("a -> b"))
    for number in (2, 3, 4):
        run.requeue("a")
        assert only(run.fail("a")).after is R.QUARANTINED
        assert (run.state, run.bad_runs, run.quarantines[0]) == (ExecutionState.FAILED, 1, number)
    assert run.state_of("b") is R.PENDING


def test_always_edges_are_decided_at_the_first_quarantine_and_never_again() -> None:
    graph = a_graph("a -> b, a -> c, c -> d, b -> d", edges={"a->c": {"kind": "ALWAYS", "condition": "yes"}})
    run = after_a_failure_of("a", graph)
    condition = run.plan.edges[1].condition
    assert isinstance(condition, Word)
    for _ in range(2):
        run.requeue("a")
        assert only(run.fail("a")).node == 0, "its ALWAYS edge leads nowhere new"
    run.requeue("a")
    run.succeed("a")
    assert len(condition.seen) == 1
    assert run.states == {"a": R.SUCCESS, "b": R.READY, "c": R.READY, "d": R.PENDING}


def test_an_always_edge_that_was_not_taken_at_the_quarantine_stays_so_after_a_success() -> None:
    graph = a_graph("a -> z", edges={"a->z": {"kind": "ALWAYS", "condition": "v of a"}}, modules={"z": None})
    graph_with_value = a_graph("x -> z, a -> z", edges={"a->z": {"kind": "ALWAYS", "condition": "no"}})
    run = after_a_failure_of("a", graph_with_value)
    run.requeue("a")
    run.succeed("a", outputs={"v": 1})
    run.succeed("x")
    assert run.taken_by("z") == ["x->z"]
    broken = after_a_failure_of("a", graph)
    assert broken.state_of("z") is R.QUARANTINED, "it could not be evaluated then, and that stays"
    broken.requeue("a")
    broken.succeed("a", outputs={"v": 0})
    assert broken.state_of("z") is R.QUARANTINED


@pytest.mark.parametrize("way", ["succeed", "fix", "handled", "discard"])
def test_always_edges_that_a_quarantine_could_not_decide_are_decided_by_the_end_that_follows(way: str) -> None:
    edges = {"a->c": ALWAYS, "a->h": {"kind": "FAILURE", "condition": "yes"}}
    run = a_run_of(a_graph("a -> b, a -> c, a -> h", edges=edges))
    run.give_up("a")
    assert run.states == {"a": R.QUARANTINED, "b": R.PENDING, "c": R.PENDING, "h": R.PENDING}
    ends = {
        "succeed": (R.SUCCESS, R.READY, R.READY, R.SKIPPED),
        "fix": (R.SUCCESS, R.READY, R.READY, R.SKIPPED),
        "handled": (R.FAILED, R.SKIPPED, R.READY, R.READY),
        "discard": (R.FAILED, R.SKIPPED, R.READY, R.SKIPPED),
    }
    if way in ("succeed", "handled"):
        run.requeue("a")
    match way:
        case "succeed":
            run.succeed("a")
        case "handled":
            run.fail("a")
        case "fix":
            run.fix("a")
        case "discard":
            run.discard("a")
    assert tuple(run.states.values()) == ends[way]


def test_a_failure_edge_may_handle_what_fails_after_a_requeue() -> None:
    edges = {"a->h": {"kind": "FAILURE", "condition": "v of g"}, "a->c": ALWAYS}
    run = a_run_of(a_graph("g -> a -> b, a -> h, a -> c", edges=edges))
    run.succeed("g", outputs={"v": 0})
    run.fail("a")
    assert (run.state_of("a"), run.state_of("h"), run.state_of("c")) == (R.QUARANTINED, R.PENDING, R.READY)
    run.results[run.plan.index_of["g"]] = {"outputs": {"v": 1}, "error": None}  # as another error would have it
    run.requeue("a")
    run.fail("a")
    assert (run.state_of("a"), run.state_of("h"), run.state_of("b")) == (R.FAILED, R.READY, R.SKIPPED)
    assert run.bad_runs == 0, "handled"
    run.succeed("h", "c")
    assert run.state is ExecutionState.SUCCESS


def test_a_run_behind_a_broken_condition_is_requeued_as_if_it_had_held() -> None:
    run = a_run_of(a_graph("a -> b -> c, x -> b", edges={"a->b": BROKEN}))
    run.succeed("a", "x")
    assert run.state_of("b") is R.QUARANTINED
    change = only(run.requeue("b"))
    assert (change.after, change.gate.broken) == (R.READY, "")
    assert run.taken_by("b") == ["a->b", "x->b"]
    run.fail("b")
    assert run.failures[1].message == "it broke", "its own failure now"
    run.requeue("b")
    run.succeed("b")
    run.succeed("c")
    assert run.state is ExecutionState.SUCCESS


def test_a_broken_condition_is_never_handled_but_the_failure_of_its_requeued_target_is() -> None:
    run = a_run_of(a_graph("a -> b -> h", edges={"a->b": BROKEN, "b->h": FAILURE}))
    run.succeed("a")
    assert (run.state_of("b"), run.state_of("h")) == (R.QUARANTINED, R.PENDING)
    run.requeue("b")
    run.fail("b")
    assert (run.state_of("b"), run.state_of("h"), run.bad_runs) == (R.FAILED, R.READY, 0)


@pytest.mark.parametrize(
    ("module", "after", "bad"),
    [
        pytest.param(None, R.SUCCESS, 0, id="pass-through"),
        pytest.param(("Delay", {"duration": "PT5S"}), R.WAITING, 0, id="delay"),
        pytest.param(("Delay", {"duration": "soon"}), R.QUARANTINED, 1, id="a delay that cannot be"),
    ],
)
def test_a_control_node_is_decided_again_when_it_is_requeued(module: Any, after: RunState, bad: int) -> None:
    run = a_run_of(a_graph("a -> p -> b", edges={"a->p": BROKEN}, modules={"p": module}))
    run.succeed("a")
    assert run.state_of("p") is R.QUARANTINED
    run.requeue("p")
    assert (run.state_of("p"), run.bad_runs) == (after, bad)
    assert run.quarantines[1] == 1 + bad
    if bad:
        assert (run.state, run.failures[1].letter) == (ExecutionState.FAILED, LetterType.PERMANENT_ERROR)
        assert "duration" in run.failures[1].message, "the new reason, not the old one"


def test_a_requeued_control_node_that_fails_and_is_handled_is_not_bad_any_more() -> None:
    edges = {"a->d": BROKEN, "d->h": FAILURE}
    run = a_run_of(a_graph("a -> d -> h", edges=edges, modules={"d": ("Delay", {"duration": "soon"})}))
    run.succeed("a")
    assert (run.state, run.bad_runs) == (ExecutionState.FAILED, 1)
    run.requeue("d")
    assert (run.state_of("d"), run.state_of("h"), run.bad_runs) == (R.FAILED, R.READY, 0)
    run.succeed("h")
    assert run.state is ExecutionState.SUCCESS


def test_requeued_control_nodes_beyond_the_budget_are_written_ready() -> None:
    modules = {"p": None, "q": None}
    graph = a_graph("a -> p, a -> q", edges={"a->p": BROKEN, "a->q": BROKEN}, modules=modules)
    run = a_run_of(graph, control_budget=1)
    run.succeed("a")
    run.requeue("p", "q")
    assert (run.state_of("p"), run.state_of("q"), run.state) == (R.SUCCESS, R.READY, ExecutionState.RUNNING)
    run.end(run.ripe())
    assert run.state is ExecutionState.SUCCESS


def test_a_fix_goes_on_with_the_operator_s_outputs() -> None:
    graph = a_graph("a -> b, a -> c", edges={"a->b": {"condition": "v of a"}, "a->c": UNHELD})
    run = after_a_failure_of("a", graph)
    run.fix("a", {"v": 1})
    assert run.states == {"a": R.SUCCESS, "b": R.READY, "c": R.SKIPPED}
    assert (run.state, run.bad_runs) == (ExecutionState.RUNNING, 0)
    run.succeed("b")
    assert run.state is ExecutionState.SUCCESS


def test_a_fix_that_nothing_follows_settles_a_failed_execution_again() -> None:
    run = after_a_failure_of("a", a_graph("a"))
    run.fix("a")
    assert run.state is ExecutionState.SUCCESS
    two = a_run_of(a_graph("a, b"))
    two.fail("a", "b")
    two.fix("a")
    assert (two.state, two.bad_runs) == (ExecutionState.FAILED, 1)


def test_a_fix_does_not_decide_always_edges_twice() -> None:
    run = after_a_failure_of("a", a_graph("a -> c, x -> c", edges={"a->c": ALWAYS}))
    run.fix("a")
    assert run.state_of("c") is R.PENDING
    run.succeed("x")
    assert run.state_of("c") is R.READY


def test_a_discard_skips_what_is_behind_it_however_far_over_always_too() -> None:
    graph = a_graph("a -> b -> c -> d, x -> d, a -> n", edges={"b->c": ALWAYS, "a->n": UNHELD})
    run = a_run_of(graph)
    run.fail("a")
    run.succeed("x")
    assert run.state_of("d") is R.PENDING
    change = run.discard("a")[0]
    assert (change.before, change.after, change.failure) == (R.QUARANTINED, R.FAILED, None)
    assert run.states == {
        "a": R.FAILED,
        "b": R.SKIPPED,
        "c": R.SKIPPED,
        "d": R.SKIPPED,
        "x": R.SUCCESS,
        "n": R.SKIPPED,
    }
    assert (run.state, run.bad_runs) == (ExecutionState.FAILED, 1), "unhandled, for good"


def test_what_always_readied_at_the_quarantine_goes_on_after_the_discard() -> None:
    run = after_a_failure_of("a", a_graph("a -> c, a -> b, b -> d, c -> d", edges={"a->c": ALWAYS}, nodes={"d": ANY}))
    run.discard("a")
    assert run.states == {"a": R.FAILED, "c": R.READY, "b": R.SKIPPED, "d": R.PENDING}
    run.succeed("c")
    run.succeed("d")
    assert (run.state, run.bad_runs) == (ExecutionState.FAILED, 1)


def test_a_discard_in_an_execution_that_failed_leaves_it_failed() -> None:
    run = after_a_failure_of("a", a_graph("a -> b"))
    run.discard("a")
    assert run.state is ExecutionState.FAILED
    assert run.states == {"a": R.FAILED, "b": R.SKIPPED}


def test_a_discard_may_ready_a_join_that_waited_for_its_failure_edge() -> None:
    graph = a_graph("a -> j, b -> j", edges={"a->j": UNHELD})
    run = a_run_of(graph)
    run.fail("a")
    run.succeed("b")
    assert (run.state_of("j"), run.state) == (R.PENDING, ExecutionState.FAILED)
    run.discard("a")
    assert run.state_of("j") is R.READY
    assert run.taken_by("j") == ["b->j"]
    assert run.state is ExecutionState.RUNNING, "while something can move, nothing has ended"
    run.succeed("j")
    assert (run.state, run.open_runs) == (ExecutionState.FAILED, 0)


def test_one_of_two_quarantines_resolved_leaves_the_execution_failed_in_the_end() -> None:
    run = a_run_of(a_graph("a -> b, x -> y"))
    run.fail("a", "x")
    run.requeue("a")
    assert (run.state, run.bad_runs) == (ExecutionState.RUNNING, 1)
    run.succeed("a")
    run.succeed("b")
    assert run.state is ExecutionState.FAILED
    run.fix("x")
    run.succeed("y")
    assert run.state is ExecutionState.SUCCESS


def test_resolutions_of_one_batch_are_carried_on_together() -> None:
    run = a_run_of(a_graph("a -> j, b -> j, c -> j"))
    run.fail("a", "b", "c")
    run.end([Requeued(0), Discarded(2)])
    assert (run.state_of("a"), run.state_of("b"), run.state_of("j")) == (R.READY, R.FAILED, R.PENDING)
    run.fix("c")
    run.succeed("a")
    assert run.state_of("j") is R.SKIPPED, "one of its edges is dead"


@pytest.mark.parametrize("outcome", [Requeued, Discarded])
def test_a_resolution_of_a_run_without_edges_asks_for_its_own_row(outcome: Any) -> None:
    run = after_a_failure_of("a", a_graph("a, b"))
    run.needs.clear()
    run.end([outcome(0)])
    assert [need.rows for need in run.needs] == [{0}]


SEEN = Sight(nodes={"a": {"outputs": {"duration": "PT2M"}, "error": None}})


@pytest.mark.parametrize("outcome", [Requeued, DecideControl])
def test_a_control_node_is_decided_by_what_it_is_shown_and_asks_for_nothing_else(outcome: Any) -> None:
    graph = a_graph("a -> d", edges={"a->d": BROKEN}, modules={"d": ("Delay", {"duration of": "a"})})
    run = a_run_of(graph)
    run.succeed("a", outputs={"duration": "PT1H"})
    if outcome is DecideControl:
        run.control_budget = 0
        run.requeue("d")
    run.needs.clear()
    run.end([outcome(1, SEEN)])
    assert run.state_of("d") is R.WAITING
    assert run.wake_after == {1: timedelta(minutes=2)}
    assert [need.results for need in run.needs] == [frozenset()]
