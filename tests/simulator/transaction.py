"""One transaction of progress: rows locked, events decided by valkyr.flow, everything written at once or not at all.

The same steps as `services/executor/transaction.py`, over rows in memory. It takes its locks at the beginning and
writes at the end; what does not need these locks may happen in between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from tests.simulator.rows import ExecutionRow, RunRow
from tests.simulator.runners import Lease, lease_of
from tests.simulator.sight import results_of, stored_result
from valkyr.flow.attempts import Fence
from valkyr.flow.effects import AttemptEnded, ChangedRun, EndedAttempt, Prepared
from valkyr.flow.events import Event, OfExecution
from valkyr.flow.ids import node_of
from valkyr.flow.intake import Answer
from valkyr.flow.joins import Gate, taken_edges
from valkyr.flow.leasing import may_hand_off
from valkyr.flow.outcomes import Change, ControlBudget, Loaded, Need, RunFacts
from valkyr.flow.plan import Plan
from valkyr.flow.sights import sight_of
from valkyr.flow.states import RunState, StopReason
from valkyr.flow.step import ExecutionStep, touched_nodes
from valkyr.flow.writes import Writes
from valkyr.graph.model import Settings

if TYPE_CHECKING:
    from tests.simulator.executor import Executor

_GONE = RunFacts(RunState.LEASED, Gate(0))
_HANDED = Prepared(UUID(int=0), UUID(int=0), 0, 0, 0, b"", b"", "", "", "")
NO_PLAN = Plan((), (), (), (), Settings(), {}, (), frozenset(), evaluates=False)


class Transaction:
    """`problem` is why the executions are not carried on: then what ended is quarantined, and nothing follows."""

    def __init__(self, executor: Executor, events: Sequence[Event], problem: str | None) -> None:
        self.executor = executor
        self.world = executor.world
        self.events = events
        self.problem = problem
        self.answers: list[Answer] = []
        self.changes: dict[UUID, list[Change]] = {}
        self.handed: list[RunRow] = []
        self.room = 0
        self.aborted = False
        # By the database's clock, and by the executor's own; before it had any lock.
        self.began = self.world.clock.now
        self.sent_at = executor.monotonic()
        self.steps: dict[UUID, ExecutionStep] = {}
        self._executions: dict[UUID, ExecutionRow] = {}
        self._locked: list[RunRow] = []
        self._writes = Writes()

    @property
    def executions(self) -> list[ExecutionRow]:
        return list(self._executions.values())

    def lock(self) -> bool:
        """Executions by id, then runs by id; false if somebody else holds one of them."""
        store = self.world.store
        ids = sorted({event.execution_id for event in self.events} & store.executions.keys())
        executions = {id_: store.executions[id_] for id_ in ids}
        rows = [row for execution in executions.values() for row in self._touched(execution)]
        if any(execution.locked_by for execution in executions.values()) or any(row.locked_by for row in rows):
            return False
        self._executions, self._locked = executions, rows
        for execution in executions.values():
            execution.locked_by = self
        for row in rows:
            row.locked_by = self
        return True

    def _touched(self, execution: ExecutionRow) -> list[RunRow]:
        plan = self._plan_of(execution)
        nodes = [
            node_of(event.run_id)
            for event in self.events
            if event.execution_id == execution.id and not isinstance(event, OfExecution)
        ]
        known = [node for node in nodes if node < len(execution.runs)]
        return [execution.runs[node] for node in sorted(touched_nodes(plan, known))]

    def _plan_of(self, execution: ExecutionRow) -> Plan:
        """What concerns only the execution needs no plan, and sometimes there is none."""
        if execution.plannable_from > self.began:
            return NO_PLAN
        mine = (event for event in self.events if event.execution_id == execution.id)
        return NO_PLAN if all(isinstance(event, OfExecution) for event in mine) else execution.plan

    def release(self) -> None:
        if self.aborted:
            return
        for execution in self._executions.values():
            execution.locked_by = None
        for row in self._locked:
            row.locked_by = None
        self.world.locks_released()

    def abort(self) -> None:
        """By the database: nothing of it will be written."""
        self.release()
        self.aborted = True

    def decide(self) -> None:
        """Raises what a condition raises that nobody foresaw; then nothing is written."""
        now = self.began
        for execution in self._executions.values():
            rows = {row.node.index: row.locked(now) for row in self._locked if row.key[0] == execution.id}
            quarantines = {key: row.record() for key, row in execution.quarantines.items()}
            self.steps[execution.id] = ExecutionStep(
                execution.facts,
                self._plan_of(execution),
                execution.locked(now),
                rows,
                self.world.rules,
                quarantines=quarantines,
                asked=self.world.store.asked,
            )
        self._take_all()
        self._show_controls()
        if self.problem is None:
            self._walk_all()
        else:
            self.changes = {id_: step.give_up(self.problem) for id_, step in self.steps.items()}
        for id_, step in self.steps.items():
            ready = step.write(self.changes.get(id_, []), self._writes)
            self._hand_off(self._executions[id_], step, ready)

    def _take_all(self) -> None:
        """In order, but those of whole executions first."""
        answers: dict[int, Answer] = {}
        for place in sorted(range(len(self.events)), key=lambda place: not isinstance(self.events[place], OfExecution)):
            step = self.steps.get(self.events[place].execution_id)
            answers[place] = Fence.LEASE_LOST if step is None else step.take(self.events[place])
        self.answers = [answers[place] for place in range(len(self.events))]

    def _show_controls(self) -> None:
        """Control nodes that were READY before see what they would have seen then."""
        for id_, step in self.steps.items():
            execution = self._executions[id_]
            for index in step.controls():
                node = step.plan.nodes[index]
                sight = sight_of(
                    step.plan,
                    execution.facts,
                    node,
                    taken=taken_edges(node.incoming, step.rows[index].facts.gate),
                    ready_revision=step.ready_revision_of(index),
                    result_of=partial(stored_result, execution),
                    replaced=step.replay_of(index).inputs,
                )
                step.show(index, sight)

    def _walk_all(self) -> None:
        budget = ControlBudget(self.world.dice.choice((0, 1, 2, 1_000)))
        for id_, step in self.steps.items():
            if not step.plan.nodes:
                self.changes[id_] = step.halted()
                continue
            walk = step.walk(budget)
            if walk is None:
                continue
            try:
                need = next(walk)
                while True:
                    need = walk.send(self._load(self._executions[id_], step, need))
            except StopIteration as done:
                self.changes[id_] = done.value

    def _load(self, execution: ExecutionRow, step: ExecutionStep, need: Need) -> Loaded:
        now = self.began
        if not need.rows <= step.rows.keys():
            for row in execution.runs:
                if row.state is RunState.PENDING and row.node.index not in step.rows:
                    step.rows[row.node.index] = row.locked(now)
                    row.locked_by = self
                    self._locked.append(row)
        rows = {node: step.rows[node].facts if node in step.rows else _GONE for node in need.rows}
        return Loaded(rows, results_of(execution, need.results, step.revision))

    def _hand_off(self, execution: ExecutionRow, step: ExecutionStep, ready: Sequence[ChangedRun]) -> None:
        """As many of the runs that became ready as there is room for are leased here and now."""
        for run in ready:
            row = execution.runs[node_of(run.key[1])]
            takes = self.room > 0 and self.executor.may_take(row.node)
            if may_hand_off(step.rows[row.node.index], takes=takes):
                self.room -= 1
                self.world.invariants.chosen(row, self.executor)
                self.handed.append(row)
                self._writes.changed.append(replace(run, state=RunState.LEASED, prepared=_HANDED))
            else:
                self._writes.changed.append(run)

    def waits(self) -> bool:
        """Whether what is to be cancelled, stopped or parked is held by somebody else just now."""
        writes = self._writes
        whole = [*(event.execution_id for event, _ in writes.endings), *writes.paused, *writes.resumed]
        return any(row.locked_by not in (None, self) for id_ in whole for row in self._executions[id_].runs)

    def commit(self) -> list[Lease]:
        """Writes, in the order of the statements; the leases that were handed off."""
        store, writes = self.world.store, self._writes
        self._check_apart()
        store.now = self.began
        store.attempts_written += len(writes.attempts)
        store.finish_runs(writes.finished)
        store.end_runs(writes.ended)
        store.resolve_quarantines(writes.resolved)
        store.set_deadlines(writes.deadlines)
        store.change_runs(writes.changed, self.executor.holder)
        store.note_reused(writes.reused)
        store.insert_quarantines(writes.quarantines)
        store.insert_outbox(writes.outbox)
        store.stop_runs(writes.stopped, StopReason.DEADLINE)
        left = store.end_executions([event for event, _ in writes.endings])
        writes.executions += [step.changed_execution(left[event.execution_id]) for event, step in writes.endings]
        store.update_executions(writes.executions)
        store.insert_interventions(writes.interventions)
        store.pause_runs(writes.paused)
        store.resume_runs(writes.resumed)
        self.release()
        return [lease_of(row, self.world) for row in self.handed]

    def _check_apart(self) -> None:
        """One statement writes all runs that end or change, and may do so for each of them once only."""
        writes = self._writes
        runs = [run.key[1] for runs in (writes.finished, writes.ended, writes.changed) for run in runs]
        twice = [run for run, times in Counter(runs).items() if times > 1]
        if twice:
            self.world.invariants.ledger.fail("WRITES", "{} is written twice in one transaction", twice[0])

    def planned(self, execution_id: UUID) -> bool:
        """Whether what concerns its runs can be decided at all."""
        return execution_id not in self.steps or len(self.steps[execution_id].plan.nodes) > 0

    @property
    def attempts(self) -> list[EndedAttempt]:
        """What is kept of attempts that did not succeed."""
        return self._writes.attempts

    @property
    def calls(self) -> list[AttemptEnded]:
        """What the breakers are told once it is committed."""
        return self._writes.calls
