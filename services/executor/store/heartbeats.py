"""Extends leases from the worker's heartbeat thread, on a connection and an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from services.executor.store.leases import heartbeat_runs
from services.executor.store.runners import note_progress
from valkyr.errors import Unavailable

Connect = Callable[[], Any]
MAX_TIMEOUT = timedelta(seconds=5)
CLOSE_TIMEOUT = timedelta(seconds=1)
_AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class HeartbeatLink:
    """A connection that lives on an event loop of its own, which whoever calls runs: one call at a time."""

    def __init__(self, connect: Connect, duration: timedelta) -> None:
        self._connect = connect
        self._duration = duration
        # Well within a third of the lease, a new connection included.
        self._timeout = min(MAX_TIMEOUT, duration / 4)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: Any = None
        self._busy = threading.Lock()
        self._closed = False

    def send(
        self, leases: Sequence[tuple[UUID, UUID, int]], progress: Sequence[tuple[UUID, UUID, int, str]] = ()
    ) -> dict[tuple[UUID, int], bool]:
        """Those still held, as (run, epoch), and whether they may go on. `progress` is what some say that they have
        done so far, as (execution, run, epoch, JSON). Unavailable without the database."""
        with self._busy:
            if self._closed:
                raise Unavailable("the executor is closing")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
            try:
                return self._loop.run_until_complete(self._send(leases, progress))
            except _AWAY as error:
                self._loop.run_until_complete(self._disconnect())
                raise Unavailable(f"heartbeats do not reach the database: {error}") from error

    async def _send(
        self, leases: Sequence[tuple[UUID, UUID, int]], progress: Sequence[tuple[UUID, UUID, int, str]]
    ) -> dict[tuple[UUID, int], bool]:
        async with asyncio.timeout(self._timeout.total_seconds()):
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._connect()
            await note_progress(self._connection, progress)
            return await heartbeat_runs(self._connection, leases, self._duration)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*_AWAY):
                await connection.close(timeout=CLOSE_TIMEOUT.total_seconds())

    def close(self) -> None:
        """Waits for a heartbeat under way; none is sent afterwards. Not to be called on an event loop's thread."""
        with self._busy:
            self._closed = True
            if self._loop is not None:
                self._loop.run_until_complete(self._disconnect())
                self._loop.close()
                self._loop = None
