"""What is asked of whole executions - that they end, pause, go on - is answered as it must be, and comes about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.simulator.clock import seconds_of
from tests.simulator.ledger import Ledger
from tests.simulator.rows import ExecutionRow
from tests.simulator.telling import told_answer
from valkyr.flow.attempts import Fence
from valkyr.flow.events import EndExecution, Event, OfExecution, PauseExecution, Resolution, Resolve
from valkyr.flow.intake import Answer
from valkyr.flow.states import Ending, ExecutionState

SETTLED = frozenset({ExecutionState.SUCCESS, ExecutionState.FAILED, ExecutionState.CANCELLED})
_ACCEPTED, _ALREADY, _LATE, _SETTLED = "ACCEPTED", "ALREADY_REPORTED", "LEASE_LOST", "ExecutionSettled"


@dataclass(slots=True)
class Standing:
    """An execution before a commit, and then as each accepted event of it alone leaves it."""

    state: ExecutionState
    ending: Ending | None
    paused: bool
    overdue: bool

    @property
    def ends(self) -> bool:
        return self.ending is not None


def check_whole(ledger: Ledger, execution: ExecutionRow, answered: Sequence[tuple[Event, Answer]]) -> Standing:
    """Each answer by the book, in the order in which they were given: those of whole executions come first."""
    _, state, ending = ledger.executions[execution.id]
    deadline = ledger.deadlines[execution.id]
    overdue = deadline is not None and deadline <= ledger.now
    standing = Standing(state, ending, state is ExecutionState.PAUSED, overdue)
    for event, answer in answered:
        if isinstance(event, Resolve) and event.execution_id == execution.id and answer is Fence.ACCEPTED:
            _note_deadline(ledger, standing, event)
        if not isinstance(event, OfExecution) or event.execution_id != execution.id:
            continue
        right, told = _right_answer(ledger, standing, event), told_answer(answer)
        if told != right:
            name, what = execution.name, type(event).__name__
            ledger.fail("ASKED", "{} of {} ({}) is answered {}, not {}", what, name, standing, told, right)
        if answer is Fence.ACCEPTED:
            _take(standing, event)
        if not isinstance(event, EndExecution) and isinstance(answer, Fence):
            ledger.asked.add(_key(event))
    _check_effect(ledger, execution, standing)
    return standing


def _note_deadline(ledger: Ledger, standing: Standing, event: Resolve) -> None:
    """A resolution comes with a new deadline; and a fix lifts one that has passed, or it would be for nothing."""
    if event.deadline is not None:
        ledger.deadlines[event.execution_id] = seconds_of(event.deadline)
    elif event.resolution is Resolution.FIXED and standing.overdue:
        ledger.deadlines[event.execution_id] = None


def _right_answer(ledger: Ledger, standing: Standing, event: OfExecution) -> str:
    if isinstance(event, EndExecution):
        return _answer_to_end(standing, event)
    if _key(event) in ledger.asked:
        return _ALREADY
    if standing.state in SETTLED or standing.ends:
        return _SETTLED
    return _ALREADY if isinstance(event, PauseExecution) is standing.paused else _ACCEPTED


def _answer_to_end(standing: Standing, event: EndExecution) -> str:
    """A cancel is told what became of the execution; a deadline counts where it has passed and nothing else ends it."""
    cancel = event.ending is Ending.CANCEL
    if standing.state in SETTLED:
        cancelled = standing.state is ExecutionState.CANCELLED
        return (_ALREADY if cancelled else _SETTLED) if cancel else _LATE
    if standing.ends:
        return _SETTLED if cancel and standing.ending is not Ending.CANCEL else _ALREADY
    return _ACCEPTED if cancel or standing.overdue else _ALREADY


def _take(standing: Standing, event: OfExecution) -> None:
    if isinstance(event, EndExecution):
        standing.ending = event.ending
    else:
        standing.paused = isinstance(event, PauseExecution)


def _key(event: OfExecution) -> tuple[str, str]:
    kind = "PAUSE" if isinstance(event, PauseExecution) else "RESUME"
    return kind, (event.request.request_id or "") if event.request is not None else ""


def _check_effect(ledger: Ledger, execution: ExecutionRow, standing: Standing) -> None:
    """Paused is what was paused, until it is resumed or ends."""
    revision, _, _ = ledger.executions[execution.id]
    state = execution.state
    if execution.deadline != ledger.deadlines[execution.id]:
        right = ledger.deadlines[execution.id]
        ledger.fail("I08", "the deadline of {} is {}, and must be {}", execution.name, execution.deadline, right)
    if state is ExecutionState.PENDING and execution.revision > revision:
        ledger.fail("I08", "{} has begun, and is {}", execution.name, state)
    goes_on = execution.ending is None and state not in SETTLED
    if goes_on and (state is ExecutionState.PAUSED) is not standing.paused:
        ledger.fail("PAUSE", "{} is {}, and must {}be paused", execution.name, state, "" if standing.paused else "not ")
    if standing.ends and execution.ending is not standing.ending:
        ledger.fail("I08", "{} was to end by {}, not by {}", execution.name, standing.ending, execution.ending)


def check_remembered(ledger: Ledger) -> None:
    """Each request to pause or to resume is known by its id when it comes again."""
    if ledger.world.store.asked.keys() != ledger.asked:
        ledger.fail("PAUSE", "of {} requests {} are remembered", len(ledger.asked), len(ledger.world.store.asked))
