"""A proxy between a service and what it depends on, which passes, swallows answers, says nothing, or is not there."""

from __future__ import annotations

import asyncio
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.free_ports import a_port_base


class Way(Enum):
    """What becomes of bytes: both ways, requests only, none, or no connection at all."""

    PASS = "both ways"
    SWALLOW_ANSWERS = "requests only"
    SILENT = "none"
    DOWN = "no connection"


class Proxy:
    """TCP to `host:port`, or a unix socket to a unix socket."""

    def __init__(self, target: str | Path, socket: Path | None = None) -> None:
        self.target = target
        self._socket = socket
        self._port = 0 if socket else a_port_base()
        self.address = str(socket) if socket else f"127.0.0.1:{self._port}"
        self.way = Way.PASS
        self.requests = 0
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    async def set(self, way: Way) -> None:
        """From now on, for the connections that there are, too; those that bytes were lost of are cut by PASS."""
        self.way = way
        if way in (Way.DOWN, Way.PASS):
            await self._cut()
        if way is Way.DOWN:
            await self._stop_listening()
        elif self._server is None:
            await self._listen()

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop_listening()
        await self._cut()

    async def _listen(self) -> None:
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._link, self._socket)
        else:
            self._server = await asyncio.start_server(self._link, "127.0.0.1", self._port)

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _cut(self) -> None:
        links = tuple(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            await self._carry(reader, writer)
        except (OSError, asyncio.CancelledError):
            return
        finally:
            self._links.discard(task)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.way is Way.SILENT:
            await asyncio.Event().wait()
        if isinstance(self.target, Path):
            there, back = await asyncio.open_unix_connection(self.target)
        else:
            host, _, port = self.target.rpartition(":")
            there, back = await asyncio.open_connection(host, int(port))
        directions = [
            asyncio.create_task(self._pump(reader, back, forward=True)),
            asyncio.create_task(self._pump(there, writer, forward=False)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            back.transport.abort()  # first: what follows may be cancelled
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, forward: bool) -> None:
        while data := await source.read(65536):
            if self.way is Way.SILENT:
                continue
            if forward:
                self.requests += 1
            if forward or self.way is Way.PASS:
                sink.write(data)
                await sink.drain()
