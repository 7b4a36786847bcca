"""Runners and executors for minutes, over a network that goes wrong again and again in every way, and the work they do.

`python -m tests.chaos.network_campaign --minutes 10`
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

from tests.chaos.call_proxy import LOST, PASS, TWICE, UNANSWERED, CallProxy, Fate, at_random
from tests.chaos.proxy import Proxy
from tests.chaos.rooms import Postgres, until_answered
from tests.chaos.runner_lab import Lab, lease_settings, open_lab_at, overlaps, works
from tests.chaos.runner_processes import RunnerProcess, launched
from valkyr.client.executions import Start

POOL, RUNNERS, AHEAD, FULL = "network", 3, 50, 500
EXECUTORS = ("executor", "executor_two")
LEASE, HEARTBEAT = timedelta(seconds=15), timedelta(seconds=1)
MAX_LOST_LEASES = 1000
HEALED, STOPS_WITHIN, TOLD_EVERY = 120.0, 60.0, 30.0
FATES = (LOST, UNANSWERED, TWICE, Fate(before=1.0), Fate(after=2.0), Fate(again_after=5.0), Fate(2, before=4.0))
OPEN = "SELECT count(*) FROM executor.workflow_execution WHERE finished_at IS NULL"


@dataclass(slots=True)
class Outcome:
    """What does not hold, and what was brought about."""

    problems: list[str] = field(default_factory=list)
    executions: int = 0
    lost_leases: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        faults = ", ".join(f"{number} {name}" for name, number in sorted(self.faults.items()))
        return f"{self.executions} executions, {self.lost_leases} leases lost, {len(self.problems)} problems; {faults}"


@dataclass(slots=True)
class _Way:
    """From one runner to the executors: bytes, then calls."""

    name: str
    proxy: Proxy
    calls: CallProxy
    runner: RunnerProcess


async def run(folder: Path, *, minutes: float, seed: int, say: Callable[[str], None] = print) -> Outcome:
    """From the start of everything to the checks after all has been healed. `say` gets a line every half minute."""
    settings = lease_settings(LEASE, HEARTBEAT, max_lost_leases=MAX_LOST_LEASES)
    async with (
        Postgres(folder / "database") as postgres,
        open_lab_at(
            postgres.url, folder, "graph_store", *EXECUTORS, max_lost_leases=MAX_LOST_LEASES, **settings
        ) as lab,
    ):
        return await _Campaign(lab, random.Random(seed), say).run(minutes * 60)


class _Campaign:
    def __init__(self, lab: Lab, chance: random.Random, say: Callable[[str], None]) -> None:
        self._lab = lab
        self._chance = chance
        self._say = say
        self._outcome = Outcome()
        self._ways: list[_Way] = []
        self._gone: dict[int, float] = {}
        self._execution_ids: list[str] = []
        self._faults: Mapping[str, Callable[[], Awaitable[None]]] = {
            "cuts": self._cut,
            "dead connections": self._strand,
            "slow ways": self._slow,
            "hardly read answers": self._throttle,
            "calls gone wrong": self._trouble_calls,
            "executors killed": self._kill_executor,
            "executors stopped": self._stop_executor,
            "executors frozen": self._freeze_executor,
            "runners killed": self._kill_runner,
        }

    async def run(self, seconds: float) -> Outcome:
        graph = works(POOL, "network", milliseconds=50)
        workflow_id = (await self._lab.client.graphs.save(graph)).workflow.id
        async with AsyncExitStack() as stack:
            await self._open_ways(stack)
            feeding = asyncio.create_task(self._feed(workflow_id))
            try:
                await self._trouble(seconds)
            finally:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)
            await self._heal()
            self._outcome.executions = len(self._execution_ids)
            try:
                await self._lab.all_ended(self._execution_ids, HEALED)
            except TimeoutError as error:
                self._outcome.problems.append(f"C13: {error}")
        self._outcome.problems += await self._lab.problems(self._execution_ids, graph)
        rows = await self._lab.rows(*self._execution_ids)
        self._outcome.lost_leases = sum(row["lost_leases"] for row in rows)
        alive = overlaps(self._lab.effects, gone=self._gone)
        self._outcome.problems += [f"{key}: two attempts lived for {longest:.3f} s" for key, longest in alive.items()]
        return self._outcome

    async def _open_ways(self, stack: AsyncExitStack) -> None:
        several = "ipv4:" + ",".join(self._lab.rooms.addresses[name] for name in EXECUTORS)
        for number in range(RUNNERS):
            calls = await stack.enter_async_context(CallProxy(several))
            proxy = await stack.enter_async_context(Proxy(calls.address))
            way = _Way(f"runner{number}", proxy, calls, await self._launch(f"runner{number}", proxy))
            stack.push_async_callback(self._end, way)
            self._ways.append(way)

    async def _launch(self, name: str, proxy: Proxy) -> RunnerProcess:
        return await launched(self._lab.folder, proxy.address, "--pool", POOL, "--id", name, name=name)

    async def _end(self, way: _Way) -> None:
        await way.runner.kill()

    async def _feed(self, workflow_id: str) -> None:
        """As many as there is room for. One start may find its executor away: it is repeated, and counts once."""
        while True:
            if await self._lab.sql.fetchval(OPEN) < FULL:
                starts = [Start(workflow_id, request_id=str(uuid4())) for _ in range(AHEAD)]
                started = await until_answered(partial(self._lab.client.executions.start_many, starts), patience=HEALED)
                self._execution_ids.extend(execution.id for execution in started)
            await asyncio.sleep(0.1)

    async def _trouble(self, seconds: float) -> None:
        """One fault after the other, and a while without between them."""
        began = told = time.monotonic()
        while (now := time.monotonic()) - began < seconds:
            name = self._chance.choice(list(self._faults))
            await self._faults[name]()
            self._outcome.faults[name] += 1
            await asyncio.sleep(self._chance.uniform(0, 3))
            if now - told > TOLD_EVERY:
                told = now
                self._say(f"{now - began:.0f} s: {len(self._execution_ids)} executions started, {self._outcome.faults}")

    async def _heal(self) -> None:
        for way in self._ways:
            way.calls.judge = lambda _method, _request: PASS
            way.proxy.latency, way.proxy.answers_per_second = 0.0, None
            await self._launch_again(way)
        for name in EXECUTORS:
            self._signal(name, signal.SIGCONT)
        await self._lab.rooms.healthy(*EXECUTORS)

    def _a_way(self) -> _Way:
        return self._chance.choice(self._ways)

    async def _a_while(self) -> None:
        await asyncio.sleep(self._chance.uniform(0.5, 8))

    async def _cut(self) -> None:
        for _ in range(self._chance.randint(1, 20)):
            await self._a_way().proxy.cut()
            await asyncio.sleep(self._chance.uniform(0, 0.3))

    async def _strand(self) -> None:
        self._a_way().proxy.strand()

    async def _slow(self) -> None:
        way = self._a_way()
        way.proxy.latency = self._chance.uniform(0.05, 0.9)
        await self._a_while()
        way.proxy.latency = 0.0

    async def _throttle(self) -> None:
        way = self._a_way()
        way.proxy.answers_per_second = self._chance.choice((1, 100, 10_000))
        await self._a_while()
        way.proxy.answers_per_second = None

    async def _trouble_calls(self) -> None:
        way = self._a_way()
        way.calls.judge = at_random(self._chance, FATES)
        await self._a_while()
        way.calls.judge = lambda _method, _request: PASS

    async def _kill_executor(self) -> None:
        name = self._chance.choice(EXECUTORS)
        await self._lab.rooms.kill(name)
        await self._a_while()
        await self._lab.rooms.start(name)

    async def _stop_executor(self) -> None:
        name = self._chance.choice(EXECUTORS)
        if not await self._lab.rooms.services[name].stop(STOPS_WITHIN):
            self._outcome.problems.append(f"{name} had to be killed {STOPS_WITHIN:.0f} s after SIGTERM")
        await self._lab.rooms.start(name)

    async def _freeze_executor(self) -> None:
        name = self._chance.choice(EXECUTORS)
        self._signal(name, signal.SIGSTOP)
        await self._a_while()
        self._signal(name, signal.SIGCONT)

    async def _kill_runner(self) -> None:
        way = self._a_way()
        await way.runner.kill()
        self._gone[way.runner.pid] = time.monotonic()
        await self._launch_again(way)

    async def _launch_again(self, way: _Way) -> None:
        """Under the same id, where it is not there: it may have ended by itself, too."""
        if way.runner.process.returncode is not None:
            way.runner = await self._launch(way.name, way.proxy)

    def _signal(self, name: str, number: signal.Signals) -> None:
        process = self._lab.rooms.services[name].process
        if process is not None and process.returncode is None:
            process.send_signal(number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what happens and what came of it; 1 if something does not hold."""
    parser = argparse.ArgumentParser("python -m tests.chaos.network_campaign", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="of faults (default 10)")
    parser.add_argument("--seed", type=int, default=1, help="of the faults (default 1)")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="valkyr-network-") as folder:
        outcome = asyncio.run(run(Path(folder), minutes=chosen.minutes, seed=chosen.seed))
    print(outcome)
    for problem in outcome.problems[:50]:
        print(f"  {problem}")
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
