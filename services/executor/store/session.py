"""Transactions of the executor: hot statements on asyncpg, driver errors translated."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from services.chassis.database import Database, with_retries
from services.chassis.postgres_errors import sqlstate_of, was_rolled_back

Result = TypeVar("Result")

# A plan made while the tables were small must not outlive that: every hot statement is a walk along an index.
PINNED_PLANNER = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}


# Cancelled at its time limit; rows that others hold; a transaction that was idle, or lasted, for too long.
_TOO_LONG = frozenset({"57014", "55P03", "25P03", "25P04"})


def took_too_long(error: BaseException) -> bool:
    """Whether fewer rows might do; not so where there was no connection to be had."""
    return error.__cause__ is not None and sqlstate_of(error.__cause__) in _TOO_LONG


class Session:
    """Where use cases get their transactions. Unavailable or Overloaded when the database cannot serve.

    `unsure` is called where the caller does not learn what came of a commit: the answer to it was lost, or the
    connection could not be given back after it.
    """

    def __init__(self, database: Database, *, unsure: Callable[[], None]) -> None:
        self._database = database
        self._unsure = unsure

    def reading(self, *, reserved: bool = False) -> AbstractAsyncContextManager[Any]:
        """A connection for single statements; `reserved` as in `repeat`."""
        return self._database.acquire(reserved=reserved)

    def listing(self) -> AbstractAsyncContextManager[Any]:
        """As `reading`, for lists by example: see `Database.listing`."""
        return self._database.listing()

    @asynccontextmanager
    async def transaction(self, *, reserved: bool = False) -> AsyncIterator[Any]:
        """One transaction, READ COMMITTED; `reserved` as in `repeat`."""
        async with self._database.acquire(reserved=reserved) as connection, connection.transaction():
            yield connection

    async def repeat(self, work: Callable[[Any], Awaitable[Result]], *, reserved: bool = False) -> Result:
        """`work` in a transaction, the whole of it again where PostgreSQL asks for that (40001, 40P01).

        `reserved`: on the connections that are kept for reports, so that no flood of calls holds them up.
        """

        async def once() -> Result:
            worked = False
            try:
                async with self._database.acquire(reserved=reserved) as connection, connection.transaction():
                    result = await work(connection)
                    worked = True
            except BaseException as error:
                if worked and not was_rolled_back(error.__cause__ or error):
                    self._unsure()
                raise
            return result

        return await with_retries(once)

    async def repeat_single(self, work: Callable[[Any], Awaitable[Result]]) -> Result:
        """As `repeat`, without a transaction: `work` reads, and what it writes is its last statement."""

        async def once() -> Result:
            asked = False
            try:
                async with self._database.acquire() as connection:
                    asked = True
                    return await work(connection)
            except BaseException as error:
                if asked and not was_rolled_back(error.__cause__ or error):
                    self._unsure()
                raise

        return await with_retries(once)
