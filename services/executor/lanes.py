"""A lane leads to the runners of one kind that call over the network: a door, a dispatcher and probes of its own, at
work while calls wait."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from services.executor.breakers.turns import ProbeTurn
from services.executor.breakers.wiring import Breakers
from services.executor.callers import AGAIN, DRAIN, NOTHING, Caller, Callers, Given
from services.executor.dispatcher import Dispatcher
from services.executor.facts import ExecutionCache
from services.executor.feed import wait_for
from services.executor.handoff import Handoff, monotonic
from services.executor.leasing import Leasing, NotLeased
from services.executor.model import LeasePolicy
from services.executor.probes import Probes
from services.executor.progress import Progress
from services.executor.runner_rows import RunnerRow, RunnerSaid
from services.executor.runners import check
from services.executor.signals import Signals
from services.executor.store import runners as store
from services.executor.store.leases import lease_runs_to
from services.executor.store.session import Session
from valkyr.errors import ValkyrError
from valkyr.flow.effects import Prepared
from valkyr.runner.leases import LeasedRun
from valkyr.telemetry import get_logger

MAX_BATCH_BYTES = 8 * 1024 * 1024
POLL = timedelta(seconds=5)
"""Upper bound on noticing work that another replica has left."""

PROBE_EVERY = 1.0
"""Seconds between looks for probes where there is always something else to lease."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Means:
    """What lanes are made of."""

    session: Session
    cache: ExecutionCache
    progress: Progress
    signals: Signals
    breakers: Breakers
    lease_duration: timedelta
    silent_after: timedelta
    timeouts: Mapping[str, timedelta]


class _LeasingTo(Leasing):
    """Leases to the callers, each under its registration. Who was replaced, is to drain, was silent or has runs from
    another executor by now gets nothing but an answer as its leases were to be written, who has gone nothing at all:
    NotLeased, and the look is made again for the others."""

    def __init__(
        self, callers: Callers, handoff: Handoff, progress: Progress, policy: LeasePolicy, *, silent_after: timedelta
    ) -> None:
        super().__init__(handoff, progress, policy)
        self._callers = callers
        self._duration = policy.duration
        self._silent_after = silent_after

    async def lease(self, tx: Any, prepared: Sequence[Prepared]) -> None:
        if not prepared:
            return
        shares = self._callers.divide(prepared)
        if sum(len(share) for _, share in shares) < len(prepared):
            raise NotLeased
        rows = await store.note_leases(tx, [caller.asked for caller, _ in shares])
        checked = [(self._row_of(caller, rows.get(caller.asked.runner_id)), share) for caller, share in shares]
        await lease_runs_to(tx, [(row.said.runner_id, row.holder, share) for row, share in checked], self._duration)
        self._callers.grant(shares, checked[0][0].now)

    def _row_of(self, caller: Caller, row: RunnerRow | None) -> RunnerRow:
        """One that nobody has heard of while its call waited may be frozen, or cut off, and what it were given would
        stand still until its lease runs out. If it is there, it asks again."""
        try:
            there = check(row, caller.asked.runner_id, caller.asked.incarnation)
        except ValkyrError as error:
            caller.fail(error)
            raise NotLeased from error
        if there.has_given(caller.asked.request_id, caller.asked.repeated_within):
            caller.say(AGAIN)
            raise NotLeased
        if there.draining or there.is_silent(self._silent_after):
            caller.say(DRAIN if there.draining else NOTHING)
            raise NotLeased
        return there


class Lane:
    """For runners of one namespace and pool that serve the same classes. While calls of theirs wait it looks for runs,
    for all of them at once."""

    def __init__(self, means: Means, said: RunnerSaid) -> None:
        self.used_at = monotonic()
        self._means = means
        self._callers = Callers()
        self._looking = asyncio.Lock()
        self._probe_at = 0.0
        self._ready = means.signals.open_door(said.pool)
        handoff = Handoff(
            self._callers,
            self._ready,
            means.breakers.mirror,
            pool=said.pool,
            class_names=frozenset(said.class_names),
            serves_all=said.serves_all,
            namespace=said.namespace,
            max_bytes=MAX_BATCH_BYTES,
        )
        policy = LeasePolicy(said.runner_id, said.incarnation, means.lease_duration)
        self._leasing = _LeasingTo(self._callers, handoff, means.progress, policy, silent_after=means.silent_after)
        turn = ProbeTurn(wake=self._ready.wake)
        mirror = means.breakers.mirror
        self._dispatcher = Dispatcher(means.session, means.cache, handoff, self._leasing, mirror=mirror, turn=turn)
        self._probes = Probes(
            means.session,
            means.cache,
            handoff,
            self._leasing,
            means.signals,
            mirror=mirror,
            outcomes=means.breakers.outcomes,
            permits=means.breakers.gateway,
            turn=turn,
            slots=said.capacity,
            timeouts=means.timeouts,
        )
        self._serving = asyncio.create_task(self._serve(), name=f"lane of {said.pool}", context=Context())

    @property
    def idle_since(self) -> float | None:
        """By the monotonic clock; None while calls wait."""
        return None if self._callers.waiting else self.used_at

    async def close(self) -> None:
        """Who waits still is answered with nothing."""
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
        self._callers.let_go(self._callers.waiting)
        self._means.signals.close_door(self._ready)
        self._probes.close()

    async def again(self, row: RunnerRow) -> list[LeasedRun]:
        """What the call was answered with before, as far as it is still held."""
        if row.leased_at is None:
            return []
        async with self._means.session.reading() as connection:
            held = await store.leased_at(connection, row.said.namespace, row.holder, row.leased_at)
        known = await self._means.cache.get_many([run.execution_id for run in held])
        async with self._means.session.reading() as connection:
            usable = [run for run in held if run.execution_id in known]
            prepared = await self._leasing.prepare(connection, known, usable)
        return self._means.progress.preparing.hand_out(prepared, known)

    async def lease(self, caller: Caller) -> Given:
        """Up to `max_runs`, as soon as there are any; nothing at the end of `wait`. RunnerReplaced."""
        self._callers.come(caller)
        self.heed()
        try:
            done, _ = await asyncio.wait([caller.answer], timeout=caller.asked.wait.total_seconds())
            if not done:
                caller.leaving = True
                self.heed()
            given = await caller.answer
            return replace(given, drain=given.drain or caller.draining)
        except asyncio.CancelledError:
            caller.answer.cancel()  # nobody is told any more
            async with self._looking:  # what was leased to it meanwhile is committed before it is asked for again
                raise
        finally:
            self.used_at = monotonic()

    def heed(self) -> None:
        """What was said of calls that wait here: who is leaving, or draining, is answered."""
        self._ready.wake.set()

    async def _serve(self) -> None:
        callers = self._callers
        while True:
            self._ready.wake.clear()
            callers.let_go([caller for caller in callers.waiting if caller.draining], DRAIN)
            due = POLL
            if callers.waiting:
                async with self._looking:
                    due = await self._look_for(callers.waiting)
            await wait_for(self._ready.wake, due)

    async def _look_for(self, looked_for: Sequence[Caller]) -> timedelta:
        """One look, and what it comes to for those who are leaving; how long until the next is worth it."""
        due = POLL
        try:
            due = await self._look()
        except Exception as error:
            unforeseen = None if isinstance(error, ValkyrError) else error
            log.warning("lane.look_failed", callers=len(looked_for), error=str(error), exc_info=unforeseen)
            for caller in looked_for:
                caller.fail(error)
        self._callers.let_go([caller for caller in looked_for if caller.leaving])
        return due

    async def _look(self) -> timedelta:
        """For runs, and for probes that are due; how long until the next is worth it. Where there are always runs,
        probes have their turn all the same."""
        try:
            probing = await self._probe() if monotonic() >= self._probe_at else None
            room = self._callers.room()
            due = await self._dispatcher.step()
            if probing is None and self._callers.room() >= room:
                probing = await self._probe()
        except NotLeased:
            return timedelta()
        return min(wait for wait in (due, probing, POLL) if wait is not None)

    async def _probe(self) -> timedelta | None:
        self._probe_at = monotonic() + PROBE_EVERY
        return await self._probes.step_of_probes()
