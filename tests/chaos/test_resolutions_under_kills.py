"""I22: operators settle letters, some of them the same ones, while DLQ and executor die under their calls."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from tests import run_history
from tests.builders import a_graph
from tests.chaos import ledger
from tests.chaos.rooms import Rooms, open_rooms, until_answered
from tests.executor_stack import eventually
from valkyr.client import Client
from valkyr.client.executions import Start
from valkyr.client.failures import DeadLetter
from valkyr.errors import DeadLetterResolved, QuarantineResolved

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

LETTERS = 160
SEED = 7
KILLS = ("dlq", "executor", "dlq", "executor")
ONCE = a_graph("a -> b", modules={"a": ("FailModule", {"type": "PERMANENT", "times": 1})})
"""It fails for good in its first attempt, and succeeds in any other."""
RESOLVED = "SELECT count(*) FROM executor.run_quarantine WHERE resolution <> 'PENDING'"
MOVING = """
SELECT (SELECT count(*) FROM executor.workflow_execution WHERE finished_at IS NULL)
    + (SELECT count(*) FROM executor.outbox) + (SELECT count(*) FROM dlq.resolution_intent WHERE state = 'OPEN')
"""
LEFT_TWICE = """
SELECT run_id FROM history.event WHERE was = 'QUARANTINED' GROUP BY run_id HAVING count(*) > 1
"""


@dataclass(frozen=True, slots=True)
class Demand:
    """One operator wants one letter settled in one way: by the DLQ, or at the executor itself."""

    letter: DeadLetter
    operator: str
    way: str
    directly: bool

    @property
    def request_id(self) -> str:
        return f"{self.operator} {self.way} {self.letter.id}"


@dataclass(frozen=True, slots=True)
class Told:
    """What an operator was told in the end: how it was settled, and by whom."""

    demand: Demand
    won: bool
    resolution: str
    by: str


def draw_demands(letters: Sequence[DeadLetter]) -> list[Demand]:
    """Half of the letters are wanted by one operator, the others by two or three, in any order."""
    chance = random.Random(SEED)
    ways = ("REQUEUED", "FIXED", "DISCARDED")
    demands = []
    for letter in letters:
        operators = chance.choice((["ann"], ["ann"], ["ann", "bob"], ["ann", "bob", "cy"]))
        demands += [Demand(letter, name, chance.choice(ways), directly=name == "cy") for name in operators]
    chance.shuffle(demands)
    return demands


async def settle(client: Client, demand: Demand) -> Told:
    """Asks, again after every answer that leaves it open, until it is known who settled the letter."""
    while True:
        try:
            await until_answered(lambda: _ask(client, demand))
        except (DeadLetterResolved, QuarantineResolved) as lost:
            said = lost.details.metadata
            if "outstanding" not in said:
                return Told(demand, False, said["resolution"], said["resolvedBy"])
            await asyncio.sleep(0.1)
        else:
            return Told(demand, True, demand.way, demand.operator)


async def _ask(client: Client, demand: Demand) -> object:
    letter, request_id = demand.letter, demand.request_id
    if not demand.directly:
        match demand.way:
            case "REQUEUED":
                return await client.dead_letters.requeue(letter.id, request_id=request_id)
            case "FIXED":
                return await client.dead_letters.fix(letter.id, outputs={"by": demand.operator}, request_id=request_id)
            case _:
                return await client.dead_letters.discard(letter.id, reason="given up", request_id=request_id)
    run = letter.execution_id, letter.run_id
    number = letter.quarantine_number
    match demand.way:
        case "REQUEUED":
            return await client.runs.requeue(*run, quarantine_number=number, request_id=request_id)
        case "FIXED":
            return await client.runs.complete(*run, quarantine_number=number, outputs={}, request_id=request_id)
        case _:
            return await client.runs.discard(*run, quarantine_number=number, reason="no", request_id=request_id)


async def quarantined(client: Client, sql: asyncpg.Connection) -> list[DeadLetter]:
    workflow_id = (await client.graphs.save(ONCE)).workflow.id
    await client.executions.start_many([Start(workflow_id) for _ in range(LETTERS)])

    async def all_told() -> bool:
        return bool(await sql.fetchval("SELECT count(*) FROM dlq.dead_letter_queue") == LETTERS)

    await eventually(all_told, "every run has failed, and has its letter", 60)
    return list(await client.dead_letters.list().all())


async def kill_meanwhile(rooms: Rooms, sql: asyncpg.Connection) -> None:
    """Each time that another share is settled."""
    for number, victim in enumerate(KILLS, 1):
        share = LETTERS * number // (len(KILLS) + 1)

        async def enough(share: int = share) -> bool:
            return bool(await sql.fetchval(RESOLVED) >= share)

        await eventually(enough, f"{share} quarantines are resolved", 60)
        await rooms.kill(victim)
        await rooms.start(victim)


async def in_small_crowds(clients: dict[str, Client], demands: Sequence[Demand]) -> list[Told]:
    """Twelve calls under way at any time, so that kills hit some of them."""
    crowd = asyncio.Semaphore(12)

    async def one(demand: Demand) -> Told:
        async with crowd:
            return await settle(clients[demand.operator], demand)

    return await asyncio.gather(*(one(demand) for demand in demands))


def contradictions(told: Sequence[Told], rows: Sequence[asyncpg.Record]) -> list[str]:
    """Where an operator was told something else than what is stored."""
    stored = {str(row["id"]): (row["resolution"], row["resolved_by_name"]) for row in rows}
    winners: dict[str, int] = defaultdict(int)
    found = []
    for one in told:
        letter = one.demand.letter.id
        winners[letter] += one.won
        if (one.resolution, one.by) != stored[letter]:
            found.append(f"{one.demand.operator} was told {one.resolution} by {one.by}, stored is {stored[letter]}")
    return found + [f"{letter}: {number} winners" for letter, number in winners.items() if number != 1]


async def test_i22_each_quarantine_is_resolved_once_while_dlq_and_executor_are_killed(
    migrated_database_url: Callable[..., str], tmp_path: Path
) -> None:
    url = migrated_database_url("graph_store", "executor", "breaker", "dlq")
    async with open_rooms(tmp_path, url) as (rooms, sql):
        await run_history.install(sql)
        await ledger.install(sql)
        async with rooms.client("ann") as ann, rooms.client("bob") as bob, rooms.client("cy") as cy:
            demands = draw_demands(await quarantined(ann, sql))
            told, _ = await asyncio.gather(
                in_small_crowds({"ann": ann, "bob": bob, "cy": cy}, demands), kill_meanwhile(rooms, sql)
            )

        async def nothing_moves() -> bool:
            return bool(await sql.fetchval(MOVING) == 0)

        await eventually(nothing_moves, "no intent hangs, and every execution ends", 90)
        assert await ledger.letter_problems(sql) == []
        rows = await sql.fetch("SELECT id, resolution, resolved_by_name FROM dlq.dead_letter_queue")
        assert contradictions(told, rows) == []
        assert await sql.fetch(LEFT_TWICE) == []
        await assert_executions_ended_as_resolved(sql)
        assert len([one for one in told if not one.won]) > LETTERS / 4


async def assert_executions_ended_as_resolved(sql: asyncpg.Connection) -> None:
    rows = await sql.fetch(
        """SELECT q.resolution, e.state, array_agg(DISTINCT r.state ORDER BY r.state) AS runs, count(DISTINCT e.id)
           FROM executor.run_quarantine q JOIN executor.workflow_execution e ON e.id = q.execution_id
           JOIN executor.run r ON r.execution_id = e.id GROUP BY q.resolution, e.state"""
    )
    assert sum(row["count"] for row in rows) == LETTERS
    assert {(row["resolution"], row["state"], *row["runs"]) for row in rows} == {
        ("REQUEUED", "SUCCESS", "SUCCESS"),
        ("FIXED", "SUCCESS", "SUCCESS"),
        ("DISCARDED", "FAILED", "FAILED", "SKIPPED"),
    }
