"""The executor, or PostgreSQL under it, dies amid a thousand nodes: all is finished, and each run applied once."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from services.local.stack import LocalStack
from tests import run_history
from tests.builders import a_graph
from tests.executor_stack import eventually
from tests.free_ports import a_port_base
from valkyr.client import Client, ExecutionState
from valkyr.graph.model import Graph

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

LAYERS, WIDTH = 20, 50
SETTINGS = {
    "VALKYR_EXECUTOR__RUNNER__MODULES": "tests.executor_modules",
    "VALKYR_EXECUTOR__RUNNER__CONCURRENCY": "20",
    "VALKYR_EXECUTOR__RUNNER__RETRY__BACKOFF_BASE_MS": "100",
    # The reaper sees also what a lost answer to a commit has left leased.
    "VALKYR_EXECUTOR__RUNNER__ZOMBIE_REAPER__SCAN_INTERVAL": "PT1S",
}
DONE = "SELECT count(*) FROM executor.run WHERE execution_id = $1::text::uuid AND state = 'SUCCESS'"
SETTLED = "SELECT finished_at IS NOT NULL FROM executor.workflow_execution WHERE id = $1::text::uuid"


def a_thousand_nodes() -> Graph:
    """Twenty layers of fifty; every node needs two of the layer before."""
    arrows = [
        f"n{layer}_{place} -> n{layer + 1}_{place}, n{layer}_{(place + 1) % WIDTH} -> n{layer + 1}_{place}"
        for layer in range(LAYERS - 1)
        for place in range(WIDTH)
    ]
    names = [f"n{layer}_{place}" for layer in range(LAYERS) for place in range(WIDTH)]
    return a_graph(", ".join(arrows), modules=dict.fromkeys(names, "WorkModule"))


@asynccontextmanager
async def a_stack_with_history(tmp_path: Path) -> AsyncIterator[LocalStack]:
    async with LocalStack(tmp_path / "home", a_port_base(), extra_env=SETTINGS) as stack:
        connection = await asyncpg.connect(stack.database_url)
        await run_history.install(connection)
        await connection.close()
        yield stack


async def started(stack: LocalStack, graph: Graph) -> str:
    addresses = stack.addresses
    async with Client(graph_store=addresses["graph_store"], executor=addresses["executor"]) as client:
        saved = await client.graphs.save(graph)
        return (await client.executions.start(saved.workflow.id, request_id="once")).id


async def asked(stack: LocalStack, query: str, execution_id: str) -> object:
    """One value, or None while PostgreSQL is away."""
    try:
        connection = await asyncpg.connect(stack.database_url, timeout=5)
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return None
    try:
        return await connection.fetchval(query, execution_id)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return None
    finally:
        connection.terminate()


async def until_done(stack: LocalStack, execution_id: str, count: int) -> None:
    async def enough() -> bool:
        done = await asked(stack, DONE, execution_id)
        return isinstance(done, int) and done >= count

    await eventually(enough, f"{count} nodes are done", 120)


async def kill(stack: LocalStack, name: str, how: signal.Signals) -> None:
    """Returns when the supervisor has started it anew."""
    pid = stack.pids[name]
    os.kill(pid, how)

    async def another() -> bool:
        try:
            return stack.pids[name] != pid
        except (OSError, ValueError, KeyError):
            return False

    await eventually(another, f"{name} is started anew", 120)


async def assert_all_was_applied_once(stack: LocalStack, execution_id: str, graph: Graph) -> list[run_history.Event]:
    await eventually(lambda: asked(stack, SETTLED, execution_id), "the execution ends", 120)
    connection = await asyncpg.connect(stack.database_url)
    try:
        events = await run_history.read(connection, execution_id)
        assert run_history.violations(events, execution_id, graph) == []
        row = await connection.fetchrow(
            """SELECT e.state, e.open_runs, e.bad_runs, (SELECT count(*) FROM executor.workflow_execution),
                   (SELECT count(*) FROM executor.run_attempt), (SELECT count(*) FROM executor.outbox)
               FROM executor.workflow_execution e WHERE id = $1::text::uuid""",
            execution_id,
        )
    finally:
        await connection.close()
    lost = run_history.leases_ended_early(events).total()
    assert tuple(row) == (ExecutionState.SUCCESS, 0, 0, 1, lost, 0)
    return events


async def test_an_executor_killed_in_the_middle_finishes_after_its_restart(tmp_path: Path) -> None:
    graph = a_thousand_nodes()
    async with a_stack_with_history(tmp_path) as stack:
        execution_id = await started(stack, graph)
        for share in (150, 450, 750):
            await until_done(stack, execution_id, share)
            await kill(stack, "executor", signal.SIGKILL)
        events = await assert_all_was_applied_once(stack, execution_id, graph)
    assert run_history.leases_ended_early(events), "no kill hit a lease: the test proves nothing"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["fast restart", "crash"])
async def test_with_postgresql_restarted_in_the_middle_everything_still_finishes(
    tmp_path: Path, how: signal.Signals
) -> None:
    graph = a_thousand_nodes()
    async with a_stack_with_history(tmp_path) as stack:
        execution_id = await started(stack, graph)
        for share in (200, 600):
            await until_done(stack, execution_id, share)
            await kill(stack, "postgres", how)
        await assert_all_was_applied_once(stack, execution_id, graph)
