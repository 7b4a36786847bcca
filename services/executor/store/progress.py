"""Reads and writes what a transaction of progress needs: locked executions and runs, results, and all that changes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
from asyncpg.pgproto.pgproto import UUID as DriverUUID

from services.executor import queries
from services.executor.model import LeasePolicy
from valkyr.errors import RequestIdReused
from valkyr.flow.attempts import LeaseFacts
from valkyr.flow.effects import (
    ChangedExecution,
    ChangedRun,
    EndedAttempt,
    EndedRun,
    FinishedRun,
    NewQuarantine,
    OutboxEntry,
)
from valkyr.flow.events import EndExecution, Resolve
from valkyr.flow.facts import NO_REPLAY, LockedExecution, LockedRun, Replay
from valkyr.flow.ids import RunKey
from valkyr.flow.joins import Gate
from valkyr.flow.outcomes import RunFacts
from valkyr.flow.sights import QuarantinedAs, StoredResult
from valkyr.flow.states import Ending, ExecutionState, RunState, StopReason

_EXECUTION_STATES = {state.value: state for state in ExecutionState}
_RUN_STATES = {state.value: state for state in RunState}


def id_of(text: str) -> UUID:
    """As rows hold it: the driver's own is made, compared and written several times faster than Python's."""
    made: UUID = DriverUUID(text)
    return made


async def lock(
    tx: Any, runs: Mapping[UUID, Collection[UUID]]
) -> dict[UUID, tuple[LockedExecution, dict[int, LockedRun]]]:
    """Locks executions in the order of their ids, then the runs named of each, in the order of theirs: those that
    exist, with their runs by node."""
    firsts: list[int] = []
    lasts: list[int] = []
    named: list[UUID] = []
    for ids in runs.values():
        firsts.append(len(named) + 1)
        named.extend(ids)
        lasts.append(len(named))
    locked: dict[UUID, tuple[LockedExecution, dict[int, LockedRun]]] = {}
    for row in await tx.fetch(queries.LOCK, list(runs), firsts, lasts, named):
        of = locked.get(row[0])
        if of is None:
            of = locked[row[0]] = (_locked_execution(row), {})
        if row[8] is not None:
            run = _locked_run(row[8:])
            of[1][run.node_index] = run
    return locked


async def lock_pending_runs(tx: Any, execution_id: UUID) -> list[LockedRun]:
    """Every PENDING run of one execution: for skips that travel far."""
    return [_locked_run(row) for row in await tx.fetch(queries.LOCK_PENDING_RUNS, execution_id)]


def _locked_execution(row: Any) -> LockedExecution:
    ending = Ending(row[5]) if row[5] else None
    return LockedExecution(row[0], _EXECUTION_STATES[row[1]], row[2], row[3], row[4], ending, row[6], row[7])


def _locked_run(row: Sequence[Any]) -> LockedRun:
    state = _RUN_STATES[row[3]]
    chosen = row[12]
    gate = Gate(row[8], row[9], row[10], tuple(row[11] or ()), tuple(chosen) if chosen else None, row[13] or "")
    stop = StopReason(row[22]) if row[22] else None
    replayed = row[25] is not None or row[26] or row[27] is not None
    return LockedRun(
        execution_id=row[0],
        id=row[1],
        node_index=row[2],
        attempt=row[5],
        quarantine_number=row[14],
        runner_id=row[15],
        lease=LeaseFacts(state, row[4], row[6], row[7], stop is StopReason.CANCEL, row[19]),
        facts=RunFacts(state, gate, row[20]),
        lease_expired=row[17],
        due=row[18],
        ready_revision=row[16],
        parked_by=row[21],
        stop_reason=stop,
        permit_id=row[23],
        target=row[24],
        replay=Replay(row[25], row[26], row[27], row[28]) if replayed else NO_REPLAY,
        trusted=row[29],
        undecided=row[30],
    )


async def read_results(tx: Any, keys: Sequence[RunKey]) -> dict[RunKey, StoredResult]:
    """The outcomes of runs, settled or not; with those that earlier quarantines were, where there were any."""
    if not keys:
        return {}
    rows = await tx.fetch(queries.READ_RESULTS, *zip(*keys, strict=True))
    earlier = await _read_earlier(tx, [(row[0], row[1]) for row in rows if row[7] > 0])
    return {
        (row[0], row[1]): StoredResult(
            RunState(row[2]), row[3], row[4], row[5], row[6], tuple(earlier.get((row[0], row[1]), ()))
        )
        for row in rows
    }


async def _read_earlier(tx: Any, keys: Sequence[RunKey]) -> dict[RunKey, list[QuarantinedAs]]:
    earlier: dict[RunKey, list[QuarantinedAs]] = {}
    if keys:
        for row in await tx.fetch(queries.READ_EARLIER, *zip(*keys, strict=True)):
            earlier.setdefault((row[0], row[1]), []).append(QuarantinedAs(row[2], row[3], row[4]))
    return earlier


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
            r.always_decided,
        )
        for r in runs
    ]
    await _write(tx, queries.END_RUNS, rows)


async def write_progress(
    tx: Any,
    finished: Sequence[FinishedRun],
    changed: Sequence[ChangedRun],
    executions: Sequence[ChangedExecution],
    *,
    policy: LeasePolicy,
) -> None:
    """Runs that finished, runs that changed by what others did, and executions, in one statement."""
    of_executions = [_row_of_execution(execution) for execution in executions]
    of_finished = [
        (*run.key, run.epoch, run.outputs, run.duration_ms, _decimal(run.cost_tokens), run.revision) for run in finished
    ]
    if changed:
        of_changed = [_row_of(run) for run in changed]
        lease = (policy.holder, policy.runner_id, policy.duration)
        await tx.execute(queries.WRITE_PROGRESS, of_executions, of_finished, of_changed, *lease)
    elif finished or executions:
        await tx.execute(queries.WRITE_FINISHED, of_executions, of_finished)


def _row_of(run: ChangedRun) -> tuple[Any, ...]:
    gate, prepared = run.gate, run.prepared
    return (
        *run.key,
        run.state,
        gate.unmet,
        gate.taken,
        gate.dead,
        gate.excluded or None,
        gate.chosen or None,
        storable(gate.broken) or None,
        run.outputs,
        storable(run.error),
        run.error_type,
        run.revision,
        run.wake_after,
        int(prepared is not None),
        prepared.idempotency_key if prepared else None,
        prepared.inputs_hash if prepared else None,
        prepared.config_hash if prepared else None,
        run.always_decided,
        run.deadline,
        prepared.target or None if prepared else None,
    )


def _row_of_execution(execution: ChangedExecution) -> tuple[Any, ...]:
    return (
        execution.id,
        execution.state,
        execution.revision,
        execution.open_runs,
        execution.bad_runs,
        execution.error_type,
        storable(execution.error_message),
    )


async def update_executions(tx: Any, executions: Sequence[ChangedExecution]) -> None:
    """Alone, where what they come to is known after all else was written."""
    if executions:
        await tx.execute(queries.UPDATE_EXECUTIONS, [_row_of_execution(execution) for execution in executions])


async def insert_attempts(tx: Any, attempts: Sequence[EndedAttempt]) -> None:
    """Before the runs themselves change: the runner and the start are copied from there."""
    rows = [
        (*a.key, a.epoch, a.attempt, a.outcome, storable(a.error), storable(a.stack_trace) or None) for a in attempts
    ]
    await _write(tx, queries.INSERT_ATTEMPTS, rows)


async def insert_quarantines(tx: Any, quarantines: Sequence[NewQuarantine]) -> None:
    """After the runs themselves have changed: what they were is copied from there."""
    rows = [
        (*q.key, q.quarantine_number, q.namespace, q.failure_type, q.error_type, storable(q.error), q.revision)
        for q in quarantines
    ]
    await _write(tx, queries.INSERT_QUARANTINES, rows)


async def insert_outbox(tx: Any, entries: Sequence[OutboxEntry]) -> None:
    await _write(tx, queries.INSERT_OUTBOX, [(e.namespace, *e.key, e.quarantine_number, e.kind) for e in entries])


async def resolve_quarantines(tx: Any, resolved: Sequence[Resolve], undecided: Collection[RunKey]) -> None:
    """Who resolved what, and what a requeue leaves on its run; before the runs themselves change. `undecided` are those
    requeued about which the engine decides before anybody may lease them."""
    rows = [
        (
            event.execution_id,
            event.run_id,
            event.quarantine_number,
            event.resolution,
            event.request.principal,
            storable(event.request.reason) or None,
            event.request.request_id,
            event.request.hash,
            event.request.traceparent or None,
        )
        for event in resolved
    ]
    with request_ids():
        await _write(tx, queries.RESOLVE_QUARANTINES, rows)
    requeued = [event for event in resolved if event.resolution == "REQUEUED"]
    again = [
        (*key, e.inputs, e.new_key, e.request.traceparent or None, key in undecided)
        for e in requeued
        if (key := (e.execution_id, e.run_id))
    ]
    await _write(tx, queries.REQUEUE_RUNS, again)


async def set_deadlines(tx: Any, deadlines: Sequence[tuple[UUID, datetime | None]]) -> None:
    """New ends of executions; None lifts the old one."""
    await _write(tx, queries.SET_DEADLINES, deadlines)


async def stop_runs(tx: Any, keys: Sequence[RunKey], reason: StopReason, grace: timedelta) -> None:
    """Leased runs are told to stop; their leases are not extended past the grace."""
    if keys:
        await tx.execute(queries.STOP_RUNS, *zip(*keys, strict=True), reason, grace)


async def end_executions(tx: Any, endings: Sequence[EndExecution], grace: timedelta) -> dict[UUID, int]:
    """What nobody holds is CANCELLED, what is leased is told to stop: how many leases each execution has left.

    After everything else of the transaction was written, but the executions' own rows.
    """
    rows = []
    for event in endings:
        request = event.request
        who = (request.principal, storable(request.reason) or None) if request else (None, None)
        named = (request.request_id, request.hash) if request and request.request_id else (None, None)
        rows.append((event.execution_id, event.ending, *who, *named))
    with request_ids():
        await _write(tx, queries.END_EXECUTIONS, rows)
    ids = [event.execution_id for event in endings]
    await tx.execute(queries.CANCEL_RUNS, ids)
    return dict(await tx.fetch(queries.STOP_ALL_RUNS, ids, grace))


@contextmanager
def request_ids() -> Iterator[None]:
    """RequestIdReused for a request_id that another call has taken since it was looked for."""
    try:
        yield
    except asyncpg.UniqueViolationError as error:
        raise RequestIdReused(
            "this request_id was used at the same time, with another request", hint="use a new request_id"
        ) from error


async def _write(tx: Any, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        await tx.execute(statement, *zip(*rows, strict=True))


def _decimal(value: float | None) -> Decimal | None:
    return None if value is None else Decimal(str(float(value)))


def storable(text: str | None) -> str | None:
    """Text as PostgreSQL takes it: messages of modules and expressions may hold NUL or half of a surrogate pair."""
    if not text:
        return text
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
