"""Wakes WAITING runs when their time has come, and decides about those that were written READY for the engine: control
nodes, and runs whose equals are looked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from services.executor.facts import ExecutionCache, Known
from services.executor.progress import Progress
from services.executor.reusing import Decided, Reusing
from services.executor.store import leases as store
from services.executor.store.session import Session
from valkyr.flow.attempts import Fence
from valkyr.flow.events import ControlReady, TimerDue
from valkyr.flow.ids import RunKey, node_of
from valkyr.flow.leasing import AGAIN

BATCH = 500
STUCK_PAUSE = timedelta(seconds=1)
"""Where nothing that is due can be woken, its graph being unusable say: the loop must not spin."""


class Timers:
    """Steps for two loops; any number of replicas may run them, since each event is conditional on the run's state."""

    def __init__(
        self, session: Session, cache: ExecutionCache, progress: Progress, reusing: Reusing, *, batch: int = BATCH
    ) -> None:
        self._session = session
        self._cache = cache
        self._reusing = reusing
        self._progress = progress
        self._batch = batch

    async def wake_due(self) -> timedelta | None:
        """Ends what is due; answers how long until the next is."""
        due = await self._next()
        if due is None or due > timedelta():
            return due
        pause = await self._wake_all()
        due = await self._next()
        return None if due is None else max(due, pause)

    async def _wake_all(self) -> timedelta:
        """The least time until it is worth looking again."""
        while True:
            async with self._session.reading() as connection:
                due = await store.due_timers(connection, self._batch)
            if not due:
                return timedelta()
            if Fence.ACCEPTED not in await self._progress.apply([TimerDue(*key) for key in due]):
                return STUCK_PAUSE
            if len(due) < self._batch:
                return timedelta()

    async def _next(self) -> timedelta | None:
        async with self._session.reading() as connection:
            return await store.next_timer(connection)

    async def decide_first(self) -> timedelta | None:
        """Decides about READY runs that nobody may lease before, oldest first, until there are none of which it can be;
        how long until those are worth a look that others held."""
        while True:
            async with self._session.reading() as connection:
                ready = await store.control_runs(connection, self._batch)
            if not ready:
                return None
            decided = await self._decide(ready)
            if len(ready) < self._batch or not decided.moved:
                return AGAIN if decided.held else None

    async def _decide(self, keys: Sequence[RunKey]) -> Decided:
        known = await self._cache.get_many({execution_id for execution_id, _ in keys})
        control = [key for key in keys if key[0] not in known or _is_control(key, known)]
        others = [key for key in keys if key[0] in known and not _is_control(key, known)]
        decided = await self._reusing.decide(others, known)
        if control:
            answers = await self._progress.apply([ControlReady(*key) for key in control])
            decided.moved = decided.moved or Fence.ACCEPTED in answers
        return decided


def _is_control(key: RunKey, known: Mapping[UUID, Known]) -> bool:
    return known[key[0]].version.plan.nodes[node_of(key[1])].control is not None
