"""A stack for runners that are processes, and what became of their runs: by the database, and by the ledger of effects,
which tells what modules did, whoever recorded what of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from services.chassis.migrate import upgrade
from services.executor.reaper import LEAST_QUIET
from tests import run_history
from tests.builders import a_graph
from tests.chaos.rooms import Rooms, open_rooms
from tests.chaos.runner_processes import RunnerProcess, a_runner
from tests.effect_modules import Effect, effects, of
from tests.executor_stack import eventually, until_true
from tests.postgres import PostgresForTests
from tests.standstills import Standstills, noted_standstills
from valkyr.client import Client, Execution, ExecutionState
from valkyr.client.executions import Start
from valkyr.duration import format_duration
from valkyr.graph.model import Graph

MAX_LOST_LEASES = 3
HEARTBEAT = timedelta(seconds=0.5)
SHORT, LONG = timedelta(seconds=6), timedelta(minutes=1)
"""Leases that a test waits to see run out, and such as no slow machine can make run out."""
QUIET_AND_MORE = 60.0
"""After its start the executor's reaper keeps still for ten seconds, then the lease of a test runs out; where many do
at once it keeps still again."""
UNSETTLED = "SELECT count(*) FROM executor.workflow_execution WHERE finished_at IS NULL AND id = ANY($1::uuid[])"
STILL_LEASED = """
SELECT count(*) FROM executor.run WHERE state <> 'LEASED' AND (lease_until IS NOT NULL OR leased_by IS NOT NULL)
"""


def lease_settings(lease: timedelta, heartbeat: timedelta, *, max_lost_leases: int = MAX_LOST_LEASES) -> dict[str, str]:
    """Of an executor that runs nothing by itself."""
    return {
        "VALKYR_EXECUTOR__RUNNER__CONCURRENCY": "0",
        "VALKYR_EXECUTOR__RUNNER__LEASE__DURATION": format_duration(lease),
        "VALKYR_EXECUTOR__RUNNER__LEASE__HEARTBEAT_INTERVAL": format_duration(heartbeat),
        "VALKYR_EXECUTOR__RUNNER__RETRY__MAX_LOST_LEASES": str(max_lost_leases),
        "VALKYR_EXECUTOR__RUNNER__RETRY__BACKOFF_BASE_MS": "300",
    }


def works(pool: str, *node_ids: str, milliseconds: int, later: int | None = None) -> Graph:
    """Nodes side by side that have an effect each."""
    config: dict[str, Any] = {"milliseconds": milliseconds}
    if later is not None:
        config["later_milliseconds"] = later
    return a_graph(
        ", ".join(node_ids),
        modules=dict.fromkeys(node_ids, ("EffectModule", config)),
        nodes={node_id: {"pool": pool} for node_id in node_ids},
    )


def overlaps(effects: Iterable[Effect], *, gone: Mapping[int, float] | None = None) -> dict[str, float]:
    """By key, for how many seconds an attempt was still alive when the next one had begun; those above zero only.

    An attempt is alive from BEGUN to DONE or STOPPED, or until its process was `gone`, by its pid; else for ever.
    """
    attempts: dict[str, dict[int, list[Effect]]] = defaultdict(lambda: defaultdict(list))
    for effect in effects:
        attempts[effect.key][effect.attempt].append(effect)
    found: dict[str, float] = {}
    for key, by_attempt in attempts.items():
        for number, after in pairwise(sorted(by_attempt)):
            notes = by_attempt[number]
            ends = [note.at for note in notes if note.what != "BEGUN"]
            end = ends[0] if ends else (gone or {}).get(notes[0].pid, float("inf"))
            found[key] = max(found.get(key, 0.0), end - by_attempt[after][0].at)
    return {key: seconds for key, seconds in found.items() if seconds > 0}


@dataclass(frozen=True, slots=True)
class Lab:
    """One stack for all tests of a file; each has a pool to itself."""

    rooms: Rooms
    sql: asyncpg.Connection
    client: Client
    folder: Path
    quiet_until: float
    standstills: Standstills
    max_lost_leases: int = MAX_LOST_LEASES

    @property
    def executor(self) -> str:
        return self.rooms.addresses["executor"]

    @property
    def effects(self) -> list[Effect]:
        return effects(self.folder / "ledger")

    def runner(
        self, pool: str, *arguments: str, name: str = "", executor: str = ""
    ) -> AbstractAsyncContextManager[RunnerProcess]:
        return a_runner(self.folder, executor or self.executor, "--pool", pool, *arguments, name=name or pool)

    async def start(self, graph: Graph) -> str:
        saved = await self.client.graphs.save(graph)
        return (await self.client.executions.start(saved.workflow.id)).id

    async def start_many(self, graph: Graph, number: int) -> list[str]:
        saved = await self.client.graphs.save(graph)
        started = await self.client.executions.start_many([Start(saved.workflow.id)] * number)
        return [execution.id for execution in started]

    async def past_the_quiet_period(self) -> None:
        """From now on the reaper ends leases when they run out."""
        await until_true(lambda: monotonic() > self.quiet_until, "the reaper is at work")

    async def begun(self, node_id: str, number: int = 1, timeout: float = QUIET_AND_MORE) -> Effect:
        """The latest, when there are so many."""
        await until_true(
            lambda: len(of(self.effects, "BEGUN", node_id)) >= number, f"{node_id} has begun {number} times", timeout
        )
        return of(self.effects, "BEGUN", node_id)[-1]

    async def stopped(self, node_id: str, timeout: float = QUIET_AND_MORE) -> Effect:
        """The first time that it was told to stop."""
        await until_true(lambda: of(self.effects, "STOPPED", node_id), f"{node_id} was stopped", timeout)
        return of(self.effects, "STOPPED", node_id)[0]

    async def ended(self, execution_id: str) -> Execution:
        return await self.client.executions.wait(execution_id, timeout=timedelta(seconds=QUIET_AND_MORE))

    async def all_ended(self, execution_ids: Sequence[str], patience: float = 60.0) -> None:
        ids = [UUID(execution_id) for execution_id in execution_ids]

        async def nothing_is_left() -> bool:
            return await self.sql.fetchval(UNSETTLED, ids) == 0

        await eventually(nothing_is_left, f"{len(ids)} executions end", patience)

    async def rows(self, *execution_ids: str) -> list[asyncpg.Record]:
        ids = [UUID(execution_id) for execution_id in execution_ids]
        return await self.sql.fetch("SELECT * FROM executor.run WHERE execution_id = ANY($1) ORDER BY id", ids)

    async def budgets(self, *execution_ids: str) -> set[tuple[int, int]]:
        """What their runs have used up: (lost leases, failures)."""
        return {(row["lost_leases"], row["failures"]) for row in await self.rows(*execution_ids)}

    async def all_is_well(self, execution_id: str, graph: Graph) -> None:
        """It ends well; each outcome was applied once, under the lease it was reported of."""
        assert (await self.ended(execution_id)).state is ExecutionState.SUCCESS
        assert await self.problems([execution_id], graph) == []

    async def problems(self, execution_ids: Sequence[str], graph: Graph) -> list[str]:
        """What does not hold of executions that have ended: C1 to C5, C8; and that nothing has kept a lease."""
        found = []
        for execution_id in execution_ids:
            history = await run_history.read(self.sql, execution_id)
            found += run_history.violations(history, execution_id, graph, max_lost_leases=self.max_lost_leases)
        for row in await self.rows(*execution_ids):
            name = f"{row['node_id']} of {row['execution_id']}"
            if row["state"] != "SUCCESS":
                found.append(f"{name}: C1: it is {row['state']}, {row['error']}")
            elif orjson.loads(row["outputs"])["attempt"] != row["attempt"]:
                found.append(f"{name}: C3: reported under another lease than its last")
        if await self.sql.fetchval(STILL_LEASED):
            found.append("C3: a lease stands on a run that has none")
        return found


@asynccontextmanager
async def open_lab(
    postgres: PostgresForTests, folder: Path, *names: str, max_lost_leases: int = MAX_LOST_LEASES, **settings: str
) -> AsyncIterator[Lab]:
    """Those rooms, on a database of their own, with their history noted."""
    template = postgres.template(("graph_store", "executor", "breaker", "dlq"), upgrade)
    with postgres.database(template) as url:
        async with open_lab_at(url, folder, *names, max_lost_leases=max_lost_leases, **settings) as lab:
            yield lab


@asynccontextmanager
async def open_lab_at(
    database_url: str, folder: Path, *names: str, max_lost_leases: int = MAX_LOST_LEASES, **settings: str
) -> AsyncIterator[Lab]:
    """As `open_lab`, on an empty database."""
    async with open_rooms(folder, database_url, *names, **settings) as (rooms, sql), rooms.client() as client:
        await run_history.install(sql)
        quiet_until = monotonic() + LEAST_QUIET.total_seconds()
        with noted_standstills() as standstills:
            yield Lab(rooms, sql, client, folder, quiet_until, standstills, max_lost_leases)
