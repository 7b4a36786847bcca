"""kill -9 of each service and of PostgreSQL, one after the other, while executions with failing modules run.

`python -m tests.chaos.killing --seeds 100`: the campaign, with other kills at other times for every seed.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import asyncpg

from examples.target_server import TargetServer
from services.breaker.model.policy import Policy
from services.local.rooms import ROOMS
from tests import run_history
from tests.chaos import ledger
from tests.chaos.load import PATH, Load, a_graph_that_fails, draw_cases
from tests.chaos.rooms import Patient, Postgres, Rooms
from tests.executor_stack import eventually

SERVICES = tuple(room.name for room in ROOMS)
POSTGRES, EVERYTHING = "postgres", "everything"
POLICY = Policy(timeout_duration=timedelta(seconds=1))
HEALED = 90.0
"""Seconds in which everything settles once all is up: a quiet period of the reaper, leases given back, back-offs."""
SETTLED = """
SELECT count(*) FROM executor.run WHERE state IN ('SUCCESS', 'FAILED', 'SKIPPED', 'QUARANTINED')
"""
MOVING = """
SELECT (SELECT count(*) FROM executor.workflow_execution WHERE finished_at IS NULL)
    + (SELECT count(*) FROM executor.outbox) + (SELECT count(*) FROM dlq.resolution_intent WHERE state = 'OPEN')
"""


@dataclass(frozen=True, slots=True)
class Kill:
    """Who is killed once so many runs have settled, and how many more settle before it is started again, if they do
    within `away` seconds. After the death of everything `order` is that of the new start."""

    victim: str
    after: int
    more: int
    away: float
    order: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Drawn from its seed alone."""

    seed: int
    kills: Sequence[Kill]
    batch: int
    shop_down: frozenset[int]

    @property
    def executions(self) -> int:
        return self.batch * len(self.kills)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What does not hold, and what the schedule has brought about."""

    problems: Sequence[str]
    lost_leases: int
    letters: int
    trips: int


def draw_schedule(seed: int, *, victims: Sequence[str] = (), batch: int = 40) -> Schedule:
    """Without `victims` everyone once, in any order, and two more, or everything at once; the shop is down during two
    or three kills."""
    chance = random.Random(seed)
    everyone = [*SERVICES, POSTGRES]
    more = chance.choices([*everyone, EVERYTHING, EVERYTHING], k=2)
    chosen = list(victims) or chance.sample(everyone, len(everyone)) + more
    kills = [
        Kill(
            name,
            after=chance.randint(5, batch * 5),
            more=chance.randint(0, 60),
            away=chance.uniform(0, 2),
            order=tuple(chance.sample(everyone, len(everyone))),
        )
        for name in chosen
    ]
    first = chance.randint(0, 2)
    return Schedule(seed, kills, batch, frozenset(range(first, first + chance.randint(2, 3))))


async def run_schedule(schedule: Schedule, folder: Path) -> Outcome:
    """From the start of everything to the checks after its end."""
    async with Postgres(folder / "database") as postgres:
        rooms = Rooms(folder, postgres.url)
        try:
            with TargetServer() as shop:
                await rooms.start(*SERVICES)
                return await _Run(schedule, rooms, postgres, shop).run()
        finally:
            await rooms.stop_all()


class _Run:
    def __init__(self, schedule: Schedule, rooms: Rooms, postgres: Postgres, shop: TargetServer) -> None:
        self._schedule = schedule
        self._rooms = rooms
        self._postgres = postgres
        self._shop = shop
        self._sql = Patient(postgres.url)

    async def run(self) -> Outcome:
        connection = await asyncpg.connect(self._postgres.url)
        await run_history.install(connection)
        await ledger.install(connection)
        await connection.close()
        graph = a_graph_that_fails()
        try:
            async with self._rooms.client() as client:
                saved = await client.graphs.save(graph)
                load = Load(client, saved.workflow.id, graph, self._shop)
                await self._kill_each(load)
                await self._heal()
        finally:
            self._sql.close()
        return await self._outcome(load)

    async def _kill_each(self, load: Load) -> None:
        cases = draw_cases(self._schedule.executions, self._schedule.seed)
        starting = []
        size = self._schedule.batch
        for number, kill in enumerate(self._schedule.kills):
            self._shop.down = {PATH} if number in self._schedule.shop_down else set()
            starting.append(asyncio.create_task(load.start(cases[number * size : (number + 1) * size])))
            await self._kill(kill)
        self._shop.down = set()
        await asyncio.gather(*starting)

    async def _kill(self, kill: Kill) -> None:
        before = await self._settled()
        await self._until_settled(before + kill.after, 3.0)
        if kill.victim == EVERYTHING:
            await asyncio.gather(self._postgres.kill(), self._rooms.kill(*SERVICES))
            for name in kill.order:
                await self._start_again(name)
            return
        if kill.victim == POSTGRES:
            await self._postgres.kill()
        else:
            await self._rooms.kill(kill.victim)
            await self._until_settled(await self._settled() + kill.more, kill.away)
        await self._start_again(kill.victim)

    async def _start_again(self, name: str) -> None:
        """Services are not waited for: they wait for their database."""
        if name == POSTGRES:
            await self._postgres.start_again()
        else:
            await self._rooms.launch(name)

    async def _settled(self) -> int:
        found = await self._sql.value(SETTLED)
        return found if isinstance(found, int) else 0

    async def _until_settled(self, wanted: int, patience: float) -> None:
        """Or until time is up: with the executor or the shop away nothing settles."""

        async def enough() -> bool:
            return await self._settled() >= wanted

        try:
            await eventually(enough, "", patience)
        except TimeoutError:
            return

    async def _heal(self) -> None:
        await self._rooms.healthy(*SERVICES)

        async def nothing_moves() -> bool:
            return await self._sql.value(MOVING) == 0

        try:
            await eventually(nothing_moves, "everything settles, and every letter is told", HEALED)
        except TimeoutError:
            return  # the checks name what has not

    async def _outcome(self, load: Load) -> Outcome:
        sql = await asyncpg.connect(self._postgres.url)
        try:
            problems = await load.problems(sql)
            problems += await ledger.letter_problems(sql)
            problems += await ledger.breaker_problems(sql, POLICY)
            lost = await sql.fetchval("SELECT coalesce(sum(lost_leases), 0) FROM executor.run")
            letters = await sql.fetchval("SELECT count(*) FROM dlq.dead_letter_queue")
            trips = await sql.fetchval("SELECT count(*) FROM breaker.transition WHERE cause = 'FAILURES'")
        finally:
            await sql.close()
        return Outcome(problems, lost, letters, trips)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints one line per seed; 1 at the first that fails, with what does not hold."""
    parser = argparse.ArgumentParser("python -m tests.chaos.killing", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many schedules (default 100)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument("--batch", type=int, default=40, help="executions per kill (default 40)")
    chosen = parser.parse_args(arguments)
    total, began = 0, time.monotonic()
    for seed in range(chosen.first, chosen.first + chosen.seeds):
        schedule = draw_schedule(seed, batch=chosen.batch)
        with tempfile.TemporaryDirectory(prefix="valkyr-kill-") as folder:
            outcome = asyncio.run(run_schedule(schedule, Path(folder)))
            total += schedule.executions
            killed = ", ".join(kill.victim for kill in schedule.kills)
            print(
                f"seed {seed}: {schedule.executions} executions, killed {killed}; {outcome.lost_leases} leases lost,"
                f" {outcome.letters} letters, {outcome.trips} trips, {len(outcome.problems)} problems",
                flush=True,
            )
            for problem in outcome.problems[:20]:
                print(f"  {problem}", flush=True)
            if outcome.problems:
                print(f"again: python -m tests.chaos.killing --first {seed} --seeds 1 --batch {chosen.batch}")
                return 1
    print(f"{chosen.seeds} schedules, {total} executions, nothing lost, in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
