"""The database of a service: an asyncpg pool for hot statements, a small reserved pool, so that overload never delays a
heartbeat or a report, and an SQLAlchemy engine where a room asks for one. Driver exceptions become ValkyrErrors."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from services.chassis.health import Health
from services.chassis.postgres_errors import SERIALIZATION_FAILURES, explained, is_refusal, sqlstate_of, translated
from services.chassis.settings import DatabaseSettings, SettingsError, require_supported
from valkyr.errors import Overloaded, Unavailable
from valkyr.retry import backoff
from valkyr.telemetry import get_logger

if TYPE_CHECKING:
    from services.chassis.engine import Connection, Engine

__all__ = ["Database", "connect", "session_settings", "translated", "with_retries"]

MAX_RETRIES = 5
LISTS_SHARE = 3
QUERY_CANCELED = "57014"
PING_INTERVAL = timedelta(seconds=5)
DRIVER_SLACK = timedelta(seconds=1)
"""How much longer than the server's own statement timeout the driver waits before it gives a connection up. Together
with waiting for a connection that stays below the ten seconds a client waits, so that a PostgreSQL that hangs is
UNAVAILABLE to a caller and not a deadline without a word."""
CONNECT_SLACK = timedelta(milliseconds=250)
"""How much longer a new connection may take than waiting for a free one."""
_DURABLE = {
    "fsync": {"on"},
    "full_page_writes": {"on"},
    "synchronous_commit": {"on", "remote_apply", "remote_write", "local"},
}
# Not from pg_settings, which makes a row of every setting that there is, each time.
_DURABILITY = "select " + ", ".join(f"current_setting('{name}')" for name in _DURABLE)

T = TypeVar("T")
_log = get_logger(__name__)


class Database:
    """Made by `open`. `engine`, `pool` and `reserved` connect to the same database with the same session settings."""

    def __init__(
        self,
        settings: DatabaseSettings,
        *,
        schema: str,
        application_name: str,
        pool: asyncpg.Pool,
        reserved: asyncpg.Pool,
    ) -> None:
        self.settings = settings
        self.schema = schema
        self.pool = pool
        self.reserved = reserved
        self._application_name = application_name
        self._engine: Engine | None = None
        self._lists = asyncio.Semaphore(max(1, settings.pool_size // LISTS_SHARE))

    @classmethod
    async def open(
        cls,
        settings: DatabaseSettings,
        *,
        schema: str,
        application_name: str,
        hot_settings: Mapping[str, str] = MappingProxyType({}),
    ) -> Database:
        """Waits up to `settings.startup_timeout` for the database. SettingsError if it refuses the login or is of a
        version that is not supported; Unavailable if it does not come up. `hot_settings` are more session settings for
        `pool` and `reserved`: what pins the planner, say."""
        await _wait_until_up(settings, application_name)

        size, few = settings.pool_size, settings.reserved_pool_size
        pool = await _open_pool(settings, application_name, size=size, more=hot_settings)
        reserved = await _open_pool(settings, f"{application_name} reserved", size=few, more=hot_settings)
        return cls(settings, schema=schema, application_name=application_name, pool=pool, reserved=reserved)

    @property
    def engine(self) -> Engine:
        """Made when it is first asked for; a room whose statements are text never loads SQLAlchemy."""
        if self._engine is None:
            from services.chassis.engine import Engine

            self._engine = Engine(self.settings, _connect_options(self.settings, self._application_name))
        return self._engine

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """One transaction: committed at the end, rolled back on an exception or a cancellation. A commit once begun is
        seen to its end even when the caller is cancelled. Overloaded if no connection gets free in time."""
        with translated():
            async with asyncio.timeout((self.settings.acquire_timeout + CONNECT_SLACK).total_seconds()):
                connection = await self.engine.connect()
            try:
                await connection.begin()
                try:
                    yield connection
                except BaseException:
                    await finish(connection.rollback())
                    raise
                await finish(connection.commit())
            finally:
                await finish(connection.close())

    async def in_transaction(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """`work` in a transaction, again from its start after a deadlock or a serialization failure."""

        async def once() -> T:
            async with self.transaction() as connection:
                return await work(connection)

        return await with_retries(once)

    @asynccontextmanager
    async def acquire(
        self, *, reserved: bool = False, within: timedelta | None = None
    ) -> AsyncIterator[asyncpg.Connection]:
        """A connection of the pool, or of the reserved one. Overloaded if none gets free in time, or `within` that."""
        pool = self.reserved if reserved else self.pool
        with translated():
            connection = await _acquired(pool, within or self.settings.acquire_timeout)
            try:
                yield connection
            except TimeoutError:
                connection.terminate()  # it hangs: to ask it for anything more would take as long again
                raise
            finally:
                # Goes on to its end by itself though the caller is cancelled.
                await pool.release(connection, timeout=self.settings.acquire_timeout.total_seconds())

    @asynccontextmanager
    async def listing(self) -> AsyncIterator[asyncpg.Connection]:
        """As `acquire`, for lists by example, which may take long: at most a third of the pool is lent to them, so that
        nothing hot waits for a list. Overloaded where one takes too long, or too many are asked for."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self.settings.acquire_timeout.total_seconds()):
                await self._lists.acquire()
        except TimeoutError:
            raise Overloaded("too many lists are asked for at once", retry_after=timedelta(seconds=1)) from None
        try:
            left = self.settings.acquire_timeout - timedelta(seconds=time.monotonic() - began)
            async with self.acquire(within=max(left, CONNECT_SLACK)) as connection:
                yield connection
        except Overloaded as error:
            if error.__cause__ is None or sqlstate_of(error.__cause__) != QUERY_CANCELED:
                raise
            raise Overloaded(
                f"to find these takes longer than the {self.settings.statement_timeout.total_seconds():g} s that a list"
                " may take",
                hint="ask for less: an id, a name or its beginning, a class, a state, or a time range",
            ) from error
        finally:
            self._lists.release()

    async def ping(self) -> None:
        """Unavailable if the database does not answer, or answers that what it commits is not durable."""
        async with self.acquire(reserved=True) as connection:
            values = await connection.fetchrow(_DURABILITY)
        for name, value in zip(_DURABLE, values, strict=True):
            if value not in _DURABLE[name]:
                raise Unavailable(
                    f"PostgreSQL runs with {name} = {value}: a crash would lose work that was acknowledged",
                    hint=f"set {name} = on",
                )

    async def watch(self, health: Health) -> None:
        """Pings until cancelled, and keeps the health condition "database"."""
        while True:
            try:
                await self.ping()
            except Exception as error:  # noqa: BLE001 - any failure to answer means: not healthy
                if "database" not in health.problems:
                    _log.critical("database.unfit", problem=str(error))
                health.mark("database", str(error))
            else:
                health.mark("database", None)
            await asyncio.sleep(PING_INTERVAL.total_seconds() * random.uniform(0.9, 1.0))

    async def close(self) -> None:
        """Closes every connection; those in use after five seconds are cut."""
        if self._engine is not None:
            await self._engine.dispose()
        for pool in (self.pool, self.reserved):
            try:
                async with asyncio.timeout(5):
                    await pool.close()
            except TimeoutError:
                pool.terminate()


async def with_retries(transaction: Callable[[], Awaitable[T]]) -> T:
    """Runs a whole transaction, again after a serialization failure or a deadlock, up to five times with jitter; then
    Conflict. `transaction` must have no effects outside of the database."""
    for retry in range(1, MAX_RETRIES + 1):
        try:
            return await transaction()
        except Exception as error:
            if _state_behind(error) not in SERIALIZATION_FAILURES:
                raise
        pause = backoff(retry, base=timedelta(milliseconds=10), maximum=timedelta(seconds=1), jitter=random.random())
        await asyncio.sleep(pause.total_seconds())
    with translated():
        return await transaction()


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Awaits `work` to its end even if the caller is cancelled meanwhile; the cancellation is raised afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except Exception:  # noqa: BLE001 - raised below, from the task
            break
    if cancelled is not None:
        failure = task.exception()
        if failure is not None:
            _log.warning("database.finish_failed", error=str(failure))
        raise cancelled
    return task.result()


async def connect(settings: DatabaseSettings, application_name: str) -> asyncpg.Connection:
    """A connection of its own with the session settings of a service."""
    return await asyncpg.connect(**_connect_options(settings, application_name))


def session_settings(settings: DatabaseSettings, application_name: str) -> dict[str, str]:
    """What every session is started with. No search_path: every statement names its schema."""
    return {
        "application_name": application_name[:63],
        "statement_timeout": _milliseconds(settings.statement_timeout),
        "lock_timeout": _milliseconds(settings.lock_timeout),
        "idle_in_transaction_session_timeout": _milliseconds(settings.idle_in_transaction_timeout),
        "tcp_user_timeout": "10000",
        "tcp_keepalives_idle": "5",
        "tcp_keepalives_interval": "2",
        "tcp_keepalives_count": "3",
        "default_transaction_isolation": "read committed",
        "timezone": "UTC",
        # Compiling a plan takes longer than any statement here.
        "jit": "off",
    }


async def _open_pool(
    settings: DatabaseSettings, application_name: str, *, size: int, more: Mapping[str, str]
) -> asyncpg.Pool:
    with translated():
        options = _connect_options(settings, application_name, more)
        return await asyncpg.create_pool(min_size=1, max_size=size, reset=_keep_as_it_is, **options)


def _connect_options(
    settings: DatabaseSettings, application_name: str, more: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """What asyncpg's `connect` takes."""
    return {
        "dsn": settings.url,
        "timeout": settings.acquire_timeout.total_seconds(),
        "command_timeout": (settings.statement_timeout + DRIVER_SLACK).total_seconds(),
        "server_settings": {**session_settings(settings, application_name), **more},
    }


async def _keep_as_it_is(_connection: asyncpg.Connection) -> None:
    """Nothing here changes a session, so there is nothing to reset: that saves a round trip for every use."""


async def _wait_until_up(settings: DatabaseSettings, application_name: str) -> None:
    deadline = time.monotonic() + settings.startup_timeout.total_seconds()
    failures = 0
    while True:
        try:
            connection = await connect(settings, application_name)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            if is_refusal(error):
                raise SettingsError(f"database.url: {explained(error)}") from error
            failures += 1
            if failures == 1:
                _log.warning("database.awaited", error=explained(error))
            if time.monotonic() > deadline:
                raise Unavailable(f"the database does not come up: {explained(error)}") from error
            await asyncio.sleep(min(1.0, 0.05 * 2**failures))
        else:
            try:
                require_supported(connection.get_server_version().major)
            finally:
                await connection.close()
            return


async def _acquired(pool: asyncpg.Pool, timeout: timedelta) -> asyncpg.Connection:
    try:
        async with asyncio.timeout(timeout.total_seconds()):  # asyncpg's own would run in a task of its own
            return await pool.acquire()
    except TimeoutError as error:
        raise Overloaded("all connections to the database are in use", retry_after=timedelta(seconds=1)) from error


def _state_behind(error: BaseException | None) -> str | None:
    """The SQLSTATE of an exception or of what it was translated from."""
    while error is not None:
        state = sqlstate_of(error)
        if state is not None:
            return state
        error = error.__cause__
    return None


def _milliseconds(duration: timedelta) -> str:
    return str(int(duration.total_seconds() * 1000))
