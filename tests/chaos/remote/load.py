"""Full load for a time, half of it with the processors starved: more is always waiting than three runners take, and
some of it takes longer than a lease lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from uuid import UUID

from tests.builders import a_graph
from tests.chaos.remote import live
from tests.chaos.remote.findings import Load
from tests.chaos.remote.house import House, starving
from tests.chaos.rooms import until_answered
from tests.chaos.runner_processes import RunnerProcess
from tests.executor_stack import eventually
from valkyr.client.executions import Start
from valkyr.graph.model import Graph

PART = POOL = "load"
RUNNERS = 3
CONCURRENCY = 40
BATCH = 100
BACKLOG = 600
MILLISECONDS = 10
LINGERING = 12
LEASES = 2.5
"""So many runs at a time take so many times as long as a lease lasts: nothing but heartbeats keeps them."""
TELL_EVERY = 10.0
SETTLED_WITHIN = 180.0
UNSETTLED = """
SELECT count(*) FROM executor.workflow_execution
WHERE state IN ('PENDING', 'RUNNING', 'PAUSED') AND workflow_id = $1
"""

Tell = Callable[[str], None]


async def loaded(house: House, *, seconds: float, lease: float, heartbeat: float, tell: Tell) -> Load:
    """The first half undisturbed, the second half starved."""
    await house.lease(lease, heartbeat)
    brief, lingering = [await house.save(_works(time)) for time in (MILLISECONDS, int(lease * LEASES * 1000))]
    driver = _Driver(house, brief, lingering, tell)
    async with _runners(house) as runners:
        began = monotonic()
        await driver.until(began + seconds / 2, "")
        async with starving():
            await driver.until(began + seconds, "starved, ")
        await driver.settled()
        took = monotonic() - began
        gone = sum(runner.process.returncode is not None for runner in runners)
    fenced = sum(len(runner.said("lease.let_go")) for runner in runners)
    return Load(
        lease,
        heartbeat,
        seconds,
        seconds / 2,
        driver.acknowledged,
        driver.acknowledged / took,
        fenced,
        gone,
        await house.recorded([brief, lingering]),
        await asyncio.to_thread(live.read, house.part(PART) / "ledger", live.Struck()),
    )


def _works(milliseconds: int) -> Graph:
    modules = {"works": ("EffectModule", {"milliseconds": milliseconds})}
    return a_graph("works", modules=modules, nodes={"works": {"pool": POOL}})


@asynccontextmanager
async def _runners(house: House) -> AsyncIterator[Sequence[RunnerProcess]]:
    async with AsyncExitStack() as stack:
        runners = []
        for number in range(RUNNERS):
            runners.append(await house.runner(PART, POOL, f"runner-{number}", concurrency=CONCURRENCY))
            stack.push_async_callback(runners[-1].kill)
        yield runners


@dataclass(slots=True)
class _Driver:
    """Starts executions as long as fewer than so many are unsettled."""

    house: House
    brief: str
    lingering: str
    tell: Tell
    acknowledged: int = 0

    async def until(self, end: float, how: str) -> None:
        """`how`: what a line of the progress says of the machine."""
        told, before = monotonic(), self.acknowledged
        while (now := monotonic()) < end:
            unsettled, lingering = await self._unsettled(self.brief), await self._unsettled(self.lingering)
            if now - told >= TELL_EVERY:
                rate = (self.acknowledged - before) / (now - told)
                self.tell(f"load: {how}{self.acknowledged} started, {unsettled} unsettled, {rate:.0f} a second")
                told, before = now, self.acknowledged
            if lingering < LINGERING:
                await self._start(self.lingering, LINGERING - lingering)
            if unsettled < BACKLOG:
                await self._start(self.brief, BATCH)

    async def settled(self) -> None:
        """Or not, when time is up: what is left says the summary."""

        async def none() -> bool:
            return await self._unsettled(self.brief) + await self._unsettled(self.lingering) == 0

        with suppress(TimeoutError):
            await eventually(none, "all is settled", SETTLED_WITHIN)

    async def _unsettled(self, workflow: str) -> int:
        found: int = await self.house.sql.fetchval(UNSETTLED, UUID(workflow))
        return found

    async def _start(self, workflow: str, number: int) -> None:
        first = self.acknowledged
        starts = [Start(workflow, request_id=f"load {first + place}") for place in range(number)]
        self.acknowledged += len(await until_answered(lambda: self.house.client.executions.start_many(starts)))
