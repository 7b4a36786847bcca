"""W2: one single-node execution at a time, from its start until the client has its outputs."""

from __future__ import annotations

from dataclasses import asdict

from benchmarks.client import Job
from benchmarks.contract import WARM_CALLS
from benchmarks.database import Database
from benchmarks.figures import Measured, quantile
from benchmarks.graphs import single
from benchmarks.sizes import Sizes
from benchmarks.stack import open_stack, work


async def measure(database: Database, sizes: Sizes) -> Measured:
    shape = single()
    async with open_stack(database.url) as stack:
        workflow_id = await stack.save(shape)
        job = Job(
            "one_by_one", stack.addresses, workflow_id, asdict(shape.answer()), count=sizes.calls, warm=WARM_CALLS
        )
        [done], used = await work(stack, job)
    times = done.latencies_ms
    return Measured(
        {"W2.p50": quantile(times, 0.5), "W2.p99": quantile(times, 0.99)},
        cost={"at idle": used.per_run(job.count)},
        others=used.others,
        detail={"latencies_ms": times},
    )
