"""Any graph, any outcomes, in any order and any batches: `advance` ends where the design's tables say."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.unit.flow.driver import Driver
from tests.unit.flow.plans import plan_of
from tests.unit.flow.reference import Reference
from valkyr.flow.advance import FailedForGood, Outcome, Succeeded
from valkyr.flow.results import LetterType
from valkyr.flow.states import FINAL_RUN_STATES, ExecutionState, RunState
from valkyr.graph.model import Edge, EdgeKind, Graph, Join, Module, Node

AT_RANDOM = settings(
    max_examples=1_000,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
WORK, PASS, DELAY, BAD_DELAY = "Work", "", "Delay", "bad Delay"


@dataclass(frozen=True)
class Case:
    graph: Graph
    succeeds: Mapping[str, bool]
    values: Mapping[str, int]
    discarded: frozenset[str] = frozenset()


def a_case(dice: random.Random, count: int, *, joins: Sequence[Join], conditions: Sequence[str]) -> Case:
    """`conditions` may hold "v", which stands for `v of` the source or one of its ancestors.

    Made from one seed and a size, not drawn bit by bit: a hundred times faster, and small cases are still found first.
    """
    names = [f"n{index}" for index in range(count)]
    kinds = dice.choices([WORK, PASS, DELAY, BAD_DELAY], [6, 2, 1, 1], k=count)
    ancestors: dict[str, set[str]] = {name: set() for name in names}
    edges: list[Edge] = []
    for target in range(1, count):
        for source in dice.choices(range(target), k=dice.choice([0, 1, 1, 1, 2, 2, 3, 4])):
            edges.append(_an_edge(dice, len(edges), names[source], names[target], ancestors, conditions))
            ancestors[names[target]] |= {names[source]} | ancestors[names[source]]
    nodes = tuple(Node(name, join=dice.choice(joins)) for name in names)
    well = dice.choice([0.3, 0.7, 0.95])
    succeeds = {
        name: kind != BAD_DELAY and (kind != WORK or dice.random() < well)
        for name, kind in zip(names, kinds, strict=True)
    }
    values = {name: dice.choice([0, 1, 1]) for name, kind in zip(names, kinds, strict=True) if kind == WORK}
    return Case(Graph(nodes, tuple(edges), tuple(map(_a_module, names, kinds))), succeeds, values)


def _an_edge(
    dice: random.Random,
    index: int,
    source: str,
    target: str,
    ancestors: Mapping[str, set[str]],
    conditions: Sequence[str],
) -> Edge:
    condition = dice.choice(conditions)
    if condition == "v":
        condition = f"v of {dice.choice(sorted({source} | ancestors[source]))}"
    kind = dice.choices(list(EdgeKind), [3, 1, 1])[0]
    return Edge(f"e{index}", source, target, condition, kind)


def _a_module(name: str, kind: str) -> Module:
    if kind in (DELAY, BAD_DELAY):
        return Module(name, "Delay", config={"duration": "PT5S" if kind == DELAY else "soon"})
    return Module(name, kind)


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


budgets = st.sampled_from([0, 1, 2, 1_000])
dice = st.integers(0, 2**32).map(random.Random)
sizes = st.integers(1, 16)

VALUES = ["", "", "yes", "no", "broken", "v", "v"]
WORDS = ["", "", "", "yes", "no", "broken"]


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
