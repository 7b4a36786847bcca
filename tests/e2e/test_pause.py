"""Pause and resume with real processes: nothing new starts, what runs finishes, and a kill -9 undoes nothing of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from services.local.stack import LocalStack
from tests import run_history
from tests.builders import a_graph
from tests.executor_stack import eventually
from tests.free_ports import a_port_base
from tests.run_history import leases_ended_early, violations
from valkyr.client import Client, ExecutionState, Run, RunState
from valkyr.graph.model import Graph

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SETTINGS = {
    "VALKYR_EXECUTOR__RUNNER__MODULES": "tests.executor_modules",
    "VALKYR_EXECUTOR__RUNNER__CONCURRENCY": "4",
    "VALKYR_EXECUTOR__RUNNER__RETRY__BACKOFF_BASE_MS": "10",
}
MIDDLE = [f"m{place}" for place in range(8)]


def chain_and_fan(free: Path) -> Graph:
    """Twice as wide in the middle as there are slots; what is there runs until the file is."""
    return a_graph(
        "first -> second, " + ", ".join(f"second -> {name} -> last" for name in MIDDLE),
        modules=dict.fromkeys(MIDDLE, ("FileModule", {"file": str(free)})),
    )


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with LocalStack(tmp_path_factory.mktemp("home"), a_port_base(), extra_env=SETTINGS) as stack:
        asyncio.run(note_history(stack))
        yield stack


async def note_history(stack: LocalStack) -> None:
    connection = await asyncpg.connect(stack.database_url)
    try:
        await run_history.install(connection)
    finally:
        await connection.close()


@pytest.fixture
async def client(stack: LocalStack) -> AsyncIterator[Client]:
    at, patience = stack.addresses, timedelta(seconds=60)  # an executor that was killed takes a while to come back
    async with Client(at["graph_store"], at["executor"], principal="ada", timeout=patience) as client:
        yield client


@pytest.fixture
def free(tmp_path: Path) -> Path:
    return tmp_path / "free"


async def runs_of(client: Client, execution_id: str) -> Mapping[str, Run]:
    return {run.node_id: run async for run in client.executions.list_runs(execution_id)}


async def paused_in_the_midst(client: Client, free: Path) -> tuple[str, set[str]]:
    """An execution that was paused while a part of its middle ran, and the nodes of it that had begun by then."""
    workflow = (await client.graphs.save(chain_and_fan(free))).workflow
    started = await client.executions.start(workflow.id)

    async def is_full() -> bool:
        return sum(run.state is RunState.LEASED for run in (await runs_of(client, started.id)).values()) == 4

    await eventually(is_full, "all slots are taken")
    paused = await client.executions.pause(started.id, reason="to look")
    assert (paused.state, paused.paused_by, paused.pause_reason) == (ExecutionState.PAUSED, "ada", "to look")
    runs = await runs_of(client, started.id)
    begun = {name for name in MIDDLE if runs[name].attempt}
    assert len(begun) == 4
    return started.id, begun


async def nothing_under_way(client: Client, execution_id: str) -> Mapping[str, Run]:
    async def rests() -> Mapping[str, Run] | None:
        runs = await runs_of(client, execution_id)
        return None if any(run.state is RunState.LEASED for run in runs.values()) else runs

    found: Mapping[str, Run] = await eventually(rests, "what was under way has ended")
    return found


async def another_goes_through(client: Client) -> None:
    """The executor has had every opportunity to start what is READY."""
    workflow = (await client.graphs.save(a_graph("a -> b -> c"))).workflow
    for _ in range(3):
        started = await client.executions.start(workflow.id)
        assert (await client.executions.wait(started.id)).state is ExecutionState.SUCCESS


async def killed(stack: LocalStack) -> None:
    """The executor is started anew by its supervisor."""
    pid = stack.pids["executor"]
    os.kill(pid, signal.SIGKILL)

    async def another() -> bool:
        try:
            return stack.pids["executor"] != pid
        except (OSError, ValueError, KeyError):
            return False

    await eventually(another, "the executor is started anew", 60)


async def ends_well(client: Client, stack: LocalStack, execution_id: str, free: Path) -> list[run_history.Event]:
    """Resumed it is a SUCCESS, and nothing happened that must not."""
    resumed = await client.executions.resume(execution_id)
    assert (resumed.state, resumed.paused_by) == (ExecutionState.RUNNING, "")
    assert (await client.executions.wait(execution_id)).state is ExecutionState.SUCCESS
    connection = await asyncpg.connect(stack.database_url)
    try:
        events = await run_history.read(connection, execution_id)
    finally:
        await connection.close()
    assert violations(events, execution_id, chain_and_fan(free)) == []
    return events


async def test_a_paused_execution_finishes_what_runs_starts_nothing_and_goes_on_when_resumed(
    stack: LocalStack, client: Client, free: Path
) -> None:
    execution_id, begun = await paused_in_the_midst(client, free)
    await asyncio.to_thread(free.touch)
    at_rest = await nothing_under_way(client, execution_id)
    await another_goes_through(client)

    now = await runs_of(client, execution_id)
    assert now == at_rest
    for name in MIDDLE:
        expected = (RunState.SUCCESS, "", 1) if name in begun else (RunState.PARKED, "PAUSE", 0)
        assert (now[name].state, now[name].parked_by, now[name].attempt) == expected
    assert now["last"].state is RunState.PENDING
    assert not leases_ended_early(await ends_well(client, stack, execution_id, free))


async def test_a_pause_outlives_the_executor_and_what_that_lost_is_parked(
    stack: LocalStack, client: Client, free: Path
) -> None:
    execution_id, begun = await paused_in_the_midst(client, free)
    await killed(stack)
    await another_goes_through(client)

    now = await nothing_under_way(client, execution_id)
    assert (await client.executions.get(execution_id)).state is ExecutionState.PAUSED
    lost = {name for name in begun if now[name].state is not RunState.SUCCESS}
    assert lost, "the kill hit no lease: the test proves nothing"
    for name in lost:
        assert (now[name].state, now[name].parked_by, now[name].lost_leases) == (RunState.PARKED, "PAUSE", 1)
        assert [attempt.outcome for attempt in now[name].attempts] == ["RUNNER_LOST"]
    await killed(stack)
    await another_goes_through(client)
    assert await runs_of(client, execution_id) == now
    await asyncio.to_thread(free.touch)
    events = await ends_well(client, stack, execution_id, free)
    assert leases_ended_early(events).total() == len(lost)
