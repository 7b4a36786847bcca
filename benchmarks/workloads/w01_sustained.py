"""W1: single-node executions as fast as they go, by one client and by two, each with one stream of results."""

from __future__ import annotations

from dataclasses import asdict, replace

from benchmarks.client import Job
from benchmarks.figures import Measured
from benchmarks.graphs import NOOP, Shape, single
from benchmarks.sizes import Sizes
from benchmarks.stack import Stack, open_stack, rate_of, work


async def measure(database_url: str, sizes: Sizes) -> Measured:
    async with open_stack(database_url) as stack:
        job = await sustained(stack, single(), sizes)
        one, one_used = await work(stack, job)
        half = replace(job, count=job.count // 2, warm=job.warm // 2)
        other = replace(half, workflow_id=await stack.save(single(), "single, of the other client"))
        two, two_used = await work(stack, half, other)
        noop, noop_used = await work(stack, await sustained(stack, single(NOOP), sizes, name="single no-op"))
    return Measured(
        {"W1.one": rate_of(one), "W1.two": rate_of(two), "W1.noop": rate_of(noop)},
        cost={
            "1 client": one_used.per_run(job.count),
            "2 clients": two_used.per_run(2 * half.count),
            "NoopModule": noop_used.per_run(job.count),
        },
        others=max(used.others for used in (one_used, two_used, noop_used)),
        detail={"per_second": one[0].per_second},
    )


async def sustained(stack: Stack, shape: Shape, sizes: Sizes, *, name: str = "") -> Job:
    """As many as `sizes` says, of a workflow that is saved here."""
    return Job(
        "many",
        stack.addresses,
        await stack.save(shape, name),
        asdict(shape.answer()),
        count=sizes.sustained,
        warm=sizes.warm,
    )
