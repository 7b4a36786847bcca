"""A room's schema as this code needs it, made sure of at start: looked at here, migrated by a process of its own, since
what migrates (Alembic, SQLAlchemy) would stay in the memory of every service for good."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import asyncpg

from services.chassis.database import Database

SERVICES = Path(__file__).resolve().parent.parent
MIGRATE = "services.chassis.migrate"
_NOT_THERE = (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError)


class MigrationError(Exception):
    """The schema cannot be brought to this version of the code; the text says why."""


async def bring_up_to_date(database: Database, room: str) -> None:
    """Migrates the schema `room`, unless it is at the newest revision already. Any number of processes may do so at
    once. MigrationError if it cannot be brought there; Unavailable if the database went away."""
    if await _revision(database, room) == newest_revision(room):
        return
    code, complaint = await _migrate(database.settings.url, room)
    if code != 0:
        raise MigrationError(complaint.strip() or f"the migration of the schema {room} ended with exit code {code}")


def newest_revision(room: str) -> str:
    """Revisions are numbered, and their files begin with the number."""
    return max(path.name.partition("_")[0] for path in (SERVICES / room / "migrations/versions").glob("[0-9]*_*.py"))


async def _revision(database: Database, room: str) -> str | None:
    """None where there is none, or none to be seen: the migration says why."""
    async with database.acquire(reserved=True) as connection:
        try:
            revision: str | None = await connection.fetchval(f'select version_num from "{room}".alembic_version')  # noqa: S608
        except _NOT_THERE:
            return None
    return revision


async def _migrate(database_url: str, room: str) -> tuple[int, str]:
    """Its exit code, and what it complained of. What it logs goes where this process's own lines go."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", MIGRATE, room),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        cwd=SERVICES.parent,
        env={**os.environ, "VALKYR_DATABASE_URL": database_url},
    )
    try:
        _, complaint = await process.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        raise
    return await process.wait(), complaint.decode(errors="replace")
