"""What the campaign loads: PostgreSQL, the services with one executor, a table of ends, and runners by the handful."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from uuid import UUID

import asyncpg

from services.executor.reaper import LEAST_QUIET
from services.local.identity import Identity
from services.local.rooms import ROOMS
from tests.chaos.remote.findings import Recorded
from tests.chaos.rooms import Postgres, Rooms
from tests.chaos.runner_processes import RunnerProcess, launched
from tests.executor_stack import until_true
from valkyr.client import Client
from valkyr.graph.model import Graph

SETTINGS = {
    "VALKYR_EXECUTOR__RUNNER__CONCURRENCY": "0",
    "VALKYR_EXECUTOR__RUNNER__RETRY__BACKOFF_BASE_MS": "1000",
    "VALKYR_EXECUTOR__RUNNER__RETRY__BACKOFF_MAX_MS": "30000",
}
"""Nothing runs in the executor; back-offs are as they come."""

INSTALL = """
CREATE SCHEMA campaign;
CREATE TABLE campaign.ended (run_id uuid, state text, epoch int);
CREATE FUNCTION campaign.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO campaign.ended VALUES (NEW.id, NEW.state, NEW.epoch);
    RETURN NULL;
END $$;
CREATE TRIGGER end_noted AFTER UPDATE ON executor.run FOR EACH ROW
    WHEN (NEW.state = 'SUCCESS' AND OLD IS DISTINCT FROM NEW) EXECUTE FUNCTION campaign.note();
"""
RECORDED = """
SELECT count(DISTINCT e.id), count(DISTINCT e.id) FILTER (WHERE e.state = 'SUCCESS'),
    coalesce(sum(r.epoch - r.attempt), 0), coalesce(sum(r.lost_leases), 0),
    count(*) FILTER (WHERE (r.outputs::json ->> 'attempt')::int <> r.attempt)
FROM executor.workflow_execution e JOIN executor.run r ON r.execution_id = e.id
WHERE e.workflow_id = ANY($1::uuid[])
"""
TWICE = """
SELECT count(*) FROM (
    SELECT n.run_id FROM campaign.ended n JOIN executor.run r ON r.id = n.run_id
    JOIN executor.workflow_execution e ON e.id = r.execution_id AND e.workflow_id = ANY($1::uuid[])
    GROUP BY n.run_id HAVING count(*) > 1) AS twice
"""


@dataclass(frozen=True, slots=True)
class House:
    rooms: Rooms
    sql: asyncpg.Connection
    client: Client
    folder: Path

    async def lease(self, duration: float, heartbeat: float) -> None:
        """Starts the executor anew with leases of so many seconds; returns when its reaper is at work."""
        await self.rooms.kill("executor")
        self.rooms.set(
            "executor",
            VALKYR_EXECUTOR__RUNNER__LEASE__DURATION=f"PT{duration:g}S",
            VALKYR_EXECUTOR__RUNNER__LEASE__HEARTBEAT_INTERVAL=f"PT{heartbeat:g}S",
        )
        await self.rooms.start("executor")
        at_work = monotonic() + LEAST_QUIET.total_seconds()
        await until_true(lambda: monotonic() > at_work, "the reaper is at work", 60)

    async def save(self, graph: Graph) -> str:
        return (await self.client.graphs.save(graph)).workflow.id

    async def runner(self, part: str, pool: str, name: str, *, concurrency: int = 10) -> RunnerProcess:
        """Started, and known to the executor; its ledger is that of the part. Whoever calls this ends it."""
        folder = self.part(part)
        arguments = ("--pool", pool, "--concurrency", str(concurrency))
        runner = await launched(folder, self.rooms.addresses["executor"], *arguments, name=name)
        try:
            await runner.started()
        except BaseException:
            await runner.kill()
            raise
        return runner

    def part(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return folder

    async def recorded(self, workflows: Sequence[str]) -> Recorded:
        ids = [UUID(workflow) for workflow in workflows]
        executions, succeeded, unreported, lost, misreported = await self.sql.fetchrow(RECORDED, ids)
        return Recorded(executions, succeeded, unreported, lost, await self.sql.fetchval(TWICE, ids), misreported)


@asynccontextmanager
async def open_house(folder: Path) -> AsyncIterator[House]:
    """To be loaded after a `lease`."""
    async with AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(Postgres(folder / "database"))
        rooms = Rooms(folder, postgres.url, **SETTINGS)
        stack.push_async_callback(rooms.stop_all)
        await rooms.start(*(room.name for room in ROOMS))
        sql = await asyncpg.connect(postgres.url)
        stack.callback(sql.terminate)
        await sql.execute(INSTALL)
        client = await stack.enter_async_context(rooms.client())
        yield House(rooms, sql, client, folder)


@asynccontextmanager
async def starving() -> AsyncIterator[None]:
    """Within the block as many processes as there are cores do nothing but compute, at everybody's priority: whoever
    else wants a core gets half of one."""
    busy = [await _busy() for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
        await asyncio.gather(*(process.wait() for process in busy))


async def _busy() -> asyncio.subprocess.Process:
    command = Identity().command(sys.executable, "-I", "-S", "-c", "while True: pass", death_signal=signal.SIGKILL)
    return await asyncio.create_subprocess_exec(*command, env={**os.environ, "LEASH_PARENT": str(os.getpid())})
