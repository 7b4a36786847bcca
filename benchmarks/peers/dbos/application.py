"""A DBOS application: its workflows and steps, as a process that is told what to do on its standard input.

`start`: each line `single 0 500` starts 500 workflows here and is answered with their results, when all are known.
`serve`: works off the queue until it is ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from dbos import DBOS

from benchmarks.peers.driving import STEPS

VERSION = "1"
QUEUE = "backlog"
POOL = 20
WINDOW = 50


@DBOS.step()
async def add_one(value: int) -> int:
    """The work of a node."""
    return value + 1


@DBOS.step()
async def add_one_at(value: int) -> tuple[int, float]:
    """The same, with the time at which it was done."""
    return value + 1, time.monotonic()


@DBOS.step()
async def sum_of(values: list[int]) -> int:
    """The join of a fan-out."""
    return sum(values)


@DBOS.workflow()
async def single(value: int) -> int:
    return await add_one(value)


@DBOS.workflow()
async def stamped(value: int) -> tuple[int, float]:
    return await add_one_at(value)


@DBOS.workflow()
async def chain(value: int) -> int:
    for _ in range(STEPS):
        value = await add_one(value)
    return value


@DBOS.workflow()
async def fan(branches: int) -> int:
    first = await add_one(0)
    return await sum_of(list(await asyncio.gather(*(add_one(first + branch) for branch in range(branches)))))


WORKFLOWS: dict[str, Callable[[int], Coroutine[Any, Any, int]]] = {"single": single, "chain": chain}


def launch(postgres: str, name: str) -> None:
    """DBOS in this process, which `name` tells from the others on the same database."""
    DBOS(
        config={
            "name": "bench",
            "application_version": VERSION,
            "executor_id": name,
            "system_database_url": postgres,
            "sys_db_pool_size": POOL,
            "log_level": "ERROR",
        }
    )
    DBOS.launch()


async def run(workflow: Callable[[int], Coroutine[Any, Any, int]], value: int) -> int:
    """Starts a workflow in this process and waits for its result."""
    handle = await DBOS.start_workflow_async(workflow, value)
    return await handle.get_result()


async def start(workflow: str, first: int, count: int) -> list[int]:
    """The results of `count` workflows, at most WINDOW of them in flight."""
    free = asyncio.Semaphore(WINDOW)

    async def bounded(value: int) -> int:
        async with free:
            return await run(WORKFLOWS[workflow], value)

    return await asyncio.gather(*(bounded(first + index) for index in range(count)))


def main() -> None:
    """`python -m benchmarks.peers.dbos.application URL NAME start|serve`."""
    launch(sys.argv[1], sys.argv[2])
    print("ready", flush=True)
    if sys.argv[3] == "serve":
        signal.sigwait({signal.SIGTERM})
    else:
        asyncio.run(_obey())
    os._exit(0)  # its threads wait for workflows that nobody waits for


async def _obey() -> None:
    for line in iter(sys.stdin.readline, ""):
        workflow, first, count = line.split()
        print(json.dumps(await start(workflow, int(first), int(count))), flush=True)


if __name__ == "__main__":
    main()
