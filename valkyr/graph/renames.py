"""Which nodes and edges only have another id: all else that is said of them is equal. Linear time.

A node that went and one that came are the same if they say the same, their modules too, and have the same edges: edges
that kept their ids are compared by these, others by what they say and where they lead. That is found out by refining
colours: a node's colour is what it says, then also the colours of its neighbours, until nothing more is told apart.
Nodes that cannot be told apart are paired in their order where as many went as came, else not at all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from valkyr.graph.model import Edge, Graph, Module, Node
from valkyr.graph.parts import json_bytes

_ROUNDS = 4
"""Of refining; twins that differ only further away than this stay apart as removed and added."""


@dataclass(frozen=True, slots=True)
class Renames:
    """Old ids to new ones."""

    nodes: Mapping[str, str] = field(default_factory=dict)
    edges: Mapping[str, str] = field(default_factory=dict)

    def edge(self, edge: Edge) -> Edge:
        """An edge of the old graph with the ends that it has under the new names of nodes."""
        source, target = (self.nodes.get(end, end) for end in (edge.source, edge.target))
        return edge if (source, target) == (edge.source, edge.target) else replace(edge, source=source, target=target)


def find_renames(old: Graph, new: Graph) -> Renames:
    """The nodes and edges of `old` that `new` has under other ids."""
    nodes = _renamed_nodes(old, new)
    went, came = _exchanged([edge.edge_id for edge in old.edges], [edge.edge_id for edge in new.edges])
    if not went or not came:
        return Renames(nodes)
    edges = _paired(
        ((_said(edge, nodes), edge.edge_id) for edge in old.edges if edge.edge_id in went),
        ((_said(edge, {}), edge.edge_id) for edge in new.edges if edge.edge_id in came),
    )
    return Renames(nodes, edges)


def _renamed_nodes(old: Graph, new: Graph) -> Mapping[str, str]:
    went, came = _exchanged([node.node_id for node in old.nodes], [node.node_id for node in new.nodes])
    if not went or not came:
        return {}
    kept_edges = {edge.edge_id for edge in old.edges} & {edge.edge_id for edge in new.edges}
    numbers: dict[Hashable, int] = {}
    sides = [_Side(old, went, kept_edges, numbers), _Side(new, came, kept_edges, numbers)]
    told_apart = 0
    for _ in range(_ROUNDS):
        for side in sides:
            side.refine()
        distinct = sum(len(set(side.colours.values())) for side in sides)
        if distinct in (told_apart, len(went) + len(came)):
            break
        told_apart = distinct
    before, after = ([(colour, node_id) for node_id, colour in side.colours.items()] for side in sides)
    return _paired(before, after)


class _Side:
    """The nodes of one graph that the other has not, with their colours. `numbers` are those of colours, for both."""

    def __init__(self, graph: Graph, candidates: set[str], kept_edges: set[str], numbers: dict[Hashable, int]) -> None:
        self._numbers = numbers
        self._fixed: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        self._loose: defaultdict[str, list[tuple[str, str, str, str]]] = defaultdict(list)
        modules: defaultdict[str, list[Module]] = defaultdict(list)
        for module in graph.modules:
            if module.node_id in candidates:
                modules[module.node_id].append(module)
        self.colours = {
            node.node_id: self._number(_content(node, modules[node.node_id]))
            for node in graph.nodes
            if node.node_id in candidates
        }
        for edge in graph.edges:
            self._add(edge, kept=edge.edge_id in kept_edges)

    def refine(self) -> None:
        """Every colour anew, from the one it was and from what the edges lead to."""
        before = self.colours
        after = {}
        for node_id, colour in before.items():
            loose = [
                (way, kind, condition, before[end] if end in before else self._number(end))
                for way, kind, condition, end in self._loose.get(node_id, ())
            ]
            fixed = self._fixed.get(node_id, ())
            after[node_id] = self._number((colour, tuple(sorted(fixed)), tuple(sorted(loose))))
        self.colours = after
        self._fixed.clear()

    def _add(self, edge: Edge, *, kept: bool) -> None:
        if edge.source in self.colours:
            self._note("out", edge.source, edge.target, edge, kept=kept)
        if edge.target in self.colours:
            self._note("in", edge.target, edge.source, edge, kept=kept)

    def _note(self, way: str, here: str, there: str, edge: Edge, *, kept: bool) -> None:
        if kept:
            self._fixed[here].append((way, edge.edge_id))
        else:
            self._loose[here].append((way, edge.kind, edge.condition, there))

    def _number(self, described: Hashable) -> int:
        return self._numbers.setdefault(described, len(self._numbers))


def _content(node: Node, modules: Sequence[Module]) -> Hashable:
    """All that is said of a node but its id."""
    configs = [None if module.config is None else json_bytes(module.config) for module in modules]
    said = [replace(module, node_id="", config=None) for module in modules]
    return replace(node, node_id=""), tuple(zip(said, configs, strict=True))


def _said(edge: Edge, names: Mapping[str, str]) -> Hashable:
    return names.get(edge.source, edge.source), names.get(edge.target, edge.target), edge.kind, edge.condition


def _exchanged(old: Sequence[str], new: Sequence[str]) -> tuple[set[str], set[str]]:
    """Ids that only the old has and ids that only the new has; not those that stand for several."""
    before, after = set(old), set(new)
    went, came = before - after, after - before
    return went - _repeated(old, before), came - _repeated(new, after)


def _repeated(ids: Sequence[str], distinct: set[str]) -> set[str]:
    if len(ids) == len(distinct):
        return set()
    return {identity for identity, count in Counter(ids).items() if count > 1}


def _paired(old: Iterable[tuple[Hashable, str]], new: Iterable[tuple[Hashable, str]]) -> Mapping[str, str]:
    """Old ids to new ones, of those that say the same, where as many went as came."""
    came = _grouped(new)
    pairs: dict[str, str] = {}
    for said, ids in _grouped(old).items():
        if len(ids) == len(came.get(said, ())):
            pairs.update(zip(ids, came[said], strict=True))
    return pairs


def _grouped(entries: Iterable[tuple[Hashable, str]]) -> Mapping[Hashable, list[str]]:
    groups: defaultdict[Hashable, list[str]] = defaultdict(list)
    for said, identity in entries:
        groups[said].append(identity)
    return groups
