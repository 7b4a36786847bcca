"""Sizes at which recursion, or reading again and again, would show."""

from __future__ import annotations

import random

import pytest

from tests.builders import a_chain, a_fan, a_graph
from tests.unit.flow.driver import Driver
from tests.unit.flow.plans import plan_of
from valkyr.flow.outcomes import DecideControl
from valkyr.flow.states import ExecutionState, RunState
from valkyr.graph.model import Edge, Graph, Module, Node

R = RunState


def a_long_chain(length: int, *, condition: str = "", class_name: str = "NoopModule") -> Graph:
    """`first -> n0 -> n1 -> ...`; `condition` stands at the first edge, `class_name` is that of the others."""
    names = ["first", *(f"n{index}" for index in range(length))]
    edges = [Edge(f"e{i}", names[i], names[i + 1], condition if i == 0 else "") for i in range(length)]
    modules = (Module(name, class_name if i else "NoopModule") for i, name in enumerate(names))
    return Graph(tuple(map(Node, names)), tuple(edges), tuple(modules))


def test_a_chain_of_ten_thousand_is_skipped_at_once() -> None:
    run = Driver(plan_of(a_long_chain(10_000, condition="no")))
    changes = run.succeed("first")
    assert len(changes) == 10_001
    assert run.in_state(R.SKIPPED) == list(range(1, 10_001))
    assert run.state is ExecutionState.SUCCESS


def test_a_dead_chain_of_ten_thousand_is_skipped_at_once() -> None:
    graph = a_long_chain(10_000)
    with_ghost = Graph(
        (*graph.nodes, Node("ghost")), (*graph.edges, Edge("g", "ghost", "n0")), (*graph.modules, Module("ghost", "X"))
    )
    run = Driver(plan_of(with_ghost), discarded=frozenset({10_001}))
    run.succeed("first")
    assert len(run.in_state(R.SKIPPED)) == 10_000
    assert run.state is ExecutionState.FAILED


def test_a_chain_of_control_nodes_is_decided_a_thousand_at_a_time() -> None:
    run = Driver(plan_of(a_long_chain(3_500, class_name="")))
    run.succeed("first")
    rounds = 0
    while ready := run.in_state(R.READY):
        assert len(run.in_state(R.SUCCESS)) <= 1 + (1 + rounds) * 1_001
        rounds += 1
        run.end([DecideControl(node) for node in ready])
    assert rounds == 3
    assert run.state is ExecutionState.SUCCESS


def test_a_fan_of_control_nodes_is_decided_a_thousand_at_a_time() -> None:
    names = [f"p{index}" for index in range(2_500)]
    edges = [Edge(f"in{name}", "first", name) for name in names] + [Edge(f"out{name}", name, "last") for name in names]
    modules = (Module("first", "NoopModule"), Module("last", "NoopModule"))
    run = Driver(plan_of(Graph((Node("first"), Node("last"), *map(Node, names)), tuple(edges), modules)))
    run.succeed("first")
    assert (len(run.in_state(R.SUCCESS)), len(run.in_state(R.READY))) == (1_001, 1_500)
    while ready := run.in_state(R.READY):
        if ready == [1]:
            run.succeed("last")
        else:
            run.end([DecideControl(node) for node in ready[:500]])
    assert run.state is ExecutionState.SUCCESS


@pytest.mark.parametrize("batch", [1, 7, 1_000])
def test_a_thousand_branches_fork_and_join(batch: int) -> None:
    run = Driver(plan_of(a_fan(1_000)))
    run.succeed("start")
    branches = [f"m{index}" for index in range(1_000)]
    random.Random(batch).shuffle(branches)
    # Checking after every step is what takes time: single steps only at both ends.
    steps = [branches[:3], branches[3:-3], branches[-3:]]
    for step in steps:
        size = batch if len(step) <= 3 or batch > 1 else 100
        for begin in range(0, len(step), size):
            run.succeed(*step[begin : begin + size])
    assert run.state_of("end") is R.READY
    run.succeed("end")
    assert run.state is ExecutionState.SUCCESS


def test_a_thousand_branches_that_are_not_taken_but_one_join() -> None:
    names = [f"m{index}" for index in range(1_000)]
    edges = [Edge(f"in{name}", "start", name, "yes" if name == "m500" else "no") for name in names]
    edges += [Edge(f"out{name}", name, "end") for name in names]
    nodes = (Node("start"), Node("end"), *map(Node, names))
    run = Driver(plan_of(Graph(nodes, tuple(edges), tuple(Module(node.node_id, "X") for node in nodes))))
    run.succeed("start")
    run.succeed("m500")
    assert run.state_of("end") is R.READY
    assert run.taken[1] == (1_500,)


def test_a_chain_of_skips_is_asked_for_without_reading_anything_twice() -> None:
    run = Driver(plan_of(a_long_chain(200, condition="no")))
    run.succeed("first")
    asked = [row for need in run.needs for row in need.rows]
    assert len(asked) == len(set(asked)) == 201


def test_a_long_chain_that_succeeds_step_by_step() -> None:
    run = Driver(plan_of(a_chain(300)))
    for index in range(300):
        run.succeed(f"n{index}")
    assert run.state is ExecutionState.SUCCESS


def test_an_empty_graph_has_a_plan() -> None:
    plan = plan_of(a_graph(""))
    assert (plan.nodes, plan.roots, plan.leaves) == ((), (), ())
