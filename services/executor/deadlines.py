"""Ends what is over its time: executions past their deadline, runs past theirs, leases past the grace of a stop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from services.executor.progress import Progress
from services.executor.store import leases as store
from services.executor.store.session import Session
from valkyr.errors import Internal, ValkyrError
from valkyr.flow.attempts import Fence
from valkyr.flow.events import EndExecution, Event, RunDeadline
from valkyr.flow.states import Ending
from valkyr.telemetry import get_logger

log = get_logger(__name__)

BATCH = 500
RUNS_AT_ONCE = 20_000
"""Of executions that end in one transaction: a few tenths of a second, far from the time limit of a statement."""
LEAST_PAUSE = timedelta(milliseconds=250)
"""After ending what was due: what cannot be ended, its graph being unusable say, must not make the loop spin."""


@dataclass(frozen=True, slots=True)
class Due:
    """Some of what is over its time, and whether there is more of it."""

    events: Sequence[Event]
    more: bool


@dataclass(frozen=True, slots=True)
class _Kind:
    """What is over its time in one way: how it is found, and what the log says of it."""

    find: Callable[[Any], Awaitable[Due]]
    event: str


class Deadlines:
    """One step for a loop; any number of replicas may run it, since each event is conditional on what it finds."""

    def __init__(
        self, session: Session, progress: Progress, *, batch: int = BATCH, runs_at_once: int = RUNS_AT_ONCE
    ) -> None:
        self._session = session
        self._progress = progress
        self._batch = batch
        self._runs_at_once = runs_at_once
        self._kinds = (
            _Kind(self._executions, "executions.deadlines_passed"),
            _Kind(self._runs, "runs.deadlines_passed"),
            _Kind(self._stopped, "leases.stopped"),
        )

    async def step(self) -> timedelta | None:
        """Ends what is due; answers how long until the next is."""
        due = await self._next()
        if due is None or due > timedelta():
            return due
        await self._end_all()
        due = await self._next()
        return None if due is None else max(due, LEAST_PAUSE)

    async def _next(self) -> timedelta | None:
        async with self._session.reading() as connection:
            return await store.next_deadline(connection)

    async def _end_all(self) -> None:
        """A batch of each kind in turn, so that none waits for another that is very many, or that fails."""
        problem: ValkyrError | None = None
        left: Sequence[_Kind] = self._kinds
        while left:
            going, left = left, []
            for kind in going:
                try:
                    if await self._end_some(kind):
                        left.append(kind)
                except ValkyrError as error:
                    problem = problem or error
        if problem is not None:
            raise problem

    async def _end_some(self, kind: _Kind) -> bool:
        """Whether to look again: there is more, and it is worth while."""
        async with self._session.reading() as connection:
            due = await kind.find(connection)
        if not due.events:
            return False
        log.info(kind.event, count=len(due.events))
        try:
            answers = await self._progress.apply(due.events)
        except Internal:
            return False  # logged where it happened; the others of the batch were applied
        return due.more and Fence.ACCEPTED in answers

    async def _executions(self, connection: Any) -> Due:
        """As many as have no more than so many runs together, each node's counted, but one at least."""
        found = await store.passed_execution_deadlines(connection, self._batch)
        chosen: list[EndExecution] = []
        runs = 0
        for execution_id, nodes in found:
            runs += nodes
            if chosen and runs > self._runs_at_once:
                break
            chosen.append(EndExecution(execution_id, Ending.DEADLINE))
        return Due(chosen, more=len(found) == self._batch or len(chosen) < len(found))

    async def _runs(self, connection: Any) -> Due:
        found = await store.passed_deadlines(connection, self._batch)
        return Due([RunDeadline(*key) for key in found], more=len(found) == self._batch)

    async def _stopped(self, connection: Any) -> Due:
        found = await store.stopped_leases(connection, self._batch)
        return Due(found, more=len(found) == self._batch)
