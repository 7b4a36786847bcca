"""pgqueuer: jobs in a PostgreSQL table, taken in batches, told of by NOTIFY. A queue, and no more than that."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
from pgqueuer import Queries
from pgqueuer.db import AsyncpgPoolDriver

from benchmarks.peers import queues
from benchmarks.peers.driving import Crew, drive
from benchmarks.peers.pgqueuer.worker import BATCH, POOL

PROCESSES = 2
SETTINGS = {
    "tables": "durable (all logged)",
    "worker processes": f"{PROCESSES}, uvloop",
    "batch_size": str(BATCH),
    "connections": f"asyncpg, {POOL} a process",
    "enqueued": f"{queues.PORTION} a call, {queues.IN_FLIGHT} calls in flight",
}


class PgQueuerQueue:
    """The `queues.Queue` of this peer."""

    def __init__(self, postgres: str, queries: Queries) -> None:
        self._postgres = postgres
        self._queries = queries

    async def enqueue(self, job: str, numbers: Sequence[int]) -> None:
        payloads: list[bytes | None] = [json.dumps([number, number, 1]).encode() for number in numbers]
        await self._queries.enqueue([job] * len(payloads), payloads, [0] * len(payloads))

    async def unfinished(self) -> int:
        return sum(each.count for each in await self._queries.queue_size())

    def workers(self) -> Crew:
        return Crew(PROCESSES, "benchmarks.peers.pgqueuer.worker", self._postgres)


@asynccontextmanager
async def opened(postgres: str) -> AsyncIterator[PgQueuerQueue]:
    """A queue in an empty database."""
    async with asyncpg.create_pool(postgres, min_size=2, max_size=POOL) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))
        await queries.install()
        yield PgQueuerQueue(postgres, queries)


if __name__ == "__main__":
    drive(queues.workloads(opened), packages=("pgqueuer", "asyncpg"), settings=SETTINGS)
