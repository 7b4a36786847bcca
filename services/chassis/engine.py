"""SQLAlchemy for rooms whose statements it builds, awaited. Only they load it, and of it the Core alone: its own module
for asyncio brings the ORM along, 7 MiB of an idle process that no service has a use for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy
from sqlalchemy.exc import TimeoutError as NoneFree
from sqlalchemy.util import greenlet_spawn

from services.chassis.settings import DatabaseSettings
from valkyr.errors import Overloaded

Parameters = Mapping[str, Any]


class Connection:
    """What transactions are made of; one coroutine at a time."""

    __slots__ = ("_inner",)

    def __init__(self, inner: sqlalchemy.Connection) -> None:
        self._inner = inner

    async def execute(
        self, statement: sqlalchemy.Executable, parameters: Parameters | None = None
    ) -> sqlalchemy.CursorResult[Any]:
        """All rows of one statement."""
        result: sqlalchemy.CursorResult[Any] = await greenlet_spawn(self._inner.execute, statement, parameters)
        return result

    async def begin(self) -> None:
        await greenlet_spawn(self._inner.begin)

    async def commit(self) -> None:
        await greenlet_spawn(self._inner.commit)

    async def rollback(self) -> None:
        await greenlet_spawn(self._inner.rollback)

    async def close(self) -> None:
        """Gives it back to the pool."""
        await greenlet_spawn(self._inner.close)


class Engine:
    """A pool of them. `options` are those of asyncpg's `connect`."""

    def __init__(self, settings: DatabaseSettings, options: Mapping[str, Any]) -> None:
        self.sync = sqlalchemy.create_engine(
            "postgresql+asyncpg://",
            connect_args=dict(options),
            pool_size=settings.transaction_pool_size,
            max_overflow=0,
            pool_timeout=settings.acquire_timeout.total_seconds(),
            pool_use_lifo=True,
        )

    async def connect(self) -> Connection:
        """Overloaded if no connection gets free in time."""
        try:
            return Connection(await greenlet_spawn(self.sync.connect))
        except NoneFree as error:
            raise Overloaded("all connections to the database are in use", retry_after=timedelta(seconds=1)) from error

    async def dispose(self) -> None:
        """Closes those that nobody uses."""
        await greenlet_spawn(self.sync.dispose)
