"""A Procrastinate worker: `python -m benchmarks.peers.procrastinate.worker URL`, until it is ended."""

from __future__ import annotations

import asyncio
import sys

from benchmarks.peers.procrastinate.tasks import application

CONCURRENCY = 20
POLLING = 0.1
"""Seconds. A notification that comes while the worker looks for jobs can be lost: the job then waits this long."""


async def main() -> None:
    """Serves the tasks."""
    app = application(sys.argv[1])
    async with app.open_async():
        print("ready", flush=True)
        await app.run_worker_async(concurrency=CONCURRENCY, fetch_job_polling_interval=POLLING)


if __name__ == "__main__":
    asyncio.run(main())
