"""Ends what is over its time: executions past their deadline, runs past theirs, leases past the grace of a stop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

from services.executor.model import EndExecution, Event, RunDeadline
from services.executor.progress import Progress
from services.executor.store import leases as store
from services.executor.store.session import Session
from valkyr.errors import Internal
from valkyr.flow.states import Ending
from valkyr.telemetry import get_logger

log = get_logger(__name__)

BATCH = 500
LEAST_PAUSE = timedelta(milliseconds=250)
"""After ending what was due: what cannot be ended, its graph being unusable say, must not make the loop spin."""


class Deadlines:
    """One step for a loop; any number of replicas may run it, since each event is conditional on what it finds."""

    def __init__(self, session: Session, progress: Progress) -> None:
        self._session = session
        self._progress = progress

    async def step(self) -> timedelta | None:
        """Ends what is due; answers how long until the next is."""
        due = await self._next()
        if due is None or due > timedelta():
            return due
        await self._end_all(_execution_deadlines, "executions.deadlines_passed")
        await self._end_all(_run_deadlines, "runs.deadlines_passed")
        await self._end_all(store.stopped_leases, "leases.stopped")
        due = await self._next()
        return None if due is None else max(due, LEAST_PAUSE)

    async def _next(self) -> timedelta | None:
        async with self._session.reading() as connection:
            return await store.next_deadline(connection)

    async def _end_all(self, find: Callable[[Any, int], Awaitable[Sequence[Event]]], event: str) -> None:
        while True:
            async with self._session.reading() as connection:
                due = await find(connection, BATCH)
            if not due:
                return
            log.info(event, count=len(due))
            try:
                await self._progress.apply(due)
            except Internal:
                return  # logged where it happened; the others of the batch were applied
            if len(due) < BATCH:
                return


async def _execution_deadlines(connection: Any, limit: int) -> list[EndExecution]:
    ids = await store.passed_execution_deadlines(connection, limit)
    return [EndExecution(execution_id, Ending.DEADLINE) for execution_id in ids]


async def _run_deadlines(connection: Any, limit: int) -> list[RunDeadline]:
    return [RunDeadline(*key) for key in await store.passed_deadlines(connection, limit)]
