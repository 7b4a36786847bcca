"""What was seen of a schedule so far: each run as the last step left it; what was granted, accepted and resolved."""

from __future__ import annotations

from typing import Any, NoReturn
from uuid import UUID

from tests.simulator.rows import ExecutionRow, RunRow
from tests.simulator.world import World
from valkyr.flow.events import Event, Resolution, Resolve
from valkyr.flow.joins import Gate
from valkyr.flow.states import Ending, ExecutionState, RunState

LeaseId = tuple[UUID, int]
LetterId = tuple[UUID, int]


class Violation(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant


class Before:
    """A run as the last step has left it."""

    __slots__ = (
        "attempt",
        "deadline",
        "epoch",
        "failures",
        "frozen",
        "inputs",
        "lease_until",
        "lost_leases",
        "not_before",
        "outputs",
        "parked_by",
        "quarantine_number",
        "ready_revision",
        "replaced",
        "state",
        "stop_reason",
        "trusted_until",
        "undecided",
        "wakes_at",
    )

    def __init__(self, row: RunRow) -> None:
        self.frozen: Gate | None = row.gate if row.state is not RunState.PENDING else None
        self.inputs: object = None
        self.replaced: object = None
        # After an attempt that failed: until then it is not leased again, whatever happens to its execution.
        self.not_before: float | None = None
        self.update(row)

    def update(self, row: RunRow) -> None:
        self.state = row.state
        self.epoch = row.epoch
        self.attempt = row.attempt
        self.failures = row.failures
        self.lease_until = row.lease_until
        self.lost_leases = row.lost_leases
        self.quarantine_number = row.quarantine_number
        self.ready_revision = row.ready_revision
        self.outputs = row.outputs
        self.deadline = row.deadline
        self.parked_by = row.parked_by
        self.stop_reason = row.stop_reason
        self.trusted_until = row.trusted_until
        self.undecided = row.undecided
        self.wakes_at = row.retry_after


class Ledger:
    """`goes` and `ways` are what became of each run and of its quarantines, for the reference to be asked at the end.

    `now` is when the transaction began that is looked at; `deadlines` are those of executions, by what was asked for;
    `asked` the requests to pause and to resume that were answered, by kind and id; `cut_off` are runs that were
    discarded where no plan could be made: nobody has decided their edges, nor will.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.now = 0.0
        self.before: dict[UUID, Before] = {}
        self.executions: dict[UUID, tuple[int, ExecutionState, Ending | None]] = {}
        self.deadlines: dict[UUID, float | None] = {}
        self.asked: set[tuple[str, str]] = set()
        self.granted: set[LeaseId] = set()
        self.accepted: set[LeaseId] = set()
        self.quarantines: set[LetterId] = set()
        self.resolved: dict[LetterId, Resolve] = {}
        self.discarded: set[UUID] = set()
        self.cut_off: set[UUID] = set()
        # Runs that had no equal, each with the number of its quarantines then.
        self.released: set[LetterId] = set()
        self.goes: dict[UUID, list[str]] = {}
        self.ways: dict[UUID, list[Resolution]] = {}

    def open(self, execution: ExecutionRow) -> None:
        for row in execution.runs:
            self.before[row.id] = Before(row)
            self.goes[row.id], self.ways[row.id] = [], []
        self.executions[execution.id] = (execution.revision, execution.state, None)
        timeout = self.world.workloads[execution.id].timeout
        self.deadlines[execution.id] = None if timeout is None else self.world.clock.now + timeout

    def fail(self, invariant: str, text: str, *parts: Any) -> NoReturn:
        """`text` is a format; ids of runs are shown by their names."""
        shown = [self.world.name_of(part) if isinstance(part, UUID) else part for part in parts]
        raise Violation(invariant, text.format(*shown))


Reasons = dict[UUID, Event]
"""By run: the event that one transaction has accepted for it."""
