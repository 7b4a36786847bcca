"""One execution as rows in memory, changed by `valkyr.flow` as the executor's tables are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import uuid_utils

from valkyr.errors import ValkyrError
from valkyr.flow.advance import taken_edges
from valkyr.flow.attempts import LeaseFacts
from valkyr.flow.effects import ChangedExecution, ChangedRun, EndedRun, NewQuarantine, Prepared
from valkyr.flow.events import Event, Resolution, Resolve
from valkyr.flow.facts import ExecutionFacts, LockedExecution, LockedRun, QuarantineRecord
from valkyr.flow.ids import node_of, run_id
from valkyr.flow.intake import StepRules
from valkyr.flow.joins import Gate
from valkyr.flow.outcomes import Change, Loaded, RunFacts
from valkyr.flow.plan import Plan, PlannedNode
from valkyr.flow.sights import QuarantinedAs, StoredResult, sight_of, visible_result
from valkyr.flow.states import (
    CANCELLED_AT_ONCE,
    FINAL_RUN_STATES,
    MOVABLE_RUN_STATES,
    ExecutionState,
    RunState,
    StopReason,
)
from valkyr.flow.step import ExecutionStep, touched_nodes
from valkyr.flow.writes import Writes
from valkyr.planning.inputs import Targets, prepare

START = timedelta()
_UNSETTLED = StoredResult(RunState.PENDING, None, None, None, None)
_WITH_RESULT = FINAL_RUN_STATES | {RunState.QUARANTINED}

Told = Callable[[int, RunState], None]


class Rows:
    """`now` is moved by whoever plays; `told` hears of every state that a run comes to. Times count from the start."""

    def __init__(
        self, plan: Plan, trigger: bytes, rules: StepRules, told: Told, *, deadline: timedelta | None = None
    ) -> None:
        execution_id = UUID(int=uuid_utils.uuid7().int)
        self.plan = plan
        self.facts = ExecutionFacts(execution_id, "default", execution_id, 1, 0, trigger, "")
        self.began_at = datetime.now(UTC)
        self.now = START
        self.execution = LockedExecution(execution_id, ExecutionState.PENDING, 1, open_runs=len(plan.roots), bad_runs=0)
        if not plan.nodes:
            self.execution = replace(self.execution, state=ExecutionState.SUCCESS)
        self.ready_at: dict[int, timedelta] = {}
        self.wake_at: dict[int, timedelta] = {}
        self.deadline_at: dict[int, timedelta] = {}
        self.progress: dict[int, str] = {}
        self.quarantines: dict[int, NewQuarantine] = {}
        self._deadline = deadline
        self._rules = rules
        self._told = told
        self._results: dict[int, StoredResult] = {}
        self._earlier: dict[int, tuple[QuarantinedAs, ...]] = {}
        self._records: dict[tuple[UUID, int], QuarantineRecord] = {}
        self._rows = {node.index: self._first_row(node) for node in plan.nodes}
        for root in plan.roots:
            self.ready_at[root] = START
            if (deadline := plan.nodes[root].deadline) is not None:
                self.deadline_at[root] = deadline

    def row(self, node: int) -> LockedRun:
        """As it is now."""
        row = self._rows[node]
        late = node in self.deadline_at and self.now >= self.deadline_at[node]
        due = self.now >= self.wake_at.get(node, START)
        return replace(row, due=due, lease=replace(row.lease, deadline_passed=late))

    def in_state(self, *states: RunState) -> list[int]:
        return [node for node, row in self._rows.items() if row.facts.state in states]

    def result_of(self, node: int) -> StoredResult | None:
        result = self._results.get(node, _UNSETTLED)
        return replace(result, earlier=self._earlier.get(node, ()))

    def run_of(self, node: int) -> UUID:
        return run_id(self.facts.id, node)

    def lease(self, node: int, targets: Targets) -> Prepared:
        """As the dispatcher leases a run, with what it is handed."""
        prepared = self.prepare(node, targets)
        row = self._rows[node]
        lease = replace(row.lease, epoch=prepared.epoch)
        self._rows[node] = replace(row, attempt=prepared.attempt, lease=lease)
        self._set(node, RunState.LEASED)
        return prepared

    def prepare(self, node: int, targets: Targets) -> Prepared:
        """What it would be handed under the next lease."""
        row, planned = self._rows[node], self.plan.nodes[node]
        deadline = self.deadline_at.get(node)
        return prepare(
            self.plan,
            self.facts,
            planned,
            taken=taken_edges(planned.incoming, row.facts.gate),
            epoch=row.lease.epoch + 1,
            attempt=row.attempt + 1,
            ready_revision=row.ready_revision or 1,
            result_of=self.result_of,
            modules=targets,
            replay=row.replay,
            deadline=None if deadline is None else self.began_at + deadline,
            progress=self.progress.get(node),
        )

    def release(self, node: int) -> None:
        """No equal of it was found: it may be leased."""
        self._rows[node] = replace(self._rows[node], undecided=False)

    def apply(self, *events: Event) -> None:
        """One transaction, as the executor makes it. ValkyrError for what is asked and refused."""
        nodes = [node_of(event.run_id) for event in events if hasattr(event, "run_id")]
        rows = {node: self.row(node) for node in touched_nodes(self.plan, nodes)}
        late = self._deadline is not None and self.now >= self._deadline
        execution = replace(self.execution, now=self.began_at + self.now, deadline_passed=late)
        step = ExecutionStep(self.facts, self.plan, execution, rows, self._rules, quarantines=self._records)
        answers = [step.take(event) for event in events]
        refused = next((answer for answer in answers if isinstance(answer, ValkyrError)), None)
        if refused is not None:
            raise refused
        self._show_controls(step)
        writes = Writes()
        ready = step.write(self._walk(step), writes)
        self._write(step, writes, ready)

    def _show_controls(self, step: ExecutionStep) -> None:
        for node in step.controls():
            planned = self.plan.nodes[node]
            sight = sight_of(
                self.plan,
                self.facts,
                planned,
                taken=taken_edges(planned.incoming, step.rows[node].facts.gate),
                ready_revision=step.ready_revision_of(node),
                result_of=self.result_of,
                replaced=step.replay_of(node).inputs,
            )
            step.show(node, sight)

    def _walk(self, step: ExecutionStep) -> list[Change]:
        walk = step.walk()
        if walk is None:
            return []
        try:
            need = next(walk)
            while True:
                for node in need.rows:
                    step.rows.setdefault(node, self.row(node))
                rows = {node: step.rows[node].facts for node in need.rows}
                seen = {node: visible_result(self.result_of(node), step.revision) for node in need.results}
                need = walk.send(Loaded(rows, seen))
        except StopIteration as done:
            changes: list[Change] = done.value
        return changes

    def _write(self, step: ExecutionStep, writes: Writes, ready: Sequence[ChangedRun]) -> None:
        for finished in writes.finished:
            node = node_of(finished.key[1])
            self._results[node] = StoredResult(RunState.SUCCESS, finished.outputs, None, None, finished.revision)
            self._set(node, RunState.SUCCESS)
        for ended in writes.ended:
            self._end(node_of(ended.key[1]), ended)
        for event in writes.resolved:
            self._resolve(step, event)
        for changed in (*writes.changed, *ready):
            self._change(node_of(changed.key[1]), changed)
        for quarantine in writes.quarantines:
            self._quarantine(node_of(quarantine.key[1]), quarantine)
        for _, stopped in writes.stopped:
            self._stop(node_of(stopped), StopReason.DEADLINE)
        for end, closing in writes.endings:
            for node in self.in_state(*CANCELLED_AT_ONCE):
                self._set(node, RunState.CANCELLED)
            left = self.in_state(RunState.LEASED)
            for node in left:
                self._stop(node, StopReason.CANCEL)
            self.execution = replace(self.execution, ending=end.ending)
            self._settle(closing.changed_execution(len(left)))
        for execution in writes.executions:
            self._settle(execution)

    def _settle(self, changed: ChangedExecution) -> None:
        self.execution = replace(
            self.execution,
            state=changed.state,
            revision=changed.revision,
            open_runs=changed.open_runs,
            bad_runs=changed.bad_runs,
        )

    def _end(self, node: int, ended: EndedRun) -> None:
        row = self._rows[node]
        lease = replace(
            row.lease,
            epoch=row.lease.epoch + ended.raise_epoch,
            failures=ended.failures,
            lost_leases=ended.lost_leases,
        )
        facts = replace(row.facts, always_decided=row.facts.always_decided or ended.always_decided)
        self._rows[node] = replace(row, lease=lease, facts=facts, stop_reason=None)
        if ended.revision is not None:
            self._results[node] = StoredResult(ended.state, None, ended.error, ended.error_type, ended.revision)
        if ended.wait is not None:
            self.ready_at[node] = self.now + ended.wait
        self._set(node, ended.state)

    def _change(self, node: int, changed: ChangedRun) -> None:
        row = self._rows[node]
        before = row.facts.state
        facts = RunFacts(before, changed.gate, row.facts.always_decided or changed.always_decided)
        self._rows[node] = replace(row, facts=facts)
        discarded = changed.state is RunState.FAILED and changed.error is None
        if changed.state in _WITH_RESULT and not discarded:
            self._results[node] = StoredResult(
                changed.state, changed.outputs, changed.error, changed.error_type, changed.revision
            )
        if before is RunState.PENDING and changed.state not in (RunState.PENDING, RunState.SKIPPED):
            self._rows[node] = replace(self._rows[node], ready_revision=changed.revision)
        if changed.state is RunState.READY:
            self.ready_at[node] = self.now
        if changed.deadline is not None and changed.state in MOVABLE_RUN_STATES:
            self.deadline_at.setdefault(node, self.now + changed.deadline)
        if changed.wake_after is not None:
            self.wake_at[node] = self.now + changed.wake_after
        if changed.state is not before:
            self._set(node, changed.state)

    def _resolve(self, step: ExecutionStep, event: Resolve) -> None:
        node = node_of(event.run_id)
        key = (event.run_id, event.quarantine_number)
        self._records[key] = replace(self._records[key], resolution=event.resolution)
        if event.resolution is Resolution.REQUEUED:
            row = self._rows[node]
            lease = replace(row.lease, failures=0, lost_leases=0)
            first = self.plan.nodes[node].decided_first
            self._rows[node] = replace(row, lease=lease, replay=step.replay_of(node), undecided=first)
            self.deadline_at.pop(node, None)
            if event.inputs is not None:  # what was said belongs to others
                self.progress.pop(node, None)

    def _quarantine(self, node: int, new: NewQuarantine) -> None:
        self.quarantines[node] = new
        self._rows[node] = replace(self._rows[node], quarantine_number=new.quarantine_number)
        self._earlier[node] = (
            *self._earlier.get(node, ()),
            QuarantinedAs(new.revision, new.error, new.error_type),
        )
        self._records[new.key[1], new.quarantine_number] = QuarantineRecord(
            quarantine_number=new.quarantine_number,
            failure_type=new.failure_type,
            error_type=new.error_type,
            error=new.error,
            revision=new.revision,
            quarantined_at=self.began_at + self.now,
            resolution=Resolution.PENDING,
            resolved_by=None,
            resolved_at=None,
            reason=None,
        )

    def _stop(self, node: int, reason: StopReason) -> None:
        self._rows[node] = replace(self._rows[node], stop_reason=reason)

    def _set(self, node: int, state: RunState) -> None:
        row = self._rows[node]
        facts = RunFacts(state, row.facts.gate, row.facts.always_decided)
        self._rows[node] = replace(row, lease=replace(row.lease, state=state), facts=facts)
        self._told(node, state)

    def _first_row(self, node: PlannedNode) -> LockedRun:
        unmet = len(node.incoming)
        state = RunState.PENDING if unmet else RunState.READY
        return LockedRun(
            execution_id=self.facts.id,
            id=self.run_of(node.index),
            node_index=node.index,
            attempt=0,
            quarantine_number=0,
            runner_id=None,
            lease=LeaseFacts(state, 0, 0, 0),
            facts=RunFacts(state, Gate(unmet)),
            lease_expired=True,
            due=True,
            ready_revision=None if unmet else 1,
            undecided=node.decided_first,
        )
