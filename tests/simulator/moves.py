"""Every move of a run needs a reason that was accepted, and must be what that reason allows."""

from __future__ import annotations

from tests.simulator.ends import expected_after
from tests.simulator.ledger import Before, Ledger
from tests.simulator.rows import ExecutionRow, RunRow
from tests.simulator.sight import inputs_of, result_at, right_inputs_of
from tests.simulator.times import SLACK
from tests.simulator.weather import CANCEL_GRACE
from tests.simulator.whole import SETTLED
from tests.simulator.workload import OWN_POOL
from tests.simulator.world import MAX_REQUEUES
from tests.simulator.written import UNFORESEEN
from valkyr.flow.events import ControlReady, Event, LeaseEnded, Resolution, Resolve, Reused, RunDeadline, TimerDue
from valkyr.flow.outcomes import NO_RESULT
from valkyr.flow.results import Success
from valkyr.flow.states import Ending, ExecutionState, RunState, StopReason

R, E = RunState, ExecutionState
FINAL = frozenset({R.SUCCESS, R.FAILED, R.SKIPPED, R.CANCELLED})
PAUSE = "PAUSE"


def check_lease(ledger: Ledger, row: RunRow, before: Before) -> None:
    """Of a lease that has just begun: fence raised, nothing left of an older one, the same inputs as ever."""
    execution, now = ledger.world.store.executions[row.key[0]], ledger.now
    was, is_ = (before.epoch, before.attempt), (row.epoch, row.attempt)
    if is_ != (was[0] + 1, was[1] + 1):
        ledger.fail("I06", "{} was leased: epoch and attempt went from {} to {}", row.id, was, is_)
    if execution.state in SETTLED or execution.ending is not None:
        state, ending = execution.state, execution.ending
        ledger.fail("I05", "{} was leased in an execution that is {}, ending {}", row.id, state, ending)
    if execution.state is E.PAUSED:
        ledger.fail("PAUSE", "{} was leased in an execution that is paused", row.id)
    own = row.holder is not None and row.holder.startswith("executor")
    if row.node.control is not None or (row.node.pool == OWN_POOL) is not own:
        ledger.fail("POOL", "{} was leased to {}", row.id, row.holder)
    if row.node.dedupe is not None and (row.id, row.quarantine_number) not in ledger.released:
        ledger.fail("DEDUPE", "{} was leased, and no equal of it was looked for", row.id)
    if before.trusted_until is not None and before.trusted_until > now:
        ledger.fail("I12", "{} was leased while a runner that was told to stop may be at it", row.id)
    if before.state is not R.PARKED and (row.ready_at is None or row.ready_at > now + SLACK):
        ledger.fail("I14", "{} was leased {} s before its time", row.id, (row.ready_at or 0) - now)
    if before.not_before is not None and before.not_before > now + SLACK:
        ledger.fail("I14", "{} was leased {} s before it was to be tried again", row.id, before.not_before - now)
    before.not_before = None
    taken = taken_edges_of(row)
    inputs = inputs_of(execution, row, taken)
    if inputs != right_inputs_of(execution, row, taken):
        ledger.fail("INPUTS", "{} is handed {}, not {}", row.id, inputs, right_inputs_of(execution, row, taken))
    if before.inputs not in (None, inputs) and before.replaced == row.replay.inputs:
        ledger.fail("INPUTS", "{} sees {}, and saw {} in an attempt before", row.id, inputs, before.inputs)
    ledger.granted.add((row.id, row.epoch))
    before.inputs, before.replaced = inputs, row.replay.inputs


def taken_edges_of(row: RunRow) -> list[int]:
    if row.gate.chosen is not None:
        return list(row.gate.chosen)
    return [edge for edge in row.node.incoming if edge not in row.gate.excluded]


def check_burns_nothing(ledger: Ledger, row: RunRow) -> None:
    """I19: of a run that a breaker has refused, or let go."""
    before = ledger.before[row.id]
    if (row.epoch, row.attempt, row.failures) != (before.epoch, before.attempt, before.failures):
        ledger.fail("I19", "{} was refused, and that cost it an attempt", row.id)
    if row.deadline != before.deadline:
        ledger.fail("I19", "{} was refused, and lost its deadline", row.id)


def check_move(
    ledger: Ledger, execution: ExecutionRow, row: RunRow, before: Before, reason: Event | None, *, ending: bool
) -> None:
    """`ending`: the execution was ending before, or was told to in this transaction."""
    if before.state in FINAL:
        ledger.fail("I05", "{} was {} and is {}, by {}", row.id, before.state, row.state, reason)
    if row.state is R.CANCELLED and execution.ending is None:
        ledger.fail("I05", "{} was cancelled in an execution that goes on", row.id)
    match before.state:
        case R.LEASED:
            _check_end_of_lease(ledger, execution, row, before, reason, ending=ending)
        case R.QUARANTINED:
            _check_resolution(ledger, execution, row, before, reason)
        case R.PENDING:
            _check_leaving(ledger, execution, row, before)
        case _:
            _check_unheld(ledger, execution, row, before, reason)
    if row.state is R.LEASED and before.state is not R.LEASED:
        check_lease(ledger, row, before)
    if execution.state is E.PAUSED and row.node.control is not None and _was_decided(row, before, reason):
        ledger.fail("PAUSE", "{} was decided in an execution that is paused: {}", row.id, row.state)
    _check_frozen(ledger, row, before)
    if row.quarantine_number - before.quarantine_number != (row.state is R.QUARANTINED):
        was, is_ = before.quarantine_number, row.quarantine_number
        ledger.fail("I15", "{} is {}, and its quarantines went from {} to {}", row.id, row.state, was, is_)


def check_stop(ledger: Ledger, row: RunRow, before: Before) -> None:
    """Of a lease that is told to stop: it ends within the grace, whatever its runner says."""
    latest = before.lease_until if before.stop_reason is not None else ledger.now + CANCEL_GRACE
    if row.lease_until is None or latest is None or row.lease_until > latest + SLACK:
        ledger.fail("GRACE", "{} was told to stop, and is leased until {}, not {}", row.id, row.lease_until, latest)


def _was_decided(row: RunRow, before: Before, reason: Event | None) -> bool:
    """Of a control node: that it waits, or is done, by the engine's own doing just now."""
    fixed = isinstance(reason, Resolve) and reason.resolution is Resolution.FIXED
    return before.state is not R.WAITING and row.state in (R.WAITING, R.SUCCESS) and not fixed


def _check_frozen(ledger: Ledger, row: RunRow, before: Before) -> None:
    """Once it is PENDING no more, what it sees is fixed; what it came to is shown once it has come to it."""
    frozen = before.frozen
    if frozen is not None and (row.gate.excluded, row.gate.chosen) != (frozen.excluded, frozen.chosen):
        ledger.fail("INPUTS", "the edges of {} were frozen, and changed", row.id)
    if before.ready_revision is not None and row.ready_revision != before.ready_revision:
        was, is_ = before.ready_revision, row.ready_revision
        ledger.fail("INPUTS", "the revision of {} was frozen as {}, and is {}", row.id, was, is_)
    if row.state not in FINAL and row.state is not R.QUARANTINED and row.settled_revision is not None:
        ledger.fail("INPUTS", "{} is {}, and its outcome is shown", row.id, row.state)


def _check_leaving(ledger: Ledger, execution: ExecutionRow, row: RunRow, before: Before) -> None:
    """PENDING no more: it was readied at this revision, and sees all that its edges are from."""
    if row.state is R.PENDING:
        ledger.fail("I10", "{} is PENDING, and something was accepted for it", row.id)
    before.frozen = row.gate
    if row.state in (R.SKIPPED, R.CANCELLED):
        return
    if row.ready_revision != execution.revision:
        at, frozen = execution.revision, row.ready_revision
        ledger.fail("INPUTS", "{} was readied at revision {}, frozen as {}", row.id, at, frozen)
    for edge in taken_edges_of(row):
        source = execution.runs[execution.plan.edges[edge].source]
        if result_at(execution, source, row.ready_revision) is NO_RESULT:
            ledger.fail("INPUTS", "{} does not see what {} came to", row.id, source.id)


def _check_end_of_lease(
    ledger: Ledger, execution: ExecutionRow, row: RunRow, before: Before, reason: Event | None, *, ending: bool
) -> None:
    """I06, I10, I14."""
    overdue = before.deadline is not None and before.deadline <= ledger.now
    if isinstance(reason, RunDeadline):
        if not overdue or (row.state, row.epoch) != (R.LEASED, before.epoch) or row.stop_reason is None:
            ledger.fail("I10", "{} was told to stop by its deadline, and is {}", row.id, row.state)
        return
    if not isinstance(reason, LeaseEnded) or reason.epoch != before.epoch:
        was, is_ = before.epoch, row.state
        ledger.fail("I06", "{} was LEASED under epoch {} and is {}, by {}", row.id, was, is_, reason)
    expected = expected_after(
        reason.result,
        ledger.world.workloads[execution.id].retry_of(row.node),
        failures=before.failures,
        lost_leases=before.lost_leases,
        ending=ending or before.stop_reason is StopReason.CANCEL,
        overdue=overdue,
    )
    if row.epoch != before.epoch + expected.epoch_raised:
        ledger.fail("I06", "the epoch of {} went from {} to {}, by {}", row.id, before.epoch, row.epoch, reason.result)
    struck = execution.ending is Ending.FAIL_FAST and row.state is R.CANCELLED
    if isinstance(reason.result, Success):
        _check_success(ledger, row, reason.result)
    elif not struck and not (row.state is R.QUARANTINED and row.error == UNFORESEEN):
        if row.state not in expected.states:
            ledger.fail("I10", "{} ended with {}, and is {}", row.id, reason.result, row.state)
        counted, right = (row.failures, row.lost_leases), (expected.failures, expected.lost_leases)
        if counted != right:
            ledger.fail("I10", "{}: failures and lost leases are {}, not {}", row.id, counted, right)
    if row.state in (R.READY, R.PARKED):
        wait = (row.ready_at or 0.0) - ledger.now
        if not expected.least - SLACK <= wait <= expected.longest + SLACK:
            least, longest = expected.least, expected.longest
            ledger.fail("I14", "{} waits {:.3f} s, not {:.3f} to {:.3f}", row.id, wait, least, longest)


def _check_success(ledger: Ledger, row: RunRow, success: Success) -> None:
    """Kept in any case, also in an execution that ends."""
    unforeseen = row.state is R.QUARANTINED and row.error == UNFORESEEN
    if not unforeseen and (row.state is not R.SUCCESS or row.outputs != success.outputs.decode()):
        ledger.fail("I07", "{} ended well, and is {} with {}", row.id, row.state, row.outputs)


def _check_resolution(
    ledger: Ledger, execution: ExecutionRow, row: RunRow, before: Before, reason: Event | None
) -> None:
    """I22."""
    if not isinstance(reason, Resolve) or reason.quarantine_number != before.quarantine_number:
        was, is_ = before.quarantine_number, row.state
        ledger.fail("I22", "{} was quarantined as number {} and is {}, by {}", row.id, was, is_, reason)
    match reason.resolution:
        case Resolution.DISCARDED:
            ledger.discarded.add(row.id)
            right = row.state is R.FAILED
        case Resolution.FIXED:
            right = row.state is R.SUCCESS and row.outputs == reason.outputs
        case _:
            right = row.state not in (R.PENDING, R.SKIPPED) and row.failures == row.lost_leases == 0
            fresh = row.state is R.QUARANTINED or row.deadline is None or row.deadline > ledger.now
            right = right and fresh
            if before.quarantine_number > MAX_REQUEUES and not reason.force:
                ledger.fail("I22", "{} was requeued for the {}th time", row.id, before.quarantine_number)
            if reason.deadline is None and execution.deadline is not None and execution.deadline <= ledger.now:
                ledger.fail("I05", "{} was requeued in an execution whose deadline has passed", row.id)
    if not right:
        ledger.fail("I22", "{} was {}, and is {}, {} failures", row.id, reason.resolution, row.state, row.failures)
    _, _, ending = ledger.executions[execution.id]
    if ending is not None and reason.resolution is not Resolution.DISCARDED:
        ledger.fail("I05", "{} was {} in an execution that ended by {}", row.id, reason.resolution, ending)


def _check_unheld(ledger: Ledger, execution: ExecutionRow, row: RunRow, before: Before, reason: Event | None) -> None:
    """READY, WAITING or PARKED before: only what was due moves it, or what is done to its execution."""
    now = ledger.now
    if row.state is R.CANCELLED:
        return
    match reason:
        case TimerDue():
            due = before.state is R.WAITING and before.wakes_at is not None and before.wakes_at <= now
            right = due and row.state in (R.SUCCESS, R.QUARANTINED, R.FAILED)
        case ControlReady():
            right = row.node.control is not None and before.state is R.READY and row.state is not R.PENDING
        case Reused():
            right = _is_reused(ledger, row, before, reason)
        case RunDeadline():
            overdue = before.deadline is not None and before.deadline <= now
            right = overdue and row.state in (R.FAILED, R.QUARANTINED)
        case _:
            right = _is_pause(execution, row, before)
    if not right:
        ledger.fail("I10", "{} was {} and is {}, by {}", row.id, before.state, row.state, reason)


def _is_reused(ledger: Ledger, row: RunRow, before: Before, reason: Reused) -> bool:
    """Nothing is run: it has what a run came to that was really run, or fixed, with what this one would be handed."""
    if before.state is not R.READY or not before.undecided or row.attempt != before.attempt:
        return False
    if row.state is R.QUARANTINED:
        return row.error == UNFORESEEN
    source = ledger.world.store.runs[reason.source[1]]
    execution = ledger.world.store.executions[row.key[0]]
    inputs = right_inputs_of(execution, row, taken_edges_of(row))
    ledger.world.counts["successes reused"] += 1
    return (
        (row.state, row.outputs, row.reused_run_id) == (R.SUCCESS, source.outputs, source.id)
        and (source.state, source.reused_run_id, source.idempotency_key) == (R.SUCCESS, None, str(inputs))
        and row.replay.key_number == 0
        and execution.state is not E.PAUSED
    )


def _is_pause(execution: ExecutionRow, row: RunRow, before: Before) -> bool:
    """Parked with its execution, or going on with it."""
    if execution.state is E.PAUSED:
        return before.state in (R.READY, R.PARKED) and (row.state, row.parked_by) == (R.PARKED, PAUSE)
    return before.parked_by == PAUSE and row.state is R.READY
