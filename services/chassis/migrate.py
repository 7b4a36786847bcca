"""Brings a room's schema to the newest revision, under an advisory lock, so that any number of pods may start at once.

python -m services.chassis.migrate [room...]; a service that starts runs it where there is something to do (schema.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from services.chassis.postgres_errors import explained, is_outage, sqlstate_of
from services.chassis.schema import SERVICES, MigrationError
from services.chassis.settings import SettingsError, require_supported
from valkyr import telemetry

LOCK_TIMEOUT = "2s"
WAIT_FOR_OTHERS = timedelta(minutes=2)
MAX_LOCKED_OUT = 15
_NOT_ALLOWED = "42501"
_AT_THE_DOOR = ("28", "3D")
_LOCK_NOT_AVAILABLE = "55P03"
_log = telemetry.get_logger(__name__)


async def upgrade(database_url: str, room: str, *, revision: str = "head") -> None:
    """To `revision`; creates the schema `room` if there is none. Does nothing if it is there already.

    A revision that waits for a lock for longer than two seconds is rolled back and tried again, so that readers never
    queue up behind it. MigrationError if the database is ahead of this code, or cannot be reached, or refuses;
    SettingsError if it is of a version that is not supported.
    """
    script = _script(room)
    await _run(database_url, room, lambda revisions, _context: script._upgrade_revs(revision, revisions), script)


async def downgrade(database_url: str, room: str, *, revision: str = "base") -> None:
    """Back to `revision`, with whatever is lost by that."""
    script = _script(room)
    await _run(database_url, room, lambda revisions, _context: script._downgrade_revs(revision, revisions), script)


def lock_key(room: str) -> int:
    """Of the advisory lock that whoever migrates the room holds meanwhile."""
    return int.from_bytes(hashlib.sha256(f"valkyr.migrate.{room}".encode()).digest()[:8], signed=True)


def rooms() -> list[str]:
    """Every room that has migrations."""
    return sorted(path.parent.parent.name for path in SERVICES.glob("*/migrations/versions"))


async def _run(database_url: str, room: str, steps: Callable[[Any, Any], Any], script: ScriptDirectory) -> None:
    with _in_words(database_url, room):
        await _run_alone(database_url, room, steps, script)


async def _run_alone(database_url: str, room: str, steps: Callable[[Any, Any], Any], script: ScriptDirectory) -> None:
    async with _alone(database_url, room):
        for attempt in range(1, MAX_LOCKED_OUT + 1):
            try:
                await _apply(database_url, room, steps, script)
            except DBAPIError as error:
                if sqlstate_of(error) != _LOCK_NOT_AVAILABLE or attempt == MAX_LOCKED_OUT:
                    raise
                _log.warning("migration.locked_out", room=room, attempt=attempt)
                await asyncio.sleep(0.2 * attempt)
            else:
                return


@contextmanager
def _in_words(database_url: str, room: str) -> Iterator[None]:
    """What the database refuses, or is not there for, as a MigrationError; mistakes in a migration pass as they are."""
    try:
        yield
    except (OSError, DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        state, why = sqlstate_of(error), explained(error)
        if state == _NOT_ALLOWED:
            url = urlsplit(database_url)
            grant = f"grant create on database {url.path[1:]} to {url.username or 'it'}"
            raise MigrationError(
                f"the database user may not set up the schema {room}: {why}; its owner may allow it: {grant}"
            ) from error
        if state is None or state[:2] in _AT_THE_DOOR or is_outage(error):
            raise MigrationError(f"the schema {room} cannot be set up: {why}") from error
        raise


async def _apply(database_url: str, room: str, steps: Callable[[Any, Any], Any], script: ScriptDirectory) -> None:
    async def connect() -> asyncpg.Connection:
        settings = {"application_name": f"valkyr migrate {room}", "lock_timeout": LOCK_TIMEOUT, "timezone": "UTC"}
        return await asyncpg.connect(database_url, server_settings=settings)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_migrate, room, steps, script)
    finally:
        await engine.dispose()


def _migrate(connection: Connection, room: str, steps: Callable[[Any, Any], Any], script: ScriptDirectory) -> None:
    connection.exec_driver_sql(f'create schema if not exists "{room}"')
    connection.commit()
    with EnvironmentContext(Config(), script, fn=steps) as environment:
        environment.configure(
            connection=connection,
            version_table_schema=room,
            transaction_per_migration=True,
            on_version_apply=lambda *, step, **_: _log.info(
                "migration.applied", room=room, revision=step.up_revision_id
            ),
        )
        try:
            with environment.begin_transaction():
                environment.run_migrations()
        except CommandError as error:
            raise MigrationError(
                f"the schema {room} is of a version that this code does not know ({error});"
                " start the newer version again, or restore a backup"
            ) from error
    connection.commit()


def _script(room: str) -> ScriptDirectory:
    folder = SERVICES / room / "migrations"
    if not (folder / "versions").is_dir():
        raise MigrationError(f"there are no migrations of {room!r}; known are {', '.join(rooms())}")
    return ScriptDirectory(str(folder), version_locations=[str(folder / "versions")])


@asynccontextmanager
async def _alone(database_url: str, room: str) -> AsyncIterator[None]:
    """Holds the room's advisory lock on a connection of its own; the lock ends with the connection, however that ends.

    Asked for again and again and not waited for: a waiting statement would hold up CREATE INDEX CONCURRENTLY.
    """
    settings = {"application_name": f"valkyr migrate {room} lock"}
    connection = await asyncpg.connect(database_url, server_settings=settings)
    try:
        require_supported(connection.get_server_version().major)
        await _lock(connection, lock_key(room), room)
        yield
    finally:
        await connection.close()


async def _lock(connection: asyncpg.Connection, key: int, room: str) -> None:
    try:
        async with asyncio.timeout(WAIT_FOR_OTHERS.total_seconds()):
            while not await connection.fetchval("select pg_try_advisory_lock($1)", key):
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        raise MigrationError(f"another process has been migrating {room} for longer than {WAIT_FOR_OTHERS}") from error


def main() -> int:
    """Of the rooms named, or of all, in VALKYR_DATABASE_URL."""
    telemetry.configure("migrate")
    url = os.environ.get("VALKYR_DATABASE_URL")
    wanted = sys.argv[1:] or rooms()
    unknown = sorted(set(wanted) - set(rooms()))
    if not url or unknown:
        problem = (
            f"unknown: {', '.join(unknown)}; known are {', '.join(rooms())}" if unknown else "set VALKYR_DATABASE_URL"
        )
        sys.stderr.write(f"{problem}\n")
        return 2
    for room in wanted:
        try:
            asyncio.run(upgrade(url, room))
        except (MigrationError, SettingsError) as error:
            sys.stderr.write(f"{error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
