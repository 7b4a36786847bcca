"""Leases READY runs to a pool: per namespace and class, by rank and readiness, from a watermark on, while there is
room. Runs whose target is held back are parked in the same transaction."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from services.executor.breakers.mirror import Mirror
from services.executor.breakers.turns import ProbeTurn
from services.executor.facts import ExecutionCache, Known
from services.executor.handoff import Handoff, monotonic
from services.executor.leasing import Leasing, weight
from services.executor.model import Candidate
from services.executor.plans import PlannedVersion, VersionKey
from services.executor.signals import LOWEST_RANK
from services.executor.store import leases as store
from services.executor.store import parking
from services.executor.store.leases import Mark, Queue
from services.executor.store.parking import Parking
from services.executor.store.session import Session
from services.executor.targets import TargetKey
from valkyr.flow.effects import Prepared
from valkyr.flow.facts import ExecutionFacts
from valkyr.telemetry import get_logger

BATCH = 500
PORTION = 50
"""Runs whose payloads are read together where bytes are limited: each may have a MiB and more. The own pool reads those
of all that it has room for."""

TURN = 1.0
"""Seconds after which a step ends that is not done yet, so that its loop is seen to go on."""

RESCAN = 1.0
"""Seconds between looks at the whole queue, whatever the watermark says."""

OVERLAP = timedelta(milliseconds=200)
"""`ready_at` is a transaction's start: rows of one that committed late stand before the mark, mostly by less."""

LEAST_PAUSE = timedelta(milliseconds=50)
"""Between looks for a retry that is due but cannot be leased here."""

log = get_logger(__name__)


class Watermarks:
    """Where the last lease query of each queue ended: rows before that were leased already, or are leased elsewhere."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks: dict[Queue, tuple[int, datetime]] = {}
        self._rescan_at = clock()
        self._from_marks = False

    def to_begin_from(self) -> list[Mark]:
        """Of the queues that have one; of none once a second."""
        now = self._clock()
        if now >= self._rescan_at:
            self._marks.clear()
            self._rescan_at = now + RESCAN
        self._from_marks = bool(self._marks)
        return [(*queue, rank, ready_at) for queue, (rank, ready_at) in self._marks.items()]

    def advance(self, queue: Queue, candidate: Candidate) -> None:
        mark = (candidate.rank, candidate.ready_at - OVERLAP)
        self._marks[queue] = max(mark, self._marks.get(queue, mark))

    def restart(self) -> bool:
        """Begins anew; whether there was anything that a look from the marks may have missed."""
        looked_from_marks, self._from_marks = self._from_marks, False
        if looked_from_marks:
            self._marks.clear()
        return looked_from_marks

    def notice(self, rank: int) -> None:
        """A run of this rank became ready: marks further down would miss it."""
        self._marks = {queue: mark for queue, mark in self._marks.items() if mark[0] <= rank}


class Dispatcher:
    """One step leases until the pool is full or nothing is ready."""

    def __init__(
        self,
        session: Session,
        cache: ExecutionCache,
        handoff: Handoff,
        leasing: Leasing,
        *,
        mirror: Mirror,
        turn: ProbeTurn,
    ) -> None:
        self._session = session
        self._cache = cache
        self._handoff = handoff
        self._leasing = leasing
        self._ready = handoff.ready
        self._mirror = mirror
        self._turn = turn
        self._marks = Watermarks()
        self._unusable: set[VersionKey] = set()
        self._wide = False
        self._parked: Counter[TargetKey] = Counter()

    async def step(self) -> timedelta | None:
        """Leases what there is room for; how long until it is worth looking again."""
        try:
            return await self._lease_all()
        finally:
            self._tell_parked()

    async def _lease_all(self) -> timedelta | None:
        urgent, self._ready.urgent = self._ready.urgent, None
        if urgent is not None:
            self._marks.notice(urgent)
        busy = urgent is not None or self._ready.backlog
        end = monotonic() + TURN
        while (room := self._room()) > 0:
            if not busy and not await self._anything_ready():
                return None
            taken, more = await self._lease_batch(room)
            busy = busy or taken > 0
            if more:
                self._ready.backlog = True
                if monotonic() >= end:
                    return timedelta()
            elif not (self._marks.restart() and await self._anything_ready()):
                return await self._next_look(busy=busy)
        self._ready.backlog = True  # nobody knows what is ready: whoever makes room wakes this loop
        return None

    async def _anything_ready(self) -> bool:
        """What an idle executor asks, and all it asks. Retries that are not due yet count as well."""
        serving = self._handoff.serving
        async with self._session.reading() as connection:
            ready = await store.ready_classes(connection, serving.pool, namespace=self._handoff.namespace)
        return any(serving.takes_class(name) for name in ready)

    def _room(self) -> int:
        """What is not left to probes that wait for room."""
        room = self._handoff.room()
        if self._turn.waiting and room:
            self._turn.wake.set()
        return room - self._turn.waiting

    async def _lease_batch(self, room: int) -> tuple[int, bool]:
        """How many runs were leased or parked, and whether there may be more."""
        # Before the query: a run that becomes ready meanwhile sets it again.
        self._ready.backlog = False
        try:
            with self._handoff.grant(wanted=min(room, BATCH)) as grant:
                return await self._lease(grant.left)
        except BaseException:
            self._ready.backlog = True  # nobody knows: newcomers queue up until a look has succeeded
            raise

    async def _lease(self, room: int) -> tuple[int, bool]:
        """Where runs need no room, as they are parked or nothing can be made of them, many are looked at at once."""
        limit = max(room, BATCH) if self._wide else room
        plans: dict[VersionKey, PlannedVersion] = {}
        while True:
            granted_at = monotonic()
            try:
                batch = await self._session.repeat(partial(self._lease_in, room=room, limit=limit, plans=plans))
                break
            except _NotPlanned as missing:
                # Never under a lock, nor with a connection in hand. Memory may not hold as many as are needed.
                plans |= await self._planned(missing.versions)
        self._advance(batch)
        self._wide = bool(batch.parked or batch.passed)
        if batch.parked:
            self._parked.update((run.namespace, run.target) for run in batch.parked)
            self._turn.wake.set()  # perhaps the target has closed since it was looked at
        await self._leasing.hand_over(batch.leased, batch.known, granted_at=granted_at)
        taken = len(batch.leased) + len(batch.parked)
        there_may_be_more = len(batch.found) >= limit and (taken > 0 or limit < BATCH)
        return taken, bool(batch.left) or there_may_be_more

    async def _lease_in(self, tx: Any, *, room: int, limit: int, plans: Mapping[VersionKey, PlannedVersion]) -> _Batch:
        marks = self._marks.to_begin_from()
        found = await store.select_to_lease(
            tx, self._handoff.serving, marks=marks, limit=limit, namespace=self._handoff.namespace
        )
        batch = _Batch(found)
        size = PORTION if self._handoff.max_bytes is not None else max(room, PORTION)
        for first in range(0, len(found), size):
            await self._take_in(tx, batch, [run for _, run in found[first : first + size]], room=room, plans=plans)
        await self._leasing.lease(tx, batch.leased)
        await parking.park_runs(tx, batch.parked)
        return batch

    async def _take_in(
        self,
        tx: Any,
        batch: _Batch,
        portion: Sequence[Candidate],
        *,
        room: int,
        plans: Mapping[VersionKey, PlannedVersion],
    ) -> None:
        """Divides a portion; leaves it to the next look where the batch is full, or where there are plans to be made
        and others were leased before."""
        known = None if batch.full else await self._known_in(tx, batch, portion, plans=plans)
        if known is None:
            batch.full = True
            batch.left.update(run.id for run in portion)
            return
        usable = [run for run in portion if run.execution_id in known]
        batch.passed += len(portion) - len(usable)
        await self._divide(tx, batch, usable, known=known, room=room)

    async def _known_in(
        self, tx: Any, batch: _Batch, portion: Sequence[Candidate], *, plans: Mapping[VersionKey, PlannedVersion]
    ) -> dict[UUID, Known] | None:
        """None where there are plans to be made and others were leased before."""
        facts = await self._cache.facts_by(tx, {run.execution_id for run in portion})
        try:
            return self._known_of(facts, plans)
        except _NotPlanned:
            if not batch.leased:
                raise
            return None

    async def _divide(
        self, tx: Any, batch: _Batch, candidates: Sequence[Candidate], *, known: Mapping[UUID, Known], room: int
    ) -> None:
        """Who is leased, who is parked, and who is left as there is no room. Inputs are made of no more than there is
        room for."""
        unheld: list[Candidate] = []
        for candidate in candidates:
            execution = known[candidate.execution_id]
            target = execution.version.plan.nodes[candidate.node_index].target
            if not (target and self._park(batch, execution, candidate, target)):
                unheld.append(candidate)
        while unheld and not batch.full and (room_left := room - len(batch.leased)):
            looked_at = 0
            prepared = await self._leasing.prepare(tx, known, unheld[:room_left])
            for run in prepared:
                execution = known[run.execution_id]
                if batch.is_too_much(run, self._handoff.max_bytes):
                    batch.full = True
                    break
                looked_at += 1
                if not (run.target and self._park(batch, execution, run, run.target)):
                    batch.lease(run, execution)
            batch.full = batch.full or len(prepared) < min(room_left, len(unheld))
            unheld = unheld[looked_at:]
        batch.left.update(candidate.id for candidate in unheld)

    def _park(self, batch: _Batch, execution: Known, run: Candidate | Prepared, target: str) -> bool:
        """I17: not where the target is closed, as far as this executor knows."""
        namespace = execution.facts.namespace
        if self._handoff.closed(namespace, target):
            return False
        batch.parked.append(
            Parking(
                namespace=namespace,
                execution_id=run.execution_id,
                id=run.id,
                target=target,
                episode_id=self._mirror.episode(namespace, target),
                wait=self._mirror.wait(namespace, target),
            )
        )
        return True

    def _advance(self, batch: _Batch) -> None:
        """To the last of each queue, but not past what is left for the next look."""
        last: dict[Queue, Candidate] = {}
        stopped: set[Queue] = set()
        for queue, candidate in batch.found:
            if candidate.id in batch.left:
                stopped.add(queue)
            if queue not in stopped:
                last[queue] = candidate
        for queue, candidate in last.items():
            self._marks.advance(queue, candidate)

    def _tell_parked(self) -> None:
        parked, self._parked = self._parked, Counter()
        for (namespace, target), runs in parked.items():
            log.info("run.parked", namespace=namespace, target=target, runs=runs)

    def _known_of(
        self, facts: Mapping[UUID, ExecutionFacts], plans: Mapping[VersionKey, PlannedVersion]
    ) -> dict[UUID, Known]:
        """Without those that are unusable. _NotPlanned where neither `plans` nor memory has the plan of one."""
        known: dict[UUID, Known] = {}
        missing: set[VersionKey] = set()
        for execution_id, fact in facts.items():
            key = fact.version_key
            version = self._cache.cached_version(key) or plans.get(key)
            if version is not None:
                known[execution_id] = Known(fact, version)
            elif key not in self._unusable:
                missing.add(key)
        if missing:
            raise _NotPlanned(missing)
        return known

    async def _planned(self, keys: Iterable[VersionKey]) -> dict[VersionKey, PlannedVersion]:
        """Those that a plan can be made of. The others are remembered: nothing but a restart makes them usable."""
        planned = {}
        for key in keys:
            version = await self._cache.version(key)
            if version is None:
                self._unusable.add(key)
            else:
                planned[key] = version
        return planned

    async def _next_look(self, *, busy: bool) -> timedelta | None:
        """At the next retry; soon after there was something to do, as a row may have been locked by another."""
        async with self._session.reading() as connection:
            due = await store.next_retry(connection)
        if due is not None:
            self._marks.notice(LOWEST_RANK)  # a retry may stand anywhere before the marks
            due = max(due, LEAST_PAUSE)
        soon = timedelta(seconds=RESCAN)
        if not busy:
            return due
        return soon if due is None else min(due, soon)


@dataclass(slots=True)
class _Batch:
    """What one transaction found. `left` stay READY: there was no room for them, or no plan yet. So do those that were
    `passed` over, of whom no plan can be made. `known` are the executions of those leased. `full`: no more bytes go
    through the door at once, or there are plans to be made before the next."""

    found: Sequence[tuple[Queue, Candidate]]
    known: dict[UUID, Known] = field(default_factory=dict)
    leased: list[Prepared] = field(default_factory=list)
    parked: list[Parking] = field(default_factory=list)
    left: set[UUID] = field(default_factory=set)
    passed: int = 0
    size: int = 0
    full: bool = False

    def is_too_much(self, run: Prepared, most: int | None) -> bool:
        """The first is not, however large."""
        return most is not None and bool(self.leased) and self.size + weight(run) > most

    def lease(self, run: Prepared, execution: Known) -> None:
        self.size += weight(run)
        self.leased.append(run)
        self.known[run.execution_id] = execution


class _NotPlanned(Exception):
    """Runs were found of versions whose plans are not in memory; their locks are let go of first."""

    def __init__(self, versions: set[VersionKey]) -> None:
        self.versions = versions
