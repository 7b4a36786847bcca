"""The use case of LeaseRuns: runs for runners that call over the network."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID
from weakref import WeakValueDictionary

from services.executor.callers import Asked, Caller
from services.executor.handoff import monotonic
from services.executor.lanes import Lane, Means
from services.executor.runner_rows import RunnerRow, RunnerSaid
from services.executor.runners import Runners
from valkyr.runner.leases import LeasedRun

IDLE_LANES = timedelta(minutes=5)
"""After which runners that do not call are forgotten here; what they hold stands in the rows."""

Kind = tuple[str, str, bool, tuple[str, ...]]
"""Namespace, pool, whether every class, and which: what one runner can take, another of its kind can as well."""


@dataclass(frozen=True, slots=True)
class Lent:
    """The answer. `at` is by the database's clock: when the runs were leased, or where there are none a time before the
    answer. `drain`: the runner is to ask no more."""

    runs: Sequence[LeasedRun]
    at: datetime
    drain: bool


class _Turn:
    """Calls of one incarnation, of which one is answered at a time. What is said of one while it waits for its turn, or
    is not in a lane yet, is heeded there."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.calls: set[Caller] = set()


class Lending:
    """Leases runs to those who ask. Runners of one kind share a lane."""

    def __init__(self, means: Means, runners: Runners) -> None:
        self._means = means
        self._runners = runners
        self._lanes: dict[Kind, Lane] = {}
        self._turns: WeakValueDictionary[tuple[str, str, UUID], _Turn] = WeakValueDictionary()
        self._stopping = False

    async def lease(self, asked: Asked) -> Lent:
        """RunnerNotRegistered, RunnerReplaced. One call of an incarnation at a time: a repetition takes the place of
        the first, another waits for it. What is left of a process that was replaced is not waited for."""
        key = (asked.namespace, asked.runner_id, asked.incarnation)
        turn = self._turns.setdefault(key, _Turn())
        for earlier in turn.calls:
            if asked.request_id and earlier.asked.request_id == asked.request_id:
                earlier.leaving = True  # it came once more: its first answer has nowhere to go
                self._heed(asked.namespace)
        caller = Caller(asked)
        caller.leaving = self._stopping
        turn.calls.add(caller)
        try:
            async with turn.lock:
                return await self._lease(caller)
        finally:
            turn.calls.discard(caller)

    def drained(self, namespace: str, runner_id: str, incarnation: UUID) -> None:
        """It was told to drain: what waits for it here need not."""
        turn = self._turns.get((namespace, runner_id, incarnation))
        for caller in turn.calls if turn else ():
            caller.draining = True
        self._heed(namespace)

    def drain(self) -> None:
        """This executor is to stop: from now on no call waits here, and runners turn to others."""
        self._stopping = True
        for turn in self._turns.values():
            for caller in turn.calls:
                caller.leaving = True
        for lane in self._lanes.values():
            lane.heed()

    async def forget(self) -> timedelta | None:
        """A step for a loop: lanes that nobody has used for long are closed."""
        before = monotonic() - IDLE_LANES.total_seconds()
        for kind, lane in list(self._lanes.items()):
            if lane.idle_since is not None and lane.idle_since < before:
                await self._lanes.pop(kind).close()
        return None

    async def close(self) -> None:
        lanes, self._lanes = list(self._lanes.values()), {}
        await asyncio.gather(*(lane.close() for lane in lanes))

    async def _lease(self, caller: Caller) -> Lent:
        asked = caller.asked
        row = await self._seen(asked)
        lane = self._lane_of(row.said)
        if not row.draining and not _is_repeated(asked, row):
            given = await lane.lease(caller)
            if not given.again:
                return Lent(given.runs, given.at or row.now, given.drain)
            row = await self._seen(asked)
        if not _is_repeated(asked, row):
            return Lent((), row.now, row.draining)
        return Lent(await lane.again(row), row.leased_at or row.now, row.draining)

    async def _seen(self, asked: Asked) -> RunnerRow:
        return await self._runners.seen(asked.namespace, asked.runner_id, asked.incarnation)

    def _heed(self, namespace: str) -> None:
        for kind, lane in self._lanes.items():
            if kind[0] == namespace:
                lane.heed()

    def _lane_of(self, said: RunnerSaid) -> Lane:
        kind = (said.namespace, said.pool, said.serves_all, tuple(said.class_names))
        lane = self._lanes.get(kind)
        if lane is None:
            lane = self._lanes[kind] = Lane(self._means, said)
        return lane


def _is_repeated(asked: Asked, row: RunnerRow) -> bool:
    return row.has_given(asked.request_id, asked.repeated_within)
