"""Leases: taken, kept alive, found expired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from services.executor import queries
from services.executor.model import Candidate, LeasePolicy
from valkyr.flow.effects import Prepared
from valkyr.flow.events import LeaseEnded
from valkyr.flow.facts import NO_REPLAY, Replay
from valkyr.flow.joins import Gate
from valkyr.flow.leasing import Serving
from valkyr.flow.results import Lost

Queue = tuple[str, str]
"""Namespace and class name: the runs of a pool that stand in one line."""

Mark = tuple[str, str, int, datetime]
"""Namespace, class name, rank, and since when what stands there has been ready."""

_ALL_TAKEN = Gate(0)


@dataclass(frozen=True, slots=True)
class LeaseCensus:
    """All leases there are, of how many runners, how many ran out, and seconds until the first of them runs out."""

    leases: int
    runners: int
    expired: int
    next_expiry: float | None


async def ready_classes(tx: Any, pool: str, *, namespace: str | None = None) -> list[str]:
    """Class names with READY runs in the pool; of one namespace, or of all."""
    if namespace is None:
        return [row[0] for row in await tx.fetch(queries.READY_CLASSES, pool)]
    return [row[0] for row in await tx.fetch(queries.READY_CLASSES_OF_NAMESPACE, pool, namespace)]


async def select_to_lease(
    tx: Any, serving: Serving, *, limit: int, marks: Sequence[Mark] = (), namespace: str | None = None
) -> list[tuple[Queue, Candidate]]:
    """Locks up to `limit` READY runs that the pool takes, of one namespace or of all: (queue, candidate), by rank and
    readiness. `marks` say where to begin in a queue; where none does, at its beginning."""
    class_names = None if serving.serves_all else list(serving.class_names)
    begin = zip(*marks, strict=True) if marks else ((), (), (), ())
    statement = queries.SELECT_TO_LEASE if namespace is None else queries.SELECT_TO_LEASE_OF_NAMESPACE
    only = () if namespace is None else (namespace,)
    rows = await tx.fetch(statement, serving.pool, class_names, *begin, limit, *only)
    return [((row[17], row[16]), candidate_of(row)) for row in rows]


def candidate_of(row: Any) -> Candidate:
    """From a row of queries.TO_LEASE."""
    replayed = row[10] is not None or row[11] or row[12] is not None
    return Candidate(
        execution_id=row[0],
        id=row[1],
        node_index=row[2],
        epoch=row[3],
        attempt=row[4],
        gate=_gate_of(row[5], row[6]) if row[5] or row[6] else _ALL_TAKEN,
        ready_revision=row[7],
        rank=row[8],
        ready_at=row[9],
        replay=Replay(row[10], row[11], row[12], row[13]) if replayed else NO_REPLAY,
        deadline=row[14],
        progress=row[15],
    )


def _gate_of(excluded: Sequence[int] | None, chosen: Sequence[int] | None) -> Gate:
    return Gate(0, excluded=tuple(excluded or ()), chosen=tuple(chosen) if chosen else None)


async def lease_runs(tx: Any, runs: Sequence[Prepared], policy: LeasePolicy) -> None:
    """Makes locked READY runs LEASED, their epoch and attempt one higher."""
    await lease_runs_to(tx, [(policy.runner_id, policy.holder, runs)], policy.duration)


async def lease_runs_to(tx: Any, shares: Sequence[tuple[str, str, Sequence[Prepared]]], duration: timedelta) -> None:
    """As `lease_runs`, to several: runner id, holder, and the runs of each."""
    rows = [
        (
            r.execution_id,
            r.id,
            r.idempotency_key,
            r.inputs_hash,
            r.config_hash,
            r.target or None,
            r.permit_id,
            holder,
            runner_id,
        )
        for runner_id, holder, runs in shares
        for r in runs
    ]
    await tx.execute(queries.LEASE_RUNS, duration, *zip(*rows, strict=True))


async def heartbeat_runs(
    tx: Any, leases: Sequence[tuple[UUID, UUID, int]], duration: timedelta, *, namespace: str = ""
) -> dict[tuple[UUID, int], bool]:
    """Extends leases given as (execution, run, epoch), of one namespace or of all; those still held as (run, epoch),
    and whether they may go on."""
    rows = await tx.fetch(queries.HEARTBEAT_RUNS, *zip(*sorted(leases), strict=True), duration, namespace)
    return {(row[0], row[1]): row[2] is None for row in rows}


async def expired_leases(tx: Any, limit: int) -> list[LeaseEnded]:
    """Leases whose time has run out, the oldest first."""
    return [lost(row, only_if_expired=True) for row in await tx.fetch(queries.SELECT_EXPIRED, limit)]


async def stopped_leases(tx: Any, limit: int) -> list[LeaseEnded]:
    """Leases of runs that were told to stop and did not within the grace."""
    return [lost(row, only_if_expired=True) for row in await tx.fetch(queries.SELECT_STOPPED, limit)]


async def passed_deadlines(tx: Any, limit: int) -> list[tuple[UUID, UUID]]:
    """Runs whose own deadline has passed, (execution, run), the longest past first."""
    return [(row[0], row[1]) for row in await tx.fetch(queries.SELECT_DEADLINES, limit)]


async def passed_execution_deadlines(tx: Any, limit: int) -> list[tuple[UUID, int]]:
    """Executions that should have been settled by now, each with how many nodes it has."""
    return [(row[0], row[1]) for row in await tx.fetch(queries.SELECT_EXECUTION_DEADLINES, limit)]


async def next_deadline(tx: Any) -> timedelta | None:
    """How long until the next deadline of a run or of an execution, or the end of a grace; None if there is none."""
    return _until(await tx.fetchval(queries.NEXT_DEADLINE))


async def leases_of_older_incarnations(tx: Any, policy: LeasePolicy, limit: int) -> list[LeaseEnded]:
    """What this runner held before it was started anew."""
    rows = await tx.fetch(queries.SELECT_LEASES_OF_OLDER, policy.runner_id, policy.holder, limit)
    return [lost(row, only_if_expired=False) for row in rows]


async def leases_of_holder(tx: Any, policy: LeasePolicy, older_than: timedelta) -> list[tuple[UUID, UUID, int]]:
    """(execution, run, epoch) of what was leased to this very process longer ago than that."""
    rows = await tx.fetch(queries.SELECT_LEASES_OF_HOLDER, policy.holder, older_than)
    return [(row[0], row[1], row[2]) for row in rows]


def lost(row: Any, *, only_if_expired: bool) -> LeaseEnded:
    """From a row of (execution, run, epoch, ...): nobody reported."""
    return LeaseEnded(row[0], row[1], row[2], Lost(), only_if_expired=only_if_expired)


async def take_census(tx: Any) -> LeaseCensus:
    row = await tx.fetchrow(queries.COUNT_LEASES)
    return LeaseCensus(row[0], row[1], row[2], row[3])


async def register_runner(tx: Any, policy: LeasePolicy, serving: Serving, *, namespace: str, capacity: int) -> None:
    await tx.execute(
        queries.REGISTER_RUNNER,
        namespace,
        policy.runner_id,
        policy.incarnation,
        serving.pool,
        sorted(serving.class_names),
        capacity,
        serving.serves_all,
    )


async def control_runs(tx: Any, limit: int) -> list[tuple[UUID, UUID]]:
    """READY runs that the engine decides about first, (execution, run), the oldest first."""
    return [(row[0], row[1]) for row in await tx.fetch(queries.SELECT_CONTROL, limit)]


async def due_timers(tx: Any, limit: int) -> list[tuple[UUID, UUID]]:
    """WAITING runs whose time has come, (execution, run)."""
    return [(row[0], row[1]) for row in await tx.fetch(queries.SELECT_TIMERS, limit)]


async def next_timer(tx: Any) -> timedelta | None:
    """How long until the next timer is due, nothing if one is due already; None if there is none."""
    return _until(await tx.fetchval(queries.NEXT_TIMER))


async def next_retry(tx: Any) -> timedelta | None:
    """How long until the next retry is due, nothing if one became due within the last second; None if there is none."""
    return _until(await tx.fetchval(queries.NEXT_RETRY))


def _until(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=max(0.0, seconds))
