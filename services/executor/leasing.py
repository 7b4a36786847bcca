"""What everyone does who leases runs from the tables to the own pool: from locked candidates to runs handed over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from services.executor.facts import Known
from services.executor.handoff import Handoff
from services.executor.model import Candidate, LeasePolicy
from services.executor.preparing import Wanted, refusals
from services.executor.progress import Progress
from services.executor.store import leases as store
from valkyr.flow.effects import Prepared
from valkyr.flow.joins import taken_edges


class NotLeased(Exception):
    """Whoever the runs were to be leased to takes none any more: nothing has changed, and another look is due."""


class Leasing:
    """Prepares, leases and hands over."""

    def __init__(self, handoff: Handoff, progress: Progress, lease: LeasePolicy) -> None:
        self._handoff = handoff
        self._progress = progress
        self._lease = lease

    async def prepare(self, tx: Any, known: Mapping[UUID, Known], candidates: Sequence[Candidate]) -> list[Prepared]:
        """Inputs, configs and targets of locked runs, in order: the first of them, where all are more than go through
        the door at once."""
        wanted = [wanted_of(candidate, known[candidate.execution_id]) for candidate in candidates]
        prepared = await self._progress.preparing.prepare_runs(tx, known, wanted, {})
        return first_within(prepared, self._handoff.max_bytes)

    async def lease(self, tx: Any, prepared: Sequence[Prepared]) -> None:
        """Makes them LEASED; they are handed over when that is committed. NotLeased."""
        if prepared:
            await store.lease_runs(tx, prepared, self._lease)

    async def hand_over(self, prepared: Sequence[Prepared], known: Mapping[UUID, Known], *, granted_at: float) -> None:
        """Committed: starts them. Those that cannot be started fail at once."""
        self._handoff.deliver(self._progress.preparing.hand_out(prepared, known), granted_at=granted_at)
        refused = refusals(prepared)
        if refused:
            await self._progress.apply(refused)


def weight(run: Prepared) -> int:
    """Bytes of it that may be many."""
    return len(run.inputs) + len(run.config) + len((run.progress or "").encode())


def first_within(prepared: list[Prepared], most: int | None) -> list[Prepared]:
    """As many of the first as have no more bytes together, but one at least."""
    left = most
    for place, run in enumerate(prepared):
        if left is None:
            break
        left -= weight(run)
        if left < 0 and place:
            return prepared[:place]
    return prepared


def wanted_of(candidate: Candidate, known: Known) -> Wanted:
    """What is to be prepared of it."""
    node = candidate.node_index
    return Wanted(
        key=(candidate.execution_id, candidate.id),
        node=node,
        taken=taken_edges(known.version.plan.nodes[node].incoming, candidate.gate),
        epoch=candidate.epoch + 1,
        attempt=candidate.attempt + 1,
        ready_revision=candidate.ready_revision,
        replay=candidate.replay,
        deadline=candidate.deadline,
        progress=candidate.progress,
    )
