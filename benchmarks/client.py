"""A user's program, in a process of its own: starts executions through the client SDK and checks every output.

`python -m benchmarks.client` reads a Job as one line of JSON, warms up, prints `{"ready": true}`, waits for a line,
does the work, and prints a Done. (A backlog has two such steps before the work.)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from benchmarks.graphs import Answer
from benchmarks.tally import Tally, check
from valkyr.client import Client, Start

PATIENCE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Job:
    """`many`: `count` executions in batches, `calls` calls in flight, at most `window` executions without an answer.
    `one_by_one`: `count` executions, each when the last has answered and `pause` seconds are over.
    `backlog`: as `many` before the line is waited for; then it finds the executor again, which was started anew, and is
    ready a second time; the work is to wait for all answers."""

    kind: str
    addresses: Mapping[str, str]
    workflow_id: str
    answer: Mapping[str, Any]
    count: int
    warm: int = 0
    batch: int = 100
    calls: int = 4
    window: int = 4_000
    pause: float = 0.01


@dataclass(frozen=True, slots=True)
class Done:
    """`began` and `ended` by the machine's monotonic clock, which processes share; `per_second` counts answers."""

    began: float
    ended: float
    count: int
    latencies_ms: Sequence[float] = ()
    per_second: Mapping[str, int] = field(default_factory=dict)


class Load:
    """Executions of one workflow, many at once, with one WatchExecutions stream for all of them."""

    def __init__(self, client: Client, job: Job) -> None:
        self._client = client
        self._job = job
        self._next = 1
        self.tally = Tally(Answer(**job.answer))

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[Load]:
        """An error of the watch, a wrong answer above all, is raised here."""
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch())
            yield self
            watch.cancel()

    async def _watch(self) -> None:
        watch = self._client.executions.watch(
            workflow_id=self._job.workflow_id, include_outputs=True, patience=PATIENCE
        )
        async with contextlib.aclosing(watch) as changes:
            async for execution in changes:
                self.tally.came(execution)

    async def start(self, count: int, *, window: int) -> None:
        """Returns when so many were started, at most `window` of them without an answer at any time."""
        last = self._next + count
        async with asyncio.TaskGroup() as group:
            for _ in range(self._job.calls):
                group.create_task(self._start_until(last, window))

    async def _start_until(self, last: int, window: int) -> None:
        while self._next < last:
            numbers = range(self._next, min(self._next + self._job.batch, last))
            self._next = numbers.stop
            await self.tally.at_most(window - len(numbers))
            starts = [Start(self._job.workflow_id, payload={"n": n}) for n in numbers]
            executions = await self._client.executions.start_many(starts, timeout=timedelta(minutes=1))
            for n, execution in zip(numbers, executions, strict=True):
                self.tally.asked(execution.id, n)

    async def caught_up(self, *, waiting: int) -> None:
        """Returns when the watch is open and has told all that there was to tell, while `waiting` executions go on
        waiting. Of the first that is started for this it may be told as of something missed, with more of that to come;
        of the second, which is started only then, it is told after all that.
        """
        for _ in range(2):
            n, self._next = self._next, self._next + 1
            execution = await self._client.executions.start(self._job.workflow_id, payload={"n": n}, priority=1)
            self.tally.asked(execution.id, n)
            await self.tally.at_most(waiting)

    async def answered(self) -> None:
        """Returns when nothing is outstanding."""
        await self.tally.at_most(0)


async def many(client: Client, job: Job) -> Done:
    async with Load(client, job).watching() as load:
        await load.start(job.warm, window=job.window)
        await load.answered()
        await _go()
        load.tally.begin()
        began = time.monotonic()
        await load.start(job.count, window=job.window)
        await load.answered()
        return _done(load, began)


async def backlog(client: Client, job: Job) -> Done:
    async with Load(client, job).watching() as load:
        await load.start(job.count, window=job.count + job.calls * job.batch)
        await _go()
        await load.caught_up(waiting=job.count)
        await _go()
        began = time.monotonic()
        await load.answered()
        return _done(load, began)


def _done(load: Load, began: float) -> Done:
    tally = load.tally
    counts = {str(second): tally.per_second[second] for second in sorted(tally.per_second)}
    return Done(began, time.monotonic(), tally.done, per_second=counts)


async def one_by_one(client: Client, job: Job) -> Done:
    answer = Answer(**job.answer)
    for n in range(job.warm):
        await _timed(client, job, answer, n)
    await _go()
    began = time.monotonic()
    times = []
    for n in range(job.count):
        times.append(await _timed(client, job, answer, n))
        await asyncio.sleep(job.pause)
    return Done(began, time.monotonic(), job.count, latencies_ms=times)


async def _timed(client: Client, job: Job, answer: Answer, n: int) -> float:
    """Milliseconds from the start of one execution until its outputs are here."""
    began = time.perf_counter()
    execution = await client.executions.start(job.workflow_id, payload={"n": n})
    execution = await client.executions.wait(execution.id)
    took = (time.perf_counter() - began) * 1_000
    check(execution, answer, n)
    return took


async def _go() -> None:
    """Says that all is ready, and waits for the word. EOFError when nobody is there any more."""
    print(json.dumps({"ready": True}), flush=True)
    if not await asyncio.to_thread(sys.stdin.readline):
        raise EOFError("nobody is there to say go")


KINDS = {"many": many, "one_by_one": one_by_one, "backlog": backlog}


async def main() -> None:
    job = Job(**json.loads(await asyncio.to_thread(sys.stdin.readline)))
    at = job.addresses
    async with Client(at["graph_store"], at["executor"], principal="bench", timeout=timedelta(minutes=1)) as client:
        done = await KINDS[job.kind](client, job)
    print(json.dumps(asdict(done)), flush=True)
    await asyncio.to_thread(sys.stdin.readline)  # stays until it is ended: what it used is read when all have done


if __name__ == "__main__":
    asyncio.run(main())
