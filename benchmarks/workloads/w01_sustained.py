"""W1: single-node executions as fast as they go, by one client and by two, each with one stream of results."""

from __future__ import annotations

from dataclasses import asdict, replace

from benchmarks.client import Job
from benchmarks.database import Database
from benchmarks.figures import Measured
from benchmarks.graphs import NOOP, Shape, single
from benchmarks.sizes import Sizes
from benchmarks.stack import Stack, open_stack, rate_of, work


async def measure(database: Database, sizes: Sizes) -> Measured:
    async with open_stack(database.url) as stack:
        one = await by_one_client(stack, sizes)
        two = await _by_two_clients(stack, sizes)
        noop = await _without_a_user(stack, sizes)
    return Measured(
        {**one.figures, **two.figures, **noop.figures},
        cost={**one.cost, **two.cost, **noop.cost},
        others=max(one.others, two.others, noop.others),
        detail=one.detail,
    )


async def measure_one(database: Database, sizes: Sizes) -> Measured:
    """By one client alone."""
    async with open_stack(database.url) as stack:
        return await by_one_client(stack, sizes)


async def by_one_client(stack: Stack, sizes: Sizes) -> Measured:
    job = await sustained(stack, single(), sizes)
    done, used = await work(stack, job)
    return Measured(
        {"W1.one": rate_of(done)},
        cost={"1 client": used.per_run(job.count)},
        others=used.others,
        detail={"per_second": done[0].per_second},
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


async def _by_two_clients(stack: Stack, sizes: Sizes) -> Measured:
    halves = replace(sizes, sustained=sizes.sustained // 2, warm=sizes.warm // 2)
    jobs = [await sustained(stack, single(), halves, name=f"single, of client {number}") for number in (1, 2)]
    done, used = await work(stack, *jobs)
    return Measured(
        {"W1.two": rate_of(done)}, cost={"2 clients": used.per_run(2 * halves.sustained)}, others=used.others
    )


async def _without_a_user(stack: Stack, sizes: Sizes) -> Measured:
    """No module of a user's: what remains is the engine."""
    job = await sustained(stack, single(NOOP), sizes, name="single no-op")
    done, used = await work(stack, job)
    return Measured({"W1.noop": rate_of(done)}, cost={"NoopModule": used.per_run(job.count)}, others=used.others)
