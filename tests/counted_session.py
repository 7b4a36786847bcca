"""A session that counts the statements that go through it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any


class CountedSession:
    """In the place of a session; what begins and ends transactions is not counted."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.statements = 0

    def reading(self, **options: Any) -> Any:
        return self._counted(self._session.reading(**options))

    def transaction(self) -> Any:
        return self._counted(self._session.transaction())

    async def repeat(self, work: Callable[[Any], Awaitable[Any]], **options: Any) -> Any:
        return await self._session.repeat(lambda tx: work(_CountedConnection(tx, self)), **options)

    async def repeat_single(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        return await self._session.repeat_single(lambda connection: work(_CountedConnection(connection, self)))

    @asynccontextmanager
    async def _counted(self, opened: Any) -> AsyncIterator[Any]:
        async with opened as connection:
            yield _CountedConnection(connection, self)


class _CountedConnection:
    def __init__(self, connection: Any, counting: CountedSession) -> None:
        self._connection = connection
        self._counting = counting

    def __getattr__(self, name: str) -> Any:
        self._counting.statements += name in ("fetch", "fetchrow", "fetchval", "execute")
        return getattr(self._connection, name)
