"""The end of an execution whose quarantines were resolved, by the book: each run's life, then what its edges came to.
How often it was paused in between does not matter. `cut_short` is the end of one that was ended before.

Conditions are words (`yes`, `no`, `broken`), so that it does not matter when an edge was decided. Naive on purpose, and
written without anything from valkyr.flow but the names of states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum

from valkyr.flow.states import RunState
from valkyr.graph.model import Edge, EdgeKind, Graph, Join


class Go(StrEnum):
    """How one go of a run ends: well, badly for good, after its deadline, or so that the engine cannot carry on."""

    WELL = "WELL"
    BADLY = "BADLY"
    LATE = "LATE"
    GIVEN_UP = "GIVEN_UP"


class Way(StrEnum):
    """What is done about one quarantine."""

    REQUEUE = "REQUEUE"
    FIX = "FIX"
    DISCARD = "DISCARD"
    LEAVE = "LEAVE"


@dataclass(frozen=True)
class Script:
    """Of one run: its goes, one more than its ways, and its ways out of quarantines, the last of them no requeue."""

    goes: Sequence[Go]
    ways: Sequence[Way]


@dataclass(frozen=True)
class End:
    state: RunState
    dead: bool = False
    discarded: bool = False
    # Whether some end of it has decided its ALWAYS edges.
    always: bool = True


@dataclass
class Lives:
    """`opened_by` is the edge that opened an ANY join, where it matters which one was first: as observed."""

    graph: Graph
    scripts: Mapping[str, Script]
    opened_by: Mapping[str, str]
    _ends: dict[str, End] = field(default_factory=dict)

    def states(self) -> dict[str, RunState]:
        return {node.node_id: self.end_of(node.node_id).state for node in self.graph.nodes}

    def end_of(self, node_id: str) -> End:
        if node_id not in self._ends:
            self._ends[node_id] = self._find_end(node_id)
        return self._ends[node_id]

    def _find_end(self, node_id: str) -> End:
        fates = {edge.edge_id: self.fate(edge) for edge in self.graph.edges if edge.target == node_id}
        came = set(fates.values())
        if not fates:
            return self._life(node_id, broken=False)
        join = next(node.join for node in self.graph.nodes if node.node_id == node_id)
        if join is Join.ANY and came & {"taken", "broken"}:
            return self._life(node_id, broken=fates[self.opened_by[node_id]] == "broken")
        if "undecided" in came:
            return End(RunState.PENDING)
        if "dead" in came:
            return End(RunState.SKIPPED, dead=True)
        if not came & {"taken", "broken"}:
            return End(RunState.SKIPPED)
        return self._life(node_id, broken="broken" in came)

    def _life(self, node_id: str, *, broken: bool) -> End:
        """From READY to the end. A run behind a broken condition is quarantined before its first go."""
        script = self.scripts[node_id]
        goes = iter([None, *script.goes] if broken else script.goes)
        always = False
        for way in (*script.ways, Way.LEAVE):
            go = next(goes)
            if go is Go.WELL:
                return End(RunState.SUCCESS)
            if go in (Go.BADLY, Go.LATE) and self._handles(node_id):
                return End(RunState.FAILED)
            always = always or go is not Go.GIVEN_UP
            match way:
                case Way.FIX:
                    return End(RunState.SUCCESS)
                case Way.DISCARD:
                    return End(RunState.FAILED, discarded=True)
                case Way.LEAVE:
                    return End(RunState.QUARANTINED, always=always)
        raise AssertionError("a script ends")

    def _handles(self, node_id: str) -> bool:
        edges = (edge for edge in self.graph.edges if edge.source == node_id and edge.kind is EdgeKind.FAILURE)
        return any(edge.condition != "no" for edge in edges)

    def fate(self, edge: Edge) -> str:
        """taken, broken (taken, and marked), not taken, dead or undecided."""
        end = self.end_of(edge.source)
        word = {"": "taken", "yes": "taken", "no": "not taken", "broken": "broken"}[edge.condition]
        if end.state is RunState.SKIPPED:
            return "dead" if end.dead else "not taken"
        if end.state is RunState.PENDING:
            return "undecided"
        if edge.kind is EdgeKind.ALWAYS:
            return word if end.always else "undecided"
        if end.state is RunState.QUARANTINED:
            return "undecided"
        if end.state is RunState.SUCCESS:
            return word if edge.kind is EdgeKind.SUCCESS else "not taken"
        if edge.kind is EdgeKind.SUCCESS:
            return "dead" if end.discarded else "not taken"
        if end.discarded:
            return "not taken"
        return "taken" if word == "broken" else word


def cut_short(then: Mapping[str, RunState], succeeded: Set[str], discarded: Set[str]) -> dict[str, RunState]:
    """Where runs end in an execution that is ended while they are in the states `then`. Nothing follows anything: of
    what was leased successes are kept, letters stay or are discarded, all that had not ended is CANCELLED."""
    ends = dict.fromkeys(then, RunState.CANCELLED)
    for node_id, state in then.items():
        if state in (RunState.SUCCESS, RunState.FAILED, RunState.SKIPPED, RunState.CANCELLED, RunState.QUARANTINED):
            ends[node_id] = state
        if state is RunState.LEASED and node_id in succeeded:
            ends[node_id] = RunState.SUCCESS
        if state is RunState.QUARANTINED and node_id in discarded:
            ends[node_id] = RunState.FAILED
    return ends
