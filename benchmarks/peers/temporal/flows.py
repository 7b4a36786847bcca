"""The workloads as Temporal workflows: every step is an activity, recorded in the history of its workflow."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from temporalio import activity, workflow

with workflow.unsafe.imports_passed_through():
    from benchmarks.peers.driving import STEPS

LIMIT = timedelta(seconds=60)


@activity.defn
async def add_one(value: int) -> int:
    """The work of a node."""
    return value + 1


@activity.defn
async def add_one_at(value: int) -> tuple[int, float]:
    """The same, with the time at which it was done."""
    return value + 1, time.monotonic()


@activity.defn
async def sum_of(values: list[int]) -> int:
    """The join of a fan-out."""
    return sum(values)


async def step(value: int) -> int:
    """An activity awaited from a workflow."""
    return await workflow.execute_activity(add_one, value, start_to_close_timeout=LIMIT)


@workflow.defn
class Single:
    """One activity."""

    @workflow.run
    async def run(self, value: int) -> int:
        return await step(value)


@workflow.defn
class Stamped:
    """One activity that tells when it ended."""

    @workflow.run
    async def run(self, value: int) -> tuple[int, float]:
        return await workflow.execute_activity(add_one_at, value, start_to_close_timeout=LIMIT)


@workflow.defn
class Chain:
    """Ten activities in a row."""

    @workflow.run
    async def run(self, value: int) -> int:
        for _ in range(STEPS):
            value = await step(value)
        return value


@workflow.defn
class Fan:
    """One activity, `branches` at once, one that sums them."""

    @workflow.run
    async def run(self, branches: int) -> int:
        first = await step(0)
        values = await asyncio.gather(*(step(first + branch) for branch in range(branches)))
        return await workflow.execute_activity(sum_of, list(values), start_to_close_timeout=LIMIT)
