"""FAIL_FAST and cancel: what nobody holds is cancelled, a success is kept, and nothing follows anything."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from tests.builders import a_graph
from tests.unit.flow.driver import Driver
from tests.unit.flow.plans import plan_of
from valkyr.flow.advance import fails_fast
from valkyr.flow.outcomes import FailedForGood, Outcome, Succeeded
from valkyr.flow.results import LetterType
from valkyr.flow.states import Ending, ExecutionState, RunState
from valkyr.graph.model import FailurePolicy, Graph, Settings

R = RunState
FAST = Settings(failure_policy=FailurePolicy.FAIL_FAST)


def fast(arrows: str, **more: Any) -> Graph:
    return a_graph(arrows, settings=FAST, **more)


def a_run_of(graph: Graph) -> Driver:
    return Driver(plan_of(graph))


def test_the_first_quarantine_cancels_everything_that_nobody_holds() -> None:
    modules = {"wait": ("Delay", {"duration": "PT1H"})}
    run = a_run_of(fast("a -> b, c -> d, e, root -> wait -> z", modules=modules))
    run.succeed("root")
    run.lease(run.plan.index_of["c"])
    run.fail("a")
    assert run.states == {
        "a": R.QUARANTINED,
        "b": R.CANCELLED,
        "c": R.LEASED,
        "d": R.CANCELLED,
        "e": R.CANCELLED,
        "root": R.SUCCESS,
        "wait": R.CANCELLED,
        "z": R.CANCELLED,
    }
    assert (run.state, run.ending) == (ExecutionState.RUNNING, Ending.FAIL_FAST), "until the last lease has ended"


@pytest.mark.parametrize(("ends", "state"), [("succeed", R.SUCCESS), ("fail", R.CANCELLED)])
def test_after_it_a_success_is_kept_a_failure_is_a_cancel_and_nothing_follows(ends: str, state: RunState) -> None:
    run = a_run_of(fast("a -> b, c -> d, c -> h", edges={"c->h": {"kind": "FAILURE"}}))
    run.lease(run.plan.index_of["c"])
    run.fail("a")
    getattr(run, ends)("c")
    assert (run.state_of("c"), run.state_of("d"), run.state_of("h")) == (state, R.CANCELLED, R.CANCELLED)
    assert (run.state, run.bad_runs) == (ExecutionState.FAILED, 1)


def test_always_edges_are_not_decided_by_the_quarantine_that_fails_fast() -> None:
    run = a_run_of(fast("a -> clean, x", edges={"a->clean": {"kind": "ALWAYS"}}))
    changes = run.fail("a")
    assert [(change.node, change.after, change.always_decided) for change in changes] == [(0, R.QUARANTINED, False)]
    assert run.state_of("clean") is R.CANCELLED


def test_a_failure_that_is_handled_does_not_fail_fast() -> None:
    edges = {"a->h": {"kind": "FAILURE"}, "a->c": {"kind": "ALWAYS"}}
    run = a_run_of(fast("a -> h, a -> c, x", edges=edges))
    run.fail("a")
    assert run.states == {"a": R.FAILED, "h": R.READY, "c": R.READY, "x": R.READY}
    run.succeed("h", "c", "x")
    assert run.state is ExecutionState.SUCCESS


@pytest.mark.parametrize("module", ["NoopModule", ("Delay", {"duration": "soon"})], ids=["condition", "control node"])
def test_a_quarantine_that_the_walk_itself_makes_fails_fast_too(module: Any) -> None:
    edges = {"a->b": {"condition": "broken"}} if module == "NoopModule" else {}
    run = a_run_of(fast("a -> b, a -> c, x", edges=edges, modules={"b": module}))
    run.succeed("a")
    assert run.states == {"a": R.SUCCESS, "b": R.QUARANTINED, "c": R.CANCELLED, "x": R.CANCELLED}
    assert run.state is ExecutionState.FAILED


GRAPH = fast(
    "good -> after, bad -> behind, worse -> clean, good -> p -> q",
    edges={"worse->clean": {"kind": "ALWAYS"}},
    modules={"p": None},
)


@pytest.mark.parametrize("order", [*permutations(["good", "bad", "worse"])], ids="-".join)
def test_in_one_batch_of_any_order_the_first_quarantine_strikes_and_the_rest_is_as_after_it(
    order: tuple[str, ...],
) -> None:
    run = a_run_of(GRAPH)
    for name in order:
        run.lease(run.plan.index_of[name])
    run.end([_end_of(run, name) for name in order])
    first = next(name for name in order if name != "good")
    other = "worse" if first == "bad" else "bad"
    assert (run.state_of("good"), run.state_of(first), run.state_of(other)) == (R.SUCCESS, R.QUARANTINED, R.CANCELLED)
    assert {run.state_of(name) for name in ("after", "behind", "clean", "q")} == {R.CANCELLED}
    assert (run.state, run.open_runs, run.bad_runs) == (ExecutionState.FAILED, 0, 1)
    assert sum(run.quarantines.values()) == 1


def _end_of(run: Driver, name: str) -> Outcome:
    node = run.plan.index_of[name]
    if name == "good":
        return Succeeded(node, {})
    return FailedForGood(node, LetterType.MAX_RETRIES, "TRANSIENT", "it broke")


def test_a_join_that_counted_down_before_the_strike_is_cancelled_with_the_rest() -> None:
    run = a_run_of(fast("a -> j, b -> j, x -> j"))
    for name in ("a", "b"):
        run.lease(run.plan.index_of[name])
    changes = run.end([Succeeded(0, {}), _end_of(run, "b")])
    assert {change.node: change.after for change in changes} == {0: R.SUCCESS, 1: R.CANCELLED, 2: R.QUARANTINED}
    assert run.state_of("x") is R.CANCELLED


def test_only_a_quarantine_under_fail_fast_fails_fast() -> None:
    for policy, expected in ((FailurePolicy.FAIL_FAST, True), (FailurePolicy.FINISH_BRANCHES, False)):
        run = Driver(plan_of(a_graph("a, b", settings=Settings(failure_policy=policy))))
        run.lease(0)
        changes = run.end([_end_of(run, "a")])
        assert fails_fast(run.plan, changes) is expected
        assert not fails_fast(run.plan, [])
        assert run.state_of("b") is (R.CANCELLED if expected else R.READY)


@pytest.mark.parametrize("ending", [Ending.CANCEL, Ending.DEADLINE])
def test_a_cancel_keeps_letters_and_successes_and_cancels_the_rest(ending: Ending) -> None:
    run = a_run_of(a_graph("a -> b, c -> d, e -> f, x"))
    run.fail("a")
    for name in ("c", "e"):
        run.lease(run.plan.index_of[name])
    run.cancel(ending)
    assert run.state is ExecutionState.RUNNING
    run.succeed("c")
    run.fail("e")
    assert run.states == {
        "a": R.QUARANTINED,
        "b": R.CANCELLED,
        "c": R.SUCCESS,
        "d": R.CANCELLED,
        "e": R.CANCELLED,
        "f": R.CANCELLED,
        "x": R.CANCELLED,
    }
    assert run.state is (ExecutionState.CANCELLED if ending is Ending.CANCEL else ExecutionState.FAILED)


@pytest.mark.parametrize("ending", Ending)
def test_a_letter_of_an_execution_that_ended_can_be_discarded_and_nothing_follows(ending: Ending) -> None:
    run = a_run_of(a_graph("a -> b, a -> c, x", edges={"a->c": {"kind": "ALWAYS"}}))
    run.lease(0)
    run.give_up("a")
    run.cancel(ending)
    settled = run.state
    run.discard("a")
    assert run.states == {"a": R.FAILED, "b": R.CANCELLED, "c": R.CANCELLED, "x": R.CANCELLED}
    assert (run.state, run.bad_runs) == (settled, 1)
