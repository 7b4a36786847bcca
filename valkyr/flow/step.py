"""What a batch of events means for one execution, over locked rows: events are taken, outcomes walk through the graph,
and all that changes is written as values. No I/O: whoever has rows - tables, a simulator - calls this."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any
from uuid import UUID

import orjson

from valkyr.flow.advance import advance, fails_fast
from valkyr.flow.attempts import FailForGood
from valkyr.flow.effects import ChangedExecution, ChangedRun, NewQuarantine, OutboxEntry
from valkyr.flow.events import EndExecution, Event, Resolution
from valkyr.flow.facts import Asked, ExecutionFacts, LockedExecution, LockedRun, QuarantineRecord, Replay
from valkyr.flow.ids import RunKey
from valkyr.flow.intake import Answer, Intake, StepRules
from valkyr.flow.outcomes import (
    Change,
    ControlBudget,
    DecideControl,
    FailedForGood,
    Halted,
    Loaded,
    Need,
    Outcome,
    Requeued,
    Succeeded,
)
from valkyr.flow.plan import Plan, Sight
from valkyr.flow.results import FailureType, LetterType, Success
from valkyr.flow.states import Ending, RunState, bad_delta, execution_state_after, open_delta
from valkyr.flow.writes import Writes, changed_run

_NONE: Mapping[Any, Any] = MappingProxyType({})


def touched_nodes(plan: Plan, nodes: Sequence[int]) -> set[int]:
    """The nodes of events and the targets of their edges: what is locked at the outset."""
    touched = set(nodes)
    for node in nodes if plan.nodes else ():
        touched.update(plan.edges[edge].target for edge in plan.nodes[node].outgoing)
    return touched


class ExecutionStep:
    """One execution in one transaction. `rows` grows as the walk through the graph asks for more.

    `quarantines` are the records that resolutions name, by run and number; `asked` what request_ids of pauses and
    resumes were used for before, by kind and id. Events of the whole execution are to be taken before all others.

    A plan without nodes stands for one that cannot be made: the execution can be ended; then what is leased of it can
    end. Letters can be discarded once it ends or has ended: their edges stay undecided then.
    """

    __slots__ = ("_bad_runs", "_intake", "_open_runs", "facts", "plan", "revision", "rows")

    def __init__(
        self,
        facts: ExecutionFacts,
        plan: Plan,
        locked: LockedExecution,
        rows: dict[int, LockedRun],
        rules: StepRules,
        *,
        quarantines: Mapping[tuple[UUID, int], QuarantineRecord] = _NONE,
        asked: Mapping[tuple[str, str], Asked] = _NONE,
    ) -> None:
        self.facts = facts
        self.plan = plan
        self.rows = rows
        self.revision = locked.revision + 1
        self._intake = Intake(facts, plan, locked, rows, rules, quarantines, asked)
        self._open_runs = locked.open_runs
        self._bad_runs = locked.bad_runs

    def take(self, event: Event) -> Answer:
        """Decides what an event means; the answer to whoever brought it. Only what is ACCEPTED changes anything."""
        return self._intake.take(event)

    def controls(self) -> list[int]:
        """Control nodes that are decided now though they were READY before, and look at something to be decided."""
        return [
            outcome.node
            for outcome in self._intake.outcomes
            if isinstance(outcome, DecideControl | Requeued)
            and (node := self.plan.nodes[outcome.node]).control is not None
            and not node.config.constant
        ]

    def show(self, node: int, sight: Sight) -> None:
        """What a control node's config is resolved against."""
        self._intake.outcomes = [
            replace(outcome, sight=sight)
            if isinstance(outcome, DecideControl | Requeued) and outcome.node == node
            else outcome
            for outcome in self._intake.outcomes
        ]

    def walk(self, budget: ControlBudget | None = None) -> Generator[Need, Loaded, list[Change]] | None:
        """The walk through the graph; None if nothing ended."""
        if not self._intake.outcomes:
            return None
        outcomes = [self._with_outputs(outcome) for outcome in self._intake.outcomes]
        rows = {node: row.facts for node, row in self.rows.items()}
        # While it is paused no control node is decided: all are parked.
        budget = ControlBudget(0) if self._intake.paused else budget
        return advance(self.plan, outcomes, self._base(), budget=budget, rows=rows)

    def halted(self) -> list[Change]:
        """Instead of the walk where there is no plan: of leases that ended while the execution ends, and letters that
        were discarded in one that ends or has ended; nothing follows."""
        return [
            Change(outcome.node, self.rows[outcome.node].facts.state, outcome.state, self.rows[outcome.node].facts.gate)
            for outcome in self._intake.outcomes
            if isinstance(outcome, Halted)
        ]

    def _with_outputs(self, outcome: Outcome) -> Outcome:
        """Outputs are read only where an expression may ask for them."""
        reported = self._intake.reported.get(outcome.node)
        if reported is None or outcome.node not in self.plan.watched or not isinstance(outcome, Succeeded):
            return outcome
        result = reported[0].result
        return Succeeded(outcome.node, orjson.loads(result.outputs)) if isinstance(result, Success) else outcome

    def give_up(self, problem: str) -> list[Change]:
        """Instead of the walk: the runs of these events are quarantined, their edges stay undecided."""
        reported = self._intake.reported
        changes = []
        for node in dict.fromkeys(outcome.node for outcome in self._intake.outcomes):
            row = self.rows[node]
            failed = FailedForGood(node, LetterType.PERMANENT_ERROR, FailureType.PERMANENT, problem)
            if node in reported:
                counts = (row.lease.failures, row.lease.lost_leases)
                after = FailForGood(failed.letter, FailureType.PERMANENT, problem, *counts)
                reported[node] = (reported[node][0], after)
            changes.append(Change(node, row.facts.state, RunState.QUARANTINED, row.facts.gate, failure=failed))
        return changes

    def _base(self) -> Sight:
        if not self.plan.evaluates:
            return _NOTHING_SEEN
        memory = self._intake.rules.new_memory()
        return Sight(trigger=self.facts.trigger, execution=self.facts.visible, memory=memory)

    def write(self, changes: Sequence[Change], writes: Writes) -> list[ChangedRun]:
        """Adds what is to be written; the answer is the runs that became READY, for the hand-off to take up."""
        intake = self._intake
        ready: list[ChangedRun] = []
        self._write_resolved(writes)
        for change in changes:
            self._open_runs += open_delta(change.before, change.after)
            self._bad_runs += bad_delta(change.before, change.after, handled=change.handled)
            if change.after is RunState.QUARANTINED and change.failure is not None:
                self._quarantine(change.failure, writes)
            if change.node in intake.reported:
                reported, after = intake.reported[change.node]
                writes.add_reported(change, reported, after, self.rows[change.node].lease, self.revision)
                continue
            run = changed_run(
                change,
                self._key(change.node),
                self.revision,
                given=self._given(change.node),
                deadline=self.plan.nodes[change.node].deadline if self.plan.nodes else None,
                paused=intake.paused,
            )
            (ready if run.state is RunState.READY else writes.changed).append(run)
            if change.node in intake.reused and run.state is RunState.SUCCESS:
                writes.reused.append(intake.reused[change.node])
        writes.ended += intake.retried
        writes.attempts += intake.attempts
        writes.calls += intake.calls
        writes.stopped += intake.stopped
        writes.interventions += intake.interventions
        self._write_execution(changes, writes)
        return ready

    def _given(self, node: int) -> str | None:
        """Outputs that a run has from somebody else than its module: of a fix, or of an equal run."""
        intake = self._intake
        given = intake.resolved.get(node) or intake.reused.get(node)
        return given.outputs if given is not None else None

    def _write_resolved(self, writes: Writes) -> None:
        for node, event in self._intake.resolved.items():
            writes.resolved.append(event)
            if event.resolution is Resolution.REQUEUED and self.plan.nodes[node].decided_first:
                writes.undecided.append(self._key(node))
            if event.deadline is not None:
                writes.deadlines.append((self.facts.id, event.deadline))
            elif event.resolution is Resolution.FIXED and self._intake.locked.deadline_passed:
                # What the fix is for would be ended at once.
                writes.deadlines.append((self.facts.id, None))
            writes.outbox.append(self._outbox(event.run_id, event.quarantine_number, "RESOLVED"))

    def _write_execution(self, changes: Sequence[Change], writes: Writes) -> None:
        intake = self._intake
        if intake.ending is None and fails_fast(self.plan, changes):
            intake.ending = EndExecution(self.facts.id, Ending.FAIL_FAST)
        if intake.ending is not None:
            writes.endings.append((intake.ending, self))
            return
        moved = intake.state is not intake.locked.state
        if moved:
            (writes.paused if intake.paused else writes.resumed).append(self.facts.id)
        if changes or moved:
            writes.executions.append(self.changed_execution(self._open_runs))

    def changed_execution(self, open_runs: int) -> ChangedExecution:
        """The execution's row after everything else of this transaction."""
        intake = self._intake
        state = execution_state_after(
            intake.state,
            open_runs=open_runs,
            bad_runs=self._bad_runs,
            ending=intake.ended_by,
            reopened=bool(intake.resolved)
            and any(event.resolution is not Resolution.DISCARDED for event in intake.resolved.values()),
        )
        kind, message = intake.error or (None, None)
        return ChangedExecution(self.facts.id, state, self.revision, open_runs, self._bad_runs, kind, message)

    def replay_of(self, node: int) -> Replay:
        """What requeues, that of this batch included, leave on a run."""
        before, event = self.rows[node].replay, self._intake.resolved.get(node)
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
        return (self.facts.id, self.rows[node].id)

    def _quarantine(self, failure: FailedForGood, writes: Writes) -> None:
        key, number = self._key(failure.node), self.rows[failure.node].quarantine_number + 1
        self._intake.error = self._intake.error or self._error_of(failure)
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


_NOTHING_SEEN = Sight()
