"""W0: what the machine does in this round, without anything of Valkyr: the yardsticks for all else.

A machine that is shared, or saves power, is not the same from one hour to the next. One execution at idle is three
calls and some statements, one after the other: these figures say how little time that could take.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import timeit
from collections.abc import AsyncIterator, Awaitable, Callable
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

import asyncpg
import grpc
import uvloop

from benchmarks.database import Database
from benchmarks.figures import Measured, quantile
from benchmarks.sizes import Sizes

METHOD = "/benchmarks.Yardstick/Echo"
BYTES = b"x" * 200
TURNS = 1_000_000
CREATE = "CREATE TABLE yardstick (id int PRIMARY KEY, value int NOT NULL)"
UPDATE = "UPDATE yardstick SET value = value + 1 WHERE id = $1"


async def measure(database: Database, sizes: Sizes) -> Measured:
    async with _echo() as call:
        calls = await _times(call, sizes.yardsticks)
    connection = await asyncpg.connect(database.url)
    try:
        await connection.execute(CREATE)
        await connection.execute("INSERT INTO yardstick VALUES (1, 0)")
        reads = await _times(lambda: connection.fetchval("SELECT 1"), sizes.yardsticks)
        commits = await _times(lambda: connection.execute(UPDATE, 1), sizes.yardsticks)
    finally:
        await connection.close()
    loops = timeit.repeat("for _ in range(turns): pass", globals={"turns": TURNS}, number=1, repeat=9)
    figures = {
        "W0.call": quantile(calls, 0.5),
        "W0.read": quantile(reads, 0.5),
        "W0.commit": quantile(commits, 0.5),
        "W0.loop": quantile(loops, 0.5) * 1_000,
    }
    return Measured(figures)


async def _times(work: Callable[[], Awaitable[Any]], count: int) -> list[float]:
    """Milliseconds of each, one after the other, warm."""
    times = []
    for _ in range(count + count // 10):
        began = perf_counter()
        await work()
        times.append((perf_counter() - began) * 1_000)
    return times[count // 10 :]


@contextlib.asynccontextmanager
async def _echo() -> AsyncIterator[Callable[[], Awaitable[bytes]]]:
    """A call of a server that does nothing, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    theirs.close()  # or else nobody would hear of a server that died
    try:
        port = await asyncio.to_thread(ours.recv)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            echo = channel.unary_unary(METHOD)
            yield lambda: echo(BYTES)
    finally:
        server.kill()
        await asyncio.to_thread(server.join)


def _serve(ready: Connection) -> None:
    async def serve() -> None:
        async def echo(request: bytes, _context: object) -> bytes:
            return request

        server = grpc.aio.server()
        _, service, method = METHOD.split("/")
        handler = grpc.unary_unary_rpc_method_handler(echo)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        ready.send(port)
        await server.wait_for_termination()

    uvloop.run(serve())
