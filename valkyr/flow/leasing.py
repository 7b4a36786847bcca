"""Which runs may be leased, what is done about those that breakers hold back, and which permits go back.

What statements say of many rows at once is said here of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from uuid import UUID

from valkyr.flow.facts import LockedRun
from valkyr.flow.plan import PlannedNode
from valkyr.flow.states import RunState

BREAKER = "BREAKER"
"""In `parked_by`: the run's target is not closed."""

AGAIN = timedelta(seconds=1)
"""Until what was skipped is looked at again: a row that another transaction held, a probe without room."""

WORTH_WRITING = timedelta(seconds=2)
"""Shorter waits are not written into the rows: they are due all the same, and wait their turn."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What the runners of a pool take: some classes, or all of them."""

    pool: str
    class_names: frozenset[str]
    serves_all: bool

    def takes_class(self, class_name: str) -> bool:
        return self.serves_all or class_name in self.class_names

    def takes(self, node: PlannedNode) -> bool:
        """Control nodes are the engine's own, and never leased."""
        return node.control is None and node.pool == self.pool and self.takes_class(node.class_name)


def may_lease(state: RunState, *, control: bool, due: bool) -> bool:
    """Whether a run that nobody else has locked may be leased. `due`: its `ready_at` has come."""
    return state is RunState.READY and not control and due


def may_hand_off(row: LockedRun, *, takes: bool) -> bool:
    """Whether a run that becomes READY in this transaction may be leased in it. `takes`: whoever has room takes such
    nodes, and its target is closed as far as is known (I17). I12: a runner that was told to stop and said nothing may
    be at it still. What earlier attempts have said of how far they were is not among what is locked here."""
    return takes and not row.trusted and not row.attempt


def has_run_out(row: LockedRun) -> bool:
    """Whether the lease of a run may be ended as lost (I11)."""
    return row.facts.state is RunState.LEASED and row.lease_expired


class Way(Enum):
    """What is to be done about a target that runs are parked for."""

    BRING_BACK = "all of its runs"
    BRING_BACK_DUE = "those whose time has come"
    POSTPONE = "later"
    PROBE = "ask for leave"
    SLEEP = "nothing"


@dataclass(frozen=True, slots=True)
class Look:
    """The way of one target, and how long until it is worth looking again."""

    way: Way
    wait: timedelta


def look_at(first_due: timedelta, *, closed: bool, wait: timedelta, away: bool) -> Look:
    """`first_due` is until the first of the target's parked runs is due, negative if it is. `closed`, and `wait`, how
    long it is not worth asking, are as this executor knows the breaker, or, where that is `away`, as its policy says.
    """
    due = first_due <= timedelta()
    if away:
        if not due:
            return Look(Way.SLEEP, first_due)
        return Look(Way.BRING_BACK_DUE, AGAIN) if closed else Look(Way.POSTPONE, wait)
    if closed:
        return Look(Way.BRING_BACK, AGAIN)
    if wait > timedelta():
        return Look(Way.POSTPONE if due and wait >= WORTH_WRITING else Way.SLEEP, wait)
    return Look(Way.PROBE, AGAIN)


@dataclass(frozen=True, slots=True)
class Probed:
    """What became of a run that was to be leased as a probe."""

    state: RunState
    epoch: int
    permit_id: UUID | None
    parked_by: str | None


def goes_back(row: Probed | None, epoch: int, permit_id: UUID) -> bool:
    """Whether a permit that was not used here is used by nobody. A run that its breaker still holds back gets the same
    one when it asks again, and another replica may be about to lease it under this very permit: giving it back would
    free a live one. If the run is cancelled or paused before it asks, the permit runs out by its hold."""
    if row is None:
        return True
    if row.state is RunState.PARKED and row.parked_by == BREAKER and row.epoch < epoch:
        return False
    return not (row.epoch >= epoch and row.permit_id == permit_id)
