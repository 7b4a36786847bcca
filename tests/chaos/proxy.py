"""A proxy between a service and what it depends on: it passes, delays, throttles, swallows, strands, cuts, or is not
there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.free_ports import a_port_base

CHUNK = 65536
IN_FLIGHT = 16
"""Chunks under way in one direction. Who sends more waits, as on a wire."""


class Way(Enum):
    """What becomes of bytes: both ways, requests only, none, or no connection at all."""

    PASS = "both ways"
    SWALLOW_ANSWERS = "requests only"
    SILENT = "none"
    DOWN = "no connection"


@dataclass(slots=True, eq=False)
class _Link:
    """One connection. `stranded`: nothing goes either way any more, and nobody is told."""

    stranded: bool = False


class Proxy:
    """TCP to `host:port`, or a unix socket to a unix socket.

    `latency` is in seconds, for each direction; `answers_per_second` is in bytes, None for as fast as it goes. Both
    hold at once, for the connections that there are, too.
    """

    def __init__(
        self, target: str | Path, socket: Path | None = None, *, host: str = "127.0.0.1", port: int | None = None
    ) -> None:
        self.target = target
        self._socket = socket
        self._host = host
        self._port = port or (0 if socket else a_port_base())
        self.address = str(socket) if socket else f"{host}:{self._port}"
        self.way = Way.PASS
        self.latency = 0.0
        self.answers_per_second: int | None = None
        self.requests = 0
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], _Link] = {}

    async def set(self, way: Way) -> None:
        """From now on, for the connections that there are, too; those that bytes were lost of are cut by PASS."""
        self.way = way
        if way in (Way.DOWN, Way.PASS):
            await self.cut()
        if way is Way.DOWN:
            await self._stop_listening()
        elif self._server is None:
            await self._listen()

    @property
    def connected(self) -> int:
        """Connections that there are."""
        return len(self._links)

    async def cut(self) -> int:
        """Breaks every connection; how many there were. New ones are taken."""
        links = tuple(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)
        return len(links)

    def strand(self, oldest: int | None = None) -> int:
        """The connections that there are, or the oldest of them, stay open and carry nothing any more; how many. New
        ones are as ever."""
        links = list(self._links.values())[:oldest]
        for link in links:
            link.stranded = True
        return len(links)

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop_listening()
        await self.cut()

    async def _listen(self) -> None:
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._accept, self._socket)
        else:
            self._server = await asyncio.start_server(self._accept, self._host, self._port)

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        link = self._links[task] = _Link()
        self.connections += 1
        try:
            await self._carry(link, reader, writer)
        except (OSError, asyncio.CancelledError):
            return
        finally:
            del self._links[task]
            writer.transport.abort()

    async def _carry(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.way is Way.SILENT:
            await asyncio.Event().wait()
        if isinstance(self.target, Path):
            there, back = await asyncio.open_unix_connection(self.target)
        else:
            host, _, port = self.target.rpartition(":")
            there, back = await asyncio.open_connection(host, int(port))
        directions = [
            asyncio.create_task(self._pump(link, reader, back, forward=True)),
            asyncio.create_task(self._pump(link, there, writer, forward=False)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            back.transport.abort()  # first: what follows may be cancelled
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _pump(
        self, link: _Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, forward: bool
    ) -> None:
        """Reads on while what was read is still under way."""
        loop = asyncio.get_running_loop()
        flight: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(IN_FLIGHT)
        landing = asyncio.create_task(self._land(link, flight, sink, forward=forward))
        try:
            while data := await source.read(CHUNK):
                await flight.put((loop.time() + self.latency, data))
            await flight.put((loop.time(), b""))
            await landing
        finally:
            landing.cancel()

    async def _land(
        self, link: _Link, flight: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter, *, forward: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await flight.get()
            if not data:
                return
            await asyncio.sleep(max(0.0, due - loop.time()))
            if self._passes(link, forward=forward):
                self.requests += forward
                await self._write(link, sink, data, forward=forward)

    def _passes(self, link: _Link, *, forward: bool) -> bool:
        return not link.stranded and (self.way is Way.PASS or (forward and self.way is Way.SWALLOW_ANSWERS))

    async def _write(self, link: _Link, sink: asyncio.StreamWriter, data: bytes, *, forward: bool) -> None:
        """In pieces while answers are throttled."""
        while data and self._passes(link, forward=forward):
            rate = None if forward else self.answers_per_second
            size = len(data) if rate is None else max(1, rate // 20)
            sink.write(data[:size])
            await sink.drain()
            data = data[size:]
            if rate is not None:
                await asyncio.sleep(size / rate)
