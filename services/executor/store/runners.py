"""Runners that call over the network, as their rows are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from services.executor import queries_runners
from services.executor.callers import Asked
from services.executor.model import Candidate
from services.executor.runner_rows import RunnerRow, RunnerSaid
from services.executor.store.leases import candidate_of, lost
from valkyr.flow.events import LeaseEnded


async def lock_runner(tx: Any, namespace: str, runner_id: str) -> RunnerRow | None:
    """Until the transaction ends nobody else registers under the id, or leases to it."""
    row = await tx.fetchrow(queries_runners.LOCK_RUNNER, namespace, runner_id)
    return None if row is None else _runner(row)


async def read_runner(connection: Any, namespace: str, runner_id: str) -> RunnerRow | None:
    row = await connection.fetchrow(queries_runners.READ_RUNNER, namespace, runner_id)
    return None if row is None else _runner(row)


async def put_runner(tx: Any, said: RunnerSaid, replaced: Sequence[UUID]) -> None:
    """As it says of itself; `replaced` are the incarnations that may never come back."""
    await tx.execute(
        queries_runners.PUT_RUNNER,
        said.namespace,
        said.runner_id,
        said.incarnation,
        said.pool,
        list(said.class_names),
        said.capacity,
        said.host,
        said.version,
        list(replaced),
        said.serves_all,
    )


async def see_runner(connection: Any, namespace: str, runner_id: str) -> RunnerRow | None:
    """Notes that it called; None for one that is not known."""
    row = await connection.fetchrow(queries_runners.SEE_RUNNER, namespace, runner_id)
    return None if row is None else _runner(row)


async def note_leases(tx: Any, calls: Sequence[Asked]) -> dict[str, RunnerRow]:
    """Runs are leased to these, of one namespace, in this transaction: a repetition of a call brings its own again. The
    runners by id, locked as by `lock_runner`, with what they were given before."""
    runners, requests = [call.runner_id for call in calls], [call.request_id for call in calls]
    rows = await tx.fetch(queries_runners.NOTE_LEASES, calls[0].namespace, runners, requests)
    return {row[1]: replace(_runner(row), lease_request_id=row[17], leased_at=row[18]) for row in rows}


async def drain_runner(tx: Any, namespace: str, runner_id: str) -> None:
    await tx.execute(queries_runners.DRAIN_RUNNER, namespace, runner_id)


async def leases_of_holders(tx: Any, namespace: str, holders: Sequence[str], limit: int) -> list[LeaseEnded]:
    """What these hold in the namespace, as lost."""
    rows = await tx.fetch(queries_runners.SELECT_LEASES_OF_HOLDERS, namespace, list(holders), limit)
    return [lost(row, only_if_expired=False) for row in rows]


async def leases_before(connection: Any, namespace: str, holder: str, before: datetime) -> list[tuple[UUID, UUID, int]]:
    """(execution, run, epoch) of what `holder` was granted before that in the namespace."""
    rows = await connection.fetch(queries_runners.SELECT_LEASES_BEFORE, namespace, holder, before)
    return [(row[0], row[1], row[2]) for row in rows]


async def leased_at(connection: Any, namespace: str, holder: str, at: datetime) -> list[Candidate]:
    """What `holder` was granted in the transaction of that time, and holds still, as it was before that."""
    rows = await connection.fetch(queries_runners.SELECT_LEASED_AT, namespace, holder, at)
    leased = [candidate_of(row) for row in rows]
    return [replace(run, epoch=run.epoch - 1, attempt=run.attempt - 1) for run in leased]


async def forget_runners(connection: Any, kept: timedelta) -> int:
    """Those that nobody has heard of for so long and that hold nothing; how many."""
    done: str = await connection.execute(queries_runners.FORGET_RUNNERS, kept)
    return int(done.rpartition(" ")[2])


async def list_runners(
    connection: Any, namespaces: Sequence[str], pool: str, *, after: tuple[str, str, str], limit: int
) -> list[RunnerRow]:
    """By pool, id and namespace, from behind `after` on; all pools if empty."""
    rows = await connection.fetch(queries_runners.LIST_RUNNERS, list(namespaces), pool, *after, limit)
    return [_runner(row) for row in rows]


async def note_progress(tx: Any, rows: Sequence[tuple[UUID, UUID, int, str]], *, namespace: str = "") -> None:
    """(execution, run, epoch, JSON): what the attempts say that they have done so far; of one namespace, or of all."""
    if rows:
        await tx.execute(queries_runners.NOTE_PROGRESS, *zip(*sorted(rows), strict=True), namespace)


def _runner(row: Any) -> RunnerRow:
    said = RunnerSaid(row[0], row[1], row[2], row[3], tuple(row[4]), row[5], row[9], row[10], row[15])
    return RunnerRow(said, row[6], row[7], row[8], tuple(row[11]), row[12], row[13], row[14], row[16])
