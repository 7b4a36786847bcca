"""What is measured: a stack of its own on a database of its own, and the clients that load it, each a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.client import Done, Job
from benchmarks.errors import BenchError
from benchmarks.graphs import Shape
from benchmarks.usage import Meter, Usage, parent_of
from services.local.home import PROJECT
from services.local.identity import Identity
from services.local.ports import is_free
from services.local.rooms import ROOMS
from services.local.stack import LocalStack
from valkyr.client import Client

CONCURRENCY = 200
LONGEST_LINE = 2**24
KEPT_VARIABLES = ("VALKYR_POSTGRES_BIN",)
SETTINGS = {"VALKYR_EXECUTOR__RUNNER__MODULES": "benchmarks.modules"}
"""All else is as it comes: traces sampled at the default, logs at info, breaker and DLQ up."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack that is up. `sql` is a connection of our own to its database; `pids` by service."""

    addresses: Mapping[str, str]
    pids: Mapping[str, int]
    postgres: int
    sql: asyncpg.Connection

    def client(self) -> Client:
        """For what is done before or after measuring: patient."""
        at = self.addresses
        return Client(at["graph_store"], at["executor"], principal="bench", timeout=timedelta(minutes=1))

    async def save(self, shape: Shape, name: str = "") -> str:
        """The id of a workflow of this shape."""
        async with self.client() as client:
            return (await client.graphs.save(shape.document(name or shape.name))).workflow.id

    def meter(self, clients: Sequence[BenchClient] = ()) -> Meter:
        """Of all services, of PostgreSQL, and of these clients."""
        numbered = {f"client {number}" if number else "client": client.pid for number, client in enumerate(clients)}
        return Meter({**self.pids, **numbered}, self.postgres)


@contextlib.asynccontextmanager
async def open_stack(
    database_url: str, *, port_base: int | None = None, concurrency: int = CONCURRENCY
) -> AsyncIterator[Stack]:
    """The four services on this database, stopped at the end. StackError when they do not come up."""
    environment = {
        **SETTINGS,
        "VALKYR_DATABASE_URL": database_url,
        "VALKYR_EXECUTOR__RUNNER__CONCURRENCY": str(concurrency),
    }
    with tempfile.TemporaryDirectory(prefix="valkyr-bench-") as home:
        async with LocalStack(Path(home), port_base or free_ports(), extra_env=environment) as local:
            sql = await asyncpg.connect(database_url)
            try:
                postgres = parent_of(await sql.fetchval("SELECT pg_backend_pid()"))
                pids = {name: pid for name, pid in local.pids.items() if name not in ("postgres", "keeper")}
                print(f"  pids: {pids | {'postgres': postgres}}", file=sys.stderr, flush=True)  # for profilers
                yield Stack(local.addresses, pids, postgres, sql)
            finally:
                await sql.close()


def forget_settings() -> None:
    """Of the caller's own VALKYR_ variables nothing applies to what is measured."""
    for name in [name for name in os.environ if name.startswith("VALKYR_") and name not in KEPT_VARIABLES]:
        del os.environ[name]


class BenchClient:
    """One process of `benchmarks.client`."""

    def __init__(self, process: asyncio.subprocess.Process, job: Job) -> None:
        self._process = process
        self._job = job

    @property
    def pid(self) -> int:
        return self._process.pid

    async def warm_up(self) -> None:
        """Returns when it waits for the word."""
        await self._get_ready(json.dumps(asdict(self._job)))

    async def find_again(self) -> None:
        """Of a backlog, when the executor was started anew: returns when its watch is back, and it waits again."""
        await self._get_ready("go")

    async def _get_ready(self, word: str) -> None:
        await self._say(word)
        if "ready" not in await self._hear():
            raise BenchError("a client did not get ready")

    async def go(self) -> Done:
        """The work. BenchError with what the client said when it has failed, a wrong answer above all."""
        await self._say("go")
        return Done(**await self._hear())

    async def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        with contextlib.suppress(ConnectionError):  # it has ended: why, it says itself
            await self._process.stdin.drain()

    async def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = await self._process.stdout.readline()
        if not line:
            complaint = (await self._process.stderr.read()).decode(errors="replace").strip()
            raise BenchError(f"a client has ended:\n{complaint}")
        heard: dict[str, Any] = json.loads(line)
        return heard


@contextlib.asynccontextmanager
async def clients(*jobs: Job) -> AsyncIterator[Sequence[BenchClient]]:
    """Client processes, warmed up, one for each job; gone at the end."""
    async with contextlib.AsyncExitStack() as stack:
        started = [BenchClient(await stack.enter_async_context(_process()), job) for job in jobs]
        await asyncio.gather(*(client.warm_up() for client in started))
        yield started


@contextlib.asynccontextmanager
async def _process() -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *Identity().command(sys.executable, "-m", "benchmarks.client", death_signal=signal.SIGKILL),
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        cwd=PROJECT,
        env={**os.environ, "LEASH_PARENT": str(os.getpid())},
        limit=LONGEST_LINE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def work(stack: Stack, *jobs: Job) -> tuple[Sequence[Done], Usage]:
    """What the clients of these jobs did, all at once after all were warm, and what was used meanwhile."""
    async with clients(*jobs) as started:
        meter = stack.meter(started)
        done = await asyncio.gather(*(client.go() for client in started))
        return done, meter.read()


def rate_of(done: Sequence[Done]) -> float:
    """Executions per second of all clients, from the first start to the last result."""
    seconds = max(each.ended for each in done) - min(each.began for each in done)
    return sum(each.count for each in done) / seconds


def free_ports() -> int:
    """The first of a row of ports that nobody uses, for all services."""
    # None of those that systems take for outgoing connections: one may be taken before the services listen.
    for first in random.sample(range(10_000, 20_000), 100):
        if all(is_free(first + room.offset) for room in ROOMS):
            return first
    raise BenchError("there are no free ports")
