"""The workloads for queues that keep no results: their worker tells the driver each handler's value over a pipe.

The pipe stands for the table of results that a user would have to keep: it is cheaper, which favours the peer. A time
ends when every handler has told its value and the queue itself counts nothing as unfinished any more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from benchmarks.contract import WARM_CALLS, WARM_CHAINS, warm_up
from benchmarks.peers.driving import (
    STEPS,
    Crew,
    Measured,
    Order,
    Workload,
    check,
    drained,
    one_after_another,
    read_done,
)

PORTION = 100
IN_FLIGHT = 4
NOTE = "no results and no workflow state: handlers tell their values over a pipe; a chain's step enqueues the next"


class Queue(Protocol):
    """A peer, seen from the driver. Its jobs are `single` and `chain`, with a number that tells them apart."""

    async def enqueue(self, job: str, numbers: Sequence[int]) -> None:
        """One call of the peer's for all of them."""

    async def unfinished(self) -> int:
        """Jobs that wait or run."""

    def workers(self) -> Crew:
        """Workers that print `ready` and then what handlers say."""


Opening = Callable[[str], AbstractAsyncContextManager[Queue]]


def workloads(opening: Opening) -> Mapping[str, Workload]:
    """By name, on a queue opened by its database's URL; there is no fan-out, for a queue has no join."""

    def on(measure: Callable[[Queue, Order], Awaitable[Measured]]) -> Workload:
        async def run(order: Order) -> Measured:
            async with opening(order.postgres) as queue:
                return await measure(queue, order)

        return run

    return {"W1": on(sustained), "W2": on(idle), "W3": on(chains), "W5": on(backlog)}


async def sustained(queue: Queue, order: Order) -> Measured:
    """W1: enqueued in portions while a worker serves."""
    with queue.workers() as workers:
        workers.await_ready()
        await _saturated(queue, workers, "single", warm_up(order.size), added=1)
        return Measured(order.size, await _saturated(queue, workers, "single", order.size, added=1), note=NOTE)


async def idle(queue: Queue, order: Order) -> Measured:
    """W2: one job at a time, until its handler has told the value."""
    with queue.workers() as workers:
        workers.await_ready()
        return await _alone(queue, workers, "single", order.size, added=1, warm=WARM_CALLS)


async def chains(queue: Queue, order: Order) -> Measured:
    """W3: handlers that enqueue the next step."""
    with queue.workers() as workers:
        workers.await_ready()
        await _saturated(queue, workers, "chain", warm_up(order.size), added=STEPS)
        seconds = await _saturated(queue, workers, "chain", order.size, added=STEPS)
        alone = await _alone(queue, workers, "chain", order.calls, added=STEPS, warm=WARM_CHAINS)
    return Measured(order.size, seconds, latencies_ms=alone.latencies_ms, note=NOTE)


async def backlog(queue: Queue, order: Order) -> Measured:
    """W5: enqueued while there is no worker."""
    await _enqueue(queue, "single", order.size)
    with queue.workers() as workers:
        workers.await_ready()
        values, stamps = await asyncio.to_thread(read_done, workers, order.size)
        await _finished(queue)
        known = time.monotonic()
    check(values, [number + 1 for number in range(order.size)])
    measured = drained(stamps, known)
    return Measured(measured.count, measured.seconds, note=NOTE, extra=measured.extra)


async def _saturated(queue: Queue, workers: Crew, job: str, size: int, *, added: int) -> float:
    start = time.perf_counter()
    enqueuing = asyncio.create_task(_enqueue(queue, job, size))
    values, _ = await asyncio.to_thread(read_done, workers, size)
    await enqueuing
    await _finished(queue)
    seconds = time.perf_counter() - start
    check(values, [number + added for number in range(size)])
    return seconds


async def _alone(queue: Queue, workers: Crew, job: str, size: int, *, added: int, warm: int) -> Measured:
    async def run(number: int) -> int:
        await queue.enqueue(job, [number])
        values, _ = await asyncio.to_thread(read_done, workers, 1)
        return values[0]

    measured = await one_after_another(run, [number + added for number in range(size)], warm=warm)
    return Measured(measured.count, latencies_ms=measured.latencies_ms, note=NOTE)


async def _enqueue(queue: Queue, job: str, size: int) -> None:
    free = asyncio.Semaphore(IN_FLIGHT)

    async def portion(first: int) -> None:
        async with free:
            await queue.enqueue(job, range(first, min(first + PORTION, size)))

    await asyncio.gather(*(portion(first) for first in range(0, size, PORTION)))


async def _finished(queue: Queue) -> None:
    while await queue.unfinished():
        await asyncio.sleep(0.01)
