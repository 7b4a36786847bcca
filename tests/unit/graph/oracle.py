"""What networkx makes of a graph, held against every finding of the validator, and against who is whose ancestor.

`python -m tests.unit.graph.oracle --graphs 100000`: the campaign.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx  # type: ignore[import-untyped]

from valkyr.graph.findings import WARNINGS, Code, Finding
from valkyr.graph.model import Edge, Graph, Module, Node
from valkyr.graph.shape import shape_of
from valkyr.graph.validate import validate

Found = tuple[str, str, tuple[str, ...], tuple[str, ...]]
"""A finding without its words: code, path, node ids, edge ids."""
Names = Mapping[int, Sequence[str]]
"""By the position of an edge or a module: the nodes that its condition or its config names."""


@dataclass(frozen=True, slots=True)
class Case:
    """A graph, and the references in it. Labels, settings and the like are not what this is about."""

    graph: Graph
    conditions: Names
    configs: Names


def a_case(ids: Sequence[str], pairs: Iterable[tuple[str, str]], *, conditions: Names, configs: Names) -> Case:
    """A module for every node; edges are numbered."""
    edges = tuple(
        Edge(f"e{k}", source, target, condition=" && ".join(map(_named, conditions.get(k, ()))))
        for k, (source, target) in enumerate(pairs)
    )
    modules = tuple(
        Module(node_id, "M", config={"x": [f"${{{_named(name)}}}" for name in configs.get(k, ())]})
        for k, node_id in enumerate(dict.fromkeys(ids))
    )
    return Case(Graph(tuple(map(Node, ids)), edges, modules), conditions, configs)


def disagreements(case: Case, *, asked: int | None = None) -> list[str]:
    """What the validator and networkx say differently. Of large graphs the ancestors of so many are `asked` for."""
    oracle = _Oracle(case)
    findings = validate(case.graph)
    cycles = [found for found in findings if found.code == Code.CYCLE]
    told = Counter(_of(found) for found in findings if found.code != Code.CYCLE)
    expected = Counter(oracle.findings())
    problems = [f"not found: {found}" for found in (expected - told).elements()]
    problems += [f"found without cause: {found}" for found in (told - expected).elements()]
    problems += oracle.cycle_problems(cycles)
    problems += oracle.ancestor_problems(len(oracle.ids) if asked is None else asked)
    is_valid = not any(Code(code) not in WARNINGS for code, *_ in expected) and not oracle.components
    if any(found.is_error for found in findings) == is_valid:
        problems.append(f"valid is {is_valid}, and the validator says otherwise")
    return problems


class _Oracle:
    def __init__(self, case: Case) -> None:
        self._case = case
        self._graph = case.graph
        self.ids = list(dict.fromkeys(node.node_id for node in case.graph.nodes))
        self._everything = nx.MultiDiGraph()
        self._everything.add_nodes_from(self.ids)
        self._everything.add_edges_from((edge.source, edge.target, edge.edge_id) for edge in case.graph.edges)
        self._proper = nx.DiGraph(self._everything.subgraph(self.ids))
        self._proper.remove_edges_from(list(nx.selfloop_edges(self._proper)))
        self.components = [set(found) for found in nx.strongly_connected_components(self._proper) if len(found) > 1]
        self._circular = set().union(*self.components)

    def findings(self) -> list[Found]:
        """All but the cycles."""
        return [
            *self._of_nodes(),
            *self._of_edges(),
            *self._of_references(self._case.conditions, self._condition_place),
            *self._of_references(self._case.configs, self._config_place),
        ]

    def cycle_problems(self, found: Sequence[Finding]) -> list[str]:
        """One for each component, in file order: through its first node, along edges that are there, none shorter."""
        place = {node_id: number for number, node_id in enumerate(self.ids)}
        firsts = sorted((min(component, key=place.__getitem__) for component in self.components), key=place.__getitem__)
        if [each.node_ids[0] for each in found] != firsts:
            return [f"cycles through {[each.node_ids for each in found]}, not one through each of {firsts}"]
        ends = {edge.edge_id: (edge.source, edge.target) for edge in self._graph.edges}
        problems = []
        for each, first in zip(found, firsts, strict=True):
            steps = list(zip(each.node_ids, (*each.node_ids[1:], first), strict=True))
            if [ends[edge_id] for edge_id in each.edge_ids] != steps:
                problems.append(f"{each.node_ids} does not go along {each.edge_ids}")
            ways = nx.single_target_shortest_path_length(self._proper, first)
            shortest = min(length for source, length in dict(ways).items() if self._proper.has_edge(first, source)) + 1
            if len(steps) != shortest:
                problems.append(f"{each.node_ids} has {len(steps)} steps; there is one of {shortest} through {first}")
            if " -> ".join((*each.node_ids, first)) not in each.message and len(steps) <= 50:
                problems.append(f"{each.node_ids} is not written out in {each.message!r}")
        return problems

    def ancestor_problems(self, asked: int) -> list[str]:
        """Of so many nodes, from all over the graph."""
        bits = shape_of(self._graph.nodes, self._graph.edges).ancestors()
        problems = []
        for number in range(0, len(self.ids), max(1, len(self.ids) // max(1, asked))):
            told = {name for place, name in enumerate(self.ids) if bits[number] >> place & 1}
            if told != (expected := self._ancestors(self.ids[number])):
                problems.append(f"ancestors of {self.ids[number]} are {sorted(told)}, not {sorted(expected)}")
        return problems

    def _ancestors(self, node_id: str) -> set[str]:
        """Whatever leads there in a step or more: in a cycle a node is its own."""
        found: set[str] = nx.ancestors(self._proper, node_id)
        return found | {node_id} if node_id in self._circular else found

    def _of_nodes(self) -> Iterable[Found]:
        nodes = self._graph.nodes
        if not nodes:
            yield Code.EMPTY_GRAPH, "nodes", (), ()
        alone = set(nx.isolates(self._everything)) if len(nodes) > 1 else set()
        first: dict[str, int] = {}
        for place, node in enumerate(nodes):
            if first.setdefault(node.node_id, place) != place:
                yield Code.DUPLICATE_NODE_ID, f"nodes[{place}].nodeId", (node.node_id,), ()
            if node.node_id in alone:
                yield Code.ORPHAN_NODE, f"nodes[{place}]", (node.node_id,), ()

    def _of_edges(self) -> Iterable[Found]:
        first: dict[tuple[str, str], str] = {}
        for place, edge in enumerate(self._graph.edges):
            for end, node_id in (("source", edge.source), ("target", edge.target)):
                if node_id not in self._proper:
                    yield Code.UNKNOWN_NODE, f"edges[{place}].{end}", (node_id,), (edge.edge_id,)
            if edge.source == edge.target and edge.source in self._proper:
                yield Code.SELF_LOOP, f"edges[{place}]", (edge.source,), (edge.edge_id,)
            pair = (edge.source, edge.target)
            if first.setdefault(pair, edge.edge_id) != edge.edge_id:
                yield Code.PARALLEL_EDGE, f"edges[{place}]", pair, (first[pair], edge.edge_id)

    def _of_references(self, names: Names, place_of: Callable[[int, int], _Place]) -> Iterable[Found]:
        for number, named in names.items():
            for position, name in enumerate(named):
                place = place_of(number, position)
                known = set(self.ids) if place.node_id not in self._proper else self._ancestors(place.node_id)
                if name not in known | place.also:
                    yield Code.UNKNOWN_REFERENCE, place.path, (*place.node_ids, name), place.edge_ids

    def _condition_place(self, number: int, _position: int) -> _Place:
        """A condition may name its source too."""
        edge = self._graph.edges[number]
        also = {edge.source} & set(self.ids)
        return _Place(f"edges[{number}].condition", edge.source, also, (), (edge.edge_id,))

    def _config_place(self, number: int, position: int) -> _Place:
        node_id = self._graph.modules[number].node_id
        return _Place(f"modules[{number}].config.x[{position}]", node_id, set(), (node_id,), ())


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an expression stands: whose ancestors it may name, and what `also`."""

    path: str
    node_id: str
    also: set[str]
    node_ids: tuple[str, ...]
    edge_ids: tuple[str, ...]


def _named(node_id: str) -> str:
    return f"nodes['{node_id}'].outputs == 1"


def _of(found: Finding) -> Found:
    return found.code, found.path, found.node_ids, found.edge_ids


def drawn_case(seed: int) -> Case:
    """From its seed alone: of up to 40 nodes, sparse or dense, with and without cycles, duplicates and unknown ends."""
    chance = random.Random(seed)
    size = chance.choice([0, 1, 2, 3, 5, 8, 13, 25, 40])
    ids = [f"n{number}" for number in range(size)]
    chance.shuffle(ids)
    order = {node_id: number for number, node_id in enumerate(ids)}
    ends = [*ids, "gone"] if chance.random() < 0.2 or not ids else ids
    number = chance.randint(0, round(size * chance.choice([0.5, 1, 2, 4])))
    pairs = [(chance.choice(ends), chance.choice(ends)) for _ in range(number)]
    if chance.random() < 0.6:  # an order that could run, but for a few
        kept = chance.choice([0, 0, 1, 2])
        pairs = [pair if k < kept else _in_order(pair, order) for k, pair in enumerate(pairs)]
        pairs = [pair for k, pair in enumerate(pairs) if k < kept or pair[0] != pair[1]]
    if ids and chance.random() < 0.1:
        ids.insert(chance.randrange(size), chance.choice(ids))
    chance.shuffle(ids)
    names = [*dict.fromkeys(ids), "gone"]
    few = range(chance.choice([0, 0, 0, 1, 2, 5]))
    conditions = {chance.randrange(len(pairs)): [chance.choice(names)] for _ in few if pairs}
    configs = {chance.randrange(len(names) - 1): [chance.choice(names)] for _ in few if ids}
    return a_case(ids, pairs, conditions=conditions, configs=configs)


def _in_order(pair: tuple[str, str], order: Mapping[str, int]) -> tuple[str, str]:
    source, target = sorted(pair, key=lambda node_id: order.get(node_id, -1))
    return source, target


def main(arguments: Sequence[str] | None = None) -> int:
    """1 at the first graph about which the two disagree."""
    parser = argparse.ArgumentParser("python -m tests.unit.graph.oracle", description=__doc__)
    parser.add_argument("--graphs", type=int, default=100_000, help="how many (default 100,000)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (default 1)")
    chosen = parser.parse_args(arguments)
    began = time.monotonic()
    codes: Counter[str] = Counter()
    for seed in range(chosen.first, chosen.first + chosen.graphs):
        case = drawn_case(seed)
        findings = validate(case.graph)
        codes.update({found.code for found in findings} | ({"(valid)"} - {"(valid)" for f in findings if f.is_error}))
        problems = disagreements(case)
        if problems:
            print(f"seed {seed}: {case.graph}", *problems, sep="\n  ")
            return 1
    print(
        f"{chosen.graphs:,} graphs, nothing said differently, in {time.monotonic() - began:.0f} s; graphs by finding:"
    )
    print(", ".join(f"{code} {number:,}" for code, number in sorted(codes.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
