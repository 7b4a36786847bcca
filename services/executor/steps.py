"""What a batch of events means for one execution, over locked rows: no I/O, every decision from valkyr/flow."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import orjson

from services.executor.compiled import new_memory
from services.executor.events import (
    AttemptEnded,
    ControlReady,
    EndExecution,
    Event,
    LeaseEnded,
    Resolution,
    Resolve,
    RunDeadline,
    TimerDue,
)
from services.executor.model import ExecutionFacts, LockedExecution, LockedRun, QuarantineRecord, Replay, run_id
from services.executor.resolutions import refusal_of
from services.executor.store.progress import (
    ChangedExecution,
    ChangedRun,
    EndedAttempt,
    EndedRun,
    NewQuarantine,
    OutboxEntry,
    RunKey,
)
from services.executor.writes import Writes, changed_run, noted, retried_run
from valkyr.errors import ExecutionSettled, ValkyrError
from valkyr.flow.advance import advance, fails_fast
from valkyr.flow.attempts import (
    Cancel,
    FailForGood,
    Fence,
    Finish,
    RetryAfter,
    RetryPolicy,
    decide_after_lease,
    fence,
)
from valkyr.flow.outcomes import (
    Change,
    ControlBudget,
    DecideControl,
    Discarded,
    FailedForGood,
    Halted,
    Loaded,
    Need,
    Outcome,
    Requeued,
    Succeeded,
)
from valkyr.flow.plan import Plan, PlannedNode, Sight
from valkyr.flow.results import FailureType, LetterType, Lost, Omitted, Success
from valkyr.flow.states import (
    SETTLED_EXECUTION_STATES,
    Ending,
    ExecutionState,
    RunState,
    bad_delta,
    execution_state_after,
    open_delta,
)

Answer = Fence | ValkyrError
RetryOf = Callable[[PlannedNode], RetryPolicy]
_HELD_BY_NOBODY = (RunState.READY, RunState.WAITING, RunState.PARKED)
_NO_RETRY = RetryPolicy(max_attempts=1, max_lost_leases=1, backoff_base=timedelta(), backoff_max=timedelta())


def touched_nodes(plan: Plan, nodes: Sequence[int]) -> set[int]:
    """The nodes of events and the targets of their edges: what is locked at the outset."""
    touched = set(nodes)
    for node in nodes if plan.nodes else ():
        touched.update(plan.edges[edge].target for edge in plan.nodes[node].outgoing)
    return touched


class ExecutionStep:
    """One execution in one transaction. `rows` grows as the walk through the graph asks for more.

    `quarantines` are the records that resolutions name, by run and number. A plan without nodes stands for one that
    cannot be made: the execution can be ended, and what is leased of it can end then.
    """

    def __init__(
        self,
        facts: ExecutionFacts,
        plan: Plan,
        locked: LockedExecution,
        rows: dict[int, LockedRun],
        retry_of: RetryOf,
        *,
        quarantines: Mapping[tuple[UUID, int], QuarantineRecord],
        max_requeues: int,
    ) -> None:
        self.facts = facts
        self.plan = plan
        self.rows = rows
        self.revision = locked.revision + 1
        self._locked = locked
        self._retry_of = retry_of
        self._quarantines = quarantines
        self._max_requeues = max_requeues
        self._open_runs = locked.open_runs
        self._bad_runs = locked.bad_runs
        self._error: tuple[str, str] | None = None
        self._ending: EndExecution | None = None
        self._reported: dict[int, tuple[LeaseEnded, FailForGood | Finish | Cancel]] = {}
        self._retried: list[EndedRun] = []
        self._resolved: dict[int, Resolve] = {}
        self._stopped: list[RunKey] = []
        # Runs that an event of this batch has moved, and the answer to a second report; the rows are as before.
        self._moved: dict[int, Fence] = {}
        self._attempts: list[EndedAttempt] = []
        self._calls: list[AttemptEnded] = []
        self._outcomes: list[Outcome] = []

    @property
    def ends(self) -> bool:
        """Whether nothing of the execution is to be started any more."""
        return self._locked.ending is not None or self._ending is not None

    def take(self, event: Event) -> Answer:
        """Decides what an event means; the answer to whoever brought it. Only what is ACCEPTED changes anything."""
        if isinstance(event, EndExecution):
            return self._take_ending(event)
        node = node_of(event.run_id)
        known = event.run_id == run_id(self.facts.id, node) and (self.ends or len(self.plan.nodes) > 0)
        row = self.rows.get(node) if known else None
        if isinstance(event, Resolve):
            return self._take_resolution(event, node, row)
        if row is not None and node in self._moved:
            return self._answer_to_second(event, node, row)
        if isinstance(event, LeaseEnded):
            return self._take_lease(event, node, row)
        outcome = None if row is None or self.ends else self._outcome_of(event, node, row)
        if outcome is None:
            return Fence.LEASE_LOST
        if isinstance(outcome, RunDeadline):
            self._stopped.append((outcome.execution_id, outcome.run_id))
        else:
            self._outcomes.append(outcome)
        self._moved[node] = Fence.LEASE_LOST
        return Fence.ACCEPTED

    def _outcome_of(
        self, event: TimerDue | ControlReady | RunDeadline, node: int, row: LockedRun
    ) -> Outcome | RunDeadline | None:
        """None if the event has come too late; a deadline itself where the run is leased and has to be told."""
        state = row.facts.state
        match event:
            case TimerDue():
                return Succeeded(node, {}) if state is RunState.WAITING and row.due else None
            case ControlReady():
                return DecideControl(node) if state is RunState.READY else None
            case RunDeadline() if not row.lease.deadline_passed:
                return None
            case RunDeadline() if state in _HELD_BY_NOBODY:
                return _after_deadline(node, row)
            case _:
                return event if state is RunState.LEASED and row.stop_reason is None else None

    def _take_ending(self, event: EndExecution) -> Answer:
        state = self._locked.state
        if state in SETTLED_EXECUTION_STATES:
            if event.ending is not Ending.CANCEL:
                return Fence.LEASE_LOST
            if state is ExecutionState.CANCELLED:
                return Fence.ALREADY_REPORTED
            return ExecutionSettled(
                f"execution {self.facts.id} has ended in {state} already: there is nothing to cancel",
                metadata={"state": state},
            )
        if event.ending is Ending.CANCEL and self._locked.ending not in (None, Ending.CANCEL):
            return ExecutionSettled(
                f"execution {self.facts.id} is ending already, as FAILED by {self._locked.ending}: wait for its end",
                metadata={"state": state},
            )
        if self.ends or (event.ending is Ending.DEADLINE and not self._locked.deadline_passed):
            return Fence.ALREADY_REPORTED
        self._ending = event
        if event.ending is Ending.DEADLINE:
            self._error = (FailureType.TIMEOUT, "the execution's deadline passed")
        return Fence.ACCEPTED

    def _take_resolution(self, event: Resolve, node: int, row: LockedRun | None) -> Answer:
        answer = refusal_of(
            event,
            row,
            self._record_of(event, node),
            ended=self.ends,
            deadline_passed=self._locked.deadline_passed,
            now=self._locked.now,
            max_requeues=self._max_requeues,
        )
        if answer is not None:
            return answer
        self._resolved[node] = event
        match event.resolution:
            case Resolution.REQUEUED:
                self._outcomes.append(Requeued(node))
            case Resolution.FIXED:
                watched = node in self.plan.watched and event.outputs is not None
                self._outcomes.append(Succeeded(node, orjson.loads(event.outputs or "null") if watched else None))
            case _ if self.ends:
                self._outcomes.append(Halted(node, RunState.FAILED))
            case _:
                self._outcomes.append(Discarded(node))
        return Fence.ACCEPTED

    def _record_of(self, event: Resolve, node: int) -> QuarantineRecord | None:
        """I22: the quarantine that is meant, as an earlier event of this batch has left it."""
        record = self._quarantines.get((event.run_id, event.quarantine_number))
        earlier = self._resolved.get(node)
        if record is None or earlier is None or earlier.quarantine_number != event.quarantine_number:
            return record
        request = earlier.request
        return replace(
            record,
            resolution=earlier.resolution,
            resolved_by=request.principal,
            request_id=request.request_id,
            request_hash=request.hash,
        )

    def _answer_to_second(self, event: Event, node: int, row: LockedRun) -> Fence:
        """I07: of two events of one batch for the same run, the second changes nothing."""
        if isinstance(event, LeaseEnded) and event.epoch == row.lease.epoch:
            return self._moved[node]
        return Fence.LEASE_LOST

    def _take_lease(self, event: LeaseEnded, node: int, row: LockedRun | None) -> Fence:
        answer = fence(row.lease if row else None, event.epoch)
        if answer is not Fence.ACCEPTED or row is None:
            return answer
        if event.only_if_expired and not row.lease_expired:
            return Fence.LEASE_LOST
        after = decide_after_lease(
            replace(row.lease, ending=True) if self.ends else row.lease,
            event.result,
            self._retry_of(self.plan.nodes[node]) if self.plan.nodes else _NO_RETRY,
            jitter=random.random(),
        )
        self._note_attempt(event, row)
        # A lease that ended without a report takes its epoch with it.
        without_report = isinstance(event.result, Lost | Omitted)
        self._moved[node] = Fence.LEASE_LOST if without_report else Fence.ALREADY_REPORTED
        match after:
            case RetryAfter():
                self._retried.append(retried_run(event, after))
                return answer
            case Finish():
                outcome: Outcome = Halted(node, RunState.SUCCESS) if self.ends else Succeeded(node)
            case FailForGood():
                outcome = FailedForGood(node, after.letter, after.error_type, after.message)
            case Cancel():
                outcome = Halted(node, RunState.CANCELLED)
        self._reported[node] = (event, after)
        self._outcomes.append(outcome)
        return answer

    def _note_attempt(self, event: LeaseEnded, row: LockedRun) -> None:
        if row.target:
            self._calls.append(
                AttemptEnded(
                    namespace=self.facts.namespace,
                    target=row.target,
                    run_id=event.run_id,
                    epoch=event.epoch,
                    result=event.result,
                    duration_ms=event.duration_ms,
                    permit_id=row.permit_id,
                    traceparent=row.replay.traceparent or self.facts.traceparent,
                )
            )
        said = noted(event)
        if said is not None:
            self._attempts.append(EndedAttempt((event.execution_id, event.run_id), event.epoch, row.attempt, *said))

    def controls(self) -> list[int]:
        """Control nodes that are decided now though they were READY before, and look at something to be decided."""
        return [
            outcome.node
            for outcome in self._outcomes
            if isinstance(outcome, DecideControl | Requeued)
            and (node := self.plan.nodes[outcome.node]).control is not None
            and not node.config.constant
        ]

    def show(self, node: int, sight: Sight) -> None:
        """What a control node's config is resolved against."""
        self._outcomes = [
            replace(outcome, sight=sight)
            if isinstance(outcome, DecideControl | Requeued) and outcome.node == node
            else outcome
            for outcome in self._outcomes
        ]

    def walk(self, budget: ControlBudget | None = None) -> Generator[Need, Loaded, list[Change]] | None:
        """The walk through the graph; None if nothing ended."""
        if not self._outcomes:
            return None
        outcomes = [self._with_outputs(outcome) for outcome in self._outcomes]
        return advance(self.plan, outcomes, self._base(), budget=budget)

    def halted(self) -> list[Change]:
        """Instead of the walk where there is no plan: leases that ended while the execution ends; nothing follows."""
        return [
            Change(outcome.node, self.rows[outcome.node].facts.state, outcome.state, self.rows[outcome.node].facts.gate)
            for outcome in self._outcomes
            if isinstance(outcome, Halted)
        ]

    def _with_outputs(self, outcome: Outcome) -> Outcome:
        """Outputs are read only where an expression may ask for them."""
        reported = self._reported.get(outcome.node)
        if reported is None or outcome.node not in self.plan.watched or not isinstance(outcome, Succeeded):
            return outcome
        result = reported[0].result
        return Succeeded(outcome.node, orjson.loads(result.outputs)) if isinstance(result, Success) else outcome

    def give_up(self, problem: str) -> list[Change]:
        """Instead of the walk: the runs of these events are quarantined, their edges stay undecided."""
        changes = []
        for node in dict.fromkeys(outcome.node for outcome in self._outcomes):
            row = self.rows[node]
            failed = FailedForGood(node, LetterType.PERMANENT_ERROR, FailureType.PERMANENT, problem)
            if node in self._reported:
                lease = row.lease
                after = FailForGood(
                    failed.letter,
                    FailureType.PERMANENT,
                    problem,
                    failures=lease.failures,
                    lost_leases=lease.lost_leases,
                )
                self._reported[node] = (self._reported[node][0], after)
            changes.append(Change(node, row.facts.state, RunState.QUARANTINED, row.facts.gate, failure=failed))
        return changes

    def _base(self) -> Sight:
        if not self.plan.evaluates:
            return Sight()
        return Sight(trigger=self.facts.trigger, execution=self.facts.visible, memory=new_memory())

    def write(self, changes: Sequence[Change], writes: Writes) -> list[ChangedRun]:
        """Adds what is to be written; the answer is the runs that became READY, for the hand-off to take up."""
        ready: list[ChangedRun] = []
        for event in self._resolved.values():
            writes.resolved.append(event)
            if event.deadline is not None:
                writes.deadlines.append((self.facts.id, event.deadline))
            elif event.resolution is Resolution.FIXED and self._locked.deadline_passed:
                # What the fix is for would be ended at once.
                writes.deadlines.append((self.facts.id, None))
            writes.outbox.append(self._outbox(event.run_id, event.quarantine_number, "RESOLVED"))
        for change in changes:
            self._open_runs += open_delta(change.before, change.after)
            self._bad_runs += bad_delta(change.before, change.after, handled=change.handled)
            if change.after is RunState.QUARANTINED and change.failure is not None:
                self._quarantine(change.failure, writes)
            if change.node in self._reported:
                reported, after = self._reported[change.node]
                writes.add_reported(change, reported, after, self.rows[change.node].lease, self.revision)
                continue
            run = changed_run(
                change,
                self._key(change.node),
                self.revision,
                fixed=self._resolved.get(change.node),
                deadline=self.plan.nodes[change.node].deadline,
            )
            (ready if run.state is RunState.READY else writes.changed).append(run)
        writes.ended.extend(self._retried)
        writes.attempts.extend(self._attempts)
        writes.calls.extend(self._calls)
        writes.stopped.extend(self._stopped)
        if self._ending is None and fails_fast(self.plan, changes):
            self._ending = EndExecution(self.facts.id, Ending.FAIL_FAST)
        if self._ending is not None:
            writes.endings.append((self._ending, self))
        elif changes:
            writes.executions.append(self.changed_execution(self._open_runs))
        return ready

    def changed_execution(self, open_runs: int) -> ChangedExecution:
        """The execution's row after everything else of this transaction."""
        ending = self._ending.ending if self._ending else self._locked.ending
        state = execution_state_after(
            self._locked.state,
            open_runs=open_runs,
            bad_runs=self._bad_runs,
            ending=ending,
            reopened=any(event.resolution is not Resolution.DISCARDED for event in self._resolved.values()),
        )
        kind, message = self._error or (None, None)
        return ChangedExecution(self.facts.id, state, self.revision, open_runs, self._bad_runs, kind, message)

    def replay_of(self, node: int) -> Replay:
        """What requeues, that of this batch included, leave on a run."""
        before, event = self.rows[node].replay, self._resolved.get(node)
        if event is None:
            return before
        return Replay(
            inputs=event.inputs or before.inputs,
            key_number=event.quarantine_number if event.new_key else before.key_number,
            traceparent=event.request.traceparent or None,
            after_attempt=self.rows[node].attempt,
        )

    def ready_revision_of(self, node: int) -> int:
        """Frozen when the run became READY first."""
        return self.rows[node].ready_revision or self.revision

    def _key(self, node: int) -> RunKey:
        return (self.facts.id, run_id(self.facts.id, node))

    def _quarantine(self, failure: FailedForGood, writes: Writes) -> None:
        key, number = self._key(failure.node), self.rows[failure.node].quarantine_number + 1
        self._error = self._error or self._error_of(failure)
        writes.quarantines.append(
            NewQuarantine(
                self.facts.namespace,
                key,
                number,
                failure.letter,
                failure.error_type,
                failure.message,
                self.revision,
            )
        )
        writes.outbox.append(self._outbox(key[1], number, "QUARANTINED"))

    def _outbox(self, run: UUID, number: int, kind: str) -> OutboxEntry:
        return OutboxEntry(self.facts.namespace, (self.facts.id, run), number, kind)

    def _error_of(self, failure: FailedForGood) -> tuple[str, str]:
        return failure.error_type, f"node {self.plan.nodes[failure.node].node_id!r}: {failure.message}"


def node_of(run: UUID) -> int:
    """The node index that a run's id names."""
    return (run.int >> 14) & ((1 << 14) - 1)


def _after_deadline(node: int, row: LockedRun) -> FailedForGood:
    """The deadline of a run that nobody holds."""
    if row.facts.state is RunState.PARKED and row.parked_by == "BREAKER":
        message = f"the run's deadline passed while the breaker of {row.target!r} held it back"
        return FailedForGood(node, LetterType.CIRCUIT_BREAKER, FailureType.TIMEOUT, message)
    message = f"the run's deadline passed while it was {row.facts.state}"
    return FailedForGood(node, LetterType.TIMEOUT, FailureType.TIMEOUT, message)
