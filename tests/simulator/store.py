"""The executor's tables in memory: what each statement of a transaction of progress does to rows.

Every method stands for one statement of `services/executor/queries.py`, whose name it bears in lower case. Nothing is
undone: a transaction writes only once it is sure to commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from tests.simulator.clock import seconds_of
from tests.simulator.rows import ExecutionRow, OutboxRow, QuarantineRow, RunRow
from valkyr.flow.effects import (
    ChangedExecution,
    ChangedRun,
    EndedRun,
    FinishedRun,
    Intervention,
    NewQuarantine,
    OutboxEntry,
)
from valkyr.flow.events import EndExecution, Resolution, Resolve, Reused
from valkyr.flow.facts import Asked, Replay
from valkyr.flow.ids import RunKey
from valkyr.flow.leasing import BREAKER
from valkyr.flow.pauses import PAUSE
from valkyr.flow.states import CANCELLED_AT_ONCE, ExecutionState, RunState, StopReason

_SETTLED_RUN = frozenset(
    {RunState.SUCCESS, RunState.FAILED, RunState.SKIPPED, RunState.QUARANTINED, RunState.CANCELLED}
)
_HAS_DEADLINE = frozenset({RunState.READY, RunState.LEASED, RunState.WAITING, RunState.PARKED})
_COUNTS_READY = _HAS_DEADLINE | {RunState.SUCCESS}
_WAITS = frozenset({RunState.READY, RunState.PARKED})


class Store:
    """All rows. `runs` finds a run by its id alone: ids are unique over executions.

    `now` is when the transaction began whose statements these are, as PostgreSQL has it; whoever begins one sets it.
    """

    def __init__(self, *, lease: float, grace: float) -> None:
        self.now = 0.0
        self.lease = lease
        self.grace = grace
        self.executions: dict[UUID, ExecutionRow] = {}
        self.runs: dict[UUID, RunRow] = {}
        self.outbox: dict[int, OutboxRow] = {}
        self.outbox_written = 0
        self.asked: dict[tuple[str, str], Asked] = {}
        self.attempts_written = 0

    def insert(self, execution: ExecutionRow, rows: Sequence[RunRow]) -> None:
        execution.runs = list(rows)
        self.executions[execution.id] = execution
        self.runs.update((row.id, row) for row in rows)

    def finish_runs(self, runs: Iterable[FinishedRun]) -> None:
        for run in runs:
            row = self.runs[run.key[1]]
            if row.epoch != run.epoch:
                continue
            row.state, row.outputs, row.settled_revision = RunState.SUCCESS, run.outputs, run.revision
            row.finished_at = self.now
            row.lease_until = row.holder = row.retry_after = row.error = row.error_type = row.stop_reason = None

    def end_runs(self, runs: Iterable[EndedRun]) -> None:
        now = self.now
        for run in runs:
            row = self.runs[run.key[1]]
            if row.epoch != run.epoch:
                continue
            row.state, row.settled_revision = run.state, run.revision
            row.epoch += run.raise_epoch
            row.failures, row.lost_leases = run.failures, run.lost_leases
            row.error, row.error_type = run.error or row.error, run.error_type or row.error_type
            row.quarantine_number += run.state is RunState.QUARANTINED
            row.always_decided = row.always_decided or run.always_decided
            row.stop_reason = row.lease_until = row.holder = None
            if not run.raise_epoch:
                row.trusted_until = None
            row.retry_after = None
            row.parked_by = PAUSE if run.state is RunState.PARKED else None
            if run.wait is not None:
                row.ready_at = now + run.wait.total_seconds()
                row.retry_after = row.ready_at if run.wait > timedelta() else None

    def change_runs(self, runs: Iterable[ChangedRun], holder: str) -> None:
        for run in runs:
            self._change_run(self.runs[run.key[1]], run, holder)

    def _change_run(self, row: RunRow, run: ChangedRun, holder: str) -> None:
        now, state = self.now, run.state
        discarded = state is RunState.FAILED and row.state is RunState.QUARANTINED
        row.error = run.error or row.error if discarded else run.error
        row.error_type = run.error_type or row.error_type if discarded else run.error_type
        row.state, row.gate, row.outputs = state, run.gate, run.outputs
        row.quarantine_number += state is RunState.QUARANTINED
        row.always_decided = row.always_decided or run.always_decided
        if row.ready_at is None and state in _COUNTS_READY:
            row.ready_at = max(now, row.trusted_until or now)
        if row.ready_revision is None and state is not RunState.PENDING:
            row.ready_revision = run.revision
        if row.deadline is None and run.deadline is not None and state in _HAS_DEADLINE:
            row.deadline = now + run.deadline.total_seconds()
        row.settled_revision = run.revision if state in _SETTLED_RUN else None
        row.finished_at = now if state in _SETTLED_RUN else row.finished_at
        row.parked_by = PAUSE if state is RunState.PARKED else None
        if state in _WAITS and row.trusted_until is not None and row.trusted_until > now:
            row.retry_after = row.trusted_until
        else:
            row.retry_after = None if run.wake_after is None else now + run.wake_after.total_seconds()
        if run.prepared is not None:
            self._lease(row, holder)
        else:
            row.lease_until = row.holder = None

    def _lease(self, row: RunRow, holder: str) -> None:
        row.epoch += 1
        row.attempt += 1
        row.undecided = False
        row.holder, row.leased_at, row.lease_until = holder, self.now, self.now + self.lease

    def resolve_quarantines(self, resolved: Iterable[Resolve]) -> None:
        """With REQUEUE_RUNS, which follows it."""
        for event in resolved:
            row = self.runs[event.run_id]
            quarantine = self.executions[event.execution_id].quarantines[event.run_id, event.quarantine_number]
            quarantine.resolution, quarantine.resolved_by = event.resolution, event.request.principal
            quarantine.request_id, quarantine.request_hash = event.request.request_id, event.request.hash
            if event.resolution is Resolution.REQUEUED:
                row.failures = row.lost_leases = 0
                row.ready_at = row.deadline = row.permit_id = None
                row.undecided, row.dedupes = row.node.decided_first, False
                before = row.replay
                row.replay = Replay(
                    event.inputs or before.inputs,
                    row.quarantine_number if event.new_key else before.key_number,
                    event.request.traceparent or None,
                    row.attempt,
                )

    def note_reused(self, reused: Iterable[Reused]) -> None:
        """NOTE_REUSED."""
        for event in reused:
            row = self.runs[event.run_id]
            row.reused_run_id, row.idempotency_key = event.source[1], event.idempotency_key

    def release_undecided(self, row: RunRow, key: str, number: int) -> bool:
        """RELEASE_UNDECIDED, of one run that nobody has locked; whether it was as it had been."""
        if row.state is not RunState.READY or not row.undecided or row.quarantine_number != number:
            return False
        row.undecided, row.dedupes, row.idempotency_key = False, True, key
        row.ready_at = max(self.now, row.ready_at or self.now)
        return True

    def insert_quarantines(self, quarantines: Iterable[NewQuarantine]) -> None:
        for new in quarantines:
            self.executions[new.key[0]].quarantines[new.key[1], new.quarantine_number] = QuarantineRow(
                new.quarantine_number, new.failure_type, new.error_type, new.error, new.revision, self.now
            )

    def insert_outbox(self, entries: Iterable[OutboxEntry]) -> None:
        for entry in entries:
            self.outbox_written += 1
            self.outbox[self.outbox_written] = OutboxRow(
                self.outbox_written, entry.key[1], entry.quarantine_number, entry.kind
            )

    def delete_outbox(self, ids: Iterable[int]) -> None:
        for place in ids:
            self.outbox.pop(place, None)

    def set_deadlines(self, deadlines: Iterable[tuple[UUID, datetime | None]]) -> None:
        for execution_id, moment in deadlines:
            self.executions[execution_id].deadline = None if moment is None else seconds_of(moment)

    def stop_runs(self, keys: Iterable[RunKey], reason: StopReason) -> None:
        for _, run in keys:
            row = self.runs[run]
            if row.state is RunState.LEASED and row.stop_reason is None:
                row.stop_reason, row.trusted_until = reason, row.lease_until
                row.lease_until = self._no_longer_than_grace(row)

    def _no_longer_than_grace(self, row: RunRow) -> float:
        until = self.now + self.grace
        return until if row.lease_until is None else min(row.lease_until, until)

    def end_executions(self, endings: Iterable[EndExecution]) -> dict[UUID, int]:
        """END_EXECUTIONS, CANCEL_RUNS and STOP_ALL_RUNS; the leases left of each."""
        left = {}
        for event in endings:
            execution = self.executions[event.execution_id]
            execution.ending = event.ending
            execution.cancel_request = event.request.request_id if event.request else None
            left[execution.id] = 0
            for row in execution.runs:
                if row.state in CANCELLED_AT_ONCE:
                    row.state, row.settled_revision = RunState.CANCELLED, execution.revision + 1
                    row.retry_after = row.parked_by = None
                elif row.state is RunState.LEASED:
                    row.stop_reason, row.lease_until = StopReason.CANCEL, self._no_longer_than_grace(row)
                    left[execution.id] += 1
        return left

    def pause_runs(self, executions: Iterable[UUID]) -> None:
        """PAUSE_RUNS."""
        for execution_id in executions:
            for row in self.executions[execution_id].runs:
                if row.state in _WAITS and row.parked_by != PAUSE:
                    row.retry_after = row.retry_after if row.parked_by is None else None
                    row.state, row.parked_by = RunState.PARKED, PAUSE

    def resume_runs(self, executions: Iterable[UUID]) -> None:
        """RESUME_RUNS."""
        for execution_id in executions:
            for row in self.executions[execution_id].runs:
                if row.state is RunState.PARKED and row.parked_by == PAUSE:
                    row.state, row.parked_by = RunState.READY, None
                    row.ready_at = max(self.now, row.retry_after or self.now)
                    row.retry_after = row.ready_at if row.ready_at > self.now else None

    def insert_interventions(self, interventions: Iterable[Intervention]) -> None:
        for new in interventions:
            if new.request.request_id:
                self.asked[new.kind, new.request.request_id] = Asked(new.execution_id, new.request.hash)

    def update_executions(self, changed: Iterable[ChangedExecution]) -> None:
        for new in changed:
            row = self.executions[new.id]
            row.state, row.revision = new.state, new.revision
            row.open_runs, row.bad_runs = new.open_runs, new.bad_runs
            well = new.state is ExecutionState.SUCCESS
            row.error_type = None if well else new.error_type or row.error_type

    def lease_runs(self, rows: Iterable[tuple[RunRow, UUID | None]], holder: str) -> None:
        """LEASE_RUNS: locked rows, each with the permit of its probe."""
        for row, permit in rows:
            row.state, row.parked_by = RunState.LEASED, None
            self._lease(row, holder)
            row.retry_after, row.permit_id = None, permit

    def heartbeat_runs(self, leases: Iterable[tuple[UUID, int]]) -> dict[tuple[UUID, int], bool]:
        """HEARTBEAT_RUNS: those still held, as (run, epoch), and whether they may go on."""
        answers = {}
        for run, epoch in leases:
            row = self.runs[run]
            if row.epoch != epoch or row.state is not RunState.LEASED or row.lease_until is None:
                continue
            if row.stop_reason is None:
                row.lease_until = max(row.lease_until, self.now + self.lease)
            answers[run, epoch] = row.stop_reason is None
        return answers

    def park_runs(self, parked: Iterable[tuple[RunRow, float]]) -> None:
        """PARK_RUNS: locked READY rows, each with how long until it is looked at again."""
        for row, wait in parked:
            row.state, row.parked_by = RunState.PARKED, BREAKER
            row.retry_after = self.now + wait

    def postpone_runs(self, rows: Iterable[RunRow], wait: float) -> None:
        """POSTPONE_RUNS: looked at again later."""
        for row in rows:
            row.retry_after = self.now + wait

    def unpark(self, rows: Iterable[RunRow]) -> None:
        """UNPARK_RUNS and its like: rows parked by a breaker."""
        for row in rows:
            row.state, row.ready_at = RunState.READY, self.now
            row.parked_by = row.retry_after = None
