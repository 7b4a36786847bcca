"""When what is to happen, by the graph: deadlines of runs, Delays, and waits that a pause must not shorten."""

from __future__ import annotations

from tests.simulator.ledger import Before, Ledger
from tests.simulator.rows import ExecutionRow, RunRow
from valkyr.flow.events import Event, LeaseEnded, Resolution, Resolve
from valkyr.flow.states import RunState as R

SLACK = 1e-6
_HAS_DEADLINE = frozenset({R.READY, R.LEASED, R.WAITING, R.PARKED})
_SECONDS = {"PT0S": 0.0, "PT1S": 1.0, "PT20S": 20.0}
_OF_OUTPUTS = 1.0  # what every module of a schedule returns, and every fix


def check_times(ledger: Ledger, execution: ExecutionRow, row: RunRow, before: Before, reason: Event | None) -> None:
    """Of a run after a commit. What it waits for is remembered until it is leased."""
    requeued = isinstance(reason, Resolve) and reason.resolution is Resolution.REQUEUED
    right = _right_deadline(ledger, execution, row, before, requeued=requeued)
    if row.deadline != right:
        ledger.fail("I10", "the deadline of {} is {}, and must be {}", row.id, row.deadline, right)
    if row.state is R.WAITING:
        _check_delay(ledger, execution, row, before)
    if row.state is R.QUARANTINED:
        before.not_before = None
    elif isinstance(reason, LeaseEnded) and row.state in (R.READY, R.PARKED):
        waits = row.ready_at is not None and row.ready_at > ledger.now
        before.not_before = row.ready_at if waits else None
    elif before.state is R.PARKED and row.state is R.READY:
        _check_resumed(ledger, row, before)


def _right_deadline(
    ledger: Ledger, execution: ExecutionRow, row: RunRow, before: Before, *, requeued: bool
) -> float | None:
    """It counts from when the run is PENDING no more, and anew from each requeue."""
    if not requeued and before.state is not R.PENDING:
        return before.deadline
    limit = ledger.world.workloads[execution.id].graph.nodes[row.node.index].deadline
    return ledger.now + limit.total_seconds() if limit is not None and row.state in _HAS_DEADLINE else None


def _check_delay(ledger: Ledger, execution: ExecutionRow, row: RunRow, before: Before) -> None:
    config = ledger.world.workloads[execution.id].graph.modules[row.node.index].config or {}
    seconds = _SECONDS[config["duration"]] if "duration" in config else _OF_OUTPUTS
    right = before.wakes_at if before.state is R.WAITING else ledger.now + seconds
    if row.retry_after is None or right is None or abs(row.retry_after - right) > SLACK:
        ledger.fail("I14", "{} waits until {}, and must until {}", row.id, row.retry_after, right)


def _check_resumed(ledger: Ledger, row: RunRow, before: Before) -> None:
    """It waits for as long as it would have, and no longer. A resume that waited for locks writes an older time, which
    does no harm once the wait is over by the clock."""
    right = max(ledger.now, before.not_before or 0.0, before.trusted_until or 0.0)
    over = right <= ledger.world.clock.now
    if row.ready_at is None or row.ready_at > right + SLACK or (row.ready_at < right - SLACK and not over):
        ledger.fail("PAUSE", "{} is to go on at {}, and must at {}", row.id, row.ready_at, right)
