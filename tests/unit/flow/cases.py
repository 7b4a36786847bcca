"""Graphs at random, and how the work of each of their nodes would end."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from valkyr.graph.model import Edge, EdgeKind, Graph, Join, Module, Node

AT_RANDOM = settings(
    max_examples=1_000,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
WORK, PASS, DELAY, BAD_DELAY = "Work", "", "Delay", "bad Delay"

budgets = st.sampled_from([0, 1, 2, 1_000])
dice = st.integers(0, 2**32).map(random.Random)
sizes = st.integers(1, 16)

VALUES = ["", "", "yes", "no", "broken", "v", "v"]
WORDS = ["", "", "", "yes", "no", "broken"]


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
