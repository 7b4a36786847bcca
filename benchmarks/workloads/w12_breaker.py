"""W12: what the breaker costs on the hot path, and how soon an executor knows that a target is down.

An executor's own gateway and mirror run here, on the stream of the stack's breaker. Targets are tripped one after the
other by reports of failures: the time is from the sending of the failures that trip one until the mirror holds it back,
so that it has the report's own way in it. With all of these held, what a lease asks about a closed target is timed.
"""

from __future__ import annotations

import asyncio
import contextlib
import timeit
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from functools import partial
from statistics import median
from time import perf_counter
from uuid import uuid4

from benchmarks.contract import WARM_CALLS
from benchmarks.database import Database
from benchmarks.errors import BenchError
from benchmarks.figures import Measured, quantile
from benchmarks.sizes import Sizes
from benchmarks.stack import open_stack
from services.breaker.settings import BreakerSettings
from services.executor.breakers.mirror import Mirror
from services.executor.gateways import BreakerGateway
from services.executor.targets import CallOutcome, CallResult, TargetKey

NAMESPACE, CLOSED = "default", "http:up.bench"
FAILURES: int = BreakerSettings.model_fields["failure_threshold"].default
REPEATS, ASKED = 20, 10_000
PATIENCE = 10.0
"""Seconds for an executor to hear of a trip; the budget is far below."""


async def measure(database: Database, sizes: Sizes) -> Measured:
    async with open_stack(database.url) as stack, _listening(stack.addresses) as trips:
        for number in range(WARM_CALLS):
            await trips.trip(f"http:warm-{number}.bench")
        meter = stack.meter()
        times = [await trips.trip(f"http:down-{number}.bench") for number in range(sizes.trips)]
        used = meter.read()
        asking = trips.asking_us()
    return Measured(
        {"W12.closed": asking, "W12.p50": quantile(times, 0.5), "W12.p99": quantile(times, 0.99)},
        others=used.others,
        detail={"known_ms": times},
    )


class Trips:
    """Targets that go down, and a mirror that hears of it."""

    def __init__(self, gateway: BreakerGateway, mirror: Mirror) -> None:
        self._gateway = gateway
        self._mirror = mirror
        self._known: dict[TargetKey, asyncio.Event] = {}
        mirror.subscribe(self._changed)

    async def trip(self, target: str) -> float:
        """Milliseconds until the mirror holds it back. BenchError when it does not."""
        known = self._known[(NAMESPACE, target)] = asyncio.Event()
        began = perf_counter()
        await self._gateway.report_outcomes([_failure(target) for _ in range(FAILURES)])
        try:
            async with asyncio.timeout(PATIENCE):
                await known.wait()
        except TimeoutError as error:
            raise BenchError(f"{target} went down, and the mirror has not heard of it in {PATIENCE:g} s") from error
        return (perf_counter() - began) * 1_000

    def asking_us(self) -> float:
        """Microseconds that it takes to ask about a target that is closed. BenchError if it is not."""
        if not self._mirror.closed(NAMESPACE, CLOSED) or self._mirror.away:
            raise BenchError("nothing is wrong with the target, and it is held back")
        asking = timeit.repeat(partial(self._mirror.closed, NAMESPACE, CLOSED), number=ASKED, repeat=REPEATS)
        return median(asking) / ASKED * 1e6

    def _changed(self, keys: frozenset[TargetKey]) -> None:
        for key in keys & self._known.keys():
            if not self._mirror.closed(*key):
                self._known[key].set()


@contextlib.asynccontextmanager
async def _listening(addresses: Mapping[str, str]) -> AsyncIterator[Trips]:
    gateway = BreakerGateway(addresses["breaker"])
    mirror = Mirror(gateway)
    running = asyncio.create_task(mirror.run())
    try:
        await asyncio.wait_for(mirror.known.wait(), PATIENCE)
        yield Trips(gateway, mirror)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await gateway.close()


def _failure(target: str) -> CallOutcome:
    return CallOutcome(
        NAMESPACE,
        target,
        CallResult.FAILURE,
        duration_ms=1,
        permit_id=None,
        generation=0,
        report_id=str(uuid4()),
        traceparent="",
        ended_at=datetime.now(UTC),
    )
