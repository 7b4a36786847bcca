"""grpc.health.v1 tied to facts: named conditions (database, each loop, draining) that all must hold to be SERVING."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio

from valkyr.telemetry import get_logger

LIVENESS = "liveness"
LOOK_INTERVAL = timedelta(seconds=1)

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_log = get_logger(__name__)


class Health:
    """Knows whether this process can do its work. Answers for "", each service, and apart from those "liveness".

    Only SERVING or NOT_SERVING is told to callers; why is in the log and in `problems`.
    """

    def __init__(self) -> None:
        self.servicer = aio.HealthServicer()
        self._names: list[str] = [""]
        self._problems: dict[str, str] = {"start": "not started yet"}
        self._loops: dict[str, tuple[float, float]] = {}
        self._told: bool | None = None

    @property
    def problems(self) -> dict[str, str]:
        """Condition -> why it does not hold; empty when serving."""
        return self._problems | {f"loop {name}": why for name, why in self._stale_loops().items()}

    @property
    def loops(self) -> frozenset[str]:
        """Those that must make progress for this to be healthy."""
        return frozenset(self._loops)

    @property
    def serving(self) -> bool:
        return not self.problems

    def mark(self, condition: str, problem: str | None) -> None:
        """`problem` says why `condition` does not hold; None that it does. Callers are told within LOOK_INTERVAL."""
        known = self._problems.get(condition)
        if problem is None:
            self._problems.pop(condition, None)
        else:
            self._problems[condition] = problem
        if (known is None) != (problem is None):
            _log.warning("health.condition_changed", condition=condition, holds=problem is None, problem=problem)

    def beat(self, loop: str, *, stale_after: timedelta) -> None:
        """The loop made progress; it counts as stalled when it does not beat again within `stale_after`."""
        self._loops[loop] = (time.monotonic(), stale_after.total_seconds())

    def forget(self, loop: str) -> None:
        """The loop has ended as it should."""
        self._loops.pop(loop, None)

    async def start(self, services: Sequence[str]) -> None:
        """From now on the services' names are answered for."""
        self._names = ["", *services]
        self._problems.pop("start", None)
        await self.servicer.set(LIVENESS, _SERVING)
        await self.tell()

    async def drain(self) -> None:
        """NOT_SERVING from now on, whatever else holds; alive all the same."""
        self._problems["draining"] = "the service is stopping"
        await self.tell()

    async def tell(self) -> None:
        """Tells every watcher, if something changed."""
        serving = self.serving
        if serving == self._told:
            return
        if self._told is not None or not serving:
            _log.warning("health.changed", serving=serving, problems=self.problems)
        self._told = serving
        for name in self._names:
            await self.servicer.set(name, _SERVING if serving else _NOT_SERVING)

    async def keep_telling(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL.total_seconds())
            await self.tell()

    def _stale_loops(self) -> dict[str, str]:
        now = time.monotonic()
        return {
            name: f"no progress for {now - beaten:.0f} s"
            for name, (beaten, limit) in self._loops.items()
            if now - beaten > limit
        }
