"""One session: a PostgreSQL of its own, rounds of workloads, each on a database of its own."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from benchmarks.figures import Measured
from benchmarks.machine import machine, postgres_settings, versions
from benchmarks.record import Record
from benchmarks.sizes import Sizes
from benchmarks.stack import CONCURRENCY, SETTINGS
from services.local.data_folder import ROLE
from services.local.home import Home
from services.local.postgres import Cluster

Measure = Callable[[str, Sizes], Awaitable[Measured]]
Tell = Callable[[str], None]

WORKLOADS = {
    "W1": "w01_sustained",
    "W2": "w02_idle",
    "W3": "w03_chains",
    "W4": "w04_fan",
}
"""By name, the file that measures it. (W8 is that of runners in other processes.)"""


class Databases:
    """Empty databases on one PostgreSQL, one after the other."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._numbers = itertools.count(1)

    @contextlib.asynccontextmanager
    async def fresh(self) -> AsyncIterator[str]:
        """Its URL; it is dropped at the end."""
        name = f"bench_{next(self._numbers)}"
        await self._execute(f"CREATE DATABASE {name} OWNER {ROLE}")
        try:
            yield self._cluster.url_of(ROLE, name)
        finally:
            await self._execute(f"DROP DATABASE {name} WITH (FORCE)")
            await self._execute("CHECKPOINT")  # what one workload wrote is not written to disk during the next

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self._cluster.admin_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@contextlib.asynccontextmanager
async def open_postgres(folder: Path) -> AsyncIterator[Cluster]:
    """The embedded one, as the local stack starts it."""
    cluster = Cluster(Home(folder))
    await asyncio.to_thread(cluster.start)
    try:
        yield cluster
    finally:
        await asyncio.to_thread(cluster.stop)


async def measure_all(
    workloads: Sequence[str], folder: Path, *, rounds: int, sizes: Sizes, tell: Tell, keep: Callable[[Record], None]
) -> Record:
    """All workloads, round after round, so that what changes on the machine meanwhile hits all of them. `keep` is given
    what there is after each workload: a session that is interrupted has measured something."""
    async with open_postgres(folder) as cluster:
        record = Record(
            datetime.now(UTC).isoformat(timespec="seconds"),
            machine(folder),
            versions(),
            {"postgres": await postgres_settings(cluster.url), "concurrency": CONCURRENCY, "services": SETTINGS},
        )
        databases = Databases(cluster)
        for number in range(rounds):
            record.rounds.append({})
            for workload in workloads:
                tell(f"round {number + 1} of {rounds}: {workload} ...")
                async with databases.fresh() as url:
                    record.rounds[-1][workload] = await measure_of(workload)(url, sizes)
                keep(record)
    return record


def measure_of(workload: str) -> Measure:
    """The function that measures it."""
    measure: Measure = importlib.import_module(f"benchmarks.workloads.{WORKLOADS[workload]}").measure
    return measure
