"""A name server for one name, whose addresses a test changes."""

from __future__ import annotations

import asyncio
import socket
import struct
from types import TracebackType
from typing import Any, Self

_HEADER = struct.Struct(">6H")
_ANSWER, _NO_MORE = 0x8180, 0
_ADDRESS, _INTERNET = 1, 1
_QUESTION_AS_NAMED = 0xC000 + _HEADER.size
_LIVES = 1
"""Seconds that an answer may be remembered."""


class Names(asyncio.DatagramProtocol):
    """Answers whatever it is asked with `addresses` (IPv4), and with none for other kinds of records."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self._transport: Any = None
        self._closed = asyncio.Event()

    def target(self, port: int) -> str:
        """The name as gRPC takes it, with this server to be asked, and the port of all of its addresses."""
        host, own_port = self._transport.get_extra_info("sockname")
        return f"dns://{host}:{own_port}/executors.test:{port}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        number = _HEADER.unpack_from(data)[0]
        question_end = data.index(0, _HEADER.size) + 5
        kind, _ = struct.unpack_from(">2H", data, question_end - 4)
        found = self.addresses if kind == _ADDRESS else ()
        records = [
            struct.pack(">3HIH", _QUESTION_AS_NAMED, _ADDRESS, _INTERNET, _LIVES, 4) + socket.inet_aton(address)
            for address in found
        ]
        header = _HEADER.pack(number, _ANSWER, 1, len(records), _NO_MORE, _NO_MORE)
        self._transport.sendto(header + data[_HEADER.size : question_end] + b"".join(records), addr)

    async def __aenter__(self) -> Self:
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transport.close()
        await self._closed.wait()
