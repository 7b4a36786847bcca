"""W5: a backlog is started while the executor has no room for runs (`concurrency` 0); then the executor is started with
room and drains it, while the client that asked watches. All runs are held back for a while, so that the client has
come back: the first tenth is drained under a watch like the last.

The rates are by the database's clock: from the first lease to the end of the last execution. Beside peers the time is
another, for them and for this: from the first end until the client knows of all, by this machine's clock.
"""

from __future__ import annotations

import contextlib
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

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
SELECT extract(epoch FROM finished_at - (SELECT min(started_at) FROM executor.run))::float8 AS seconds,
    extract(epoch FROM finished_at)::float8 AS at
FROM executor.workflow_execution WHERE state = 'SUCCESS' ORDER BY finished_at
"""
HEAD_START = 10
"""Seconds for the executor to start, and for the client to find it."""
HOLD = f"""
UPDATE executor.run SET ready_at = clock_timestamp() + interval '{HEAD_START} s'
"""
TIDY = "VACUUM ANALYZE executor.run"
ENDED = "SELECT count(*) FROM executor.workflow_execution WHERE state = 'SUCCESS'"


async def measure(database: Database, sizes: Sizes) -> Measured:
    ports, shape = free_ports(), single()
    async with contextlib.AsyncExitStack() as whole:
        async with open_stack(database.url, port_base=ports, concurrency=0) as stack:
            workflow_id = await stack.save(shape)
            job = Job("backlog", stack.addresses, workflow_id, asdict(shape.answer()), count=sizes.backlog)
            [client] = await whole.enter_async_context(clients(job))
            await stack.sql.execute(HOLD)
            await stack.sql.execute(TIDY)
        async with open_stack(database.url, port_base=ports) as stack:
            meter, before = stack.meter([client]), await stack.sql.fetchval(ENDED)
            done = await client.go()
            used = meter.read()
            rows = await _ends(stack.sql, sizes.backlog)
    ends = [row["seconds"] for row in rows]
    first, last = tenths(ends)
    beside_peers = drained([row["at"] for row in rows], known=done.ended + time.time() - time.monotonic())
    left = done.count - before  # when the meter began: most of them, unless there were few
    return Measured(
        {"W5.rate": len(ends) / ends[-1], "W5.first": first, "W5.last": last, "W5.decay": last / first},
        cost={"drained": used.per_run(left)} if left >= done.count // 2 else {},
        others=used.others,
        detail={"per_second": per_second(ends), "drained": {"seconds": beside_peers.seconds, **beside_peers.extra}},
    )


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


async def _ends(sql: asyncpg.Connection, expected: int) -> Sequence[asyncpg.Record]:
    ends: Sequence[asyncpg.Record] = await sql.fetch(ENDS)
    if len(ends) != expected:
        raise BenchError(f"of {expected} executions {len(ends)} have succeeded")
    return ends
