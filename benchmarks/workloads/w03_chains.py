"""W3: chains of ten, one at a time, and many at once."""

from __future__ import annotations

from dataclasses import asdict, replace

from benchmarks.client import Job
from benchmarks.contract import WARM_CHAINS
from benchmarks.database import Database
from benchmarks.figures import Measured, quantile
from benchmarks.graphs import chain
from benchmarks.sizes import Sizes
from benchmarks.stack import open_stack, rate_of, work

LENGTH = 10


async def measure(database: Database, sizes: Sizes) -> Measured:
    shape = chain(LENGTH)
    async with open_stack(database.url) as stack:
        workflow_id = await stack.save(shape)
        job = Job(
            "one_by_one",
            stack.addresses,
            workflow_id,
            asdict(shape.answer()),
            count=sizes.chain_calls,
            warm=WARM_CHAINS,
        )
        [idle], idle_used = await work(stack, job)
        many = replace(job, kind="many", count=sizes.chains, warm=sizes.warm // LENGTH)
        busy, used = await work(stack, many)
    return Measured(
        {"W3.idle": quantile(idle.latencies_ms, 0.5), "W3.saturated": rate_of(busy) * LENGTH},
        cost={"at idle": idle_used.per_run(job.count * LENGTH), "many at once": used.per_run(many.count * LENGTH)},
        others=max(idle_used.others, used.others),
        detail={"latencies_ms": idle.latencies_ms, "per_second": busy[0].per_second},
    )
