"""Any graph, any outcomes, quarantines and resolutions in any order and any batches; ends that come at any moment.

The driver checks after every transaction that counters equal a recount, that every edge was decided once, and that an
execution ends when nothing can move and not before.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hypothesis import event, given
from hypothesis import strategies as st

from tests.unit.flow.cases import AT_RANDOM, WORDS, Case, a_case, budgets, dice, sizes
from tests.unit.flow.driver import Driver
from tests.unit.flow.lives import Go, Lives, Script, Way
from tests.unit.flow.plans import plan_of
from valkyr.flow.outcomes import Discarded, FailedForGood, Outcome, Requeued, Succeeded
from valkyr.flow.results import LetterType
from valkyr.flow.states import FINAL_RUN_STATES, Ending, ExecutionState, RunState
from valkyr.graph.model import FailurePolicy, Graph, Join, Settings

GOES = [Go.WELL, Go.BADLY, Go.GIVEN_UP]
ALL_WAYS = [Way.REQUEUE, Way.REQUEUE, Way.FIX, Way.DISCARD, Way.LEAVE]


def scripts_of(case: Case, seed: random.Random, *, leave: bool) -> Mapping[str, Script]:
    """Up to three quarantines for each run. Work goes as it likes, what the engine decides always the same way."""
    ways = [way for way in ALL_WAYS if leave or way is not Way.LEAVE]
    scripts = {}
    for module in case.graph.modules:
        work = module.class_name == "Work"
        chosen = [*seed.choices(ways, k=2), seed.choice([way for way in ways if way is not Way.REQUEUE])]
        goes = seed.choices(GOES, [3, 3, 1], k=4) if work else [_as_decided(case, module.node_id)] * 4
        scripts[module.node_id] = Script(goes, chosen)
    return scripts


def _as_decided(case: Case, node_id: str) -> Go:
    return Go.WELL if case.succeeds[node_id] else Go.BADLY


@dataclass
class Stage:
    """A driver that plays by scripts."""

    driver: Driver
    scripts: Mapping[str, Script]
    order: random.Random
    played: Counter[int] = field(default_factory=Counter)

    def play(self) -> None:
        while self.step():
            pass

    def step(self) -> bool:
        """One transaction of whatever could come now; false if nothing can."""
        for node in self.driver.in_state(RunState.READY):
            if self.driver.plan.nodes[node].control is None:
                self.driver.lease(node)
        coming = [*self._ends(), *self.driver.ripe(), *self._resolutions()]
        given_up = [] if self.driver.ending else self._given_up()
        if given_up and (not coming or self.order.random() < 0.3):
            node = self.order.choice(given_up)
            self.played[node] += 1
            self.driver.give_up(self.driver.plan.nodes[node].node_id)
            return True
        if not coming:
            return False
        self.order.shuffle(coming)
        batch = coming[: self.order.randint(1, len(coming))]
        self.played.update(outcome.node for outcome in batch if self._is_end(outcome))
        self.driver.end(batch)
        return True

    def _is_end(self, outcome: Outcome) -> bool:
        return self.driver.rows[outcome.node].state is RunState.LEASED

    def _script(self, node: int) -> Script:
        return self.scripts[self.driver.plan.nodes[node].node_id]

    def _given_up(self) -> list[int]:
        leased = self.driver.in_state(RunState.LEASED)
        return [node for node in leased if self._script(node).goes[self.played[node]] is Go.GIVEN_UP]

    def _ends(self) -> list[Outcome]:
        ends: list[Outcome] = []
        for node in self.driver.in_state(RunState.LEASED):
            go = self._script(node).goes[self.played[node]]
            if go is Go.WELL:
                ends.append(Succeeded(node, {}))
            elif go is Go.BADLY or self.driver.ending is not None:
                ends.append(FailedForGood(node, LetterType.MAX_RETRIES, "TRANSIENT", "as it was told"))
        return ends

    def _resolutions(self) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for node in self.driver.in_state(RunState.QUARANTINED):
            way = self._script(node).ways[self.driver.quarantines[node] - 1]
            if way is Way.LEAVE or (self.driver.ending is not None and way is not Way.DISCARD):
                continue
            outcomes.append(_resolution(way, node))
        return outcomes


def _resolution(way: Way, node: int) -> Outcome:
    match way:
        case Way.REQUEUE:
            return Requeued(node)
        case Way.FIX:
            return Succeeded(node, {})
        case _:
            return Discarded(node)


def a_stage(case: Case, seed: random.Random, order: random.Random, budget: int, *, leave: bool = True) -> Stage:
    driver = Driver(plan_of(case.graph), budget, generous=lambda: order.random() < 0.3)
    return Stage(driver, scripts_of(case, seed, leave=leave), order)


def check_against_lives(graph: Graph, stage: Stage) -> None:
    driver, plan = stage.driver, stage.driver.plan
    opened_by = {
        node.node_id: plan.edges[driver.taken[node.index][0]].edge_id
        for node in plan.nodes
        if node.join is Join.ANY and driver.taken.get(node.index)
    }
    lives = Lives(graph, stage.scripts, opened_by)
    assert driver.states == lives.states()
    for node in plan.nodes:
        if node.join is Join.ALL and node.index in driver.taken:
            wanted = [edge for edge in node.incoming if lives.fate(graph.edges[edge]) in ("taken", "broken")]
            assert list(driver.taken[node.index]) == wanted, "the frozen edges"


@AT_RANDOM
@given(dice, sizes, dice, budgets, st.sampled_from([[Join.ALL], list(Join)]))
def test_runs_end_where_the_tables_say_whatever_is_done_about_their_quarantines(
    seed: random.Random, count: int, order: random.Random, budget: int, joins: list[Join]
) -> None:
    case = a_case(seed, count, joins=joins, conditions=WORDS)
    stage = a_stage(case, seed, order, budget)
    stage.play()
    check_against_lives(case.graph, stage)
    driver = stage.driver
    assert driver.open_runs == 0
    assert driver.state is (ExecutionState.FAILED if driver.bad_runs else ExecutionState.SUCCESS)
    event(f"{driver.state}, {sum(driver.quarantines.values())} quarantines")


@AT_RANDOM
@given(dice, sizes, dice, budgets)
def test_nothing_is_left_behind_when_every_quarantine_is_resolved(
    seed: random.Random, count: int, order: random.Random, budget: int
) -> None:
    stage = a_stage(a_case(seed, count, joins=list(Join), conditions=WORDS), seed, order, budget, leave=False)
    stage.play()
    driver = stage.driver
    assert set(driver.states.values()) <= FINAL_RUN_STATES
    assert driver.bad_runs == len(driver.given_up)
    assert driver.state is (ExecutionState.FAILED if driver.given_up else ExecutionState.SUCCESS)


@AT_RANDOM
@given(dice, sizes, dice, budgets)
def test_under_fail_fast_the_first_quarantine_is_the_last(
    seed: random.Random, count: int, order: random.Random, budget: int
) -> None:
    case = a_case(seed, count, joins=list(Join), conditions=WORDS)
    fast = replace(case, graph=replace(case.graph, settings=Settings(failure_policy=FailurePolicy.FAIL_FAST)))
    stage = a_stage(fast, seed, order, budget)
    stage.play()
    driver = stage.driver
    struck = sum(driver.quarantines.values())
    assert struck <= 1
    assert (driver.ending is Ending.FAIL_FAST) is bool(struck)
    assert driver.state is (ExecutionState.FAILED if struck else ExecutionState.SUCCESS)
    assert set(driver.states.values()) <= FINAL_RUN_STATES | {RunState.QUARANTINED}
    assert not any(row.always_decided for row in driver.rows.values())
    event(f"{driver.state}")


@AT_RANDOM
@given(dice, sizes, dice, budgets, st.sampled_from([Ending.CANCEL, Ending.DEADLINE]))
def test_an_end_that_comes_at_any_moment_leaves_nothing_that_moves(
    seed: random.Random, count: int, order: random.Random, budget: int, ending: Ending
) -> None:
    stage = a_stage(a_case(seed, count, joins=list(Join), conditions=WORDS), seed, order, budget)
    driver = stage.driver
    for _ in range(seed.randint(0, 6)):
        stage.step()
    if driver.state in (ExecutionState.SUCCESS, ExecutionState.FAILED):
        return
    letters = set(driver.in_state(RunState.QUARANTINED))
    driver.cancel(ending)
    stage.play()
    assert set(driver.in_state(RunState.QUARANTINED)) | driver.given_up >= letters
    assert set(driver.states.values()) <= FINAL_RUN_STATES | {RunState.QUARANTINED}
    assert driver.state is (ExecutionState.CANCELLED if ending is Ending.CANCEL else ExecutionState.FAILED)
    event(f"{driver.state}")
