"""Runs that breakers hold back: parked, looked through by target, brought back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from services.executor import queries_parking as queries
from services.executor.model import Candidate
from services.executor.store.leases import candidate_of
from services.executor.targets import TargetKey
from valkyr.flow.leasing import BREAKER, Probed
from valkyr.flow.states import RunState


@dataclass(frozen=True, slots=True)
class Parking:
    """A run to park, and how long until it is looked at again at the latest."""

    namespace: str
    execution_id: UUID
    id: UUID
    target: str
    episode_id: UUID | None
    wait: timedelta


@dataclass(frozen=True, slots=True)
class ParkedTarget:
    """A target with parked runs; `wait` is until the first of them is due, negative if it is."""

    key: TargetKey
    wait: timedelta


@dataclass(frozen=True, slots=True)
class ParkedRun:
    """A run that may be tried: `key` is that of its target, `traceparent` that of its last requeue."""

    key: TargetKey
    execution_id: UUID
    id: UUID
    epoch: int
    traceparent: str | None = None


async def park_runs(tx: Any, runs: Sequence[Parking]) -> None:
    """Locked READY runs: no epoch, no attempt is burnt (I19)."""
    rows = [(r.execution_id, r.id, r.target, r.episode_id, r.wait) for r in runs]
    if rows:
        await tx.execute(queries.PARK_RUNS, *zip(*rows, strict=True))


async def parked_targets(tx: Any, after: TargetKey, limit: int) -> list[ParkedTarget]:
    """Targets that breakers hold runs of, in order, from behind `after` on."""
    rows = await tx.fetch(queries.PARKED_TARGETS, *after, limit)
    return [ParkedTarget((row[0], row[1]), timedelta(seconds=row[2])) for row in rows]


async def unpark_runs(tx: Any, key: TargetKey, *, limit: int) -> tuple[int, int]:
    """Up to `limit` runs of a target are READY; how many, and the most urgent rank of theirs."""
    return _count(await tx.fetchrow(queries.UNPARK_RUNS, *key, limit))


async def unpark_due_runs(tx: Any, key: TargetKey, *, limit: int) -> tuple[int, int]:
    """As `unpark_runs`, of those whose time has come."""
    return _count(await tx.fetchrow(queries.UNPARK_DUE_RUNS, *key, limit))


def _count(row: Any) -> tuple[int, int]:
    return row[0], row[1] or 0


async def postpone_runs(tx: Any, key: TargetKey, wait: timedelta, *, limit: int) -> int:
    """Up to `limit` due runs are due after `wait` and a little; how many."""
    return int(await tx.fetchval(queries.POSTPONE_RUNS, *key, wait, limit))


async def select_probes(
    tx: Any, targets: Sequence[tuple[TargetKey, int]], *, pool: str, class_names: Sequence[str] | None
) -> list[ParkedRun]:
    """The longest parked runs of each (target, how many) that the pool runs; None: it runs every class."""
    rows = await tx.fetch(
        queries.SELECT_PROBES,
        [key[0] for key, _ in targets],
        [key[1] for key, _ in targets],
        [wanted for _, wanted in targets],
        pool,
        None if class_names is None else list(class_names),
    )
    return [
        ParkedRun(targets[row["place"] - 1][0], row["execution_id"], row["id"], row["epoch"], row["replay_traceparent"])
        for row in rows
    ]


async def unpark_probes(tx: Any, runs: Sequence[ParkedRun]) -> list[Candidate]:
    """Locks those that are still parked under the same epoch, as candidates for a lease; READY if nothing follows."""
    rows = [(run.execution_id, run.id, run.epoch, RunState.PARKED.value, BREAKER) for run in runs]
    found = await tx.fetch(queries.UNPARK_PROBES, *zip(*rows, strict=True))
    return [candidate_of(row) for row in found]


async def read_probes(tx: Any, runs: Sequence[ParkedRun]) -> dict[UUID, Probed]:
    """Rows by run id."""
    keys = [(run.execution_id, run.id) for run in runs]
    return {
        row["id"]: Probed(RunState(row["state"]), row["epoch"], row["permit_id"], row["parked_by"])
        for row in await tx.fetch(queries.READ_PROBES, *zip(*keys, strict=True))
    }
