"""The one way to run a background loop: jitter, wake-ups, back-off after failures, logging and health."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta

from services.chassis.health import Health
from valkyr.errors import ValkyrError
from valkyr.retry import backoff_ceiling
from valkyr.telemetry import get_logger

BACKOFF_BASE = timedelta(milliseconds=100)
BACKOFF_MAXIMUM = timedelta(seconds=10)
LEAST_INTERVAL = timedelta(milliseconds=10)
LATE = timedelta(seconds=30)

Step = Callable[[], Awaitable[timedelta | None]]
_log = get_logger(__name__)


async def run_every(
    interval: timedelta,
    step: Step,
    *,
    name: str,
    health: Health | None = None,
    wake: asyncio.Event | None = None,
    stale_after: timedelta | None = None,
) -> None:
    """Calls `step` until cancelled: at once, then after `interval` (less up to a tenth, so that replicas spread; at
    least 10 ms, so that no setting makes it spin).

    A step may return how long it is to the next due row; it is then called after that, if that is sooner. Setting
    `wake` calls it at once. A failing step is tried again with back-off and logged once, as is its recovery. A loop
    without a successful step for `stale_after` (30 s more than the interval) makes the service NOT_SERVING.
    """
    interval = max(interval, LEAST_INTERVAL)
    loop = _Loop(name, step, health, stale_after or interval + LATE)
    loop.beat()
    try:
        while True:
            if wake is not None:
                wake.clear()
            due = await loop.take_step()
            pause = interval * random.uniform(0.9, 1.0)
            await _pause(pause if due is None else max(timedelta(), min(pause, due)), loop.failures, wake)
    finally:
        loop.end()


async def _pause(pause: timedelta, failures: int, wake: asyncio.Event | None) -> None:
    if failures:
        ceiling = backoff_ceiling(failures, base=BACKOFF_BASE, maximum=BACKOFF_MAXIMUM)
        await asyncio.sleep(ceiling.total_seconds() * random.uniform(0.5, 1.0))
    elif wake is None:
        await asyncio.sleep(pause.total_seconds())
    else:
        try:
            async with asyncio.timeout(pause.total_seconds()):
                await wake.wait()
        except TimeoutError:
            return


class _Loop:
    """One loop's state between steps."""

    def __init__(self, name: str, step: Step, health: Health | None, stale_after: timedelta) -> None:
        self._name = name
        self._step = step
        self._health = health
        self._stale_after = stale_after
        self.failures = 0

    def beat(self) -> None:
        if self._health is not None:
            self._health.beat(self._name, stale_after=self._stale_after)

    def end(self) -> None:
        if self._health is not None:
            self._health.forget(self._name)

    async def take_step(self) -> timedelta | None:
        try:
            due = await self._step()
        except Exception as error:  # noqa: BLE001 - the loop outlives whatever a step does; it is logged here
            self._failed(error)
            return None
        if self.failures:
            _log.info("loop.recovered", loop=self._name, failures=self.failures)
            self.failures = 0
        self.beat()
        return due

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        if self.failures == 1:
            traceback = None if isinstance(error, ValkyrError) else error
            _log.error("loop.failing", loop=self._name, error=str(error), exc_info=traceback)
