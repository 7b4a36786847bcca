"""Leases READY runs to the own pool: per class, by rank and readiness, from a watermark on, while there is room."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from services.executor.facts import ExecutionCache, Known
from services.executor.handoff import Handoff, monotonic
from services.executor.model import Candidate, LeasePolicy, Prepared
from services.executor.progress import Progress, Wanted, refusals
from services.executor.signals import Signals
from services.executor.steps import node_of
from services.executor.store import leases as store
from services.executor.store.session import Session
from valkyr.flow.joins import Gate, taken_edges

BATCH = 500
RESCAN = 1.0
"""Seconds between looks at the whole queue, whatever the watermark says."""

OVERLAP = timedelta(milliseconds=200)
"""`ready_at` is a transaction's start: rows of one that committed late stand before the mark, mostly by less."""

LEAST_PAUSE = timedelta(milliseconds=50)
"""Between looks for a retry that is due but cannot be leased here."""

_LOWEST = -32_768
_LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)
Mark = tuple[int, datetime]


class Watermarks:
    """Where the last lease query of each class ended: rows before that were leased already, or are leased elsewhere."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks: dict[str, Mark] = {}
        self._rescan_at = clock()
        self._from_marks = False

    def of(self, class_names: Iterable[str]) -> list[tuple[str, int, datetime]]:
        """(class, rank, ready_at) to begin from; from the very beginning once a second."""
        now = self._clock()
        if now >= self._rescan_at:
            self._marks.clear()
            self._rescan_at = now + RESCAN
        self._from_marks = bool(self._marks)
        return [(name, *self._marks.get(name, (_LOWEST, _LONG_AGO))) for name in sorted(class_names)]

    def advance(self, class_name: str, candidate: Candidate) -> None:
        mark = (candidate.rank, candidate.ready_at - OVERLAP)
        self._marks[class_name] = max(mark, self._marks.get(class_name, mark))

    def restart(self) -> bool:
        """Begins anew; whether there was anything that a look from the marks may have missed."""
        looked_from_marks = self._from_marks
        if looked_from_marks:
            self._marks.clear()
        return looked_from_marks

    def notice(self, rank: int) -> None:
        """A run of this rank became ready: marks further down would miss it."""
        self._marks = {name: mark for name, mark in self._marks.items() if mark[0] <= rank}


class Dispatcher:
    """One step leases until the pool is full or nothing is ready."""

    def __init__(
        self,
        session: Session,
        cache: ExecutionCache,
        handoff: Handoff,
        progress: Progress,
        signals: Signals,
        *,
        lease: LeasePolicy,
    ) -> None:
        self._session = session
        self._cache = cache
        self._handoff = handoff
        self._progress = progress
        self._signals = signals
        self._lease_policy = lease
        self._marks = Watermarks()
        self._unusable: set[UUID] = set()

    async def step(self) -> timedelta | None:
        """Leases what there is room for; how long until it is worth looking again."""
        urgent, self._signals.urgent = self._signals.urgent, None
        if urgent is not None:
            self._marks.notice(urgent)
        busy = urgent is not None or self._signals.backlog
        while self._handoff.room() > 0:
            wanted, leased = await self._lease_batch()
            busy = busy or leased > 0
            if leased >= wanted:
                self._signals.backlog = True
            elif not self._marks.restart():
                return await self._next_look(busy=busy)
        return None

    async def _lease_batch(self) -> tuple[int, int]:
        """How many runs there was room for, and how many were leased."""
        # Before the query: a run that becomes ready meanwhile sets it again.
        self._signals.backlog = False
        try:
            with self._handoff.grant(wanted=BATCH) as grant:
                wanted = grant.left
                return wanted, await self._lease(wanted)
        except BaseException:
            self._signals.backlog = True  # nobody knows: newcomers queue up until a look has succeeded
            raise

    async def _lease(self, limit: int) -> int:
        granted_at = monotonic()
        while True:
            try:
                prepared = await self._session.repeat(lambda tx: self._lease_in(tx, limit))
                break
            except _NotCached as missing:
                # Never under a lock, nor with a connection in hand.
                self._unusable = missing.ids - (await self._cache.get_many(missing.ids)).keys()
        known = await self._cache.get_many(run.execution_id for run in prepared)
        self._handoff.deliver(self._progress.hand_out(prepared, known), granted_at=granted_at)
        refused = refusals(prepared)
        if refused:
            await self._progress.apply(refused)
        return len(prepared)

    async def _lease_in(self, tx: Any, limit: int) -> list[Prepared]:
        names = await store.ready_classes(tx, self._handoff.pool)
        served = names if self._handoff.serves_all else [n for n in names if n in self._handoff.class_names]
        if not served:
            return []
        marks = self._marks.of(served)
        found = await store.select_to_lease(tx, self._handoff.pool, marks=marks, limit=limit)
        known = self._known_of(found)
        wanted = []
        for class_name, candidate in found:
            self._marks.advance(class_name, candidate)
            if candidate.execution_id in known:
                plan = known[candidate.execution_id].version.plan
                wanted.append(_wanted(candidate, plan.nodes[node_of(candidate.id)].incoming))
        if not wanted:
            return []
        prepared = await self._progress.prepare_runs(tx, known, wanted, {})
        await store.lease_runs(tx, prepared, self._lease_policy)
        return prepared

    def _known_of(self, found: Sequence[tuple[str, Candidate]]) -> dict[UUID, Known]:
        ids = {candidate.execution_id for _, candidate in found} - self._unusable
        known = {execution_id: self._cache.cached(execution_id) for execution_id in ids}
        missing = {execution_id for execution_id, execution in known.items() if execution is None}
        if missing:
            raise _NotCached(missing)
        return {execution_id: execution for execution_id, execution in known.items() if execution is not None}

    async def _next_look(self, *, busy: bool) -> timedelta | None:
        """At the next retry; soon after there was something to do, as a row may have been locked by another."""
        async with self._session.reading() as connection:
            due = await store.next_retry(connection)
        if due is not None:
            self._marks.notice(_LOWEST)  # a retry may stand anywhere before the marks
            due = max(due, LEAST_PAUSE)
        soon = timedelta(seconds=RESCAN)
        if not busy:
            return due
        return soon if due is None else min(due, soon)


class _NotCached(Exception):
    """Runs were found whose executions are not in memory; their locks are let go of first."""

    def __init__(self, ids: set[UUID]) -> None:
        self.ids = ids


def _wanted(candidate: Candidate, incoming: tuple[int, ...]) -> Wanted:
    gate = Gate(0, excluded=candidate.excluded, chosen=candidate.chosen)
    return Wanted(
        execution_id=candidate.execution_id,
        node=node_of(candidate.id),
        taken=taken_edges(incoming, gate),
        epoch=candidate.epoch + 1,
        attempt=candidate.attempt + 1,
        ready_revision=candidate.ready_revision,
    )
