"""How outcomes travel through a graph, case by case."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.builders import a_graph
from tests.unit.flow.driver import Driver
from tests.unit.flow.plans import Word, plan_of
from valkyr.flow.advance import advance
from valkyr.flow.outcomes import DecideControl, Loaded, Succeeded
from valkyr.flow.plan import Sight
from valkyr.flow.results import LetterType
from valkyr.flow.states import ExecutionState, RunState
from valkyr.graph.model import Graph, Join

R = RunState
ANY = {"join": Join.ANY}


def a_run_of(graph: Graph, **settings: Any) -> Driver:
    return Driver(plan_of(graph), **settings)


def test_a_chain_goes_on_one_run_at_a_time() -> None:
    run = a_run_of(a_graph("a -> b -> c"))
    assert [(change.node, change.after) for change in run.succeed("a")] == [(0, R.SUCCESS), (1, R.READY)]
    run.succeed("b")
    assert run.state is ExecutionState.RUNNING
    run.succeed("c")
    assert run.state is ExecutionState.SUCCESS


def test_a_condition_that_does_not_hold_skips_what_is_behind_it() -> None:
    run = a_run_of(a_graph("a -> b -> c, a -> d", edges={"a->b": {"condition": "no"}}))
    run.succeed("a")
    assert run.states == {"a": R.SUCCESS, "b": R.SKIPPED, "c": R.SKIPPED, "d": R.READY}


def test_a_join_with_one_taken_edge_and_one_not_taken_is_ready() -> None:
    run = a_run_of(a_graph("a -> b -> d, a -> c -> d", edges={"a->b": {"condition": "no"}}))
    run.succeed("a")
    assert run.state_of("d") is R.PENDING
    run.succeed("c")
    assert run.state_of("d") is R.READY
    assert [run.plan.edges[edge].edge_id for edge in run.taken[run.plan.index_of["d"]]] == ["c->d"]


def test_two_edges_between_the_same_nodes_count_twice() -> None:
    run = a_run_of(a_graph("a -> b, a -> b", edges={"a->b": {"condition": "no"}}))
    run.succeed("a")
    assert run.state_of("b") is R.READY


def test_an_any_join_opens_once_and_keeps_the_edge_that_opened_it() -> None:
    run = a_run_of(a_graph("a -> c, b -> c, c -> d", nodes={"c": ANY}))
    run.succeed("b")
    run.succeed("a")
    assert run.state_of("c") is R.READY
    assert run.taken[run.plan.index_of["c"]] == (1,)
    run.succeed("c")
    assert run.state_of("d") is R.READY


@pytest.mark.parametrize("class_name", ["NoopModule", ""])
def test_i07_an_any_join_opens_once_when_both_edges_are_taken_in_one_batch(class_name: str) -> None:
    graph = a_graph("a -> c, b -> c, c -> d, e -> d", nodes={"c": ANY}, modules={"c": class_name})
    run = a_run_of(graph)
    run.succeed("a", "b")
    assert run.taken[run.plan.index_of["c"]] == (0,)
    if class_name:
        run.succeed("c")
    assert run.state_of("c") is R.SUCCESS
    assert run.state_of("d") is R.PENDING, "still waits for e"


def test_i15_an_any_join_with_two_broken_edges_in_one_batch_is_quarantined_once() -> None:
    broken = {"condition": "broken"}
    graph = a_graph("a -> c, b -> c", nodes={"c": ANY}, edges={"a->c": broken, "b->c": broken})
    changes = a_run_of(graph).succeed("a", "b")
    assert [change.after for change in changes if change.node == 1] == [R.QUARANTINED]


def test_a_failure_that_no_edge_handles_is_quarantined_and_leaves_its_edges_undecided() -> None:
    run = a_run_of(a_graph("a -> b, a -> c, x -> y", edges={"a->c": {"kind": "FAILURE", "condition": "no"}}))
    (change,) = run.fail("a")
    assert change.failure is not None
    assert (change.after, change.failure.letter) == (R.QUARANTINED, LetterType.MAX_RETRIES)
    assert run.states == {"a": R.QUARANTINED, "b": R.PENDING, "c": R.PENDING, "x": R.READY, "y": R.PENDING}
    assert run.state is ExecutionState.RUNNING, "independent branches finish first"
    run.succeed("x")
    run.succeed("y")
    assert run.state is ExecutionState.FAILED


@pytest.mark.parametrize("condition", ["", "yes", "broken"])
def test_a_failure_is_handled_by_an_edge_whose_condition_holds_or_cannot_be_evaluated(condition: str) -> None:
    run = a_run_of(a_graph("a -> b, a -> c", edges={"a->c": {"kind": "FAILURE", "condition": condition}}))
    run.fail("a")
    assert run.states == {"a": R.FAILED, "b": R.SKIPPED, "c": R.READY}
    run.succeed("c")
    assert run.state is ExecutionState.SUCCESS


def test_every_failure_edge_is_decided_by_its_own_condition_once_one_holds() -> None:
    kinds = {"a->b": ("FAILURE", "no"), "a->c": ("FAILURE", "yes"), "a->d": ("ALWAYS", "yes"), "a->e": ("ALWAYS", "no")}
    edges = {arrow: {"kind": kind, "condition": word} for arrow, (kind, word) in kinds.items()}
    run = a_run_of(a_graph("a -> b, a -> c, a -> d, a -> e", edges=edges))
    run.fail("a")
    assert run.states == {"a": R.FAILED, "b": R.SKIPPED, "c": R.READY, "d": R.READY, "e": R.SKIPPED}


def test_always_goes_on_after_a_quarantine_but_does_not_handle_it() -> None:
    run = a_run_of(a_graph("a -> b, a -> c", edges={"a->c": {"kind": "ALWAYS"}}))
    run.fail("a")
    assert run.states == {"a": R.QUARANTINED, "b": R.PENDING, "c": R.READY}
    run.succeed("c")
    assert run.state is ExecutionState.FAILED


def test_always_is_not_taken_behind_a_skipped_run() -> None:
    graph = a_graph("a -> b -> c", edges={"a->b": {"condition": "no"}, "b->c": {"kind": "ALWAYS"}})
    run = a_run_of(graph)
    run.succeed("a")
    assert run.state_of("c") is R.SKIPPED


def test_a_condition_that_cannot_be_evaluated_quarantines_its_target_when_it_would_be_ready() -> None:
    run = a_run_of(a_graph("a -> c, b -> c, c -> d", edges={"a->c": {"condition": "broken"}}))
    run.succeed("a")
    assert run.state_of("c") is R.PENDING
    run.succeed("b")
    assert run.state_of("c") is R.QUARANTINED
    failure = run.failures[run.plan.index_of["c"]]
    assert (failure.letter, failure.error_type) == (LetterType.PERMANENT_ERROR, "PERMANENT")
    assert "'a->c'" in failure.message
    assert "the word is broken" in failure.message
    assert run.taken[run.plan.index_of["c"]] == (0, 1), "as if the condition had held"


def test_a_broken_condition_is_not_handled_by_the_targets_failure_edges_but_its_always_edges_are_decided() -> None:
    edges = {"a->b": {"condition": "broken"}, "b->c": {"kind": "FAILURE"}, "b->d": {"kind": "ALWAYS"}}
    run = a_run_of(a_graph("a -> b, b -> c, b -> d", edges=edges))
    run.succeed("a")
    assert run.states == {"a": R.SUCCESS, "b": R.QUARANTINED, "c": R.PENDING, "d": R.READY}


def test_a_broken_condition_beside_a_dead_edge_is_a_skip() -> None:
    run = a_run_of(a_graph("g -> b, a -> b", edges={"a->b": {"condition": "broken"}}), discarded=frozenset({0}))
    run.succeed("a")
    assert run.state_of("b") is R.SKIPPED


def test_dead_edges_travel_through_skips_also_over_always_and_stop_at_an_open_any() -> None:
    graph = a_graph("g -> b, a -> b, b -> c -> d, a -> d", edges={"b->c": {"kind": "ALWAYS"}}, nodes={"d": ANY})
    run = a_run_of(graph, discarded=frozenset({0}))
    run.succeed("a")
    assert (run.state_of("b"), run.state_of("c"), run.state_of("d")) == (R.SKIPPED, R.SKIPPED, R.READY)
    waits_for_all = a_run_of(a_graph("g -> b, a -> b -> d, a -> d"), discarded=frozenset({0}))
    waits_for_all.succeed("a")
    assert waits_for_all.state_of("d") is R.SKIPPED, "one of its edges is dead"


def test_a_skip_that_is_not_dead_does_not_skip_a_join_with_a_taken_edge() -> None:
    run = a_run_of(a_graph("a -> b -> d, a -> d", edges={"a->b": {"condition": "no"}}))
    run.succeed("a")
    assert run.state_of("d") is R.READY


@pytest.mark.parametrize(
    ("outcome", "outputs", "error"),
    [
        ("succeed", {"total": 3}, None),
        ("fail", None, {"type": "TRANSIENT", "message": "it broke"}),
    ],
)
def test_conditions_see_the_outputs_or_the_error_of_their_source(outcome: str, outputs: Any, error: Any) -> None:
    run = a_run_of(a_graph("a -> b", edges={"a->b": {"kind": "ALWAYS", "condition": "yes"}}))
    run.succeed("a", outputs=outputs) if outcome == "succeed" else run.fail("a")
    condition = run.plan.edges[0].condition
    assert isinstance(condition, Word)
    (seen,) = condition.seen
    assert (seen.outputs, seen.error) == (outputs, error)
    assert seen.nodes == {"a": {"outputs": outputs, "error": error}}


def test_conditions_see_what_the_same_batch_has_settled_and_null_of_what_is_not() -> None:
    graph = a_graph("a -> b -> c, b -> d", edges={"b->c": {"condition": "v of a"}, "b->d": {"condition": "v of b"}})
    plan = plan_of(graph)
    run = Driver(plan)
    run.succeed("a", outputs={"v": 1})
    run.succeed("b", outputs={"v": 0})
    assert (run.state_of("c"), run.state_of("d")) == (R.READY, R.SKIPPED)


def test_a_node_without_a_module_is_passed_in_the_same_transaction() -> None:
    run = a_run_of(a_graph("a -> p -> q -> b", modules={"p": None, "q": None}))
    changes = run.succeed("a")
    assert [change.after for change in changes] == [R.SUCCESS, R.SUCCESS, R.SUCCESS, R.READY]
    assert run.results[1] == {"outputs": {}, "error": None}


def test_a_delay_waits_and_then_succeeds_and_its_failure_can_be_handled() -> None:
    edges = {"bad->handler": {"kind": "FAILURE"}}
    modules = {"d": ("Delay", {"duration": "PT5S"}), "bad": ("Delay", {"duration": "in a while"})}
    run = a_run_of(a_graph("a -> d -> b, a -> bad -> handler, bad -> never", edges=edges, modules=modules))
    run.succeed("a")
    assert run.states == {
        "a": R.SUCCESS,
        "d": R.WAITING,
        "b": R.PENDING,
        "bad": R.FAILED,
        "handler": R.READY,
        "never": R.SKIPPED,
    }
    assert run.wake_after == {1: timedelta(seconds=5)}
    run.end([Succeeded(1, {})])
    assert run.state_of("b") is R.READY


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"duration": None},
        {"duration": 5},
        {"duration": ""},
        {"duration": "5s"},
        {"duration": "-PT5S"},
        {"duration": "P1M"},
        {"duration": "P9999D"},
        {"duration of": "a"},
    ],
    ids=str,
)
def test_a_delay_that_is_no_duration_is_quarantined_and_says_so(config: dict[str, Any]) -> None:
    run = a_run_of(a_graph("a -> d", modules={"d": ("Delay", config)}))
    run.succeed("a")
    failure = run.failures[1]
    assert run.state_of("d") is R.QUARANTINED
    assert (failure.letter, failure.error_type) == (LetterType.PERMANENT_ERROR, "PERMANENT")
    assert run.state is ExecutionState.FAILED


def test_a_delay_may_take_its_duration_from_an_ancestor() -> None:
    run = a_run_of(a_graph("a -> d", modules={"d": ("Delay", {"duration of": "a"})}))
    run.succeed("a", outputs={"duration": "PT2M"})
    assert run.wake_after == {1: timedelta(minutes=2)}


def test_control_nodes_beyond_the_budget_are_written_ready_and_decided_later() -> None:
    run = a_run_of(a_graph("a -> p -> q -> b", modules={"p": None, "q": None}), control_budget=1)
    run.succeed("a")
    assert run.states == {"a": R.SUCCESS, "p": R.SUCCESS, "q": R.READY, "b": R.PENDING}
    run.end([DecideControl(2)])
    assert run.states["b"] is R.READY


def test_rows_that_were_not_asked_for_never_undo_what_the_walk_has_changed() -> None:
    graph = a_graph("a -> x, a -> p -> q -> x", nodes={"x": ANY}, modules={"p": None, "q": None})
    answers = iter([False, True, True])
    run = a_run_of(graph, generous=lambda: next(answers))
    run.succeed("a")
    assert len(run.needs) == 2, "the second answer holds x as it was before"
    assert [run.plan.edges[edge].edge_id for edge in run.taken[run.plan.index_of["x"]]] == ["a->x"]


def test_a_walk_asks_at_once_for_all_that_its_outcomes_need() -> None:
    plan = plan_of(a_graph("a -> c, b -> d", edges={"b->d": {"condition": "v of a"}}))
    walk = advance(plan, [Succeeded(0), Succeeded(2)], Sight())
    need = next(walk)
    assert (need.rows, need.results) == ({0, 1, 2, 3}, {0})
    rows = Driver(plan).rows
    with pytest.raises(StopIteration):
        walk.send(Loaded({node: rows[node] for node in need.rows}, {0: {"outputs": {"v": 1}, "error": None}}))


def test_no_outcome_changes_nothing() -> None:
    with pytest.raises(StopIteration) as done:
        next(advance(plan_of(a_graph("a")), [], Sight()))
    assert done.value.value == []
