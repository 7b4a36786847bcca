"""The use cases of the dead letter queue on a real PostgreSQL, with an executor that can be told to misbehave."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
import uuid_utils

from services.chassis.database import Database
from services.chassis.serve import Server
from services.dlq import wire
from services.dlq.gateways import ExecutorGateway
from services.dlq.letters import Letters
from services.dlq.model import Intent, Letter, Operator
from services.dlq.outstanding import Outstanding
from services.dlq.quarantines import Answer, Quarantines
from services.dlq.resolutions import Resolutions
from services.dlq.settings import IntentSettings
from services.dlq.store import Store
from tests.dlq_lab import FakeExecutor, a_quarantine, a_run, entries, executor_port, serving
from tests.postgres import patient
from valkyr.api.dlq.v1 import dlq_pb2 as pb

KEPT = timedelta(hours=24)
SENDER = Operator("executor")
ALICE, BOB = Operator("alice"), Operator("bob")

Sql = Callable[..., Any]


@pytest.fixture
def dlq_database_url(migrated_database_url: Callable[..., str]) -> str:
    return migrated_database_url("dlq")


@pytest.fixture
async def database(dlq_database_url: str) -> AsyncIterator[Database]:
    settings = patient(dlq_database_url, transaction_pool_size=10)
    database = await Database.open(settings, schema="dlq", application_name="dlq under test")
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)


@pytest.fixture
def executor() -> FakeExecutor:
    return FakeExecutor()


@pytest.fixture
async def executor_server(executor: FakeExecutor) -> AsyncIterator[Server]:
    async with serving(executor, port=executor_port()) as server:
        yield server


@dataclass(slots=True)
class Crashes:
    """Where the next call of the executor takes its process along: `before` or `after` the executor did it."""

    before: bool = False
    after: bool = False


class Crash(BaseException):
    """The process is gone: nobody catches it."""


class CrashingGateway(ExecutorGateway):
    """The real one, in a process that dies on either side of the call."""

    def __init__(self, address: str, crashes: Crashes) -> None:
        super().__init__(address, timeout=timedelta(seconds=30))
        self._crashes = crashes

    async def resolve(self, intent: Intent) -> None:
        if self._crashes.before:
            self._crashes.before = False
            raise Crash
        await super().resolve(intent)
        if self._crashes.after:
            self._crashes.after = False
            raise Crash


@dataclass(slots=True)
class Desk:
    """The use cases, and what tests do with them in few words."""

    store: Store
    quarantines: Quarantines
    letters: Letters
    resolutions: Resolutions
    outstanding: Outstanding
    sql: Sql
    crashes: Crashes = field(default_factory=Crashes)

    async def bring(self, *events: Any) -> Answer:
        read, refused = wire.read_entries(entries(*events))
        answer = await self.quarantines.store(read, SENDER)
        return Answer(answer.accepted, answer.refused + refused)

    async def a_letter(self, **fields: Any) -> Letter:
        """A new run's first letter."""
        run_id = fields.pop("run_id", None) or a_run()
        await self.bring(a_quarantine(run_id, **fields))
        return await self.letter_of(run_id, fields.get("number", 1))

    async def letter_of(self, run_id: str, number: int = 1) -> Letter:
        rows = await self.sql(
            "select namespace, id::text from dlq.dead_letter_queue where run_id = $1 and quarantine_number = $2",
            run_id,
            number,
        )
        return await self.letters.get(rows[0][0], rows[0][1])

    async def again(self, letter: Letter) -> Letter:
        return await self.letters.get(letter.namespace, letter.id)

    async def fix(self, letter: Letter, by: Operator = ALICE, outputs: Any = 1, **fields: Any) -> Letter:
        request = pb.FixDeadLetterRequest(namespace=letter.namespace, dead_letter_id=letter.id, **fields)
        request.outputs.number_value = outputs
        return await self.resolutions.resolve(wire.read_fix(request, by))

    async def discard(self, letter: Letter, by: Operator = ALICE, reason: str = "worthless", **fields: Any) -> Letter:
        request = pb.DiscardDeadLetterRequest(
            namespace=letter.namespace, dead_letter_id=letter.id, reason=reason, **fields
        )
        return await self.resolutions.resolve(wire.read_discard(request, by))

    async def requeue(self, letter: Letter, by: Operator = ALICE, **fields: Any) -> Letter:
        request = pb.RequeueDeadLetterRequest(namespace=letter.namespace, dead_letter_id=letter.id, **fields)
        return await self.resolutions.resolve(wire.read_requeue(request, by))

    async def carry_out_later(self) -> None:
        """As the loop does once an intent's time has come."""
        await self.sql("update dlq.resolution_intent set next_try_at = now() - interval '1 second'")
        await self.outstanding.step()

    async def actions(self, letter: Letter) -> list[str]:
        rows = await self.sql("select action from dlq.audit_event where dead_letter_id = $1 order by id", letter.id)
        return [row[0].removeprefix("letter.") for row in rows]

    async def intents(self, letter: Letter) -> list[str]:
        rows = await self.sql(
            "select state from dlq.resolution_intent where dead_letter_id = $1 order by id", letter.id
        )
        return [row[0] for row in rows]


def new_id() -> str:
    return str(uuid_utils.uuid7())


@pytest.fixture
async def desk(store: Store, executor_server: Server, sql: Sql) -> AsyncIterator[Desk]:
    crashes = Crashes()
    gateway = CrashingGateway(executor_server.address, crashes)
    resolutions = Resolutions(
        store,
        gateway,
        new_id=new_id,
        max_requeues=5,
        requests_kept=KEPT,
        intents=IntentSettings(backoff_base=timedelta(minutes=1)),  # what is due is due by `carry_out_later`
        on_postponed=lambda: None,
    )
    outstanding = Outstanding(store, resolutions)
    yield Desk(store, Quarantines(store, new_id=new_id), Letters(store), resolutions, outstanding, sql, crashes)
    await gateway.close()


@pytest.fixture
async def sql(dlq_database_url: str) -> AsyncIterator[Sql]:
    """Rows of a query, over a connection beside the service's."""
    connection = await asyncpg.connect(dlq_database_url)

    async def fetch(query: str, *arguments: object) -> Sequence[asyncpg.Record]:
        rows: Sequence[asyncpg.Record] = await connection.fetch(query, *arguments)
        return rows

    try:
        yield fetch
    finally:
        await connection.close()
