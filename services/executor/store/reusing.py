"""Runs whose equals are looked for: read, found, released, or ended by what an equal one came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from services.executor import queries_reusing as queries
from services.executor.model import Candidate
from services.executor.store.leases import candidate_of
from valkyr.flow.events import Reused
from valkyr.flow.ids import RunKey


@dataclass(frozen=True, slots=True)
class Undecided:
    """A READY run about which nothing is decided yet, not locked."""

    candidate: Candidate
    quarantine_number: int


@dataclass(frozen=True, slots=True)
class Equal:
    """What is looked for: a success with this key that is not older than `ttl`."""

    namespace: str
    idempotency_key: str
    ttl: timedelta


@dataclass(frozen=True, slots=True)
class Found:
    """`outputs` is JSON."""

    source: RunKey
    outputs: str


@dataclass(frozen=True, slots=True)
class Released:
    """A run that may be leased by now. `dedupes`: what comes of it may be reused, by this key."""

    key: RunKey
    quarantine_number: int
    idempotency_key: str
    inputs_hash: str
    config_hash: str
    dedupes: bool


async def read_undecided(connection: Any, keys: Sequence[RunKey]) -> list[Undecided]:
    """Those that are still READY and undecided."""
    rows = await connection.fetch(queries.SELECT_UNDECIDED, *zip(*keys, strict=True))
    return [Undecided(candidate_of(row), row["quarantine_number"]) for row in rows]


async def find_reusable(connection: Any, wanted: Sequence[Equal]) -> dict[int, Found]:
    """The newest success of each that has one, by place."""
    if not wanted:
        return {}
    rows = [(one.namespace, one.idempotency_key, one.ttl) for one in wanted]
    found = await connection.fetch(queries.FIND_REUSABLE, *zip(*rows, strict=True))
    return {row[0] - 1: Found((row[1], row[2]), "null" if row[3] is None else row[3]) for row in found}


async def release_undecided(tx: Any, runs: Sequence[Released]) -> dict[UUID, tuple[str, int]]:
    """Those that were as they had been and that nobody else held: pool and rank of each."""
    rows = [(*r.key, r.quarantine_number, r.idempotency_key, r.inputs_hash, r.config_hash, r.dedupes) for r in runs]
    released = await tx.fetch(queries.RELEASE_UNDECIDED, *zip(*rows, strict=True))
    return {row[0]: (row[1], row[2]) for row in released}


async def note_reused(tx: Any, reused: Sequence[Reused]) -> None:
    """Where the success of a run comes from. Its row is locked."""
    rows = [(e.execution_id, e.run_id, *e.source, e.idempotency_key, e.inputs_hash, e.config_hash) for e in reused]
    if rows:
        await tx.execute(queries.NOTE_REUSED, *zip(*rows, strict=True))
