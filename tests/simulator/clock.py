"""Virtual time: one number of seconds, the database's clock, and what is to happen when."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

BEGINNING = datetime(2030, 1, 1, tzinfo=UTC)


class Clock:
    """Actions happen in the order of their times; of the same time, in the order in which they were asked for."""

    __slots__ = ("_order", "_queue", "now", "steps")

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self._order = 0
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def after(self, seconds: float, action: Callable[..., None], *args: Any) -> None:
        self._order += 1
        heapq.heappush(self._queue, (self.now + seconds, self._order, action, args))

    def step(self) -> bool:
        """Does what is next; false if nothing is left."""
        if not self._queue:
            return False
        self.now, _, action, args = heapq.heappop(self._queue)
        self.steps += 1
        action(*args)
        return True


def moment_of(seconds: float) -> datetime:
    return BEGINNING + timedelta(seconds=seconds)


def seconds_of(moment: datetime) -> float:
    """The inverse of `moment_of`."""
    return (moment - BEGINNING).total_seconds()


class MonotonicClock:
    """A process's own clock: it begins anywhere and goes a little too fast or too slow."""

    __slots__ = ("_clock", "_rate", "_start")

    def __init__(self, clock: Clock, *, start: float, rate: float) -> None:
        self._clock = clock
        self._start = start
        self._rate = rate

    def __call__(self) -> float:
        return self._start + self._clock.now * self._rate

    def seconds_until(self, own: float) -> float:
        """By the database's clock, how long until this one shows `own`; 0 if it does."""
        return max(0.0, (own - self()) / self._rate)
