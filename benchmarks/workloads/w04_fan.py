"""W4: one node, then a thousand, then one that reads them all."""

from __future__ import annotations

from dataclasses import asdict

from benchmarks.client import Job
from benchmarks.contract import WARM_FANS
from benchmarks.database import Database
from benchmarks.figures import Measured, quantile
from benchmarks.graphs import fan
from benchmarks.sizes import Sizes
from benchmarks.stack import open_stack, work


async def measure(database: Database, sizes: Sizes) -> Measured:
    shape = fan(sizes.fan)
    async with open_stack(database.url) as stack:
        workflow_id = await stack.save(shape)
        job = Job(
            "one_by_one",
            stack.addresses,
            workflow_id,
            asdict(shape.answer()),
            count=sizes.fan_calls,
            warm=WARM_FANS,
            pause=0.1,
        )
        [done], used = await work(stack, job)
    return Measured(
        {"W4.fan": quantile(done.latencies_ms, 0.5) / 1_000},
        cost={"at idle": used.per_run(job.count * len(shape.before))},
        others=used.others,
        detail={"latencies_ms": done.latencies_ms},
    )
