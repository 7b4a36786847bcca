"""I06: reports come when the lease is somebody else's, after a freeze, and after a jump of the database's clock."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from tests import run_history
from tests.builders import a_graph
from tests.chaos.rooms import open_rooms
from tests.executor_stack import eventually
from valkyr.client import Client
from valkyr.client.executions import Start
from valkyr.graph.model import Graph

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

EXECUTIONS, FEW = 40, 20
LONGER_THAN_QUIET = 18
"""Nodes one after the other: after a start the reaper keeps still for ten seconds."""
ROOMS = ("graph_store", "breaker", "dlq", "executor", "executor_two")
SHORT_LEASES = {
    "VALKYR_EXECUTOR__RUNNER__MODULES": "tests.executor_modules",
    "VALKYR_EXECUTOR__RUNNER__LEASE__DURATION": "PT3S",
    "VALKYR_EXECUTOR__RUNNER__LEASE__HEARTBEAT_INTERVAL": "PT0.5S",
}
WORK = ("WorkModule", {"milliseconds": 700})
LEASES = "SELECT count(*) FROM executor.run WHERE state = 'LEASED' AND runner_id = $1"
EXPIRE_SOME = """
UPDATE executor.run r SET lease_until = now() - interval '1 second'
FROM (SELECT execution_id, id FROM executor.run WHERE state = 'LEASED' AND random() < 0.3
      FOR NO KEY UPDATE SKIP LOCKED) AS chosen
WHERE r.execution_id = chosen.execution_id AND r.id = chosen.id
"""
"""Waits for nobody: it takes rows in an order of its own, and the executor's transactions in another."""
LOST = "SELECT coalesce(sum(lost_leases), 0) FROM executor.run"
OF_ANOTHER_LEASE = """
SELECT id, attempt, outputs FROM executor.run WHERE state = 'SUCCESS' AND (outputs::json ->> 'attempt')::int <> attempt
"""
"""Runs whose outcome was reported under another lease than their last."""
DONE = "SELECT count(*) FROM executor.workflow_execution WHERE state = 'SUCCESS'"


async def until(sql: asyncpg.Connection, number: int, query: str, *arguments: object) -> None:
    async def enough() -> bool:
        return bool(await sql.fetchval(query, *arguments) >= number)

    await eventually(enough, f"{number} of {query}", 60)


async def started(client: Client, graph: Graph, number: int = EXECUTIONS) -> list[str]:
    workflow_id = (await client.graphs.save(graph)).workflow.id
    return [each.id for each in await client.executions.start_many([Start(workflow_id) for _ in range(number)])]


async def test_i06_what_a_frozen_executor_reports_when_it_wakes_changes_nothing(
    migrated_database_url: Callable[..., str], tmp_path: Path
) -> None:
    url = migrated_database_url("graph_store", "executor", "breaker", "dlq")
    graph = a_graph("a -> b -> c -> d -> e", modules=dict.fromkeys("abcde", WORK))
    async with open_rooms(tmp_path, url, *ROOMS, **SHORT_LEASES) as (rooms, sql):
        await run_history.install(sql)
        async with rooms.client() as client:
            runner = (tmp_path / "executor" / "runner-id").read_text().strip()
            ids = await started(client, graph)
            await until(sql, 5, LEASES, runner)
            pid = rooms.services["executor"].pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            frozen = await sql.fetch("SELECT id FROM executor.run WHERE state = 'LEASED' AND runner_id = $1", runner)
            frozen_at = await sql.fetchval("SELECT clock_timestamp()")
            try:
                await until(sql, EXECUTIONS, DONE)
            finally:
                os.kill(pid, signal.SIGCONT)
            # It has taken its late reports to the database once it does other work.
            await rooms.kill("executor_two")
            async with rooms.client() as survivor:
                for execution_id in await started(survivor, graph, FEW):
                    settled = await survivor.executions.wait(execution_id, timeout=timedelta(seconds=60))
                    assert settled.state == "SUCCESS"
        for execution_id in ids:
            assert run_history.violations(await run_history.read(sql, execution_id), execution_id, graph) == []
        assert await sql.fetch(OF_ANOTHER_LEASE) == []
        lost = await sql.fetch(
            "SELECT DISTINCT run_id FROM executor.run_attempt WHERE outcome = 'RUNNER_LOST' AND execution_id = ANY($1)",
            [UUID(execution_id) for execution_id in ids],
        )
        sent = await sql.fetch("SELECT run_id FROM history.event WHERE state = 'SUCCESS' AND at < $1", frozen_at)
        given_up = {row["run_id"] for row in lost}
        assert {row["id"] for row in frozen} - {row["run_id"] for row in sent} <= given_up
        assert {row["id"] for row in frozen} & given_up, "it lost none: the test proves nothing"


async def test_i06_reports_under_leases_that_a_jump_of_the_clock_has_ended_change_nothing(
    migrated_database_url: Callable[..., str], tmp_path: Path
) -> None:
    url = migrated_database_url("graph_store", "executor", "breaker", "dlq")
    nodes = [f"n{number}" for number in range(LONGER_THAN_QUIET)]
    graph = a_graph(" -> ".join(nodes), modules=dict.fromkeys(nodes, WORK))
    modules = {"VALKYR_EXECUTOR__RUNNER__MODULES": "tests.executor_modules"}
    async with open_rooms(tmp_path, url, **modules) as (rooms, sql), rooms.client() as client:
        await run_history.install(sql)
        ids = await started(client, graph, FEW)

        async def all_done() -> bool:
            if await sql.fetchval(LOST) < 2 * FEW:
                await sql.execute(EXPIRE_SOME)
            return bool(await sql.fetchval(DONE) >= FEW)

        await eventually(all_done, "every execution ends, some leases at a time run out", 90)
        for execution_id in ids:
            events = await run_history.read(sql, execution_id)
            assert run_history.violations(events, execution_id, graph, max_lost_leases=100) == []
        assert await sql.fetch(OF_ANOTHER_LEASE) == []
    said = (tmp_path / "logs" / "executor.log").read_text()
    assert "report.lease_lost" in said, "no report came late: the test proves nothing"
