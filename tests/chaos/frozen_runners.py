"""Runners that are frozen, one after the other, with a report on its way that arrives about when their leases run out,
a little before it or a little after; the others take over what they held, and then they wake."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import asyncpg

from tests.chaos.call_proxy import CallProxy, Fate, in_turn, outcomes
from tests.chaos.runner_lab import Lab, lease_settings, works
from tests.chaos.runner_processes import RunnerProcess
from tests.executor_stack import eventually, until_true
from valkyr.client.executions import Start
from valkyr.graph.model import Graph

LEASE, HEARTBEAT = timedelta(seconds=0.6), timedelta(seconds=0.1)
AROUND = 0.05
"""Seconds before or after the end of its leases at which a runner wakes."""
MAX_LOST_LEASES = 1000
SETTINGS = {
    **lease_settings(LEASE, HEARTBEAT, max_lost_leases=MAX_LOST_LEASES),
    "VALKYR_EXECUTOR__RUNNER__RETRY__BACKOFF_BASE_MS": "50",
}
POOL, RUNNERS, CONCURRENCY, AHEAD = "frozen", 4, 5, 40
LASTS = "SELECT extract(epoch FROM max(lease_until) - clock_timestamp())::float8 FROM executor.run WHERE runner_id = $1"
HOLDS_NOTHING = "SELECT count(*) = 0 FROM executor.run WHERE runner_id = $1 AND state = 'LEASED'"
FEW_WAIT = "SELECT count(*) < $2 FROM executor.run WHERE state = 'READY' AND pool = $1"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What does not hold; how many runs there were, and how often the reports that were late were answered what."""

    problems: Sequence[str]
    runs: int
    answers: Counter[str]


async def freeze_again_and_again(lab: Lab, *, stops: int, seed: int) -> Outcome:
    """In a lab with SETTINGS. So often a runner is stopped that has reported something; then all work is done."""
    graph, chance = works(POOL, "frozen", milliseconds=20), random.Random(seed)
    execution_ids: list[str] = []
    async with AsyncExitStack() as stack:
        runners = [await _opened(lab, f"frozen{number}", stack) for number in range(RUNNERS)]
        await lab.past_the_quiet_period()
        async with _fed(lab, graph, execution_ids):
            for number in range(stops):
                await _freeze(lab, *runners[number % RUNNERS], partial(_about_their_end, lab, chance))
            await _freeze(lab, *runners[0], partial(_taken_over, lab))
        await lab.all_ended(execution_ids)
        problems = await lab.problems(execution_ids, graph)
    late = [call for _, proxy, _ in runners for call in proxy.carried if call.fate.held is not None]
    answers = Counter(answer for call in late for answered in outcomes(call) for answer in answered)
    return Outcome(problems, len(execution_ids), answers)


async def _opened(lab: Lab, name: str, stack: AsyncExitStack) -> tuple[str, CallProxy, RunnerProcess]:
    proxy = await stack.enter_async_context(CallProxy(lab.executor))
    arguments = ("--id", name, "--concurrency", str(CONCURRENCY))
    runner = lab.runner(POOL, *arguments, name=name, executor=proxy.address)
    return name, proxy, await stack.enter_async_context(runner)


async def _freeze(
    lab: Lab, name: str, proxy: CallProxy, runner: RunnerProcess, until: Callable[[str], Awaitable[None]]
) -> None:
    """When it has reported something, `until` something has become of its leases. The report arrives then."""
    held = asyncio.Event()
    proxy.judge = in_turn("ReportRuns", Fate(held=held))
    await until_true(lambda: any(call.fate.held is held for call in proxy.carried), f"{name} reports", 60)
    runner.signal(signal.SIGSTOP)
    await until(name)
    held.set()
    runner.signal(signal.SIGCONT)


async def _about_their_end(lab: Lab, chance: random.Random, name: str) -> None:
    left = await lab.sql.fetchval(LASTS, name)
    await asyncio.sleep(max(0.0, (left or 0.0) + chance.uniform(-AROUND, AROUND)))


async def _taken_over(lab: Lab, name: str) -> None:
    """So that one report at least is too late, however late the reaper was for the others."""
    await eventually(lambda: lab.sql.fetchval(HOLDS_NOTHING, name), f"the leases of {name} have ended", 60)


@asynccontextmanager
async def _fed(lab: Lab, graph: Graph, execution_ids: list[str]) -> AsyncIterator[None]:
    """There is always more to do than runners have room for, within the block."""
    workflow_id = (await lab.client.graphs.save(graph)).workflow.id
    sql = await asyncpg.connect(lab.rooms.database_url)

    async def feed() -> None:
        while True:
            started = await lab.client.executions.start_many([Start(workflow_id)] * AHEAD)
            execution_ids.extend(execution.id for execution in started)
            await eventually(lambda: sql.fetchval(FEW_WAIT, POOL, AHEAD // 2), "runs are taken")

    feeding = asyncio.create_task(feed())
    try:
        yield
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        sql.terminate()
