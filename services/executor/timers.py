"""Wakes WAITING runs when their time has come, and decides control nodes that were written READY."""

from __future__ import annotations

from datetime import timedelta

from services.executor.progress import Progress
from services.executor.store import leases as store
from services.executor.store.session import Session
from valkyr.flow.attempts import Fence
from valkyr.flow.events import ControlReady, TimerDue

BATCH = 500
STUCK_PAUSE = timedelta(seconds=1)
"""Where nothing that is due can be woken, its graph being unusable say: the loop must not spin."""


class Timers:
    """Steps for two loops; any number of replicas may run them, since each event is conditional on the run's state."""

    def __init__(self, session: Session, progress: Progress, *, batch: int = BATCH) -> None:
        self._session = session
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

    async def decide_control(self) -> None:
        """Decides READY control nodes, oldest first, until there are none that can be."""
        while True:
            async with self._session.reading() as connection:
                ready = await store.control_runs(connection, self._batch)
            if not ready:
                return
            answers = await self._progress.apply([ControlReady(*key) for key in ready])
            if len(ready) < self._batch or Fence.ACCEPTED not in answers:
                return
