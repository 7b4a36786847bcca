"""Procrastinate: jobs in a PostgreSQL table, taken one by one, told of by NOTIFY. Locks and retries, but no results."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from procrastinate import App

from benchmarks.peers import queues
from benchmarks.peers.driving import Crew, drive
from benchmarks.peers.procrastinate.tasks import POOL, application
from benchmarks.peers.procrastinate.worker import CONCURRENCY, POLLING

PROCESSES = 2
SETTINGS = {
    "worker processes": str(PROCESSES),
    "concurrency": str(CONCURRENCY),
    "connections": f"psycopg, {POOL} a process",
    "enqueued": f"batch_defer of {queues.PORTION}, {queues.IN_FLIGHT} in flight",
    "LISTEN/NOTIFY": f"on, polling every {POLLING} s beside it",
}


class ProcrastinateQueue:
    """The `queues.Queue` of this peer."""

    def __init__(self, postgres: str, app: App) -> None:
        self._postgres = postgres
        self._app = app

    async def enqueue(self, job: str, numbers: Sequence[int]) -> None:
        await self._app.tasks[job].batch_defer_async(*({"number": each, "value": each} for each in numbers))

    async def unfinished(self) -> int:
        listed = await self._app.job_manager.list_queues_async()
        return sum(int(each["todo"]) + int(each["doing"]) for each in listed)

    def workers(self) -> Crew:
        return Crew(PROCESSES, "benchmarks.peers.procrastinate.worker", self._postgres)


@asynccontextmanager
async def opened(postgres: str) -> AsyncIterator[ProcrastinateQueue]:
    """A queue in an empty database."""
    app = application(postgres)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        yield ProcrastinateQueue(postgres, app)


if __name__ == "__main__":
    drive(queues.workloads(opened), packages=("procrastinate", "psycopg"), settings=SETTINGS)
