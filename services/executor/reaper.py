"""Ends leases that ran out. I11: a repeated, bounded query that any replica can run, conditional on epoch and state."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from services.executor.model import LeasePolicy
from services.executor.progress import Progress
from services.executor.store import leases as store
from services.executor.store.leases import LeaseCensus
from services.executor.store.session import Session
from valkyr.errors import Internal, ValkyrError
from valkyr.flow.attempts import Fence
from valkyr.flow.events import LeaseEnded
from valkyr.flow.results import Omitted
from valkyr.telemetry import get_logger

BATCH = 500
LEAST_QUIET = timedelta(seconds=10)
FORGOTTEN_AFTER = timedelta(seconds=10)
"""A lease granted to this process so long ago that its worker does not hold was lost on the way: it is given back."""

log = get_logger(__name__)


def is_storm(census: LeaseCensus) -> bool:
    """More than half of all leases, of at least three runners, expired at once: more likely our fault than theirs.

    All that expired count, not only those of one bounded sweep.
    """
    return census.runners >= 3 and census.expired * 2 > census.leases


@dataclass(slots=True)
class QuietPeriod:
    """When the reaper keeps still: after a start, after the database came back, after an alarm."""

    length: timedelta
    clock: Callable[[], float] = time.monotonic
    until: float = 0.0

    def begin(self) -> None:
        self.until = self.clock() + self.length.total_seconds()

    def left(self) -> timedelta | None:
        """None once it is over."""
        seconds = self.until - self.clock()
        return timedelta(seconds=seconds) if seconds > 0 else None


class Reaper:
    """`held` tells the leases that this process's worker holds, as (run id, epoch)."""

    def __init__(
        self,
        session: Session,
        progress: Progress,
        *,
        lease: LeasePolicy,
        quiet: QuietPeriod,
        held: Callable[[], set[tuple[str, int]]],
    ) -> None:
        self._session = session
        self._progress = progress
        self._lease = lease
        self._quiet = quiet
        self._held = held
        self._failed = False
        self._alarmed = False
        quiet.begin()

    async def step(self) -> timedelta | None:
        """One sweep; answers how long until the next lease runs out."""
        try:
            due = await self._sweep()
        except ValkyrError:
            self._failed = True
            raise
        if self._failed:
            self._failed = False
            self._quiet.begin()
        return due

    async def _sweep(self) -> timedelta | None:
        left = self._quiet.left()
        if left is not None:
            return left
        async with self._session.reading() as connection:
            census = await store.take_census(connection)
            expired = await store.expired_leases(connection, BATCH)
        if expired and not self._may_reap(census):
            return self._quiet.left()
        if expired:
            ended = await _end(self._progress, expired)
            log.warning("leases.reaped", count=len(expired))
            return timedelta() if ended else None
        self._alarmed = False
        return None if census.next_expiry is None else timedelta(seconds=max(0.0, census.next_expiry))

    def _may_reap(self, census: LeaseCensus) -> bool:
        """Alarms and waits one quiet period when too many expire at once, then goes on: it never stops for good."""
        if self._alarmed or not is_storm(census):
            return True
        self._alarmed = True
        self._quiet.begin()
        log.critical("leases.expire_in_a_storm", expired=census.expired, leases=census.leases, runners=census.runners)
        return False

    async def give_back_forgotten(self) -> None:
        """Leases of this process that its worker does not hold: granted, and lost on the way."""
        async with self._session.reading() as connection:
            leases = await store.leases_of_holder(connection, self._lease, FORGOTTEN_AFTER)
        held = self._held()
        forgotten = [LeaseEnded(*key, Omitted()) for key in leases if (str(key[1]), key[2]) not in held]
        if forgotten:
            log.warning("leases.forgotten", count=len(forgotten))
            await _end(self._progress, forgotten)


async def end_older_incarnations(
    session: Session, progress: Progress, lease: LeasePolicy, *, batch: int = BATCH
) -> int:
    """At start: what this runner held before it was started anew is lost, at once. How many leases that ended."""
    ended = 0
    while True:
        async with session.reading() as connection:
            older = await store.leases_of_older_incarnations(connection, lease, batch)
        if not older:
            return ended
        now = await _end(progress, older)
        ended += now
        if len(older) < batch or not now:
            return ended


async def _end(progress: Progress, leases: Sequence[LeaseEnded]) -> int:
    """How many have ended. None is said to where one could not be carried on, which was logged: then to look again at
    once would only find it again."""
    try:
        return (await progress.apply(leases)).count(Fence.ACCEPTED)
    except Internal:
        return 0
