"""W11: resident memory of each service at idle, and the peak of the executor's under the load of W1."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from benchmarks.database import Database
from benchmarks.figures import Measured
from benchmarks.graphs import single
from benchmarks.sizes import Sizes
from benchmarks.stack import open_stack, work
from benchmarks.usage import memory_of, peak
from benchmarks.workloads.w01_sustained import sustained
from benchmarks.workloads.w10_idle_cost import run_one
from services.local.rooms import ROOMS


async def measure(database: Database, sizes: Sizes) -> Measured:
    async with open_stack(database.url) as stack:
        await run_one(stack)
        await asyncio.sleep(sizes.settle_seconds)
        idle = {room.name: memory_of(stack.pids[room.name]) for room in ROOMS}
        _, used = await work(stack, await sustained(stack, single(), sizes, name="single, many"))
        loaded = {room.name: memory_of(stack.pids[room.name]) for room in ROOMS}
        highest = peak(stack.pids["executor"])
    return Measured(
        {**{f"W11.{name}": memory.rss for name, memory in idle.items()}, "W11.loaded": highest},
        others=used.others,
        detail={
            "idle": {name: asdict(memory) for name, memory in idle.items()},
            "after_load": {name: asdict(memory) for name, memory in loaded.items()},
        },
    )
