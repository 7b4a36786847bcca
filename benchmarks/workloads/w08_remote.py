"""W8: single-node executions through runners in processes of their own, one and three like it, none in the executor."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace

from benchmarks.database import Database
from benchmarks.errors import BenchError
from benchmarks.figures import Measured
from benchmarks.graphs import single
from benchmarks.sizes import Sizes
from benchmarks.stack import CONCURRENCY, LONGEST_LINE, Stack, open_stack, rate_of, work
from benchmarks.workloads.w01_sustained import sustained
from services.local.home import PROJECT
from services.local.identity import Identity

PATIENCE = 30.0
NAMES = {1: "one", 3: "three"}


async def measure(database: Database, sizes: Sizes) -> Measured:
    parts = []
    async with open_stack(database.url, concurrency=0) as stack:
        for count, name in NAMES.items():
            parts.append(await _through(stack, sizes, count, name))
    return Measured(
        {key: value for part in parts for key, value in part.figures.items()},
        cost={key: value for part in parts for key, value in part.cost.items()},
        others=max(part.others for part in parts),
    )


async def _through(stack: Stack, sizes: Sizes, count: int, name: str) -> Measured:
    async with contextlib.AsyncExitStack() as runners:
        pids = [await runners.enter_async_context(_runner(stack)) for _ in range(count)]
        loaded = replace(stack, pids={**stack.pids, **{f"runner {number}": pid for number, pid in enumerate(pids, 1)}})
        job = await sustained(loaded, single(), sizes, name=f"single, {name}")
        done, used = await work(loaded, job)
    cost = used.per_run(job.count)
    by_runners = sum(cost.pop(f"runner {number}") for number in range(1, count + 1))
    return Measured(
        {f"W8.{name}": rate_of(done)}, cost={f"{name}, remote": {**cost, "runners": by_runners}}, others=used.others
    )


@contextlib.asynccontextmanager
async def _runner(stack: Stack) -> AsyncIterator[int]:
    """The process id of one that has registered. BenchError if it does not; it is drained at the end."""
    command = [sys.executable, "-m", "valkyr.runner", "benchmarks.modules", "--json"]
    command += ["--executor", stack.addresses["executor"], "--concurrency", str(CONCURRENCY)]
    process = await asyncio.create_subprocess_exec(
        *Identity().command(*command, death_signal=signal.SIGKILL),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        cwd=PROJECT,
        env={**os.environ, "LEASH_PARENT": str(os.getpid())},
        limit=LONGEST_LINE,
    )
    reading = None
    try:
        await asyncio.wait_for(_started(process), PATIENCE)
        assert process.stdout is not None
        reading = asyncio.create_task(process.stdout.read(), name="what a runner says")
        yield process.pid
        process.terminate()
        await asyncio.wait_for(process.wait(), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        if reading is not None:
            await reading


async def _started(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        if json.loads(line).get("event") == "runner.started":
            return
    raise BenchError("a runner has ended before it was registered")
