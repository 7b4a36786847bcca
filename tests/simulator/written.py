"""What is written, or told, besides the runs themselves: attempts, calls, letters, what requeues leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.simulator.ledger import Before, Ledger
from tests.simulator.rows import ExecutionRow, RunRow
from valkyr.flow.attempts import Fence
from valkyr.flow.events import Event, LeaseEnded, Resolution, Resolve, RunDeadline
from valkyr.flow.ids import node_of
from valkyr.flow.intake import Answer
from valkyr.flow.results import Failure, FailureType, LetterType, Lost, Omitted, Release, Result, Snooze, Success
from valkyr.flow.states import RunState

if TYPE_CHECKING:
    from tests.simulator.transaction import Transaction

UNFORESEEN = "the engine could not carry on after this run"
_SAID = {Lost: "RUNNER_LOST", Omitted: "OMITTED", Snooze: "SNOOZED", Release: "RELEASED"}
_LETTERS = {FailureType.PERMANENT: LetterType.PERMANENT_ERROR, FailureType.TIMEOUT: LetterType.TIMEOUT}
Letter = tuple[str, str]
"""What the letter is called, and the type of the error."""


def check_written(ledger: Ledger, transaction: Transaction, answered: Sequence[tuple[Event, Answer]]) -> None:
    """An attempt for each accepted end but a success, a call for each of a run with a target."""
    attempts, calls = [], []
    for event, answer in answered:
        if answer is not Fence.ACCEPTED:
            continue
        if isinstance(event, LeaseEnded):
            lease = (event.run_id, event.epoch)
            if not isinstance(event.result, Success):
                attempts.append((*lease, ledger.before[event.run_id].attempt, _said_of(event.result)))
            workload = ledger.world.workloads[event.execution_id]
            target = workload.graph.modules[node_of(event.run_id)].target
            if target:
                calls.append((*lease, target, type(event.result).__name__))
        elif isinstance(event, Resolve) and event.resolution is Resolution.REQUEUED:
            _check_replay(ledger, transaction, event)
    noted = [(one.key[1], one.epoch, one.attempt, str(one.outcome)) for one in transaction.attempts]
    if sorted(noted) != sorted(attempts):
        ledger.fail("ATTEMPTS", "{} attempts are recorded as {}, not {}", len(noted), noted, attempts)
    told = [(one.run_id, one.epoch, one.target, type(one.result).__name__) for one in transaction.calls]
    if sorted(told) != sorted(calls):
        ledger.fail("CALLS", "{} calls are told as {}, not {}", len(told), told, calls)


def _said_of(result: Result | Omitted | Lost) -> str:
    return str(result.type) if isinstance(result, Failure) else _SAID[type(result)]


def _check_replay(ledger: Ledger, transaction: Transaction, event: Resolve) -> None:
    """A hand-off in the same transaction works with what the row will hold."""
    row = ledger.world.store.runs[event.run_id]
    handed = transaction.steps[event.execution_id].replay_of(row.node.index)
    if handed != row.replay:
        ledger.fail("INPUTS", "{} goes on with {}, and its row says {}", row.id, handed, row.replay)


def check_quarantine(
    ledger: Ledger, execution: ExecutionRow, row: RunRow, before: Before, reason: Event | None
) -> None:
    """I15: the newest quarantine of a run says what the run failed of."""
    kept = execution.quarantines[row.id, row.quarantine_number]
    letter, right = (str(kept.failure_type), str(kept.error_type)), _right_letter(ledger, row, before, reason)
    if letter != right:
        ledger.fail("I15", "{} failed as {}, and its letter says {}", row.id, right, letter)
    if (kept.error_type, kept.error, kept.revision) != (row.error_type, row.error, execution.revision):
        ledger.fail("I15", "the quarantine of {} says {}, and the run {}", row.id, kept.error, row.error)


def _right_letter(ledger: Ledger, row: RunRow, before: Before, reason: Event | None) -> Letter:
    overdue = before.deadline is not None and before.deadline <= ledger.now
    match reason:
        case LeaseEnded(result=result) if row.error != UNFORESEEN:
            if overdue:
                return LetterType.TIMEOUT, FailureType.TIMEOUT
            if isinstance(result, Failure):
                return _LETTERS.get(result.type, LetterType.MAX_RETRIES), result.type
            return LetterType.RUNNER_LOST, FailureType.RUNNER_LOST
        case RunDeadline() if row.error != UNFORESEEN:
            held_back = before.state is RunState.PARKED and before.parked_by == "BREAKER"
            return (LetterType.CIRCUIT_BREAKER if held_back else LetterType.TIMEOUT), FailureType.TIMEOUT
        case _:
            return LetterType.PERMANENT_ERROR, FailureType.PERMANENT
