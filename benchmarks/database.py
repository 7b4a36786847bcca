"""An empty database on the PostgreSQL that is measured on, and what its superuser can tell of it."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from services.local.data_folder import ADMIN, DATABASE, ROLE
from services.local.postgres import Cluster

TOP = 12
CALLS = """
SELECT left(regexp_replace(s.query, '\\s+', ' ', 'g'), 90) AS query, sum(s.calls)::int AS calls
FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = $1 GROUP BY 1
"""
TOP_STATEMENTS = """
SELECT round(s.total_exec_time)::int AS ms, s.calls::int AS calls, s.rows::int AS rows,
    left(regexp_replace(s.query, '\\s+', ' ', 'g'), 90) AS query
FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
WHERE d.datname = $1 AND s.query !~* '^(create|alter) ' ORDER BY s.total_exec_time DESC LIMIT $2
"""


@dataclass(frozen=True, slots=True)
class Database:
    """`url` is its owner's. The superuser looks from another database, so that its own statements do not count."""

    url: str
    name: str = ""
    admin_url: str = ""

    async def checkpoint(self) -> None:
        """Nothing that was written before is written to disk during what is measured next."""
        await _as(self.admin_url, "CHECKPOINT")

    async def calls(self) -> Counter[str]:
        """How often each statement was asked so far, those that begin and end transactions included."""
        async with _connected(self.admin_url) as connection:
            return Counter({row["query"]: row["calls"] for row in await connection.fetch(CALLS, self.name)})

    async def top_statements(self) -> Sequence[Mapping[str, Any]]:
        """Those that took longest in all: milliseconds, calls, rows, the beginning of the text."""
        async with _connected(self.admin_url) as connection:
            return [dict(row) for row in await connection.fetch(TOP_STATEMENTS, self.name, TOP)]


class Databases:
    """Empty databases on one PostgreSQL, one after the other."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._numbers = itertools.count(1)

    @contextlib.asynccontextmanager
    async def fresh(self) -> AsyncIterator[Database]:
        """Dropped at the end."""
        name, admin_url = f"bench_{next(self._numbers)}", self._cluster.url_of(ADMIN, DATABASE)
        await _as(admin_url, f"CREATE DATABASE {name} OWNER {ROLE}")
        try:
            yield Database(self._cluster.url_of(ROLE, name), name, admin_url)
        finally:
            await _as(admin_url, f"DROP DATABASE {name} WITH (FORCE)")
            await _as(admin_url, "CHECKPOINT")


@contextlib.asynccontextmanager
async def _connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def _as(url: str, statement: str) -> None:
    async with _connected(url) as connection:
        await connection.execute(statement)
