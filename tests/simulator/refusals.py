"""Who was refused was refused rightly, and is told what is so: I06 of late reports, I22 of late resolutions, and what
has not come due."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulator.ledger import Before, Ledger, Reasons
from tests.simulator.telling import told_answer
from tests.simulator.whole import SETTLED, Standing
from valkyr.errors import QuarantineResolved
from valkyr.flow.attempts import Fence
from valkyr.flow.events import ControlReady, Event, LeaseEnded, Resolution, Resolve, Reused, RunDeadline, TimerDue
from valkyr.flow.intake import Answer
from valkyr.flow.states import RunState

if TYPE_CHECKING:
    from tests.simulator.transaction import Transaction

_QUARANTINED = RunState.QUARANTINED
_HELD_BY_NOBODY = frozenset({RunState.READY, RunState.WAITING, RunState.PARKED})


def check_refusal(
    ledger: Ledger, event: Event, answer: Answer, transaction: Transaction, reasons: Reasons, standing: Standing
) -> None:
    """Of an event of a run that was not accepted."""
    if isinstance(event, LeaseEnded):
        ledger.world.counts["late or repeated ends of leases"] += 1
        if transaction.planned(event.execution_id):
            _check_lease(ledger, event, answer, transaction, reasons)
    elif isinstance(event, Resolve):
        ledger.world.counts["resolutions refused"] += 1
        may_discard = transaction.planned(event.execution_id) or standing.ends or standing.state in SETTLED
        _check_resolution(ledger, event, answer, may_discard=may_discard)
    elif isinstance(event, RunDeadline | TimerDue | ControlReady | Reused):
        ledger.world.counts["events that were not due"] += 1
        if transaction.planned(event.execution_id) and event.run_id not in reasons and not standing.ends:
            before = ledger.before.get(event.run_id)
            if before is not None and _is_due(ledger, event, before, paused=standing.paused):
                ledger.fail(
                    "I10", "{} of {}, which is {}, was refused", type(event).__name__, event.run_id, before.state
                )


def _is_due(
    ledger: Ledger, event: RunDeadline | TimerDue | ControlReady | Reused, before: Before, *, paused: bool
) -> bool:
    """Whether the event's time has come, and the run is as the event takes it to be."""
    state = before.state
    match event:
        case RunDeadline():
            concerned = state in _HELD_BY_NOBODY or (state is RunState.LEASED and before.stop_reason is None)
            return concerned and before.deadline is not None and before.deadline <= ledger.now
        case TimerDue():
            return state is RunState.WAITING and before.wakes_at is not None and before.wakes_at <= ledger.now
        case ControlReady():
            return state is RunState.READY and not paused
        case Reused():
            same = before.undecided and before.quarantine_number == event.quarantine_number
            return state is RunState.READY and same and not paused


def _check_lease(ledger: Ledger, event: LeaseEnded, answer: Answer, transaction: Transaction, reasons: Reasons) -> None:
    """I06: what is late changes nothing, and what is not is never called so."""
    lease = (event.run_id, event.epoch)
    before = ledger.before.get(event.run_id)
    if answer is Fence.ALREADY_REPORTED:
        if lease in ledger.granted and lease not in ledger.accepted:
            ledger.fail("I06", "{} under epoch {} is said to be reported already", *lease)
    elif before is not None and before.state is RunState.LEASED and before.epoch == event.epoch:
        row = transaction.steps[event.execution_id].rows[ledger.world.store.runs[event.run_id].node.index]
        if event.run_id not in reasons and (row.lease_expired or not event.only_if_expired):
            ledger.fail("I06", "the end of {} under epoch {} was refused: {}", *lease, answer)


def _check_resolution(ledger: Ledger, event: Resolve, answer: Answer, *, may_discard: bool) -> None:
    """I22: the request that did it is told so as often as it asks; everybody else is told who won. No letter stays for
    ever: that it is discarded is refused only while its execution goes on and no plan can be made."""
    done = ledger.resolved.get((event.run_id, event.quarantine_number))
    by_it = (
        done is not None and done.request.request_id == event.request.request_id and done.resolution is event.resolution
    )
    if (answer is Fence.ALREADY_REPORTED) is not by_it:
        ledger.fail("I22", "{!r} is answered {} about {}", event.request.request_id, told_answer(answer), event.run_id)
    if done is not None and not by_it:
        if not isinstance(answer, QuarantineResolved) or done.resolution not in answer.message:
            ledger.fail("I22", "of {} the loser is told: {!r}", event.run_id, answer)
    elif done is None and isinstance(answer, QuarantineResolved):
        ledger.fail("I22", "{} is said to be resolved, and is not", event.run_id)
    elif done is None and may_discard and event.resolution is Resolution.DISCARDED:
        before = ledger.before.get(event.run_id)
        if before is not None and (before.state, before.quarantine_number) == (_QUARANTINED, event.quarantine_number):
            ledger.fail("I22", "that the letter of {} is discarded was refused: {!r}", event.run_id, answer)
