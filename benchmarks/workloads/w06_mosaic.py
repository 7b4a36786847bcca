"""W6: the graph of a scientific workflow, one execution at a time, and several at once."""

from __future__ import annotations

from dataclasses import asdict, replace

from benchmarks.client import Job
from benchmarks.database import Database
from benchmarks.figures import Measured, quantile
from benchmarks.graphs import mosaic
from benchmarks.sizes import Sizes
from benchmarks.stack import open_stack, rate_of, work

WINDOW, BATCH = 20, 5
"""Executions at a time: 6,000 runs; and in one call."""


async def measure(database: Database, sizes: Sizes) -> Measured:
    shape = mosaic()
    nodes = len(shape.before)
    async with open_stack(database.url) as stack:
        workflow_id = await stack.save(shape)
        job = Job(
            "one_by_one",
            stack.addresses,
            workflow_id,
            asdict(shape.answer()),
            count=sizes.mosaic_calls,
            warm=2,
            pause=0.1,
        )
        [idle], idle_used = await work(stack, job)
        many = replace(job, kind="many", count=sizes.mosaics, batch=BATCH, window=WINDOW)
        busy, used = await work(stack, many)
    return Measured(
        {"W6.idle": quantile(idle.latencies_ms, 0.5) / 1_000, "W6.saturated": rate_of(busy) * nodes},
        cost={"at idle": idle_used.per_run(job.count * nodes), "several at once": used.per_run(many.count * nodes)},
        others=max(idle_used.others, used.others),
        detail={"latencies_ms": idle.latencies_ms, "per_second": busy[0].per_second},
    )
