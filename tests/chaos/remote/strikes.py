"""Runners that are killed and frozen one after the other, and how soon another has begun what they held."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic

from tests.builders import a_graph
from tests.chaos.remote import live
from tests.chaos.remote.findings import Strikes, quantile
from tests.chaos.remote.house import House
from tests.chaos.runner_processes import RunnerProcess
from tests.effect_modules import Effect, effects
from tests.executor_stack import until_true
from valkyr.graph.model import Graph

LANES = 3
NODES = ("one", "two", "three")
FREEZE_EVERY = 5
LATER = 2_000
BALLAST = 20
FOR_EVER = 10_000_000
PATIENCE = 90.0
UNTOUCHED = (
    "SELECT count(*) FROM executor.run r WHERE r.execution_id = $1::text::uuid AND (r.epoch, r.attempt) <> (1, 1)"
)

Tell = Callable[[str], None]


async def struck(house: House, *, kills: int, lease: float, heartbeat: float, seed: int, tell: Tell) -> Strikes:
    """Lanes go on beside each other, each a pool of its own. Some runs are held by a runner that nothing happens to:
    where more than half of all leases end at once, an executor waits, as it may be to blame itself."""
    await house.lease(lease, heartbeat)
    tally = _Tally(kills, tell)
    async with AsyncExitStack() as stack:
        ballast = await house.runner("ballast", "ballast", "ballast", concurrency=BALLAST)
        stack.push_async_callback(ballast.kill)
        names = [f"held{number}" for number in range(BALLAST)]
        held = await house.client.executions.start(await house.save(_works("ballast", names, FOR_EVER, FOR_EVER)))
        await _begun(house, "ballast", 1, BALLAST)
        lanes = [
            _Lane(house, f"lane{number}", random.Random(seed + number), tally, heartbeat) for number in range(LANES)
        ]
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(lane.run())
        bystanders = await house.sql.fetchval(UNTOUCHED, held.id)
        await house.client.executions.cancel(held.id)
    lived = [await asyncio.to_thread(live.read, house.part(lane.name) / "ledger", lane.struck) for lane in lanes]
    return Strikes(
        lease,
        heartbeat,
        tally.kills,
        tally.freezes,
        (tally.kills + tally.freezes) * len(NODES),
        tally.started,
        bystanders,
        tally.stuck,
        tally.after_kills,
        tally.after_freezes,
        await house.recorded([lane.workflow for lane in lanes]),
        live.Lived(
            sum(one.begun for one in lived),
            sum(one.done for one in lived),
            sum(one.keys_done for one in lived),
            sum(one.twice for one in lived),
            [overlap for one in lived for overlap in one.overlaps],
        ),
    )


@dataclass(slots=True)
class _Tally:
    """Of all lanes: so many kills are wanted, and beside them some freezes."""

    wanted: int
    tell: Tell
    begun: int = 0
    kills: int = 0
    freezes: int = 0
    started: int = 0
    stuck: list[str] = field(default_factory=list)
    after_kills: list[float] = field(default_factory=list)
    after_freezes: list[float] = field(default_factory=list)

    def next_is_a_freeze(self) -> bool | None:
        """None when there are enough."""
        if self.begun - self.begun // FREEZE_EVERY >= self.wanted:
            return None
        self.begun += 1
        return self.begun % FREEZE_EVERY == 0

    def note(self, took: Sequence[float], *, frozen: bool) -> None:
        (self.after_freezes if frozen else self.after_kills).extend(took)
        if frozen:
            self.freezes += 1
        else:
            self.kills += 1
        if self.kills % 10 == 0 and not frozen:
            worst, late = max(self.after_kills), quantile(self.after_kills, 0.99)
            self.tell(f"strikes: {self.kills} kills, taken over within {late:.2f} s at p99, {worst:.2f} s at most")


class _Lane:
    """One runner holds runs, another waits in the same pool; the first is struck, the second takes over, and so on."""

    def __init__(self, house: House, name: str, chance: random.Random, tally: _Tally, heartbeat: float) -> None:
        self.name = name
        self.workflow = ""
        self.struck = live.Struck()
        self._house = house
        self._chance = chance
        self._tally = tally
        self._heartbeat = heartbeat
        self._runners = 0

    async def run(self) -> None:
        self.workflow = await self._house.save(_works(self.name, NODES, FOR_EVER, LATER))
        async with AsyncExitStack() as stack:
            holder = await self._runner(stack)
            while (frozen := self._tally.next_is_a_freeze()) is not None:
                try:
                    holder = await self._round(stack, holder, frozen=frozen)
                except TimeoutError as error:
                    self._tally.stuck.append(str(error))
                    return

    async def _round(self, stack: AsyncExitStack, holder: RunnerProcess, *, frozen: bool) -> RunnerProcess:
        before = len(self._effects("BEGUN", 2))
        execution = await self._house.client.executions.start(self.workflow)
        self._tally.started += 1
        await self._until(lambda: len(self._of(holder, "BEGUN", 1)) == len(NODES), "it holds its runs")
        heir = await self._runner(stack)
        await asyncio.sleep(self._chance.uniform(0, self._heartbeat))  # strikes come at any time between two heartbeats
        at = monotonic()
        if frozen:
            holder.signal(signal.SIGSTOP)
        else:
            holder.signal(signal.SIGKILL)
            self.struck.killed[holder.pid] = at
        await self._until(lambda: len(self._effects("BEGUN", 2)) == before + len(NODES), "all is taken over")
        self._tally.note([effect.at - at for effect in self._effects("BEGUN", 2)[before:]], frozen=frozen)
        if frozen:
            await self._thaw(holder, at)
        await self._house.client.executions.wait(execution.id, timeout=timedelta(seconds=PATIENCE))
        return heir

    async def _thaw(self, holder: RunnerProcess, since: float) -> None:
        """While others run what it held: it has to notice by itself."""
        self.struck.frozen[holder.pid] = (since, monotonic())
        holder.signal(signal.SIGCONT)
        ends = ("STOPPED", "DONE")
        await self._until(
            lambda: sum(len(self._of(holder, what, 1)) for what in ends) == len(NODES), "it stops what it held"
        )
        await holder.kill()

    async def _runner(self, stack: AsyncExitStack) -> RunnerProcess:
        self._runners += 1
        runner = await self._house.runner(self.name, self.name, f"runner-{self._runners}", concurrency=len(NODES))
        stack.push_async_callback(runner.kill)
        return runner

    def _effects(self, what: str, attempt: int) -> list[Effect]:
        found = effects(self._house.part(self.name) / "ledger")
        return [effect for effect in found if (effect.what, effect.attempt) == (what, attempt)]

    def _of(self, runner: RunnerProcess, what: str, attempt: int) -> list[Effect]:
        return [effect for effect in self._effects(what, attempt) if effect.pid == runner.pid]

    async def _until(self, condition: Callable[[], object], what: str) -> None:
        await until_true(condition, f"{self.name}: {what}", PATIENCE)


def _works(pool: str, names: Sequence[str], milliseconds: int, later: int) -> Graph:
    config = {"milliseconds": milliseconds, "later_milliseconds": later}
    return a_graph(
        ", ".join(names),
        modules=dict.fromkeys(names, ("EffectModule", config)),
        nodes={name: {"pool": pool} for name in names},
    )


async def _begun(house: House, part: str, attempt: int, number: int) -> None:
    def enough() -> bool:
        found = effects(house.part(part) / "ledger")
        return sum((effect.what, effect.attempt) == ("BEGUN", attempt) for effect in found) == number

    await until_true(enough, f"{part}: {number} runs have begun", PATIENCE)
