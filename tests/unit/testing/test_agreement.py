"""Graphs at random end in memory as they end by the book: expressions, joins, quarantines that are resolved."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

from hypothesis import given, settings

from tests.unit.flow.cases import AT_RANDOM, VALUES, WORDS, Case, a_case, dice, sizes
from tests.unit.flow.lives import Go, Lives, Script, Way
from tests.unit.flow.reference import Reference
from valkyr.flow.attempts import RetryPolicy
from valkyr.flow.joins import taken_edges
from valkyr.flow.states import RunState
from valkyr.graph.model import Edge, Graph, Join, Module
from valkyr.module import PermanentError
from valkyr.testing.play import Play, Rules
from valkyr.testing.scripts import Discard, Fix, Requeue, Returns

NO_RETRY = RetryPolicy(1, 1, timedelta(), timedelta())
SOME = settings(AT_RANDOM, max_examples=150)
WORK_ENDS = {Go.WELL: Returns({}), Go.BADLY: PermanentError("as it was told")}
WAYS = {Way.REQUEUE: Requeue(), Way.FIX: Fix({}), Way.DISCARD: Discard()}
EXPRESSIONS = {"": "", "yes": "true", "no": "false", "broken": "trigger.missing == 1"}


def in_expressions(graph: Graph) -> Graph:
    """What the words of a case mean, in the language of graphs."""
    edges = tuple(replace(edge, condition=_condition(edge)) for edge in graph.edges)
    return replace(graph, edges=edges, modules=tuple(_module(module) for module in graph.modules))


def _condition(edge: Edge) -> str:
    if edge.condition in EXPRESSIONS:
        return EXPRESSIONS[edge.condition]
    return f'nodes["{edge.condition.removeprefix("v of ")}"].outputs.v == 1'


def _module(module: Module) -> Module:
    if module.class_name != "Delay":
        return module
    said = (module.config or {})["duration"]
    return replace(module, class_name="DelayModule", config={"duration": said if said == "PT5S" else "${trigger.no}"})


async def played(graph: Graph, outcomes: dict[str, Any], resolutions: dict[str, Any]) -> Play:
    rules = Rules(outcomes, resolutions, NO_RETRY, None, None, concurrency=3, jitter=0)
    play = Play(in_expressions(graph), {}, b"null", rules, cast(Any, None))
    await play.to_the_end()
    return play


def states_of(play: Play) -> dict[str, RunState]:
    return {node.node_id: play.rows.row(node.index).facts.state for node in play.rows.plan.nodes}


def opened_by(play: Play) -> dict[str, str]:
    """The edge that opened each ANY join."""
    plan, opened = play.rows.plan, {}
    for node in plan.nodes:
        gate = play.rows.row(node.index).facts.gate
        if node.join is Join.ANY and gate.taken:
            opened[node.node_id] = plan.edges[taken_edges(node.incoming, gate)[0]].edge_id
    return opened


@SOME
@given(dice, sizes)
def test_executions_end_as_in_the_tables_of_the_design(seed: random.Random, count: int) -> None:
    case = a_case(seed, count, joins=list(Join), conditions=VALUES)
    outcomes = {
        name: Returns({"v": case.values[name]} if name in case.values else {}) if well else PermanentError("no")
        for name, well in case.succeeds.items()
    }
    play = _run(played(case.graph, outcomes, {}))
    assert states_of(play) == Reference(case.graph, case.succeeds, case.values, opened_by=opened_by(play)).states()


@SOME
@given(dice, sizes)
def test_quarantines_that_are_resolved_end_as_by_the_book(seed: random.Random, count: int) -> None:
    case = a_case(seed, count, joins=list(Join), conditions=WORDS)
    scripts = _scripts(case, seed)
    outcomes = {name: tuple(WORK_ENDS[go] for go in script.goes) for name, script in scripts.items()}
    resolutions = {name: tuple(WAYS[way] for way in _until_left(script.ways)) for name, script in scripts.items()}
    play = _run(played(case.graph, outcomes, resolutions))
    assert states_of(play) == Lives(case.graph, scripts, opened_by(play)).states()


def _scripts(case: Case, seed: random.Random) -> dict[str, Script]:
    scripts = {}
    for module in case.graph.modules:
        ways = [*seed.choices([*WAYS, Way.LEAVE], k=2), seed.choice([Way.FIX, Way.DISCARD, Way.LEAVE])]
        goes = seed.choices([Go.WELL, Go.BADLY], k=4)
        if module.class_name != "Work":
            goes = [Go.WELL if case.succeeds[module.node_id] else Go.BADLY] * 4
        scripts[module.node_id] = Script(goes, ways)
    return scripts


def _until_left(ways: Any) -> list[Way]:
    return list(ways[: ways.index(Way.LEAVE)]) if Way.LEAVE in ways else list(ways)


def _run(work: Any) -> Play:
    """Nothing in it waits for anything: no event loop is needed."""
    try:
        work.send(None)
    except StopIteration as done:
        play: Play = done.value
        return play
    raise AssertionError("it waited")
