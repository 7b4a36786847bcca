"""What must hold after every step. Written against the design, with nothing of valkyr.flow but names and values.

After each commit every run of the executions that it touched is held against what it was before, and against what was
accepted in that commit: nothing changes without a reason, and every accepted event has the effect that it must have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from tests.simulator.ledger import Ledger, Reasons
from tests.simulator.moves import FINAL, PAUSE, E, R, check_burns_nothing, check_lease, check_move, check_stop
from tests.simulator.refusals import check_refusal
from tests.simulator.rows import ExecutionRow, RunRow
from tests.simulator.telling import told, told_answer
from tests.simulator.times import check_times
from tests.simulator.weather import MARGIN
from tests.simulator.whole import SETTLED, check_remembered, check_whole
from tests.simulator.world import World
from tests.simulator.written import check_quarantine, check_written
from valkyr.flow.attempts import Fence
from valkyr.flow.events import EndExecution, Event, LeaseEnded, PauseExecution, Resolution, Resolve, ResumeExecution
from valkyr.flow.leasing import Way
from valkyr.flow.states import Ending, ExecutionState
from valkyr.graph.model import EdgeKind, Join

if TYPE_CHECKING:
    from tests.simulator.executor import Executor
    from tests.simulator.runners import Lease, Runner
    from tests.simulator.transaction import Transaction

MOVABLE = frozenset({R.READY, R.LEASED, R.WAITING, R.PARKED})
NOT_HELD = frozenset({R.PENDING, R.READY, R.WAITING, R.PARKED})


class Invariants:
    """Of one schedule; told of all that runners do, and of every transaction that has committed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._outbox_written = 0
        self._working: dict[UUID, dict[int, Runner]] = {}
        self.ledger = Ledger(world)

    def work_begins(self, lease: Lease, runner: Runner) -> None:
        """I12 and I13."""
        world, name = self._world, runner.process.holder
        if world.tracing:
            world.say("{} begins {}, epoch {}", name, lease.run_id, lease.epoch)
        world.counts["attempts"] += 1
        busy = sum(held.working for held in runner.held.values())
        if busy > runner.capacity:
            self.ledger.fail("I13", "{} works at {} runs, over {}", name, busy, runner.capacity)
        working = self._working.setdefault(lease.run_id, {})
        working[lease.epoch] = runner
        if len(working) > 1:
            world.counts["runs begun while an older runner slept"] += 1
            world.clock.after(MARGIN, self._check_overlap, lease.run_id)

    def work_ends(self, lease: Lease, runner: Runner) -> None:
        if self._world.tracing:
            self._world.say("{} ends {}, epoch {}", runner.process.holder, lease.run_id, lease.epoch)
        self._working[lease.run_id].pop(lease.epoch, None)

    def _check_overlap(self, run: UUID) -> None:
        """I12: whoever was awake for a moment has seen by its own clock that it is to stop."""
        working, now = self._working[run], self._world.clock.now
        awake = [epoch for epoch, runner in working.items() if runner.process.paused_until + MARGIN <= now]
        if len(awake) > 1:
            who = ", ".join(f"{working[epoch].process.holder} under epoch {epoch}" for epoch in awake)
            self.ledger.fail("I12", "several are at {} for longer than the margin: {}", run, who)
        if len(working) > 1:
            self._world.clock.after(MARGIN, self._check_overlap, run)

    def leased(self, leased: Sequence[RunRow], parked: Sequence[RunRow], holder: str, *, now: float) -> None:
        """A transaction that locks no execution has leased some READY runs, or probes, and parked others."""
        world, ledger = self._world, self.ledger
        ledger.now = now
        for row in leased:
            if world.tracing:
                world.say("{} leases {}, epoch {}", holder, row.id, row.epoch)
            before = ledger.before[row.id]
            if before.state is not R.READY and before.parked_by in (None, PAUSE):
                ledger.fail("I05", "{} was leased, being {}", row.id, before.state)
            check_lease(ledger, row, before)
            before.update(row)
        for row in parked:
            if world.tracing:
                world.say("{} is parked by the breaker of {}", row.id, row.node.target)
            check_burns_nothing(ledger, row)
            ledger.before[row.id].update(row)

    def unparked(self, rows: Sequence[RunRow]) -> None:
        """Their breaker lets them go."""
        for row in rows:
            if self._world.tracing:
                self._world.say("{} is brought back from its breaker", row.id)
            check_burns_nothing(self.ledger, row)
            self.ledger.before[row.id].update(row)

    def released(self, row: RunRow) -> None:
        """No equal of it was found: it may be leased, until it is requeued."""
        if self._world.tracing:
            self._world.say("{} has no equal", row.id)
        check_burns_nothing(self.ledger, row)
        self.ledger.released.add((row.id, row.quarantine_number))
        self.ledger.before[row.id].update(row)

    def chosen(self, row: RunRow, executor: Executor) -> None:
        """I17: what is about to be leased without a permit is for no target that this executor knows to be open."""
        target = row.node.target
        if target and not self._world.breakers.closed(executor, target):
            self.ledger.fail("I17", "{} is to be leased, and the breaker of {} is open", row.id, target)

    def looked(self, target: str, way: Way, *, closed: bool, due: bool) -> None:
        """I17: what is parked goes on when its time has come and its breaker is closed, as far as is known, or away;
        and not before."""
        back = way in (Way.BRING_BACK, Way.BRING_BACK_DUE)
        if (back and not closed) or (closed and due and not back):
            word = "closed" if closed else "open"
            self.ledger.fail("I17", "the breaker of {} is {}, and for its runs there is: {}", target, word, way.value)

    def committed(self, transaction: Transaction) -> None:
        """All that a transaction of progress has changed."""
        world, ledger = self._world, self.ledger
        ledger.now = transaction.began
        reasons: Reasons = {}
        ended: set[UUID] = set()
        answered = list(zip(transaction.events, transaction.answers, strict=True))
        for event, answer in answered:
            if world.tracing:
                world.say("{} applies {}: {}", transaction.executor.holder, told(event, world), told_answer(answer))
            if answer is Fence.ACCEPTED:
                self._note_accepted(event, reasons, ended, transaction)
        standings = {one.id: check_whole(ledger, one, answered) for one in transaction.executions}
        for event, answer in answered:
            if answer is not Fence.ACCEPTED:
                check_refusal(ledger, event, answer, transaction, reasons, standings[event.execution_id])
        check_remembered(ledger)
        check_written(ledger, transaction, answered)
        outbox: list[tuple[UUID, int, str]] = []
        for execution in transaction.executions:
            self._note_goes(execution, transaction, reasons)
            self._check_execution(execution, reasons, outbox, asked_to_end=execution.id in ended)
        self._check_outbox(outbox)

    def _note_accepted(self, event: Event, reasons: Reasons, ended: set[UUID], transaction: Transaction) -> None:
        ledger = self.ledger
        if isinstance(event, EndExecution):
            ended.add(event.execution_id)
        if isinstance(event, EndExecution | PauseExecution | ResumeExecution):
            return
        if event.run_id in reasons:
            ledger.fail("I07", "two events were accepted for {} at once: {}", event.run_id, event)
        reasons[event.run_id] = event
        if isinstance(event, LeaseEnded):
            if (event.run_id, event.epoch) in ledger.accepted:
                ledger.fail("I07", "the end of {} under epoch {} was accepted twice", event.run_id, event.epoch)
            ledger.accepted.add((event.run_id, event.epoch))
        elif isinstance(event, Resolve):
            key = (event.run_id, event.quarantine_number)
            if key in ledger.resolved:
                ledger.fail("I22", "quarantine {} of {} was resolved twice", event.quarantine_number, event.run_id)
            ledger.resolved[key] = event
            if not transaction.planned(event.execution_id):
                self._world.counts["letters discarded without a plan"] += 1
                ledger.cut_off.add(event.run_id)
            else:
                ledger.ways[event.run_id].append(event.resolution)

    def _note_goes(self, execution: ExecutionRow, transaction: Transaction, reasons: Reasons) -> None:
        """How the lives of runs ended, for the reference."""
        for change in transaction.changes.get(execution.id, ()):
            run = execution.runs[change.node].id
            reason = reasons.get(run)
            if isinstance(reason, Resolve) and reason.resolution is not Resolution.REQUEUED:
                continue
            goes = self.ledger.goes[run]
            if change.after is R.SUCCESS:
                goes.append("WELL")
            elif change.after is R.FAILED:
                goes.append("BADLY")
            elif change.after is R.QUARANTINED and transaction.problem is not None:
                goes.append("GIVEN_UP")
            elif change.after is R.QUARANTINED and change.failure is not None and change.failure.handled_by_edges:
                goes.append("BADLY")

    def _check_execution(
        self,
        execution: ExecutionRow,
        reasons: Reasons,
        outbox: list[tuple[UUID, int, str]],
        *,
        asked_to_end: bool,
    ) -> None:
        ledger = self.ledger
        revision, state, ending = ledger.executions[execution.id]
        self._check_absorbed(execution, state, ending, asked_to_end=asked_to_end)
        settled = False
        open_runs = bad_runs = 0
        for row in execution.runs:
            before, reason = ledger.before[row.id], reasons.get(row.id)
            if row.state is not before.state or row.epoch != before.epoch or reason is not None:
                check_move(ledger, execution, row, before, reason, ending=ending is not None or asked_to_end)
                settled = settled or row.settled_revision is not None
            elif row.outputs != before.outputs or row.quarantine_number != before.quarantine_number:
                ledger.fail("I06", "{} was changed without a reason", row.id)
            if row.stop_reason is not None:
                check_stop(ledger, row, before)
            check_times(ledger, execution, row, before, reason)
            if row.quarantine_number > before.quarantine_number:
                check_quarantine(ledger, execution, row, before, reason)
                outbox.append((row.id, row.quarantine_number, "QUARANTINED"))
            if isinstance(reason, Resolve):
                outbox.append((row.id, reason.quarantine_number, "RESOLVED"))
            before.update(row)
            open_runs += row.state in MOVABLE
            bad_runs += row.state is R.QUARANTINED or row.id in ledger.discarded
        counted, right = (execution.open_runs, execution.bad_runs), (open_runs, bad_runs)
        if counted != right:
            ledger.fail("I08", "{} counts {} open and bad runs; there are {}", execution.name, counted, right)
        if not revision <= execution.revision <= revision + 1 or (settled and execution.revision == revision):
            ledger.fail("I08", "{} went from revision {} to {}", execution.name, revision, execution.revision)
        self._check_state(execution)
        if execution.ending is None:
            self._check_gates(execution)
        ledger.executions[execution.id] = (execution.revision, execution.state, execution.ending)

    def _check_absorbed(
        self, execution: ExecutionRow, state: ExecutionState, ending: Ending | None, *, asked_to_end: bool
    ) -> None:
        """I05: what has ended stays so; what was asked to end does."""
        fail, name, now = self.ledger.fail, execution.name, execution.state
        if ending is not None and execution.ending is not ending:
            fail("I05", "{} was ending by {}, and now by {}", name, ending, execution.ending)
        if asked_to_end and execution.ending is None:
            fail("I08", "{} was to end, and goes on", name)
        stays = state in (E.SUCCESS, E.CANCELLED) or (state is E.FAILED and ending is not None)
        if stays and now is not state:
            fail("I05", "{} was {}, and is {}", name, state, now)
        if execution.ending is Ending.DEADLINE and ending is None:
            deadline = execution.deadline
            if deadline is None or deadline > self.ledger.now:
                fail("I05", "{} was ended before its deadline", name)

    def _check_state(self, execution: ExecutionRow) -> None:
        """It ends when nothing can move, not before, and as what."""
        state, ending, fail = execution.state, execution.ending, self.ledger.fail
        if execution.open_runs:
            if state in SETTLED:
                fail("I08", "{} is {}, and {} of its runs can move", execution.name, state, execution.open_runs)
        elif ending is not None:
            if state is not (E.CANCELLED if ending is Ending.CANCEL else E.FAILED):
                fail("I08", "{} has ended by {}, and is {}", execution.name, ending, state)
        elif state is not (E.FAILED if execution.bad_runs else E.SUCCESS):
            fail("I08", "nothing of {} can move, {} are bad, and it is {}", execution.name, execution.bad_runs, state)
        for row in execution.runs:
            if ending is not None and row.state in NOT_HELD:
                fail("I08", "{} is {} in an execution that ends by {}", row.id, row.state, ending)
            if row.state is R.READY and state is E.PAUSED:
                fail("PAUSE", "{} is READY in an execution that is paused", row.id)
            if row.state is R.PARKED and (row.parked_by == PAUSE) is not (state is E.PAUSED):
                fail("PAUSE", "{} is parked by {} in an execution that is {}", row.id, row.parked_by, state)
            if state is E.SUCCESS and row.state not in FINAL:
                fail("I08", "{} is {} in an execution that succeeded", row.id, row.state)

    def _check_gates(self, execution: ExecutionRow) -> None:
        """I08: undecided edges recounted."""
        runs, edges, fail = execution.runs, execution.plan.edges, self.ledger.fail
        for row in runs:
            pending = row.state is R.PENDING
            if not pending and row.node.join is Join.ANY:
                continue
            undecided = 0
            for index in row.node.incoming:
                edge = edges[index]
                source = runs[edge.source]
                ended = source.state in FINAL and source.id not in self.ledger.cut_off
                if not ended and not (edge.kind is EdgeKind.ALWAYS and source.always_decided):
                    undecided += 1
            if pending and row.gate.unmet != undecided:
                fail("I08", "{} waits for {} edges, and {} are undecided", row.id, row.gate.unmet, undecided)
            if pending and not undecided:
                fail("I08", "{} is PENDING, and nothing is left to wait for", row.id)
            if not pending and undecided:
                fail("I08", "{} is {} before {} of its edges were decided", row.id, row.state, undecided)

    def _check_outbox(self, expected: list[tuple[UUID, int, str]]) -> None:
        """I08, I15: one row for each quarantine and one for each resolution, in the same transaction."""
        store = self._world.store
        numbers = range(self._outbox_written + 1, store.outbox_written + 1)
        self._outbox_written = store.outbox_written
        written = [(row.run, row.number, row.kind) for row in map(store.outbox.get, numbers) if row is not None]
        if sorted(written, key=str) != sorted(expected, key=str):
            self.ledger.fail("I15", "the outbox got {} rows and not {}: {}", len(written), len(expected), written)
        for run, number, kind in expected:
            if kind == "QUARANTINED":
                self._world.counts["quarantines"] += 1
                self.ledger.quarantines.add((run, number))
