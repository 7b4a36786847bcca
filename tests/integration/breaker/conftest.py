"""Replicas of the breaker on one real PostgreSQL, with a clock that moves only when it is told to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from services.breaker.breakers import Breakers
from services.breaker.model.calls import CallOutcome, Key, PermitAnswer, PermitRequest
from services.breaker.model.machine import Holder, Probe
from services.breaker.model.policy import Policy
from services.breaker.model.states import Answer, Result
from services.breaker.model.views import BreakerView
from services.breaker.outcomes import Outcomes
from services.breaker.permits import Permits
from services.breaker.store import PINNED_PLANNER, Store
from services.breaker.watch import Changes
from services.chassis.database import Database
from tests.postgres import patient

TARGET = "http:api.example.com"
MINUTE = timedelta(minutes=1)
Sql = Callable[..., Awaitable[Sequence[asyncpg.Record]]]


@dataclass(slots=True)
class MovableClock:
    """The time of every replica."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **duration: float) -> None:
        self.now += timedelta(**duration)


@dataclass(slots=True)
class Replica:
    """The use cases of one process, in few words."""

    database: Database
    store: Store
    permits: Permits
    outcomes: Outcomes
    breakers: Breakers
    changes: Changes
    reports: int = 0

    async def report(
        self,
        *results: str,
        target: str = TARGET,
        generation: int = 0,
        permit: UUID | None = None,
        ids: Sequence[str] = (),
        namespace: str = "default",
    ) -> list[Answer]:
        """One call with an outcome per result, F, S or X; their report ids are unique unless given."""
        words = {"F": Result.FAILURE, "S": Result.SUCCESS, "X": Result.EXCLUDED}
        outcomes = []
        for index, result in enumerate(results):
            self.reports += 1
            report_id = ids[index] if ids else f"{id(self)}-{self.reports}:1"
            outcomes.append(CallOutcome(Key(namespace, target), words[result], generation, report_id, permit))
        return await self.outcomes.report(outcomes)

    async def ask(
        self, run: str = "run", *, target: str = TARGET, epoch: int = 1, hold: timedelta = MINUTE
    ) -> PermitAnswer:
        [answer] = await self.permits.acquire([PermitRequest(Key("default", target), Holder(run, epoch), hold)])
        return answer

    async def probe(self, run: str = "run", **asked: Any) -> PermitAnswer:
        """A permit, which is there to be had."""
        answer = await self.ask(run, **asked)
        assert isinstance(answer.decision, Probe)
        return answer

    async def get(self, target: str = TARGET) -> BreakerView:
        return await self.breakers.get(Key("default", target))


OpenReplica = Callable[..., Awaitable[Replica]]


@pytest.fixture
def breaker_database_url(migrated_database_url: Callable[..., str]) -> str:
    """A fresh database with the breaker's schema."""
    return migrated_database_url("breaker")


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
async def open_replica(breaker_database_url: str, clock: MovableClock) -> AsyncIterator[OpenReplica]:
    """Call it for a replica; again for another one, on the same database."""
    async with AsyncExitStack() as stack:

        async def start(policy: Policy = Policy(), max_breakers: int = 1_000) -> Replica:  # noqa: B008 - frozen
            database = await Database.open(
                patient(breaker_database_url),  # a crowd waits its turn, however busy the machine is
                schema="breaker",
                application_name="breaker under test",
                hot_settings=PINNED_PLANNER,
            )
            stack.push_async_callback(database.close)
            store = Store(database, clock)
            changes = Changes(store)
            permits = Permits(store, policy, changes.changed)
            outcomes = Outcomes(store, policy, changes.changed, max_breakers=max_breakers)
            return Replica(database, store, permits, outcomes, Breakers(store), changes)

        yield start


@pytest.fixture
async def replica(open_replica: OpenReplica) -> Replica:
    return await open_replica()


@pytest.fixture
async def sql(breaker_database_url: str) -> AsyncIterator[Sql]:
    """Rows of a query, over a connection beside the services'."""
    connection = await asyncpg.connect(breaker_database_url)

    async def fetch(query: str, *arguments: object) -> Sequence[asyncpg.Record]:
        rows: Sequence[asyncpg.Record] = await connection.fetch(query, *arguments)
        return rows

    try:
        yield fetch
    finally:
        await connection.close()
