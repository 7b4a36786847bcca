"""Any graph, any outcomes, in any order and any batches: `advance` ends where the design's tables say."""

from __future__ import annotations

import random

from hypothesis import event, given

from tests.unit.flow.cases import AT_RANDOM, VALUES, WORDS, WORK, Case, a_case, budgets, dice, sizes
from tests.unit.flow.driver import Driver
from tests.unit.flow.plans import plan_of
from tests.unit.flow.reference import Reference
from valkyr.flow.outcomes import FailedForGood, Outcome, Succeeded
from valkyr.flow.results import LetterType
from valkyr.flow.states import FINAL_RUN_STATES, ExecutionState, RunState
from valkyr.graph.model import Edge, EdgeKind, Graph, Join, Module, Node


def run_to_the_end(case: Case, driver: Driver, order: random.Random) -> None:
    """Leases what is ready, ends any of it in batches of any size and order, until nothing can move."""
    plan = driver.plan
    while True:
        for node in driver.in_state(RunState.READY):
            if plan.nodes[node].control is None:
                driver.lease(node)
        under_way = [_end_of(case, driver, node) for node in driver.in_state(RunState.LEASED)] + driver.ripe()
        if not under_way:
            return
        order.shuffle(under_way)
        driver.end(under_way[: order.randint(1, len(under_way))])


def _end_of(case: Case, driver: Driver, node: int) -> Outcome:
    name = driver.plan.nodes[node].node_id
    if case.succeeds[name]:
        return Succeeded(node, {"v": case.values[name]})
    return FailedForGood(node, LetterType.MAX_RETRIES, "TRANSIENT", "as it was told")


def check_the_end(case: Case, driver: Driver) -> None:
    plan = driver.plan
    opened_by = {
        node.node_id: plan.edges[driver.taken[node.index][0]].edge_id
        for node in plan.nodes
        if node.join is Join.ANY and driver.taken.get(node.index)
    }
    reference = Reference(case.graph, case.succeeds, case.values, case.discarded, opened_by)
    assert driver.states == reference.states()
    for node in plan.nodes:
        if node.join is Join.ALL and node.index in driver.taken:
            fates = {edge.index: reference.fate(case.graph.edges[edge.index]) for edge in plan.edges}
            wanted = tuple(edge for edge in node.incoming if fates[edge] in ("taken", "broken"))
            assert driver.taken[node.index] == wanted, "the frozen edges"
    unhandled = driver.bad_runs > 0
    if driver.state is not ExecutionState.PENDING:
        assert driver.state is (ExecutionState.FAILED if unhandled else ExecutionState.SUCCESS)
    if not unhandled:
        assert all(row.state in FINAL_RUN_STATES for row in driver.rows.values())


def _go(case: Case, order: random.Random, budget: int) -> None:
    plan = plan_of(case.graph)
    discarded = frozenset(plan.index_of[name] for name in case.discarded)
    driver = Driver(plan, budget, discarded, generous=lambda: order.random() < 0.3)
    run_to_the_end(case, driver, order)
    check_the_end(case, driver)
    for state in sorted(set(driver.states.values())):
        event(state)


@AT_RANDOM
@given(dice, sizes, dice, budgets)
def test_graphs_of_all_joins_end_where_the_tables_say(
    seed: random.Random, count: int, order: random.Random, budget: int
) -> None:
    _go(a_case(seed, count, joins=[Join.ALL], conditions=VALUES), order, budget)


@AT_RANDOM
@given(dice, sizes, dice, budgets)
def test_graphs_with_any_joins_end_where_the_tables_say(
    seed: random.Random, count: int, order: random.Random, budget: int
) -> None:
    _go(a_case(seed, count, joins=list(Join), conditions=WORDS), order, budget)


def with_discards(case: Case, seed: random.Random) -> Case:
    """Some roots were discarded before: their targets have one more edge, from a root that is not."""
    ghosts = tuple(f"g{index}" for index in range(seed.randint(1, 3)))
    targets = [node.node_id for node in case.graph.nodes]
    edges = list(case.graph.edges)
    for ghost in ghosts:
        for target in seed.choices(targets, k=seed.randint(0, 3)):
            kind = seed.choice([EdgeKind.SUCCESS, EdgeKind.SUCCESS, EdgeKind.FAILURE])
            edges.append(Edge(f"g{len(edges)}", ghost, target, "", kind))
            edges.append(Edge(f"r{len(edges)}", "root", target, seed.choice(["yes", "no"])))
    nodes = (*case.graph.nodes, *(Node(name) for name in (*ghosts, "root")))
    modules = (*case.graph.modules, *(Module(name, WORK) for name in (*ghosts, "root")))
    succeeds = {**case.succeeds, "root": seed.random() < 0.8}
    return Case(Graph(nodes, tuple(edges), modules), succeeds, {**case.values, "root": 1}, frozenset(ghosts))


@AT_RANDOM
@given(dice, sizes, dice, budgets)
def test_dead_edges_travel_on_as_the_tables_say(
    seed: random.Random, count: int, order: random.Random, budget: int
) -> None:
    _go(with_discards(a_case(seed, count, joins=list(Join), conditions=WORDS), seed), order, budget)


@AT_RANDOM
@given(dice, sizes, dice, dice)
def test_order_and_batches_change_nothing_where_all_edges_are_waited_for(
    seed: random.Random, count: int, order: random.Random, another: random.Random
) -> None:
    case = a_case(seed, count, joins=[Join.ALL], conditions=VALUES)
    plan = plan_of(case.graph)
    first, second = Driver(plan), Driver(plan)
    run_to_the_end(case, first, order)
    run_to_the_end(case, second, another)
    assert (first.states, first.taken) == (second.states, second.taken)
    # Of several conditions that could not be evaluated, the first to be tried is named.
    outputs = [{node: result["outputs"] for node, result in driver.results.items()} for driver in (first, second)]
    assert outputs[0] == outputs[1]
