"""Composition root of the dead letter queue: settings -> database -> store -> use cases, loops -> servicer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import uuid_utils

from services.chassis.database import Database
from services.chassis.health import Health
from services.chassis.loops import run_every
from services.chassis.schema import bring_up_to_date
from services.chassis.serve import Server, Servicer, serve
from services.chassis.settings import PORT_OFFSETS
from services.dlq.gateways import ExecutorGateway
from services.dlq.letters import Letters
from services.dlq.outstanding import Outstanding
from services.dlq.quarantines import Quarantines
from services.dlq.resolutions import Resolutions
from services.dlq.servicer import DeadLetterQueueServicer
from services.dlq.settings import DlqSettings
from services.dlq.store import Store
from valkyr.api.dlq.v1 import dlq_pb2, dlq_pb2_grpc

ROOM = "dlq"
SERVICE_NAME: str = dlq_pb2.DESCRIPTOR.services_by_name["DeadLetterQueueService"].full_name
PRUNE_LIMIT = 1_000


@dataclass(frozen=True, slots=True)
class App:
    """A running dead letter queue."""

    server: Server
    database: Database

    @property
    def port(self) -> int:
        return self.server.port


@asynccontextmanager
async def open_app(settings: DlqSettings) -> AsyncIterator[App]:
    """Migrates, starts, and answers calls within the block; at its end stops at once. For tests and for embedding."""
    async with (
        _parts(settings) as (database, servicers, health),
        Server(settings.server, servicers, health=health) as server,
    ):
        yield App(server, database)


async def run(settings: DlqSettings) -> None:
    """Migrates, then serves until SIGTERM or SIGINT."""
    async with _parts(settings) as (_, servicers, health):
        await serve(settings=settings.server, servicers=servicers, health=health)


@asynccontextmanager
async def _parts(settings: DlqSettings) -> AsyncIterator[tuple[Database, list[Servicer], Health]]:
    async with AsyncExitStack() as stack:
        database = await Database.open(settings.database, schema=ROOM, application_name="valkyr dlq")
        stack.push_async_callback(database.close)
        await bring_up_to_date(database, ROOM)
        gateway = ExecutorGateway(settings.executor or _neighbour(settings), timeout=settings.intents.call_timeout)
        stack.push_async_callback(gateway.close)
        store, health, wake = Store(database), Health(), asyncio.Event()
        resolutions = Resolutions(
            store,
            gateway,
            new_id=_new_id,
            max_requeues=settings.max_requeues,
            requests_kept=settings.requests.kept,
            intents=settings.intents,
            on_postponed=wake.set,
        )
        tasks = [
            asyncio.create_task(database.watch(health), name="database"),
            asyncio.create_task(_prune(store, settings, health), name="prune"),
            asyncio.create_task(_carry_out(store, resolutions, settings, health, wake), name="outstanding"),
        ]
        stack.push_async_callback(_stop, tasks)
        servicer = DeadLetterQueueServicer(Quarantines(store, new_id=_new_id), Letters(store), resolutions)
        yield database, [(SERVICE_NAME, dlq_pb2_grpc.add_DeadLetterQueueServiceServicer_to_server, servicer)], health


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _carry_out(
    store: Store, resolutions: Resolutions, settings: DlqSettings, health: Health, wake: asyncio.Event
) -> None:
    outstanding = Outstanding(store, resolutions)
    await run_every(
        settings.intents.poll_interval, outstanding.step, name="outstanding intents", health=health, wake=wake
    )


async def _prune(store: Store, settings: DlqSettings, health: Health) -> None:
    async def step() -> timedelta | None:
        pruned = await store.prune_requests(settings.requests.kept, PRUNE_LIMIT)
        return timedelta() if pruned == PRUNE_LIMIT else None

    await run_every(settings.requests.prune_interval, step, name="prune requests", health=health)


def _new_id() -> str:
    return str(uuid_utils.uuid7())


def _neighbour(settings: DlqSettings) -> str:
    """The executor of the same local stack."""
    return f"127.0.0.1:{settings.server.port - PORT_OFFSETS['dlq'] + PORT_OFFSETS['executor']}"
