"""What a schedule runs: graphs at random, and how every attempt of their nodes would go."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any

from tests.unit.flow.plans import CONTROL, Config, Word
from valkyr.flow.attempts import RetryPolicy
from valkyr.flow.leasing import Serving
from valkyr.flow.plan import Plan, PlannedNode, Sight, make_plan
from valkyr.graph.model import (
    Dedupe,
    DedupeScope,
    Edge,
    EdgeKind,
    FailurePolicy,
    Graph,
    Join,
    Module,
    Node,
    Retry,
    Settings,
)

OWN_POOL, REMOTE_POOL = "default", "remote"
OWN = Serving(OWN_POOL, frozenset(), serves_all=True)
REMOTE = Serving(REMOTE_POOL, frozenset(), serves_all=True)
TARGETS = ("http:a", "http:b")
ONCE = Dedupe(DedupeScope.GLOBAL, timedelta(seconds=30))
"""Of the class `Once`: its runs are equal over all executions of a schedule."""

CONFIGURED = RetryPolicy(
    max_attempts=3, max_lost_leases=3, backoff_base=timedelta(seconds=1), backoff_max=timedelta(seconds=8)
)
"""Where neither the node nor its graph says anything."""


class Goes(StrEnum):
    """How one attempt goes. VANISHES: its runner no longer knows of it, and says nothing."""

    WELL = "well"
    FAILS = "fails"
    IS_LIMITED = "is rate limited"
    TIMES_OUT = "times out"
    FAILS_FOR_GOOD = "fails for good"
    SNOOZES = "snoozes"
    IS_RELEASED = "is released"
    VANISHES = "vanishes"


BAD = (
    Goes.FAILS,
    Goes.FAILS,
    Goes.FAILS,
    Goes.IS_LIMITED,
    Goes.TIMES_OUT,
    Goes.FAILS_FOR_GOOD,
    Goes.SNOOZES,
    Goes.IS_RELEASED,
    Goes.VANISHES,
)


@dataclass(frozen=True, slots=True)
class Go:
    """One attempt: how it goes and how long it takes; `wait` is what it asks for."""

    goes: Goes
    seconds: float
    wait: float = 0.0


@dataclass(slots=True)
class Mishap:
    """A condition that breaks in a way that nobody foresaw, until somebody has mended it: `left` more times."""

    left: int

    @property
    def references(self) -> frozenset[str]:
        return frozenset()

    def holds(self, _sight: Sight) -> bool:
        if self.left > 0:
            self.left -= 1
            raise Unforeseen("nobody foresaw this")
        return True


class Unforeseen(Exception):
    """What no part of the engine expects."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One execution's graph, and each node's attempts in order; after the last of them all go like `rest`."""

    graph: Graph
    plan: Plan
    scripts: Mapping[int, Sequence[Go]]
    rest: Mapping[int, Go]
    timeout: float | None = None

    def go_of(self, node: int, attempt: int) -> Go:
        script = self.scripts[node]
        return script[attempt - 1] if attempt <= len(script) else self.rest[node]

    def retry_of(self, node: PlannedNode) -> RetryPolicy:
        return retry_of(node, self.plan.settings)


def retry_of(node: PlannedNode, settings: Settings) -> RetryPolicy:
    return CONFIGURED.narrowed(node.retry, settings.default_retry)


@dataclass(frozen=True, slots=True)
class Taste:
    """What kind of graphs a schedule makes; each kind stresses something else."""

    most_nodes: int = 8
    joins: Sequence[Join] = (Join.ALL,)
    words: Sequence[str] = ("",)
    kinds: Sequence[EdgeKind] = (EdgeKind.SUCCESS,)
    classes: Sequence[str] = ("Work",)
    badness: float = 0.3
    deadlines: float = 0.0
    targets: float = 0.0
    remote: float = 0.0
    fail_fast: float = 0.0
    mishaps: float = 0.0
    timeout: float = 0.0


def a_taste(dice: random.Random) -> Taste:
    """Each trait is there or not, so that no two of them are always seen together."""

    def maybe(value: float) -> float:
        return value if dice.random() < 0.5 else 0.0

    return Taste(
        most_nodes=dice.choice((2, 3, 4, 6, 8, 12)),
        joins=dice.choice(((Join.ALL,), tuple(Join))),
        words=dice.choice((("",), ("", "", "yes", "no"), ("", "", "", "yes", "no", "broken"))),
        kinds=dice.choice(
            ((EdgeKind.SUCCESS,), (EdgeKind.SUCCESS, EdgeKind.SUCCESS, EdgeKind.ALWAYS), tuple(EdgeKind))
        ),
        classes=dice.choice(
            (
                ("Work",),
                ("Work", "Work", "Work", ""),
                ("Work", "Work", "", "Delay", "Delay of"),
                ("Work", "Once", "Once", ""),
                ("Work", "Once", "", "Delay"),
            )
        ),
        badness=dice.choice((0.0, 0.2, 0.5, 0.8)),
        deadlines=maybe(0.3),
        targets=maybe(0.6),
        remote=dice.choice((0.0, 0.0, 0.5, 1.0)),
        fail_fast=0.25 if dice.random() < 0.4 else 0.0,
        mishaps=0.1 if dice.random() < 0.15 else 0.0,
        timeout=maybe(0.2),
    )


def a_workload(dice: random.Random, taste: Taste) -> Workload:
    count = dice.randint(1, taste.most_nodes)
    classes = [dice.choice(taste.classes) for _ in range(count)]
    edges: list[Edge] = []
    ancestors: list[set[int]] = [set() for _ in range(count)]
    for target in range(1, count):
        for source in dice.choices(range(target), k=dice.choice((0, 1, 1, 1, 2, 2, 3))):
            edges.append(_an_edge(dice, taste, len(edges), source, target))
            ancestors[target] |= {source} | ancestors[source]
    nodes = tuple(_a_node(dice, taste, index) for index in range(count))
    modules = tuple(
        _a_module(dice, taste, index, classes[index], ancestors=sorted(ancestors[index])) for index in range(count)
    )
    mishaps = {edge.edge_id for edge in edges if dice.random() < taste.mishaps}
    mended = tuple(replace(edge, condition="yes") if edge.edge_id in mishaps else edge for edge in edges)
    graph = Graph(nodes, mended, modules, _settings(dice, taste))
    scripts = {index: _a_script(dice, taste) for index in range(count) if classes[index] in ("Work", "Once")}
    rest = {index: _the_rest(dice) for index in scripts}
    seconds = dice.choice((2.0, 10.0, 40.0)) if dice.random() < taste.timeout else None
    return Workload(graph, plan_of(graph, mishaps, dice), scripts, rest, seconds)


def plan_of(graph: Graph, mishaps: set[str], dice: random.Random) -> Plan:
    """Some edges have a mishap for a condition; it holds once it is mended, as an edge without one does."""
    marked = tuple(replace(edge, condition="mishap") if edge.edge_id in mishaps else edge for edge in graph.edges)

    def condition(text: str) -> Any:
        return Mishap(dice.randint(1, 3)) if text == "mishap" else Word(text)

    return make_plan(
        replace(graph, edges=marked),
        compile_condition=condition,
        compile_config=_config,
        control_of=CONTROL.get,
        dedupe_of={"Once": ONCE}.get,
    )


def _config(module: Module | None) -> Config:
    return Config(module.config if module is not None and module.config is not None else {})


def _an_edge(dice: random.Random, taste: Taste, index: int, source: int, target: int) -> Edge:
    return Edge(f"e{index}", f"n{source}", f"n{target}", dice.choice(taste.words), dice.choice(taste.kinds))


def _a_node(dice: random.Random, taste: Taste, index: int) -> Node:
    return Node(
        f"n{index}",
        join=dice.choice(taste.joins),
        pool=REMOTE_POOL if dice.random() < taste.remote else OWN_POOL,
        retry=_a_retry(dice),
        deadline=timedelta(seconds=dice.choice((0.5, 3, 15, 60))) if dice.random() < taste.deadlines else None,
    )


def _a_retry(dice: random.Random) -> Retry | None:
    if dice.random() < 0.7:
        return None
    base = dice.choice((None, timedelta(), timedelta(milliseconds=100), timedelta(seconds=30)))
    return Retry(dice.choice((None, 1, 2, 5)), base, dice.choice((None, timedelta(seconds=4))))


def _settings(dice: random.Random, taste: Taste) -> Settings:
    fast = dice.random() < taste.fail_fast
    policy = FailurePolicy.FAIL_FAST if fast else FailurePolicy.FINISH_BRANCHES
    return Settings(failure_policy=policy, default_retry=_a_retry(dice))


def _a_module(dice: random.Random, taste: Taste, index: int, class_name: str, *, ancestors: Sequence[int]) -> Module:
    """A Delay of a node takes its time from what that node came to, which may be nothing: then it fails for good."""
    name = f"n{index}"
    if class_name == "Delay of":
        config = {"duration of": f"n{dice.choice(ancestors)}"} if ancestors else {"duration": "soon"}
        return Module(name, "Delay", config=config)
    if class_name == "Delay":
        return Module(name, "Delay", config={"duration": dice.choice(("PT0S", "PT1S", "PT20S"))})
    target = dice.choice(TARGETS) if class_name in ("Work", "Once") and dice.random() < taste.targets else ""
    return Module(name, class_name, target=target)


def _a_script(dice: random.Random, taste: Taste) -> list[Go]:
    script: list[Go] = []
    while len(script) < 6 and dice.random() < taste.badness:
        script.append(Go(dice.choice(BAD), _seconds(dice), dice.choice((0.0, 0.5, 5.0, 20.0))))
    return script


def _the_rest(dice: random.Random) -> Go:
    goes = dice.choices((Goes.WELL, Goes.FAILS, Goes.FAILS_FOR_GOOD), (10, 1, 1))[0]
    return Go(goes, _seconds(dice))


def _seconds(dice: random.Random) -> float:
    return dice.choice((0.0, 0.01, 0.1, 0.1, 1.0, 5.0, 30.0)) * (0.5 + dice.random())


__all__ = ["Go", "Goes", "Mishap", "Taste", "Unforeseen", "Workload", "a_taste", "a_workload"]
