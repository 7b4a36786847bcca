"""A proxy between a graph store and PostgreSQL that reads the statements, and strikes at one of a save's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

PROTOCOL_3 = 3
"""The major version in a startup message; requests for encryption and cancels have other numbers in its place."""
LOCK = "FOR NO KEY UPDATE"
"""What a save begins with, and nothing else does."""
OF_THE_DRIVER = ("pg_catalog.pg_type", "set_config('jit'")
"""What the driver asks by itself when it meets a type for the first time."""
ENDS = ("COMMIT", "ROLLBACK")


class Phase(StrEnum):
    """How far the statement is that is struck."""

    BEFORE = "before it was sent"
    SENT = "as soon as it was sent"
    ANSWERED = "when its answer was on the way"


@dataclass(slots=True)
class Strike:
    """What befalls the transaction of the save with this request id: `act` is called once, at this statement's phase.

    `statements` are those of the transaction so far, from BEGIN on. Without `act` they are only told.
    """

    request_id: str
    statement: str = ""
    phase: Phase = Phase.BEFORE
    act: Callable[[], None] | None = None
    statements: list[str] = field(default_factory=list)
    struck: bool = False

    def is_of(self, statement: str, parameters: bytes) -> bool:
        return self.request_id.encode() in parameters or LOCK in statement

    def is_due(self, statement: str) -> bool:
        return self.act is not None and statement == self.statement


class StatementProxy:
    """From a unix socket to a unix socket. What is struck is cut off: nothing goes either way from then on."""

    def __init__(self, target: Path, socket: Path) -> None:
        self._target = target
        self._socket = socket
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self.strike: Strike | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._accept, self._socket)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for link in tuple(self._links):
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            there, back = await asyncio.open_unix_connection(self._target)
            try:
                await _Link(self, _Ends(reader, writer), _Ends(there, back)).carry()
            finally:
                back.transport.abort()
        except (OSError, asyncio.CancelledError):
            return
        finally:
            self._links.discard(task)
            writer.transport.abort()


@dataclass(frozen=True, slots=True)
class _Ends:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class _Link:
    """One connection."""

    def __init__(self, proxy: StatementProxy, service: _Ends, database: _Ends) -> None:
        self._proxy = proxy
        self._service = service
        self._database = database
        self._prepared: dict[bytes, str] = {}
        self._portals: dict[bytes, tuple[str, bytes]] = {}
        self._transaction: list[str] = []
        self._is_struck_save = False
        self._awaited: Strike | None = None

    async def carry(self) -> None:
        """Until either side goes away, or the link is struck."""
        directions = [asyncio.create_task(self._forward()), asyncio.create_task(self._back())]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _forward(self) -> None:
        try:
            await self._start_up()
            while await self._message():
                pass
        except asyncio.IncompleteReadError:
            return

    async def _back(self) -> None:
        while data := await self._database.reader.read(65536):
            if self._awaited is not None:
                _act(self._awaited)
                return
            self._service.writer.write(data)
            await self._service.writer.drain()

    async def _start_up(self) -> None:
        """Messages without a type, up to that which begins the session."""
        version = 0
        while version != PROTOCOL_3:
            length = await self._service.reader.readexactly(4)
            body = await self._service.reader.readexactly(int.from_bytes(length) - 4)
            version = int.from_bytes(body[:2])
            await self._send(length + body)

    async def _message(self) -> bool:
        """One on its way to PostgreSQL; False when it was struck."""
        kind, whole, body = await self._read()
        statement, parameters = self._statement(kind, body)
        strike = self._noted(statement, parameters) if statement is not None else None
        if strike is not None and strike.phase is Phase.BEFORE:
            _act(strike)
            return False
        if strike is not None and strike.phase is Phase.ANSWERED:
            self._awaited = strike
        await self._send(whole)
        if strike is not None and strike.phase is Phase.SENT:
            if kind == b"E":
                await self._send((await self._read())[1])  # Sync: from here on it is carried out
            _act(strike)
            return False
        return True

    async def _read(self) -> tuple[bytes, bytes, bytes]:
        head = await self._service.reader.readexactly(5)
        body = await self._service.reader.readexactly(int.from_bytes(head[1:]) - 4)
        return head[:1], head + body, body

    async def _send(self, data: bytes) -> None:
        self._database.writer.write(data)
        await self._database.writer.drain()

    def _statement(self, kind: bytes, body: bytes) -> tuple[str | None, bytes]:
        """The statement that this message has carried out, with its parameters."""
        if kind == b"Q":
            return _on_one_line(body.rstrip(b"\0")), b""
        if kind == b"P":
            name, query, _ = body.split(b"\0", 2)
            self._prepared[name] = _on_one_line(query)
        elif kind == b"B":
            portal, name, parameters = body.split(b"\0", 2)
            self._portals[portal] = (self._prepared[name], parameters)
        elif kind == b"E":
            return self._portals[body.split(b"\0", 1)[0]]
        return None, b""

    def _noted(self, statement: str, parameters: bytes) -> Strike | None:
        """The strike, if it is this statement that is meant."""
        if statement.startswith("BEGIN"):
            self._transaction, self._is_struck_save = [], False
        if any(words in statement for words in OF_THE_DRIVER):
            return None
        self._transaction.append(statement)
        strike = self._proxy.strike
        if strike is None or strike.struck:
            return None
        self._is_struck_save |= strike.is_of(statement, parameters)
        if not self._is_struck_save:
            return None
        strike.statements[:] = self._transaction
        if statement.startswith(ENDS):
            self._is_struck_save = False
        return strike if strike.is_due(statement) else None


def _on_one_line(statement: bytes) -> str:
    return " ".join(statement.decode().split())


def _act(strike: Strike) -> None:
    assert strike.act is not None
    strike.struck = True
    strike.act()
