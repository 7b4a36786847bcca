"""W7: how long a run that is READY waits until its module starts, in an executor that is full of work.

Most executions wait behind a Delay. The others move: each of their modules holds its run for one to three seconds, so
that as many runs are ready or leased at any time, and `concurrency` has room for all of them: what is measured is
dispatching, and not a queue for slots. A run is READY from `ready_at` on, the beginning of the transaction that readied
it, and its module says by the same clock when it started. A measurement that finds much less unsettled or moving than
that, at its beginning or at its end, does not count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from benchmarks.database import Database
from benchmarks.errors import BenchError
from benchmarks.figures import Measured, quantile
from benchmarks.graphs import NOOP, chain
from benchmarks.modules import HOLD
from benchmarks.sizes import Sizes
from benchmarks.stack import CONCURRENCY, Stack, open_stack
from valkyr.client import Client, Start

WAITING_NODES, MOVING_NODES = 25, 40
"""Of each execution. While it is measured those that move get through some of theirs."""

HELD = {"least": 1.0, "most": 3.0}
BATCH = 100
DEADLINE = 60.0
PREMISE = 0.9
"""Share of the runs that must be unsettled, and of those that must be ready or leased, for a time to count."""

COUNTS = """
SELECT count(*) FILTER (WHERE state IN ('READY', 'LEASED')) AS moving,
    count(*) FILTER (WHERE state NOT IN ('SUCCESS', 'SKIPPED', 'FAILED', 'CANCELLED')) AS unsettled
FROM executor.run
"""
WAITS = """
SELECT ((outputs::jsonb ->> 'began')::float8 - extract(epoch FROM ready_at)::float8) * 1000 AS ms
FROM executor.run WHERE class_name = $1 AND ready_at >= $2 AND ready_at < $3 AND state = 'SUCCESS'
"""
MISSING = """
SELECT count(*) FROM executor.run
WHERE class_name = $1 AND ready_at >= $2 AND ready_at < $3 AND state <> 'SUCCESS'
"""


async def measure(database: Database, sizes: Sizes) -> Measured:
    async with open_stack(database.url, concurrency=sizes.moving + CONCURRENCY) as stack:
        await _fill(stack, sizes)
        await asyncio.sleep(HELD["most"])  # the first wave has spread by then
        before = await stack.sql.fetchrow(COUNTS)
        meter, began = stack.meter(), await stack.sql.fetchval("SELECT clock_timestamp()")
        await asyncio.sleep(sizes.dispatch_seconds)
        used, ended = meter.read(), await stack.sql.fetchval("SELECT clock_timestamp()")
        after = await stack.sql.fetchrow(COUNTS)
        for counts in (before, after):
            require(counts, sizes)
        waits = await _waits(stack.sql, began, ended)
    return Measured(
        {
            "W7.p50": quantile(waits, 0.5),
            "W7.p95": quantile(waits, 0.95),
            "W7.rate": len(waits) / used.seconds,
        },
        cost={"under load": used.per_run(len(waits))},
        others=used.others,
        detail={"before": dict(before), "after": dict(after), "p99_ms": quantile(waits, 0.99), "worst_ms": max(waits)},
    )


def require(counts: Mapping[str, int], sizes: Sizes) -> None:
    """BenchError when fewer runs than PREMISE says were `unsettled`, or `moving`."""
    wanted = {"unsettled": sizes.unsettled * WAITING_NODES, "moving": sizes.moving}
    for what, count in wanted.items():
        if counts[what] < PREMISE * count:
            raise BenchError(f"{counts[what]:,} runs were {what}, and not {count:,}: the times say nothing")


def check_waits(waits: Sequence[float]) -> None:
    """BenchError when none became ready, or one started before it was."""
    if not waits:
        raise BenchError("no run became ready")
    if min(waits) < 0:
        raise BenchError(f"a run started {-min(waits):.1f} ms before it was ready")


async def _waits(sql: asyncpg.Connection, began: object, ended: object) -> list[float]:
    """Milliseconds of each run that became ready in this time; waits until all of them have ended."""
    deadline = asyncio.get_running_loop().time() + DEADLINE
    while await sql.fetchval(MISSING, HOLD, began, ended):
        if asyncio.get_running_loop().time() > deadline:
            raise BenchError("runs do not end")
        await asyncio.sleep(1)
    waits = [row["ms"] for row in await sql.fetch(WAITS, HOLD, began, ended)]
    check_waits(waits)
    return waits


async def _fill(stack: Stack, sizes: Sizes) -> None:
    async with stack.client() as client:
        waiting = await client.graphs.save(_waiting())
        moving = await client.graphs.save(_moving())
        await _start(client, waiting.workflow.id, sizes.unsettled - sizes.moving)
        await _start(client, moving.workflow.id, sizes.moving)


async def _start(client: Client, workflow_id: str, count: int) -> None:
    for first in range(0, count, BATCH):
        await client.executions.start_many([Start(workflow_id)] * min(BATCH, count - first))


def _waiting() -> Mapping[str, Any]:
    document = chain(WAITING_NODES).document("waiting")
    first, *others = document["modules"]
    first |= {"className": "DelayModule", "config": {"duration": "PT2H"}}
    for module in others:
        module["className"] = NOOP
    return document


def _moving() -> Mapping[str, Any]:
    document = chain(MOVING_NODES).document("moving")
    for module in document["modules"]:
        module |= {"className": HOLD, "config": HELD}
    return document
