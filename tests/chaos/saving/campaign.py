"""Strikes at saves, one after the other, while others read and write; and what came of them."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from tests.chaos.saving.checks import check
from tests.chaos.saving.graphs import Kind
from tests.chaos.saving.house import FIRST, GONE, House, Replica, connected
from tests.chaos.saving.ledger import Answer, Ledger, Sent
from tests.chaos.saving.proxy import Phase, Strike
from tests.chaos.saving.reading import Reader, read_rows
from tests.chaos.saving.writing import Writer, current_graph
from valkyr.api.graph.v1 import graph_pb2 as pb

WORKFLOWS = 6
"""Those that are saved anew, and read most, are the youngest."""
RIVAL_PAUSE = 0.3
TRIES = 20
AUTHOR = "SELECT principal_name FROM graph_store.audit_event WHERE message = $1"


class Victim(StrEnum):
    """Who dies: the graph store, PostgreSQL with all its processes, one of these, or only the connection to it."""

    GRAPH_STORE = "graph store"
    POSTGRES = "PostgreSQL"
    BACKEND = "session of PostgreSQL"
    CONNECTION = "connection"


DATABASES = (Victim.POSTGRES, Victim.BACKEND)


@dataclass(frozen=True, slots=True)
class Point:
    """A statement of a save of one kind, and what befalls it."""

    kind: Kind
    statement: str
    phase: Phase
    victim: Victim


@dataclass(slots=True)
class Tally:
    """`struck` by victim, `places` by kind and statement. `lost`: saves that were committed, and their answers lost;
    `undone`: those of which nothing was left; `missed`: the save ended, if only by a conflict, before the point."""

    struck: Counter[Victim] = field(default_factory=Counter)
    places: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    lost: int = 0
    undone: int = 0
    missed: int = 0


class Campaign:
    """Made by `open_campaign`."""

    def __init__(self, house: House, seed: int) -> None:
        self.house = house
        self.ledger = Ledger()
        self.tally = Tally()
        self.statements: dict[Kind, list[str]] = {}
        self._chance = random.Random(seed)
        self._victims = itertools.cycle(house.victims)
        numbers = itertools.count(1)
        self._writer = Writer(self.ledger, numbers, house.replicas)
        self._rival = Writer(self.ledger, numbers, [house.survivor])
        self._workflows: list[str] = []
        self._stopping = asyncio.Event()

    async def calibrate(self) -> None:
        """Saves of every kind, undisturbed: which statements they take."""
        for kind in Kind:
            replica = next(self._victims)
            sent, request = await self._writer.prepare(kind, self._a_workflow(kind))
            strike = Strike(sent.request_id)
            await self._struck(replica, strike, sent, request)
            if sent.answer is not Answer.SAVED:
                raise AssertionError(f"a save that {kind} was not answered")
            self.statements[kind] = strike.statements[1:]
            self._note_workflow(sent)

    def points(self, victims: Sequence[Victim] = tuple(Victim)) -> list[Point]:
        """All that there are, in an order that the seed decides."""
        places = [(kind, statement) for kind, each in self.statements.items() for statement in each]
        points = [Point(*place, phase, victim) for place in places for phase in Phase for victim in victims]
        self._chance.shuffle(points)
        return points

    async def strike(self, point: Point) -> bool:
        """Whether the point was reached. Everything is up again, and the save is answered, when this returns."""
        replica = next(self._victims)
        if replica.starting is not None:
            await replica.healthy()
        await current_graph(self._workflows[-1], [replica])  # its connections are those to the PostgreSQL of today
        sent, request = await self._writer.prepare(point.kind, self._a_workflow(point.kind))
        strike = Strike(sent.request_id, point.statement, point.phase, self._act(point.victim, replica))
        await self._struck(replica, strike, sent, request)
        if strike.struck:
            await self._heal(point, replica)
        else:
            self.tally.missed += 1
        if sent.answer is not Answer.REFUSED:
            await self._writer.repeat(sent, request)
        if strike.struck:
            await self._note(point, sent)
        self._note_workflow(sent)
        return strike.struck

    async def strike_each(self, points: Sequence[Point], tell: Callable[[str], None] = lambda _: None) -> None:
        """Every point, again where it was missed; up to the first problem, or until it is told to stop."""
        for position, point in enumerate(points, 1):
            for _ in range(TRIES):
                if await self.strike(point):
                    break
            else:
                self.ledger.problem(f"{point} is never reached")
            if self.ledger.problems or self._stopping.is_set():
                return
            if position % 100 == 0:
                tell(f"{position} of {len(points)}: {self.summary()}")

    def stop(self) -> None:
        """Whoever saves ends with the save that he is at."""
        self._stopping.set()

    async def finish(self) -> None:
        """Everything is held against the ledger."""
        async with connected(self.house.url) as connection:
            await check(connection, self.ledger)
            for workflow_id in self.ledger.floors:
                await read_rows(connection, self.ledger, workflow_id)

    def summary(self) -> str:
        tally, ledger = self.tally, self.ledger
        saved = sum(sent.answer is Answer.SAVED for sent in ledger.sent)
        refused = sum(sent.answer is Answer.REFUSED for sent in ledger.sent)
        struck = ", ".join(f"{victim} {tally.struck[victim]}" for victim in Victim)
        return (
            f"struck: {struck}; {tally.lost} answers of committed saves were lost, {tally.undone} saves undone,"
            f" {tally.missed} came too late; {saved} saves answered, {refused} refused; {ledger.reads} reads,"
            f" {ledger.unavailable} unavailable; {len(ledger.problems)} problems"
        )

    async def rival(self) -> None:
        """Saves the same workflows, beside what is struck."""
        while not self._stopping.is_set():
            if self._workflows:
                await self._rival.save(Kind.CHANGE, self._chance.choice(self._workflows))
            await asyncio.sleep(RIVAL_PAUSE)

    async def read_rows(self) -> None:
        """Again and again, until cancelled; away while PostgreSQL is."""
        while True:
            try:
                async with connected(self.house.url) as connection:
                    while True:
                        for workflow_id in self._workflows:
                            await read_rows(connection, self.ledger, workflow_id)
                        await asyncio.sleep(RIVAL_PAUSE)
            except GONE:
                await asyncio.sleep(RIVAL_PAUSE)

    async def _struck(self, replica: Replica, strike: Strike, sent: Sent, request: pb.SaveGraphRequest) -> None:
        """The first try, under the strike; what is repeated is not struck."""
        assert replica.proxy is not None
        replica.proxy.strike = strike
        await self._writer.first_try(replica, sent, request)
        replica.proxy.strike = None

    def _act(self, victim: Victim, replica: Replica) -> Callable[[], None]:
        match victim:
            case Victim.GRAPH_STORE:
                return replica.kill
            case Victim.POSTGRES:
                return self.house.kill_postgres
            case Victim.BACKEND:
                return self.house.kill_backend
            case Victim.CONNECTION:
                return lambda: None  # the proxy cuts what is struck

    async def _heal(self, point: Point, replica: Replica) -> None:
        if point.victim is Victim.GRAPH_STORE:
            replica.revive()
        if point.victim is Victim.POSTGRES:
            await self.house.restart_postgres()
        if point.victim is Victim.BACKEND:
            await self.house.postgres_recovered()

    async def _note(self, point: Point, sent: Sent) -> None:
        """Whether the first try was committed must be what PostgreSQL was told."""
        self.tally.struck[point.victim] += 1
        self.tally.places[point.kind, point.statement] += 1
        async with connected(self.house.url) as connection:
            author = await connection.fetchval(AUTHOR, sent.request_id)
        if author is None:
            return  # it changed nothing, or was refused
        told_to_commit = point.statement.startswith("COMMIT") and point.phase is not Phase.BEFORE
        may_be_either = told_to_commit and point.phase is Phase.SENT and point.victim in DATABASES
        if (author == FIRST) != told_to_commit and not may_be_either:
            self.ledger.problem(f"{point}: {sent.request_id} was stored by the try {author!r}")
        self.tally.lost += author == FIRST
        self.tally.undone += author != FIRST

    def _a_workflow(self, kind: Kind) -> str:
        return "" if kind.creates else self._chance.choice(self._workflows)

    def _note_workflow(self, sent: Sent) -> None:
        if sent.kind.creates and sent.answer is Answer.SAVED:
            self._workflows = [*self._workflows, sent.workflow_id][-WORKFLOWS:]


@asynccontextmanager
async def open_campaign(house: House, seed: int) -> AsyncIterator[Campaign]:
    """Calibrated, with readers and a rival at work; at the end of the block all is checked."""
    campaign = Campaign(house, seed)
    await campaign.calibrate()
    readers = [Reader(campaign.ledger, replica, seed + number).run() for number, replica in enumerate(house.replicas)]
    async with asyncio.TaskGroup() as group:  # a reader that fails ends all
        reading = [group.create_task(work) for work in (*readers, campaign.read_rows())]
        rival = group.create_task(campaign.rival())
        yield campaign
        campaign.stop()
        await rival
        for task in reading:
            task.cancel()
    await campaign.finish()
