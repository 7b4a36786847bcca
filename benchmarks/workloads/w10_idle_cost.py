"""W10: what a stack costs that has nothing to do: CPU of the four services, their supervisor and PostgreSQL, and
statements that PostgreSQL is asked."""

from __future__ import annotations

import asyncio

from benchmarks.database import Database
from benchmarks.figures import Measured
from benchmarks.graphs import single
from benchmarks.sizes import Sizes
from benchmarks.stack import Stack, open_stack
from benchmarks.tally import check


async def measure(database: Database, sizes: Sizes) -> Measured:
    async with open_stack(database.url) as stack:
        await run_one(stack)
        await asyncio.sleep(sizes.settle_seconds)
        meter, before = stack.meter(), await database.calls()
        await asyncio.sleep(sizes.idle_seconds)
        used, after = meter.read(), await database.calls()
    asked = after - before
    share = {name: seconds / used.seconds * 100 for name, seconds in used.cpu.items()}
    return Measured(
        {"W10.cpu": sum(share.values()), "W10.queries": asked.total() / used.seconds},
        others=used.others,
        detail={"percent_of_a_core": share, "asked": dict(asked.most_common())},
    )


async def run_one(stack: Stack) -> None:
    """An idle stack has done something before: what is loaded on first use is loaded."""
    shape = single()
    workflow_id = await stack.save(shape)
    async with stack.client() as client:
        execution = await client.executions.start(workflow_id, payload={"n": 1})
        check(await client.executions.wait(execution.id), shape.answer(), 1)
