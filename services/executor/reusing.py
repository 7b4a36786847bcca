"""Looks for equals of READY runs whose modules have the success of one reused: each ends with what it came to, or may
be leased from then on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from services.executor.facts import Known
from services.executor.leasing import wanted_of
from services.executor.progress import Progress
from services.executor.signals import Signals
from services.executor.store import reusing as store
from services.executor.store.reusing import Equal, Found, Released, Undecided
from services.executor.store.session import Session
from valkyr.flow.attempts import Fence
from valkyr.flow.effects import Prepared
from valkyr.flow.events import Reused
from valkyr.flow.ids import RunKey
from valkyr.graph.model import Dedupe

PORTION = 50
"""Runs whose inputs are made, and whose outputs are held, at a time."""


@dataclass(slots=True)
class Decided:
    """`moved`: something was decided. `held`: some were held by somebody else, and are to be looked at again."""

    moved: bool = False
    held: bool = False


@dataclass(frozen=True, slots=True)
class _Look:
    """One run, and what was found for it. `dedupe` is None where nothing is looked for: its module dedupes no longer,
    or its config cannot be made, and whoever leases it will say why."""

    run: Undecided
    prepared: Prepared
    dedupe: Dedupe | None
    found: Found | None = None


class Reusing:
    """Any number of replicas may look for the same: what comes of it is conditional on the run's state. Nothing is
    locked meanwhile, so two equal runs that are under way at once both run."""

    def __init__(self, session: Session, progress: Progress, signals: Signals) -> None:
        self._session = session
        self._progress = progress
        self._signals = signals

    async def decide(self, keys: Sequence[RunKey], known: Mapping[UUID, Known]) -> Decided:
        """Of runs that were READY and undecided a moment ago."""
        decided = Decided()
        for first in range(0, len(keys), PORTION):
            looks = await self._look(keys[first : first + PORTION], known)
            await self._release([look for look in looks if look.found is None], decided)
            await self._reuse([look for look in looks if look.found is not None], decided)
        return decided

    async def _look(self, keys: Sequence[RunKey], known: Mapping[UUID, Known]) -> list[_Look]:
        async with self._session.reading() as connection:
            undecided = await store.read_undecided(connection, keys)
            runs = [wanted_of(run.candidate, known[run.candidate.execution_id]) for run in undecided]
            prepared = await self._progress.preparing.prepare_runs(connection, known, runs, {})
            looks = [
                _Look(run, made, None if made.problem else _dedupe_of(made, known))
                for run, made in zip(undecided, prepared, strict=True)
            ]
            return await _with_what_was_found(connection, looks, known)

    async def _release(self, looks: Sequence[_Look], decided: Decided) -> None:
        if not looks:
            return
        runs = [_released(look) for look in looks]
        released = await self._session.repeat(lambda tx: store.release_undecided(tx, runs))
        decided.moved = decided.moved or len(released) > 0
        decided.held = decided.held or len(released) < len(runs)
        ranks: dict[str, int] = {}
        for pool, rank in released.values():
            ranks[pool] = min(rank, ranks.get(pool, rank))
        if ranks:
            self._signals.left_ready(ranks)

    async def _reuse(self, looks: Sequence[_Look], decided: Decided) -> None:
        events = [_reused(look, look.found) for look in looks if look.found is not None]
        if events:
            decided.moved = Fence.ACCEPTED in await self._progress.apply(events) or decided.moved


async def _with_what_was_found(connection: Any, looks: Sequence[_Look], known: Mapping[UUID, Known]) -> list[_Look]:
    asked = [
        (
            place,
            Equal(known[look.prepared.execution_id].facts.namespace, look.prepared.idempotency_key, look.dedupe.ttl),
        )
        for place, look in enumerate(looks)
        if look.dedupe is not None
    ]
    found = await store.find_reusable(connection, [equal for _, equal in asked])
    by_place = {asked[number][0]: one for number, one in found.items()}
    return [_Look(look.run, look.prepared, look.dedupe, by_place.get(place)) for place, look in enumerate(looks)]


def _dedupe_of(run: Prepared, known: Mapping[UUID, Known]) -> Dedupe | None:
    return known[run.execution_id].version.plan.nodes[run.node_index].dedupe


def _released(look: _Look) -> Released:
    run = look.prepared
    return Released(
        (run.execution_id, run.id),
        look.run.quarantine_number,
        run.idempotency_key,
        run.inputs_hash,
        run.config_hash,
        look.dedupe is not None,
    )


def _reused(look: _Look, found: Found) -> Reused:
    run = look.prepared
    return Reused(
        run.execution_id,
        run.id,
        look.run.quarantine_number,
        found.source,
        found.outputs,
        run.idempotency_key,
        run.inputs_hash,
        run.config_hash,
    )
