"""The end of an execution by the book: every node asked for its own end, straight from the tables of the design.

Naive on purpose, and written without anything from valkyr.flow but the names of states: it looks at finished ends
only, has no order, no counters and no batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from valkyr.flow.states import RunState
from valkyr.graph.model import Edge, EdgeKind, Graph, Join


@dataclass
class Reference:
    """`succeeds` says how each node's work would end; `discarded` roots were discarded before the beginning.

    `opened_by` is the edge that opened an ANY join, where it matters which one was first: as observed.
    """

    graph: Graph
    succeeds: Mapping[str, bool]
    values: Mapping[str, int]
    discarded: frozenset[str] = frozenset()
    opened_by: Mapping[str, str] = field(default_factory=dict)
    _ends: dict[str, tuple[RunState, bool]] = field(default_factory=dict)

    def states(self) -> dict[str, RunState]:
        return {node.node_id: self.end_of(node.node_id)[0] for node in self.graph.nodes}

    def end_of(self, node_id: str) -> tuple[RunState, bool]:
        """The state, and whether it is a skip because of a dead edge."""
        if node_id not in self._ends:
            self._ends[node_id] = self._find_end(node_id)
        return self._ends[node_id]

    def _find_end(self, node_id: str) -> tuple[RunState, bool]:
        edges = [edge for edge in self.graph.edges if edge.target == node_id]
        if not edges:
            return (RunState.FAILED if node_id in self.discarded else self._work(node_id)), False
        fates = {edge.edge_id: self.fate(edge) for edge in edges}
        fate_list = list(fates.values())
        if self._join(node_id) is Join.ANY and {"taken", "broken"} & set(fate_list):
            return self._opened(node_id, fates), False
        if "undecided" in fate_list:
            return RunState.PENDING, False
        if "dead" in fate_list:
            return RunState.SKIPPED, True
        if "taken" not in fate_list and "broken" not in fate_list:
            return RunState.SKIPPED, False
        return (RunState.QUARANTINED if "broken" in fate_list else self._work(node_id)), False

    def _opened(self, node_id: str, fates: Mapping[str, str]) -> RunState:
        taken = {edge_id for edge_id, fate in fates.items() if fate in ("taken", "broken")}
        first = self.opened_by.get(node_id, "")
        assert first in taken, f"{node_id} was opened by {first!r}, and only {taken} are taken"
        return RunState.QUARANTINED if fates[first] == "broken" else self._work(node_id)

    def _join(self, node_id: str) -> Join:
        return next(node.join for node in self.graph.nodes if node.node_id == node_id)

    def _work(self, node_id: str) -> RunState:
        if self.succeeds[node_id]:
            return RunState.SUCCESS
        handlers = [e for e in self.graph.edges if e.source == node_id and e.kind is EdgeKind.FAILURE]
        handled = any(self._condition(edge, after_failure_of=node_id) in ("taken", "broken") for edge in handlers)
        return RunState.FAILED if handled else RunState.QUARANTINED

    def fate(self, edge: Edge) -> str:
        """taken, broken (taken, and marked), not taken, dead or undecided."""
        state, dead = self.end_of(edge.source)
        if state is RunState.SKIPPED:
            return "dead" if dead else "not taken"
        if edge.source in self.discarded:
            return {EdgeKind.SUCCESS: "dead", EdgeKind.FAILURE: "not taken"}[edge.kind]
        if state is RunState.SUCCESS:
            return "not taken" if edge.kind is EdgeKind.FAILURE else self._condition(edge)
        if state is RunState.FAILED:
            if edge.kind is EdgeKind.SUCCESS:
                return "not taken"
            fate = self._condition(edge, after_failure_of=edge.source)
            return "taken" if edge.kind is EdgeKind.FAILURE and fate == "broken" else fate
        if state is RunState.QUARANTINED and edge.kind is EdgeKind.ALWAYS:
            return self._condition(edge, after_failure_of=edge.source)
        return "undecided"

    def _condition(self, edge: Edge, *, after_failure_of: str = "") -> str:
        match edge.condition.split(" of "):
            case [""] | ["yes"]:
                return "taken"
            case ["no"]:
                return "not taken"
            case ["v", asked] if asked != after_failure_of and asked in self.values:
                if self.end_of(asked)[0] is RunState.SUCCESS:
                    return "taken" if self.values[asked] == 1 else "not taken"
        return "broken"
