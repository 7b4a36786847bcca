"""A pgqueuer worker: `python -m benchmarks.peers.pgqueuer.worker URL`, until it is ended."""

from __future__ import annotations

import json
import sys
from datetime import timedelta

import asyncpg
import uvloop
from pgqueuer import Job, PgQueuer, Queries
from pgqueuer.db import AsyncpgPoolDriver

from benchmarks.peers.driving import STEPS, say_done

BATCH = 100
POOL = 10


async def main() -> None:
    """Serves the jobs `single` and `chain`."""
    async with asyncpg.create_pool(sys.argv[1], min_size=2, max_size=POOL) as pool:
        driver = AsyncpgPoolDriver(pool)
        queuer = PgQueuer(driver)
        queries = Queries(driver)

        @queuer.entrypoint("single")
        async def single(job: Job) -> None:
            number, value, _ = json.loads(job.payload or b"")
            say_done(number, value + 1)

        @queuer.entrypoint("chain")
        async def chain(job: Job) -> None:
            number, value, step = json.loads(job.payload or b"")
            if step < STEPS:
                await queries.enqueue("chain", json.dumps([number, value + 1, step + 1]).encode())
            else:
                say_done(number, value + 1)

        print("ready", flush=True)
        await queuer.run(batch_size=BATCH, dequeue_timeout=timedelta(seconds=5))


if __name__ == "__main__":
    uvloop.run(main())
