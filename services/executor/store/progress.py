"""Reads and writes what a transaction of progress needs: locked executions and runs, results, and all that changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from services.executor import queries
from services.executor.model import LeasePolicy, LockedExecution, LockedRun, Prepared, StoredResult
from valkyr.flow.advance import RunFacts
from valkyr.flow.attempts import LeaseFacts
from valkyr.flow.joins import Gate
from valkyr.flow.states import ExecutionState, RunState

RunKey = tuple[UUID, UUID]  # (execution_id, run id)


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """An accepted success."""

    key: RunKey
    epoch: int
    outputs: str
    duration_ms: int | None
    cost_tokens: float | None
    revision: int


@dataclass(frozen=True, slots=True)
class EndedRun:
    """An accepted end of a lease that was no success. `wait` is set where the run goes back to READY."""

    key: RunKey
    epoch: int
    state: RunState
    raise_epoch: bool
    failures: int
    lost_leases: int
    error: str | None
    error_type: str | None
    revision: int | None
    wait: timedelta | None
    duration_ms: int | None


@dataclass(frozen=True, slots=True)
class ChangedRun:
    """A run that was not leased and changes by what others did. `prepared` is set where it is leased at once."""

    key: RunKey
    state: RunState
    gate: Gate
    outputs: str | None
    error: str | None
    error_type: str | None
    revision: int
    wake_after: timedelta | None
    prepared: Prepared | None


@dataclass(frozen=True, slots=True)
class ChangedExecution:
    id: UUID
    state: ExecutionState
    revision: int
    open_runs: int
    bad_runs: int
    error_type: str | None
    error_message: str | None


@dataclass(frozen=True, slots=True)
class EndedAttempt:
    """An attempt for the history: everything but a success."""

    key: RunKey
    epoch: int
    attempt: int
    outcome: str
    error: str
    stack_trace: str


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    namespace: str
    key: RunKey
    quarantine_number: int
    kind: str
    payload: str


async def lock_executions(tx: Any, ids: Iterable[UUID]) -> dict[UUID, LockedExecution]:
    """Locks executions in the order of their ids."""
    rows = await tx.fetch(queries.LOCK_EXECUTIONS, list(ids))
    return {row[0]: LockedExecution(row[0], ExecutionState(row[1]), row[2], row[3], row[4]) for row in rows}


async def lock_runs(tx: Any, keys: Sequence[RunKey]) -> list[LockedRun]:
    """Locks runs in the order of their ids; their executions are locked before."""
    if not keys:
        return []
    return [_locked_run(row) for row in await tx.fetch(queries.LOCK_RUNS, *zip(*keys, strict=True))]


async def lock_pending_runs(tx: Any, execution_id: UUID) -> list[LockedRun]:
    """Every PENDING run of one execution: for skips that travel far."""
    return [_locked_run(row) for row in await tx.fetch(queries.LOCK_PENDING_RUNS, execution_id)]


def _locked_run(row: Any) -> LockedRun:
    state = RunState(row[3])
    chosen = row[12]
    gate = Gate(row[8], row[9], row[10], tuple(row[11] or ()), tuple(chosen) if chosen else None, row[13] or "")
    return LockedRun(
        execution_id=row[0],
        id=row[1],
        node_index=row[2],
        attempt=row[5],
        quarantine_number=row[14],
        runner_id=row[15],
        lease=LeaseFacts(state, row[4], row[6], row[7]),
        facts=RunFacts(state, gate),
        lease_expired=row[17],
        due=row[18],
        ready_revision=row[16],
    )


async def read_results(tx: Any, keys: Sequence[RunKey]) -> dict[RunKey, StoredResult]:
    """The outcomes of runs, settled or not."""
    if not keys:
        return {}
    rows = await tx.fetch(queries.READ_RESULTS, *zip(*keys, strict=True))
    return {(row[0], row[1]): StoredResult(RunState(row[3]), row[4], row[5], row[6], row[7]) for row in rows}


async def finish_runs(tx: Any, runs: Sequence[FinishedRun]) -> None:
    rows = [(*r.key, r.epoch, r.outputs, r.duration_ms, _decimal(r.cost_tokens), r.revision) for r in runs]
    await _write(tx, queries.FINISH_RUNS, rows)


async def end_runs(tx: Any, runs: Sequence[EndedRun]) -> None:
    rows = [
        (
            *r.key,
            r.epoch,
            r.state,
            int(r.raise_epoch),
            r.failures,
            r.lost_leases,
            storable(r.error),
            r.error_type,
            r.revision,
            r.wait,
            r.duration_ms,
            int(r.state is RunState.QUARANTINED),
        )
        for r in runs
    ]
    await _write(tx, queries.END_RUNS, rows)


async def change_runs(tx: Any, runs: Sequence[ChangedRun], policy: LeasePolicy) -> None:
    if not runs:
        return
    rows = [
        (
            *r.key,
            r.state,
            r.gate.unmet,
            r.gate.taken,
            r.gate.dead,
            _array(r.gate.excluded) if r.gate.excluded else None,
            _array(r.gate.chosen) if r.gate.chosen else None,
            storable(r.gate.broken) or None,
            r.outputs,
            storable(r.error),
            r.error_type,
            r.revision,
            r.wake_after,
            int(r.prepared is not None),
            r.prepared.idempotency_key if r.prepared else None,
            r.prepared.inputs_hash if r.prepared else None,
            r.prepared.config_hash if r.prepared else None,
        )
        for r in runs
    ]
    *columns, config_hashes = zip(*rows, strict=True)
    await tx.execute(queries.CHANGE_RUNS, *columns, policy.holder, policy.runner_id, policy.duration, config_hashes)


async def update_executions(tx: Any, executions: Sequence[ChangedExecution]) -> None:
    rows = [
        (e.id, e.state, e.revision, e.open_runs, e.bad_runs, e.error_type, storable(e.error_message))
        for e in executions
    ]
    await _write(tx, queries.UPDATE_EXECUTIONS, rows)


async def insert_attempts(tx: Any, attempts: Sequence[EndedAttempt]) -> None:
    """Before the runs themselves change: the runner and the start are copied from there."""
    rows = [
        (*a.key, a.epoch, a.attempt, a.outcome, storable(a.error), storable(a.stack_trace) or None) for a in attempts
    ]
    await _write(tx, queries.INSERT_ATTEMPTS, rows)


async def insert_outbox(tx: Any, entries: Sequence[OutboxEntry]) -> None:
    rows = [(e.namespace, *e.key, e.quarantine_number, e.kind, e.payload) for e in entries]
    await _write(tx, queries.INSERT_OUTBOX, rows)


async def _write(tx: Any, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        await tx.execute(statement, *zip(*rows, strict=True))


def _array(values: Iterable[int]) -> str:
    return "{" + ",".join(map(str, values)) + "}"


def _decimal(value: float | None) -> Decimal | None:
    return None if value is None else Decimal(str(float(value)))


def storable(text: str | None) -> str | None:
    """Text as PostgreSQL takes it: messages of modules and expressions may hold NUL or half of a surrogate pair."""
    if text is None:
        return None
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
