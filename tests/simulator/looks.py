"""What the loops of an executor find when they look at the rows: what is due, and when more will be."""

from __future__ import annotations

from uuid import UUID

from tests.simulator.rows import RunRow
from tests.simulator.world import World
from valkyr.flow.events import ControlReady, EndExecution, Event, LeaseEnded, RunDeadline, TimerDue
from valkyr.flow.leasing import BREAKER
from valkyr.flow.results import Lost
from valkyr.flow.states import SETTLED_EXECUTION_STATES, Ending, RunState

_WITH_DEADLINE = frozenset({RunState.READY, RunState.LEASED, RunState.WAITING, RunState.PARKED})


class Found:
    """What one look at the rows has found, by the loop that it is for; `next_at`: when more is due at the earliest;
    `unplannable`: some of it concerns a graph that cannot be planned for the moment."""

    __slots__ = (
        "controls",
        "due",
        "executions",
        "expired",
        "next_at",
        "overdue",
        "parked",
        "ready",
        "stopped",
        "undecided",
        "unplannable",
    )

    def __init__(self) -> None:
        self.ready: list[RunRow] = []
        self.controls: list[RunRow] = []
        self.undecided: list[RunRow] = []
        self.due: list[RunRow] = []
        self.expired: list[RunRow] = []
        self.stopped: list[RunRow] = []
        self.overdue: list[RunRow] = []
        self.parked: list[RunRow] = []
        self.executions: list[UUID] = []
        self.next_at: float | None = None
        self.unplannable = False

    @classmethod
    def of(cls, world: World) -> Found:
        found = cls()
        for execution in world.store.executions.values():
            goes_on = execution.ending is None and execution.state not in SETTLED_EXECUTION_STATES
            if goes_on and found._is_due(execution.deadline, world):
                found.executions.append(execution.id)
            if execution.open_runs:
                found.unplannable = found.unplannable or execution.plannable_from > world.clock.now
                for row in execution.runs:
                    if row.state in _WITH_DEADLINE:
                        found._sort(row, world)
        return found

    def _is_due(self, at: float | None, world: World) -> bool:
        if at is None or at <= world.clock.now:
            return at is not None
        if self.next_at is None or at < self.next_at:
            self.next_at = at
        return False

    def _sort(self, row: RunRow, world: World) -> None:
        if row.deadline is not None and row.stop_reason is None and self._is_due(row.deadline, world):
            self.overdue.append(row)
        match row.state:
            case RunState.READY if self._is_due(row.ready_at, world):
                self._ready(row).append(row)
            case RunState.WAITING if self._is_due(row.retry_after, world):
                self.due.append(row)
            case RunState.LEASED if self._is_due(row.lease_until, world) and row.lease_until != world.clock.now:
                (self.expired if row.stop_reason is None else self.stopped).append(row)
            case RunState.PARKED if row.parked_by == BREAKER:
                self._is_due(row.retry_after, world)
                self.parked.append(row)

    def _ready(self, row: RunRow) -> list[RunRow]:
        if not row.undecided:
            return self.ready
        return self.undecided if row.node.control is None else self.controls

    def batches(self) -> list[list[Event]]:
        """What is to be applied: timers, control nodes, leases that ran out, deadlines; each loop has its own batch."""
        batches: tuple[list[Event], ...] = (
            [TimerDue(*row.key) for row in self.due],
            [ControlReady(*row.key) for row in self.controls],
            [_lost(row) for row in self.expired],
            [_lost(row) for row in self.stopped],
            [RunDeadline(*row.key) for row in self.overdue],
            [EndExecution(id_, Ending.DEADLINE) for id_ in self.executions],
        )
        return [batch for batch in batches if batch]


def _lost(row: RunRow) -> LeaseEnded:
    return LeaseEnded(*row.key, row.epoch, Lost(), only_if_expired=True)
