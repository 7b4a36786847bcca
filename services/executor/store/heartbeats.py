"""Extends leases from the worker's heartbeat thread, on a connection and an event loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from services.executor.store.leases import heartbeat_runs
from valkyr.errors import Unavailable

Connect = Callable[[], Any]
HEARTBEAT_TIMEOUT = timedelta(seconds=5)


class HeartbeatLink:
    """A connection that lives on an event loop of the heartbeat thread's own."""

    def __init__(self, connect: Connect, duration: timedelta) -> None:
        self._connect = connect
        self._duration = duration
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: Any = None

    def send(self, leases: Sequence[tuple[UUID, UUID, int]]) -> set[UUID]:
        """The runs that are still held. Unavailable if the database does not answer."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        try:
            return self._loop.run_until_complete(self._send(leases))
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self._connection = None
            raise Unavailable(f"heartbeats do not reach the database: {error}") from error

    async def _send(self, leases: Sequence[tuple[UUID, UUID, int]]) -> set[UUID]:
        async with asyncio.timeout(HEARTBEAT_TIMEOUT.total_seconds()):
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._connect()
            return await heartbeat_runs(self._connection, leases, self._duration)

    def close(self) -> None:
        """After the worker has ended; its heartbeat thread sends nothing more."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
