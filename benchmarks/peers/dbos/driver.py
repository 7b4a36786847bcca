"""DBOS Transact: workflows and steps in the application's own processes, checkpointed in PostgreSQL.

Throughput is measured with one application process a core, each starting half of the workflows itself (one process is
bound by Python's lock); latency in one process, where start and result meet without a queue. Only the backlog goes
through a DBOS queue.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import ExitStack

import sqlalchemy as sa
from dbos import DBOSClient

from benchmarks.contract import WARM_CALLS, WARM_CHAINS, WARM_FANS, warm_up
from benchmarks.peers.dbos import application
from benchmarks.peers.driving import (
    BRANCHES,
    STEPS,
    Child,
    Measured,
    Order,
    check,
    drained,
    drive,
    one_after_another,
)

PROCESSES = max(2, os.cpu_count() or 2)
POLLING = 0.1
CONCURRENCY = 100
PORTION = 500
SETTINGS = {
    "application processes": str(PROCESSES),
    "workflows in flight": f"{application.WINDOW} a process",
    "connection pool": f"{application.POOL} a process",
    "queue (W5)": f"worker_concurrency {CONCURRENCY}, polling_interval_sec {POLLING}",
}


async def sustained(order: Order) -> Measured:
    """W1: workflows of one step."""
    return Measured(order.size, await _saturated(order, "single", 1))


async def idle(order: Order) -> Measured:
    """W2: a workflow of one step at a time, started and awaited in one process."""
    application.launch(order.postgres, "one")
    expected = [value + 1 for value in range(order.size)]
    return await one_after_another(lambda value: application.run(application.single, value), expected, warm=WARM_CALLS)


async def chains(order: Order) -> Measured:
    """W3: workflows of ten steps."""
    seconds = await _saturated(order, "chain", STEPS)
    application.launch(order.postgres, "one")
    expected = [value + STEPS for value in range(order.calls)]
    alone = await one_after_another(lambda value: application.run(application.chain, value), expected, warm=WARM_CHAINS)
    return Measured(order.size, seconds, latencies_ms=alone.latencies_ms)


async def fan_out(order: Order) -> Measured:
    """W4: a step, a thousand steps gathered, a step that sums them."""
    application.launch(order.postgres, "one")
    expected = [sum(2 + branch for branch in range(BRANCHES))] * order.size
    return await one_after_another(lambda _: application.run(application.fan, BRANCHES), expected, warm=WARM_FANS)


async def backlog(order: Order) -> Measured:
    """W5: enqueued while no process serves the queue, then worked off by all."""
    client = DBOSClient(system_database_url=order.postgres)
    with ExitStack() as stack:
        stack.enter_context(_application(order, "migrates")).stop()
        await client.register_queue_async(
            application.QUEUE, worker_concurrency=CONCURRENCY, polling_interval_sec=POLLING
        )
        _enqueue(client, order)
        for number in range(PROCESSES):
            stack.enter_context(_process(order, f"worker-{number}", "serve"))
        while client.list_workflows(status=["ENQUEUED", "PENDING"], limit=1, load_input=False, load_output=False):
            await asyncio.sleep(0.05)
        known = time.monotonic()
    done = client.list_workflows(status="SUCCESS", queue_name=application.QUEUE, load_input=False)
    outputs = sorted(each.output for each in done)
    check([value for value, _ in outputs], [value + 1 for value in range(order.size)])
    return drained([stamp for _, stamp in outputs], known)


def _enqueue(client: DBOSClient, order: Order) -> None:
    options = {"workflow_name": "stamped", "queue_name": application.QUEUE, "app_version": application.VERSION}
    engine = sa.create_engine(sa.make_url(order.postgres).set(drivername="postgresql+psycopg"))
    for first in range(0, order.size, PORTION):
        with engine.begin() as connection:
            for value in range(first, min(first + PORTION, order.size)):
                client.enqueue_in_transaction(connection, options, value)
    engine.dispose()


async def _saturated(order: Order, workflow: str, added: int) -> float:
    """Seconds until each process has the results of its share."""
    with ExitStack() as stack:
        processes = [stack.enter_context(_application(order, f"app-{number}")) for number in range(PROCESSES)]
        _run_shares(processes, workflow, warm_up(order.size))
        start = time.perf_counter()
        found = _run_shares(processes, workflow, order.size)
        seconds = time.perf_counter() - start
    check(found, [value + added for value in range(order.size)])
    return seconds


def _run_shares(processes: list[Child], workflow: str, size: int) -> list[int]:
    bounds = [size * number // len(processes) for number in range(len(processes) + 1)]
    for number, process in enumerate(processes):
        process.tell(f"{workflow} {bounds[number]} {bounds[number + 1] - bounds[number]}")
    return [value for process in processes for value in json.loads(process.line())]


def _application(order: Order, name: str) -> Child:
    child = _process(order, name, "start")
    child.await_line("ready")
    return child


def _process(order: Order, name: str, mode: str) -> Child:
    return Child.module("benchmarks.peers.dbos.application", order.postgres, name, mode)


if __name__ == "__main__":
    drive(
        {"W1": sustained, "W2": idle, "W3": chains, "W4": fan_out, "W5": backlog},
        packages=("dbos", "sqlalchemy", "psycopg"),
        settings=SETTINGS,
    )
