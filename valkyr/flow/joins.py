"""The table of joins: when a run that waits for its incoming edges becomes ready, or is skipped."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from valkyr.flow.edges import Decision
from valkyr.frozen import cheaply_made
from valkyr.graph.model import Join


class Verdict(StrEnum):
    WAIT = "WAIT"
    READY = "READY"
    SKIP = "SKIP"
    SKIP_DEAD = "SKIP_DEAD"


@cheaply_made
@dataclass(frozen=True, slots=True)
class Gate:
    """What a pending run knows of its incoming edges.

    `unmet` counts the undecided ones, `taken` the taken ones; `excluded` lists those decided against, by edge index;
    `chosen` those taken, once an ANY join is ready; `broken` says which edge could not be evaluated, and why.
    """

    unmet: int
    taken: int = 0
    dead: bool = False
    excluded: tuple[int, ...] = ()
    chosen: tuple[int, ...] | None = None
    broken: str = ""


def pass_edge(gate: Gate, edge: int, decision: Decision, *, join: Join, broken: str = "") -> Gate:
    """The gate after one more edge was decided. An ANY join keeps which edge opened it."""
    match decision:
        case Decision.UNDECIDED:
            return gate
        case Decision.TAKEN | Decision.BROKEN:
            chosen = (*(gate.chosen or ()), edge) if join is Join.ANY else None
            return Gate(gate.unmet - 1, gate.taken + 1, gate.dead, gate.excluded, chosen, gate.broken or broken)
        case Decision.NOT_TAKEN:
            excluded = (*gate.excluded, edge)
            return Gate(gate.unmet - 1, gate.taken, gate.dead, excluded, gate.chosen, gate.broken)
        case Decision.DEAD:
            excluded = (*gate.excluded, edge)
            return Gate(gate.unmet - 1, gate.taken, True, excluded, gate.chosen, gate.broken)


def judge(gate: Gate, join: Join) -> Verdict:
    """ALL: once every edge is decided, SKIP if one is dead or none was taken. ANY: READY at the first taken edge."""
    if join is Join.ANY and gate.taken > 0:
        return Verdict.READY
    if gate.unmet > 0:
        return Verdict.WAIT
    if gate.dead:
        return Verdict.SKIP_DEAD
    return Verdict.READY if gate.taken > 0 else Verdict.SKIP


def taken_edges(incoming: tuple[int, ...], gate: Gate) -> tuple[int, ...]:
    """The frozen edges of a run that has become ready: its inputs come from these."""
    if gate.chosen is not None:
        return gate.chosen
    if not gate.excluded:
        return incoming
    excluded = set(gate.excluded)
    return tuple(edge for edge in incoming if edge not in excluded)
