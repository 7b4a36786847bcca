"""W5: a backlog is started while the executor has no room for runs (`concurrency` 0); then the executor is started with
room and drains it, while the client that asked watches. The runs are held until a time by which that client's stream is
back, and has shown it: the first tenth is drained under a watch like the last. A round in which it was not is an error.

The rates are by the database's clock: from the first lease to the end of the last execution. Beside peers the time is
another, for them and for this: from the first end until the client knows of all, by this machine's clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta

import asyncpg

from benchmarks.client import Job
from benchmarks.database import Database
from benchmarks.errors import BenchError
from benchmarks.figures import Measured
from benchmarks.graphs import single
from benchmarks.peers.driving import drained
from benchmarks.sizes import Sizes
from benchmarks.stack import clients, free_ports, open_stack

ENDS = """
SELECT extract(epoch FROM finished_at
        - (SELECT min(started_at) FROM executor.run WHERE started_at >= $1))::float8 AS seconds,
    extract(epoch FROM finished_at)::float8 AS at
FROM executor.workflow_execution WHERE state = 'SUCCESS' AND finished_at >= $1
ORDER BY finished_at
"""
HEAD_START = timedelta(seconds=20)
"""For the executor to start, and for the client to find it and to show that it has caught up."""
HOLD = "UPDATE executor.run SET ready_at = $1"
TIDY = "VACUUM ANALYZE executor.run"


async def measure(database: Database, sizes: Sizes) -> Measured:
    ports, shape = free_ports(), single()
    async with contextlib.AsyncExitStack() as whole:
        async with open_stack(database.url, port_base=ports, concurrency=0) as stack:
            workflow_id = await stack.save(shape)
            job = Job("backlog", stack.addresses, workflow_id, asdict(shape.answer()), count=sizes.backlog)
            [client] = await whole.enter_async_context(clients(job))
            released_at = await stack.sql.fetchval("SELECT clock_timestamp()") + HEAD_START
            await stack.sql.execute(HOLD, released_at)
            await stack.sql.execute(TIDY)
        async with open_stack(database.url, port_base=ports) as stack:
            await client.find_again()
            await asyncio.sleep(await _seconds_until(stack.sql, released_at))
            meter = stack.meter([client])
            done = await client.go()
            used = meter.read()
            rows = await _ends(stack.sql, released_at, sizes.backlog)
    ends = [row["seconds"] for row in rows]
    first, last = tenths(ends)
    beside_peers = drained([row["at"] for row in rows], known=done.ended + time.time() - time.monotonic())
    return Measured(
        {"W5.rate": len(ends) / ends[-1], "W5.first": first, "W5.last": last, "W5.decay": last / first},
        cost={"drained": used.per_run(len(ends))},
        others=used.others,
        detail={"per_second": per_second(ends), "drained": {"seconds": beside_peers.seconds, **beside_peers.extra}},
    )


async def _seconds_until(sql: asyncpg.Connection, moment: datetime) -> float:
    """By the database's clock. BenchError where it is over."""
    left: float = await sql.fetchval("SELECT extract(epoch FROM $1 - clock_timestamp())::float8", moment)
    if left <= 0:
        raise BenchError(f"the client's watch was back {-left:.1f} s after the backlog was let go: the machine is busy")
    return left


def tenths(ends: Sequence[float]) -> tuple[float, float]:
    """Executions per second in the first and the last tenth. `ends`: seconds since the beginning, in order; what one
    transaction ended has one time, and is not cut in two. BenchError where all ended at once."""
    tenth = max(1, len(ends) // 10)
    first = bisect_right(ends, ends[tenth - 1])
    last = bisect_right(ends, ends[-1 - tenth])
    if last == len(ends):
        last = bisect_left(ends, ends[-1])
    if not 0 < last < len(ends):
        raise BenchError("all executions ended at once: there is no rate")
    return first / ends[first - 1], (len(ends) - last) / (ends[-1] - ends[last - 1])


def per_second(ends: Sequence[float]) -> dict[str, int]:
    """How many ended in each second."""
    counts = Counter(int(end) for end in ends)
    return {str(second): counts[second] for second in sorted(counts)}


async def _ends(sql: asyncpg.Connection, since: datetime, expected: int) -> Sequence[asyncpg.Record]:
    ends: Sequence[asyncpg.Record] = await sql.fetch(ENDS, since)
    if len(ends) != expected:
        raise BenchError(f"of {expected} executions {len(ends)} have succeeded")
    return ends
