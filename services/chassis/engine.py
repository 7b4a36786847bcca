"""SQLAlchemy's engine, for rooms whose statements it builds. Only they load it: it takes 23 MiB of an idle process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
from sqlalchemy.exc import TimeoutError as NoneFree
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from services.chassis.settings import DatabaseSettings
from valkyr.errors import Overloaded


def make_engine(settings: DatabaseSettings, connect: Callable[[], Awaitable[asyncpg.Connection]]) -> AsyncEngine:
    """An engine for transactions on connections that `connect` makes."""

    async def create(*_arguments: Any, **_options: Any) -> asyncpg.Connection:
        return await connect()

    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=create,
        pool_size=settings.transaction_pool_size,
        max_overflow=0,
        pool_timeout=settings.acquire_timeout.total_seconds(),
        pool_use_lifo=True,
    )


async def connection_of(engine: AsyncEngine) -> AsyncConnection:
    """A connection of the engine's pool. Overloaded if none gets free in time."""
    try:
        return await engine.connect()
    except NoneFree as error:
        raise Overloaded("all connections to the database are in use", retry_after=timedelta(seconds=1)) from error
