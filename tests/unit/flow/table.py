"""One execution as rows in memory, written by `ExecutionStep` like the tables, and checked after every transaction."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from tests.unit.executor.executions import EXECUTION, POLICY, a_fact
from tests.unit.flow.batches import NOTHING, a_record
from valkyr.flow.attempts import LeaseFacts
from valkyr.flow.effects import ChangedExecution, ChangedRun, EndedRun
from valkyr.flow.events import Event, OfExecution, Resolution
from valkyr.flow.facts import LockedExecution, LockedRun, QuarantineRecord
from valkyr.flow.ids import node_of, run_id
from valkyr.flow.intake import Answer, StepRules
from valkyr.flow.joins import Gate
from valkyr.flow.outcomes import Change, ControlBudget, Loaded, RunFacts
from valkyr.flow.pauses import PAUSE
from valkyr.flow.plan import Plan
from valkyr.flow.states import (
    CANCELLED_AT_ONCE,
    FINAL_RUN_STATES,
    MOVABLE_RUN_STATES,
    RUN_TRANSITIONS,
    SETTLED_EXECUTION_STATES,
    ExecutionState,
    RunState,
    StopReason,
)
from valkyr.flow.step import ExecutionStep, touched_nodes
from valkyr.flow.writes import Writes

R, E = RunState, ExecutionState
PATIENT = replace(POLICY, max_attempts=1_000, max_lost_leases=1_000)
_RULES = StepRules(lambda _node, _settings: PATIENT, lambda: 0.5, lambda: None, max_requeues=1_000)


@dataclass
class Table:
    """`dice` decide how much of the control budget each transaction has left."""

    plan: Plan
    dice: random.Random
    rows: dict[int, LockedRun] = field(default_factory=dict)
    execution: LockedExecution = field(init=False)
    records: dict[tuple[UUID, int], QuarantineRecord] = field(default_factory=dict)
    discarded: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        for node in self.plan.nodes:
            self.rows[node.index] = _first_row(node.index, len(node.incoming))
        self.execution = LockedExecution(EXECUTION, E.PENDING, 1, open_runs=len(self.plan.roots), bad_runs=0)

    def in_state(self, *states: RunState) -> list[int]:
        return [node for node, row in self.rows.items() if row.facts.state in states]

    @property
    def states(self) -> dict[str, RunState]:
        return {node.node_id: self.rows[node.index].facts.state for node in self.plan.nodes}

    @property
    def paused(self) -> bool:
        return self.execution.state is E.PAUSED

    def lease(self, node: int) -> None:
        """As the dispatcher does it, which looks at nothing but the run."""
        row = self.rows[node]
        assert row.facts.state is R.READY
        self._set(node, R.LEASED, epoch=row.lease.epoch + 1)

    def hold_back(self, node: int) -> None:
        """Its breaker does."""
        self._set(node, R.PARKED)
        self.rows[node] = replace(self.rows[node], parked_by="BREAKER")

    def let_go(self, node: int) -> None:
        self._set(node, R.READY)

    def be_late(self, node: int) -> None:
        """The deadline of the run has passed."""
        row = self.rows[node]
        self.rows[node] = replace(row, lease=replace(row.lease, deadline_passed=True))

    def apply(self, events: Sequence[Event], *, problem: str = "") -> list[Answer]:
        """One transaction, as the executor makes it."""
        nodes = [node_of(event.run_id) for event in events if not isinstance(event, OfExecution)]
        rows = {node: self.rows[node] for node in touched_nodes(self.plan, nodes)}
        step = ExecutionStep(a_fact(), self.plan, self.execution, rows, _RULES, quarantines=self.records)
        answers: dict[int, Answer] = {}
        for place in sorted(range(len(events)), key=lambda place: not isinstance(events[place], OfExecution)):
            answers[place] = step.take(events[place])
        changes = step.give_up(problem) if problem else self._walk(step)
        writes = Writes()
        ready = step.write(changes, writes)
        self._check_transitions(changes)
        self._write(writes, ready)
        self._check()
        if self.paused:
            _check_nothing_begins(changes)
        return [answers[place] for place in range(len(events))]

    def _walk(self, step: ExecutionStep) -> list[Change]:
        walk = step.walk(ControlBudget(self.dice.choice([0, 1, 1_000])))
        if walk is None:
            return []
        try:
            need = next(walk)
            while True:
                step.rows.update((node, self.rows[node]) for node in need.rows)
                facts = {node: self.rows[node].facts for node in need.rows}
                need = walk.send(Loaded(facts, dict.fromkeys(need.results, NOTHING)))
        except StopIteration as done:
            changes: list[Change] = done.value
        return changes

    def _check_transitions(self, changes: Sequence[Change]) -> None:
        for change in changes:
            before = self.rows[change.node].facts.state
            assert change.before is before
            assert change.after in RUN_TRANSITIONS[before] or change.after is before is R.PENDING

    def _write(self, writes: Writes, ready: Sequence[ChangedRun]) -> None:
        for finished in writes.finished:
            self._set(node_of(finished.key[1]), R.SUCCESS)
        for ended in writes.ended:
            self._end(node_of(ended.key[1]), ended)
        for event in writes.resolved:
            key = (event.run_id, event.quarantine_number)
            self.records[key] = replace(self.records[key], resolution=event.resolution)
            if event.resolution is Resolution.DISCARDED:
                self.discarded.add(node_of(event.run_id))
            elif event.resolution is Resolution.REQUEUED:
                row = self.rows[node_of(event.run_id)]
                lease = LeaseFacts(row.lease.state, row.lease.epoch, 0, 0)
                self.rows[node_of(event.run_id)] = replace(row, lease=lease)
        for changed in (*writes.changed, *ready):
            self._change(node_of(changed.key[1]), changed)
        for quarantine in writes.quarantines:
            number = quarantine.quarantine_number
            assert self.rows[node_of(quarantine.key[1])].quarantine_number == number, "numbers have no gaps"
            self.records[quarantine.key[1], number] = a_record(quarantine_number=number)
        for _, stopped in writes.stopped:
            node = node_of(stopped)
            self.rows[node] = replace(self.rows[node], stop_reason=StopReason.DEADLINE)
        self._write_execution(writes)

    def _write_execution(self, writes: Writes) -> None:
        for end, closing in writes.endings:
            for node in self.in_state(*CANCELLED_AT_ONCE):
                self._set(node, R.CANCELLED)
            left = self.in_state(R.LEASED)
            for node in left:
                self.rows[node] = replace(self.rows[node], stop_reason=StopReason.CANCEL)
            self._settle(closing.changed_execution(len(left)))
            self.execution = replace(self.execution, ending=end.ending)
        for changed in writes.executions:
            self._settle(changed)
        for node in self.in_state(R.READY, R.PARKED) if writes.paused else ():
            self._set(node, R.PARKED)
            self.rows[node] = replace(self.rows[node], parked_by=PAUSE)
        for node in self.in_state(R.PARKED) if writes.resumed else ():
            if self.rows[node].parked_by == PAUSE:
                self._set(node, R.READY)

    def _settle(self, changed: ChangedExecution) -> None:
        self.execution = replace(
            self.execution,
            state=changed.state,
            revision=changed.revision,
            open_runs=changed.open_runs,
            bad_runs=changed.bad_runs,
        )

    def _end(self, node: int, ended: EndedRun) -> None:
        row = self.rows[node]
        self._set(node, ended.state, epoch=row.lease.epoch + ended.raise_epoch, always=ended.always_decided)
        row = self.rows[node]
        counts = replace(row.lease, failures=ended.failures, lost_leases=ended.lost_leases)
        parked_by = PAUSE if ended.state is R.PARKED else None
        self.rows[node] = replace(row, lease=counts, stop_reason=None, parked_by=parked_by)

    def _change(self, node: int, changed: ChangedRun) -> None:
        self._set(node, changed.state, gate=changed.gate, always=changed.always_decided)
        if changed.state is R.PARKED:
            self.rows[node] = replace(self.rows[node], parked_by=PAUSE)

    def _set(
        self, node: int, state: RunState, *, epoch: int | None = None, gate: Gate | None = None, always: bool = False
    ) -> None:
        row = self.rows[node]
        lease = replace(row.lease, state=state, epoch=row.lease.epoch if epoch is None else epoch)
        facts = RunFacts(state, gate or row.facts.gate, row.facts.always_decided or always)
        number = row.quarantine_number + (state is R.QUARANTINED)
        self.rows[node] = replace(row, lease=lease, facts=facts, quarantine_number=number, parked_by=None)

    def _check(self) -> None:
        """Counters recounted; nothing that a pause or an end lets through."""
        states = [row.facts.state for row in self.rows.values()]
        execution = self.execution
        assert execution.open_runs == sum(state in MOVABLE_RUN_STATES for state in states)
        assert execution.bad_runs == states.count(R.QUARANTINED) + len(self.discarded)
        settled = execution.state in SETTLED_EXECUTION_STATES
        assert settled == (execution.open_runs == 0), "it ends when nothing can move, and not before"
        if self.paused:
            assert R.READY not in states
        else:
            assert PAUSE not in [row.parked_by for row in self.rows.values()]
        if execution.ending is not None:
            assert not CANCELLED_AT_ONCE & set(states)
        if execution.state is E.SUCCESS:
            assert set(states) <= FINAL_RUN_STATES


def _check_nothing_begins(changes: Sequence[Change]) -> None:
    """In a transaction that leaves the execution paused: what left PENDING was to be READY, is skipped, or is behind a
    condition that broke. No control node was decided."""
    left = {change.after for change in changes if change.before is R.PENDING}
    assert left <= {R.PENDING, R.READY, R.SKIPPED, R.QUARANTINED}


def _first_row(node: int, unmet: int) -> LockedRun:
    state = R.PENDING if unmet else R.READY
    return LockedRun(
        execution_id=EXECUTION,
        id=run_id(EXECUTION, node),
        node_index=node,
        attempt=0,
        quarantine_number=0,
        runner_id=None,
        lease=LeaseFacts(state, 0, 0, 0),
        facts=RunFacts(state, Gate(unmet)),
        lease_expired=True,
        due=True,
        ready_revision=None if unmet else 1,
    )
