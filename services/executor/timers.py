"""Wakes WAITING runs when their time has come, and decides control nodes that were written READY."""

from __future__ import annotations

from datetime import timedelta

from services.executor.model import ControlReady, TimerDue
from services.executor.progress import Progress
from services.executor.store import leases as store
from services.executor.store.session import Session

BATCH = 500


class Timers:
    """Steps for two loops; any number of replicas may run them, since each event is conditional on the run's state."""

    def __init__(self, session: Session, progress: Progress) -> None:
        self._session = session
        self._progress = progress

    async def wake_due(self) -> timedelta | None:
        """Ends what is due; answers how long until the next is."""
        due = await self._next()
        if due is None or due > timedelta():
            return due
        await self._wake_all()
        return await self._next()

    async def _wake_all(self) -> None:
        while True:
            async with self._session.reading() as connection:
                due = await store.due_timers(connection, BATCH)
            if due:
                await self._progress.apply([TimerDue(*key) for key in due])
            if len(due) < BATCH:
                return

    async def _next(self) -> timedelta | None:
        async with self._session.reading() as connection:
            return await store.next_timer(connection)

    async def decide_control(self) -> None:
        """Decides READY control nodes, oldest first, until there are none."""
        while True:
            async with self._session.reading() as connection:
                ready = await store.control_runs(connection, BATCH)
            if ready:
                await self._progress.apply([ControlReady(*key) for key in ready])
            if len(ready) < BATCH:
                return
