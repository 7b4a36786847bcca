"""One transaction: events fenced, decided, carried on, handed on, written - all of it or nothing (I08).

Executions are locked by id, then runs by id; what valkyr/flow decides is written in a bounded number of statements
whatever the batch; runs that become ready while this process has room are leased in the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from services.executor.facts import Known
from services.executor.handoff import Grant, Handoff
from services.executor.model import Heard, LeasePolicy, rank_of
from services.executor.preparing import Preparing, Wanted, refusals
from services.executor.store import pausing, reusing
from services.executor.store import progress as store
from services.executor.store.reads import read_quarantines
from valkyr.flow.advance import taken_edges
from valkyr.flow.attempts import Fence
from valkyr.flow.effects import AttemptEnded, ChangedRun, Prepared
from valkyr.flow.events import Event, LeaseEnded, OfExecution, PauseExecution, Resolve, ResumeExecution
from valkyr.flow.facts import Asked, QuarantineRecord
from valkyr.flow.ids import RunKey, node_of, run_id
from valkyr.flow.intake import Answer, StepRules
from valkyr.flow.joins import Gate
from valkyr.flow.leasing import may_hand_off
from valkyr.flow.outcomes import Change, ControlBudget, Loaded, Need, RunFacts
from valkyr.flow.plan import PlannedNode
from valkyr.flow.sights import StoredResult, results_by_node, sight_of, visible_result
from valkyr.flow.states import FINAL_RUN_STATES, SETTLED_EXECUTION_STATES, RunState, StopReason
from valkyr.flow.step import ExecutionStep, touched_nodes
from valkyr.flow.writes import Writes
from valkyr.runner.leases import LeasedRun

Walk = Generator[Need, Loaded, list[Change]]

# A run that is no longer PENDING when a far-travelling skip asks for it: nothing more can happen to it.
_GONE = RunFacts(RunState.LEASED, Gate(0))

_WITH_RESULT = FINAL_RUN_STATES | {RunState.QUARANTINED}


@dataclass(frozen=True, slots=True)
class Rules:
    """What is configured about progress."""

    timeouts: Mapping[str, timedelta]
    cancel_grace: timedelta
    max_requeues: int


@dataclass(frozen=True, slots=True)
class Means:
    """What a transaction works with."""

    handoff: Handoff
    preparing: Preparing
    step_rules: StepRules
    lease: LeasePolicy
    rules: Rules


@dataclass(slots=True)
class Applied:
    """What a transaction came to: answers in the order of the events, and what to do once it is committed."""

    answers: list[Answer]
    granted: list[LeasedRun] = field(default_factory=list)
    refused: list[LeaseEnded] = field(default_factory=list)
    left_ready: dict[str, int] = field(default_factory=dict)
    """By pool, the most urgent rank of the runs that are READY and that nobody has taken up yet."""
    left_somewhere: int | None = None
    """As `left_ready`, of runs whose pools nobody has asked for."""
    left_control: bool = False
    timers: bool = False
    deadlines: bool = False
    outbox: bool = False
    changed: list[Heard] = field(default_factory=list)
    calls: Sequence[AttemptEnded] = ()

    def leave_ready(self, pool: str, rank: int) -> None:
        self.left_ready[pool] = min(rank, self.left_ready.get(pool, rank))


class Transaction:
    """One attempt at one batch. `grant` sets room aside, once its rows are locked: until then the room is others'."""

    def __init__(self, means: Means, tx: Any, known: Mapping[UUID, Known], grant: Callable[[], Grant]) -> None:
        self._means = means
        self._tx = tx
        self._known = known
        self._open_grant = grant
        self._grant = Grant(0)
        self._steps: dict[UUID, ExecutionStep] = {}
        self._pending_read: set[UUID] = set()

    async def run(self, events: Sequence[Event], problem: str | None) -> Applied:
        """`problem` is why the executions are not carried on: then what ended is quarantined, and nothing follows."""
        await self._lock(events)
        self._grant = self._open_grant()
        answers = self._take_all(events)
        await self._show_controls()
        if problem is None:
            changes = await self._walk()
        else:
            changes = {key: step.give_up(problem) for key, step in self._steps.items()}
        writes = Writes()
        ready = {key: step.write(changes.get(key, []), writes) for key, step in self._steps.items()}
        became_ready = [run for runs in ready.values() for run in runs]
        applied = Applied(answers)
        leased = await self._lease_ready(became_ready, writes)
        applied.granted = self._means.preparing.hand_out(leased, self._known)
        applied.refused = refusals(leased)
        self._note_rest(writes, applied)
        await self._write(writes)
        applied.changed = [Heard(e.id, e.revision, e.state in SETTLED_EXECUTION_STATES) for e in writes.executions]
        await self._pause_and_resume(writes, applied)
        return applied

    async def _lock(self, events: Sequence[Event]) -> None:
        locked = await store.lock(self._tx, self._touched_by(events))
        quarantines = await self._quarantines(events)
        asked = await self._asked(events)
        rules = self._means.step_rules
        for execution_id, (execution, rows) in locked.items():
            known = self._known[execution_id]
            self._steps[execution_id] = ExecutionStep(
                known.facts,
                known.version.plan,
                execution,
                rows,
                rules,
                quarantines=quarantines,
                asked=asked.get(known.facts.namespace, {}),
            )

    def _touched_by(self, events: Sequence[Event]) -> dict[UUID, list[UUID]]:
        """The executions of events, and of each the runs that are named and those right behind them."""
        nodes: dict[UUID, list[int]] = {}
        for event in events:
            known = self._known.get(event.execution_id)
            if known is None:
                continue
            named = nodes.setdefault(event.execution_id, [])
            if isinstance(event, OfExecution):
                continue
            node, planned = node_of(event.run_id), known.version.plan.nodes
            if not planned or node < len(planned):
                named.append(node)
        return {
            execution_id: [
                run_id(execution_id, node) for node in touched_nodes(self._known[execution_id].version.plan, named)
            ]
            for execution_id, named in nodes.items()
        }

    async def _quarantines(self, events: Sequence[Event]) -> dict[tuple[UUID, int], QuarantineRecord]:
        """The records that resolutions name; their runs are locked."""
        keys = [(event.execution_id, event.run_id) for event in events if isinstance(event, Resolve)]
        found = await read_quarantines(self._tx, keys)
        return {(run, record.quarantine_number): record for run, records in found.items() for record in records}

    async def _asked(self, events: Sequence[Event]) -> Mapping[str, Mapping[tuple[str, str], Asked]]:
        """What the request_ids of pauses and resumes were used for; their executions are locked."""
        pauses = [event for event in events if isinstance(event, PauseExecution | ResumeExecution)]
        known = [(self._known[event.execution_id], event) for event in pauses if event.execution_id in self._known]
        return await pausing.read_asked(self._tx, [(of.facts.namespace, event) for of, event in known])

    def _take_all(self, events: Sequence[Event]) -> list[Answer]:
        """In order, but those of whole executions first: what else is in the batch came too late to be carried on."""
        answers: dict[int, Answer] = {}
        for place in sorted(range(len(events)), key=lambda place: not isinstance(events[place], OfExecution)):
            step = self._steps.get(events[place].execution_id)
            answers[place] = Fence.LEASE_LOST if step is None else step.take(events[place])
        return [answers[place] for place in range(len(events))]

    async def _show_controls(self) -> None:
        """Control nodes that were READY before see what they would have seen then, and what a requeue put there."""
        shown = [(key, step, step.plan.nodes[node]) for key, step in self._steps.items() for node in step.controls()]
        keys = {(key, run_id(key, source)) for key, _, node in shown for source in node.needs}
        results = await store.read_results(self._tx, sorted(keys))
        for key, step, node in shown:
            sight = sight_of(
                step.plan,
                step.facts,
                node,
                taken=taken_edges(node.incoming, step.rows[node.index].facts.gate),
                ready_revision=step.ready_revision_of(node.index),
                result_of=results_by_node(key, results),
                replaced=step.replay_of(node.index).inputs,
            )
            step.show(node.index, sight)

    async def _walk(self) -> dict[UUID, list[Change]]:
        """All executions walk side by side, so that what they need is read together."""
        budget = ControlBudget()
        changes: dict[UUID, list[Change]] = {}
        waiting: dict[UUID, tuple[Walk, Need]] = {}
        for execution_id, step in self._steps.items():
            if not step.plan.nodes:
                changes[execution_id] = step.halted()
            elif (walk := step.walk(budget)) is not None:
                _go_on(walk, None, execution_id, waiting, changes)
        while waiting:
            loaded = await self._load({key: need for key, (_, need) in waiting.items()})
            going, waiting = waiting, {}
            for execution_id, (walk, _) in going.items():
                _go_on(walk, loaded[execution_id], execution_id, waiting, changes)
        return changes

    async def _load(self, needs: Mapping[UUID, Need]) -> dict[UUID, Loaded]:
        for execution_id, need in needs.items():
            rows = self._steps[execution_id].rows
            if not need.rows <= rows.keys() and execution_id not in self._pending_read:
                # Once: nobody else makes runs PENDING, and what is not among them then is gone.
                self._pending_read.add(execution_id)
                for row in await store.lock_pending_runs(self._tx, execution_id):
                    rows.setdefault(row.node_index, row)
        keys = [(key, run_id(key, node)) for key, need in needs.items() for node in need.results]
        results = await store.read_results(self._tx, sorted(keys))
        return {key: self._loaded(key, need, results) for key, need in needs.items()}

    def _loaded(self, execution_id: UUID, need: Need, results: Mapping[RunKey, StoredResult]) -> Loaded:
        step = self._steps[execution_id]
        result_of = results_by_node(execution_id, results)
        return Loaded(
            rows={node: step.rows[node].facts if node in step.rows else _GONE for node in need.rows},
            results={node: visible_result(result_of(node), step.revision) for node in need.results},
        )

    async def _lease_ready(self, ready: Sequence[ChangedRun], writes: Writes) -> list[Prepared]:
        """Hand-off: as many of the runs that became ready as there is room for are leased here and now."""
        handoff = self._means.handoff
        wanted = []
        chosen = []
        for run in ready:
            known = self._known[run.key[0]]
            node = known.version.plan.nodes[node_of(run.key[1])]
            row, may_take = self._steps[run.key[0]].rows[node.index], handoff.may_take(known.facts.namespace, node)
            if not (may_hand_off(row, takes=may_take) and self._grant.take()):
                writes.changed.append(run)
                continue
            wanted.append(self._wanted(run, node))
            chosen.append(run)
        if not wanted:
            return []
        prepared = await self._means.preparing.prepare_runs(self._tx, self._known, wanted, _fresh_results(writes))
        leased = []
        for run, handed in zip(chosen, prepared, strict=True):
            if not handoff.closed(self._known[run.key[0]].facts.namespace, handed.target):
                writes.changed.append(run)
                continue
            writes.changed.append(run.leased(handed))
            leased.append(handed)
        return leased

    def _wanted(self, run: ChangedRun, node: PlannedNode) -> Wanted:
        step = self._steps[run.key[0]]
        row = step.rows[node.index]
        return Wanted(
            key=run.key,
            node=node.index,
            taken=taken_edges(node.incoming, run.gate),
            epoch=row.lease.epoch + 1,
            attempt=row.attempt + 1,
            ready_revision=step.ready_revision_of(node.index),
            replay=step.replay_of(node.index),
            deadline=datetime.now(UTC) + node.deadline if node.deadline else None,
        )

    def _note_rest(self, writes: Writes, applied: Applied) -> None:
        """What is left for the loops to take up."""
        for run in writes.changed:
            plan = self._known[run.key[0]].version.plan
            if not plan.nodes:
                continue  # what cannot be planned ends, and nothing follows
            node = plan.nodes[node_of(run.key[1])]
            if run.state is RunState.READY and node.decided_first:
                applied.left_control = True
            elif run.state is RunState.READY:
                self._left_ready(run.key[0], node, applied)
            elif run.state is RunState.WAITING:
                applied.timers = True
            applied.deadlines = applied.deadlines or node.deadline is not None
        for ended in writes.ended:
            if ended.state is RunState.READY:
                node = self._known[ended.key[0]].version.plan.nodes[node_of(ended.key[1])]
                self._left_ready(ended.key[0], node, applied)
        applied.deadlines = applied.deadlines or bool(writes.stopped or writes.endings or writes.resolved)
        applied.outbox = bool(writes.outbox)
        applied.calls = writes.calls

    def _left_ready(self, execution_id: UUID, node: PlannedNode, applied: Applied) -> None:
        applied.leave_ready(node.pool, rank_of(self._known[execution_id].facts.priority, node.priority))

    async def _write(self, writes: Writes) -> None:
        tx = self._tx
        await store.insert_attempts(tx, writes.attempts)
        await store.end_runs(tx, writes.ended)
        await store.resolve_quarantines(tx, writes.resolved, writes.undecided)
        await store.set_deadlines(tx, writes.deadlines)
        now = () if writes.endings else writes.executions
        await store.write_progress(tx, writes.finished, writes.changed, now, policy=self._means.lease)
        await reusing.note_reused(tx, writes.reused)
        await store.insert_quarantines(tx, writes.quarantines)
        await store.insert_outbox(tx, writes.outbox)
        grace = self._means.rules.cancel_grace
        await store.stop_runs(tx, writes.stopped, StopReason.DEADLINE, grace)
        if writes.endings:
            left = await store.end_executions(tx, [event for event, _ in writes.endings], grace)
            writes.executions += [
                step.changed_execution(left.get(event.execution_id, 0)) for event, step in writes.endings
            ]
            await store.update_executions(tx, writes.executions)

    async def _pause_and_resume(self, writes: Writes, applied: Applied) -> None:
        """After all else is written, so that these find every run as it is then."""
        await pausing.insert_interventions(self._tx, writes.interventions)
        await pausing.pause_runs(self._tx, writes.paused)
        back = await pausing.resume_runs(self._tx, writes.resumed)
        applied.left_somewhere = back.rank
        applied.left_control = applied.left_control or back.control


def _go_on(
    walk: Walk,
    loaded: Loaded | None,
    execution_id: UUID,
    waiting: dict[UUID, tuple[Walk, Need]],
    changes: dict[UUID, list[Change]],
) -> None:
    try:
        need = next(walk) if loaded is None else walk.send(loaded)
    except StopIteration as done:
        changes[execution_id] = done.value
    else:
        waiting[execution_id] = (walk, need)


def _fresh_results(writes: Writes) -> dict[RunKey, StoredResult]:
    """What this transaction is about to write, so that it need not be read back."""
    fresh = {run.key: StoredResult(RunState.SUCCESS, run.outputs, None, None, run.revision) for run in writes.finished}
    for ended in writes.ended:
        if ended.revision is not None:
            fresh[ended.key] = StoredResult(ended.state, None, ended.error, ended.error_type, ended.revision)
    for changed in writes.changed:
        # A discarded run keeps the error that is stored.
        discarded = changed.state is RunState.FAILED and changed.error is None
        if changed.state in _WITH_RESULT and not discarded:
            fresh[changed.key] = StoredResult(
                changed.state, changed.outputs, changed.error, changed.error_type, changed.revision
            )
    return fresh
