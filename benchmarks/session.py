"""One session: a PostgreSQL of its own, rounds of workloads, each on a database of its own."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.database import Database, Databases
from benchmarks.errors import BenchError
from benchmarks.figures import BUSY, Measured
from benchmarks.machine import machine, postgres_settings, versions
from benchmarks.record import Record
from benchmarks.stack import CONCURRENCY, SETTINGS
from services.local.errors import StackError
from services.local.home import Home
from services.local.postgres import Cluster
from valkyr.errors import ValkyrError

Measure = Callable[[Database, Any], Coroutine[Any, Any, Measured]]
"""Takes an empty database, and the session's sizes."""
Tell = Callable[[str], None]

FAILURES = (BenchError, StackError, ValkyrError, asyncpg.PostgresError)
"""What stops one workload and says nothing of the others."""

WORKLOADS = {
    "W0": "w00_machine",
    "W1": "w01_sustained",
    "W2": "w02_idle",
    "W3": "w03_chains",
    "W4": "w04_fan",
    "W5": "w05_backlog",
    "W6": "w06_mosaic",
    "W7": "w07_dispatch",
    "W8": "w08_remote",
    "W9": "w09_full_tables",
    "W10": "w10_idle_cost",
    "W11": "w11_memory",
    "W12": "w12_breaker",
}
"""By name, the file that measures it."""


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
    workloads: Sequence[str],
    folder: Path,
    *,
    rounds: int,
    sizes: Any,
    attempts: int,
    tell: Tell,
    keep: Callable[[Record], None],
    find: Callable[[str], Measure] | None = None,
) -> Record:
    """All workloads, round after round, so that what changes on the machine meanwhile hits all of them. `keep` is given
    what there is after each: a session that is interrupted has measured something. One that fails stands among the
    record's `errors`, and the others go on. `attempts`: see `least_disturbed`. `sizes`: a dataclass, as the measures
    that `find` answers take it; without it they are those of WORKLOADS."""
    async with open_postgres(folder) as cluster:
        record = await _begun(cluster, folder, sizes)
        databases = Databases(cluster)
        for number in range(rounds):
            record.rounds.append({})
            for workload in workloads:
                tell(f"round {number + 1} of {rounds}: {workload} ...")
                try:
                    measure = partial(_measured, (find or measure_of)(workload), databases, sizes)
                    record.rounds[-1][workload] = await least_disturbed(measure, attempts=attempts, tell=tell)
                except FAILURES as error:
                    record.errors.append(f"{workload} in round {number + 1}: {error}")
                    tell(record.errors[-1])
                keep(record)
    return record


async def _begun(cluster: Cluster, folder: Path, sizes: Any) -> Record:
    settings = {
        "postgres": await postgres_settings(cluster.url),
        "concurrency": CONCURRENCY,
        "services": SETTINGS,
        "sizes": asdict(sizes),
    }
    return Record(datetime.now(UTC).isoformat(timespec="seconds"), machine(folder), versions(), settings)


async def least_disturbed(
    measure: Callable[[], Awaitable[Measured]], *, attempts: int, tell: Tell = lambda _: None
) -> Measured:
    """Measured again, up to so many times, while others used much of the machine. Which one counts is decided by what
    others used, and by nothing else."""
    best = await measure()
    for _ in range(attempts - 1):
        if best.others <= BUSY:
            break
        tell(f"  others had {best.others:.0%} of the machine meanwhile: once more")
        try:
            best = min(best, await measure(), key=lambda measured: measured.others)
        except FAILURES as error:
            tell(f"  that failed, and what was measured before counts: {error}")
            break
    return best


async def _measured(measure: Measure, databases: Databases, sizes: Any) -> Measured:
    async with databases.fresh() as database:
        measured = await measure(database, sizes)
        return replace(measured, detail={**measured.detail, "statements": await database.top_statements()})


def measure_of(workload: str) -> Measure:
    """The function that measures it."""
    measure: Measure = importlib.import_module(f"benchmarks.workloads.{WORKLOADS[workload]}").measure
    return measure
