"""What a batch of events means for one execution, over locked rows: no I/O, every decision from valkyr/flow."""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import orjson

from services.executor.compiled import new_memory
from services.executor.model import (
    ControlReady,
    Event,
    ExecutionFacts,
    LeaseEnded,
    LockedExecution,
    LockedRun,
    TimerDue,
    run_id,
)
from services.executor.store.progress import (
    ChangedExecution,
    ChangedRun,
    EndedAttempt,
    EndedRun,
    FinishedRun,
    OutboxEntry,
    RunKey,
    storable,
)
from valkyr.flow.advance import (
    Change,
    ControlBudget,
    DecideControl,
    FailedForGood,
    Loaded,
    Need,
    Outcome,
    Succeeded,
    advance,
)
from valkyr.flow.attempts import FailForGood, Fence, Finish, RetryAfter, RetryPolicy, decide_after_lease, fence
from valkyr.flow.plan import Plan, Sight
from valkyr.flow.results import Failure, FailureType, LetterType, Lost, Omitted, Success
from valkyr.flow.states import RunState, execution_state_after, open_delta


@dataclass(slots=True)
class Writes:
    """All that one transaction writes, over all its executions."""

    finished: list[FinishedRun] = field(default_factory=list)
    ended: list[EndedRun] = field(default_factory=list)
    changed: list[ChangedRun] = field(default_factory=list)
    executions: list[ChangedExecution] = field(default_factory=list)
    attempts: list[EndedAttempt] = field(default_factory=list)
    outbox: list[OutboxEntry] = field(default_factory=list)


def touched_nodes(plan: Plan, nodes: Sequence[int]) -> set[int]:
    """The nodes of events and the targets of their edges: what is locked at the outset."""
    touched = set(nodes)
    for node in nodes:
        touched.update(plan.edges[edge].target for edge in plan.nodes[node].outgoing)
    return touched


class ExecutionStep:
    """One execution in one transaction. `rows` grows as the walk through the graph asks for more."""

    def __init__(
        self,
        facts: ExecutionFacts,
        plan: Plan,
        locked: LockedExecution,
        rows: dict[int, LockedRun],
        policy: RetryPolicy,
    ) -> None:
        self.facts = facts
        self.plan = plan
        self.rows = rows
        self.revision = locked.revision + 1
        self._locked = locked
        self._policy = policy
        self._reported: dict[int, tuple[LeaseEnded, FailForGood | Finish]] = {}
        self._retried: list[EndedRun] = []
        # Runs that an event of this batch has moved, and the answer to a second report; the rows are as before.
        self._moved: dict[int, Fence] = {}
        self._attempts: list[EndedAttempt] = []
        self._outcomes: list[Outcome] = []

    def take(self, event: Event) -> Fence:
        """Decides what an event means; the answer to whoever brought it. Only what is ACCEPTED changes anything."""
        node = node_of(event.run_id)
        row = self.rows.get(node) if event.run_id == run_id(self.facts.id, node) else None
        if row is not None and node in self._moved:
            return self._answer_to_second(event, node, row)
        match event:
            case TimerDue():
                if row is None or row.facts.state is not RunState.WAITING or not row.due:
                    return Fence.LEASE_LOST
                self._outcomes.append(Succeeded(node, {}))
            case ControlReady():
                if row is None or row.facts.state is not RunState.READY:
                    return Fence.LEASE_LOST
                self._outcomes.append(DecideControl(node))
            case LeaseEnded():
                return self._take_lease(event, node, row)
        self._moved[node] = Fence.LEASE_LOST
        return Fence.ACCEPTED

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
        after = decide_after_lease(row.lease, event.result, self._policy, jitter=random.random())
        self._note_attempt(event, row)
        # A lease that ended without a report takes its epoch with it.
        without_report = isinstance(event.result, Lost | Omitted)
        self._moved[node] = Fence.LEASE_LOST if without_report else Fence.ALREADY_REPORTED
        match after:
            case RetryAfter():
                self._retried.append(_retry(event, after))
            case Finish():
                self._reported[node] = (event, after)
                self._outcomes.append(Succeeded(node))
            case FailForGood():
                self._reported[node] = (event, after)
                self._outcomes.append(FailedForGood(node, after.letter, after.error_type, after.message))
        return answer

    def _note_attempt(self, event: LeaseEnded, row: LockedRun) -> None:
        key = (event.execution_id, event.run_id)
        noted: tuple[str, str, str]
        match event.result:
            case Success():
                return
            case Failure() as failure:
                noted = (failure.type, failure.message, failure.stack_trace)
            case Lost():
                noted = ("RUNNER_LOST", "the lease ended without a report", "")
            case Omitted():
                noted = ("OMITTED", "", "")
            case _:
                noted = ("RELEASED", "", "")
        self._attempts.append(EndedAttempt(key, event.epoch, row.attempt, *noted))

    def walk(self, budget: ControlBudget | None = None) -> Generator[Need, Loaded, list[Change]] | None:
        """The walk through the graph; None if nothing ended."""
        if not self._outcomes:
            return None
        outcomes = [self._with_outputs(outcome) for outcome in self._outcomes]
        return advance(self.plan, outcomes, self._base(), budget=budget)

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
        open_runs = self._locked.open_runs
        bad_runs = self._locked.bad_runs
        error: tuple[str, str] | None = None
        ready: list[ChangedRun] = []
        for change in changes:
            open_runs += open_delta(change.before, change.after)
            if change.after is RunState.QUARANTINED and change.failure is not None:
                bad_runs += 1
                error = error or self._error_of(change.failure)
                writes.outbox.append(self._letter(change.failure))
            if change.node in self._reported:
                self._write_reported(change, writes)
                continue
            run = self._changed_run(change)
            (ready if run.state is RunState.READY else writes.changed).append(run)
        writes.ended.extend(self._retried)
        writes.attempts.extend(self._attempts)
        if changes:
            state = execution_state_after(self._locked.state, open_runs=open_runs, bad_runs=bad_runs)
            kind, message = error or (None, None)
            writes.executions.append(
                ChangedExecution(self.facts.id, state, self.revision, open_runs, bad_runs, kind, message)
            )
        return ready

    def _key(self, node: int) -> RunKey:
        return (self.facts.id, run_id(self.facts.id, node))

    def _write_reported(self, change: Change, writes: Writes) -> None:
        event, after = self._reported[change.node]
        if isinstance(after, Finish) and isinstance(event.result, Success):
            outputs = event.result.outputs.decode()
            finished = FinishedRun(
                self._key(change.node),
                event.epoch,
                outputs,
                event.duration_ms,
                event.result.cost_tokens,
                self.revision,
            )
            writes.finished.append(finished)
        elif isinstance(after, FailForGood):
            writes.ended.append(self._failed_run(change, event, after))

    def _failed_run(self, change: Change, event: LeaseEnded, after: FailForGood) -> EndedRun:
        return EndedRun(
            key=self._key(change.node),
            epoch=event.epoch,
            state=change.after,
            raise_epoch=isinstance(event.result, Lost),
            failures=after.failures,
            lost_leases=after.lost_leases,
            error=after.message,
            error_type=after.error_type,
            revision=self.revision,
            wait=None,
            duration_ms=event.duration_ms,
        )

    def _changed_run(self, change: Change) -> ChangedRun:
        return ChangedRun(
            key=self._key(change.node),
            state=change.after,
            gate=change.gate,
            outputs=None if change.outputs is None else orjson.dumps(change.outputs).decode(),
            error=change.failure.message if change.failure else None,
            error_type=change.failure.error_type if change.failure else None,
            revision=self.revision,
            wake_after=change.wake_after,
            prepared=None,
        )

    def _error_of(self, failure: FailedForGood) -> tuple[str, str]:
        return failure.error_type, f"node {self.plan.nodes[failure.node].node_id!r}: {failure.message}"

    def _letter(self, failure: FailedForGood) -> OutboxEntry:
        row = self.rows[failure.node]
        node = self.plan.nodes[failure.node]
        payload = {
            "failureType": failure.letter,
            "failureReason": storable(failure.message),
            "errorType": failure.error_type,
            "nodeId": node.node_id,
            "className": node.class_name,
            "workflowId": str(self.facts.workflow_id),
            "version": self.facts.version,
            "attempt": row.attempt,
            "traceparent": self.facts.traceparent,
        }
        return OutboxEntry(
            self.facts.namespace,
            self._key(failure.node),
            row.quarantine_number + 1,
            "QUARANTINED",
            orjson.dumps(payload).decode(),
        )


def node_of(run: UUID) -> int:
    """The node index that a run's id names."""
    return (run.int >> 14) & ((1 << 14) - 1)


def _retry(event: LeaseEnded, after: RetryAfter) -> EndedRun:
    lost = isinstance(event.result, Lost)
    return EndedRun(
        key=(event.execution_id, event.run_id),
        epoch=event.epoch,
        state=RunState.READY,
        raise_epoch=isinstance(event.result, Lost | Omitted),
        failures=after.failures,
        lost_leases=after.lost_leases,
        error="the lease ended without a report" if lost else None,
        error_type="RUNNER_LOST" if lost else None,
        revision=None,
        wait=after.delay,
        duration_ms=None,
    )
