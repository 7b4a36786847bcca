"""Composition root of the breaker: settings -> database -> store -> use cases and loops -> servicer -> server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from services.breaker.breakers import Breakers
from services.breaker.listening import RECONNECT, Listener
from services.breaker.outcomes import Outcomes
from services.breaker.permits import Permits
from services.breaker.pruning import Pruner
from services.breaker.servicer import BreakerServicer
from services.breaker.settings import BreakerSettings
from services.breaker.store import PINNED_PLANNER, Clock, Store
from services.breaker.switched_off import AllowingPermits, ClosedBreakers, IgnoringOutcomes
from services.breaker.watch import LOOK_INTERVAL_HEARING, Changes, Watch
from services.chassis.database import Database
from services.chassis.health import Health
from services.chassis.loops import run_every
from services.chassis.schema import bring_up_to_date
from services.chassis.serve import Server, Servicer, serve
from valkyr.api.breaker.v1 import breaker_pb2, breaker_pb2_grpc
from valkyr.telemetry import get_logger

ROOM = "breaker"
SERVICE_NAME: str = breaker_pb2.DESCRIPTOR.services_by_name["BreakerService"].full_name

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class App:
    """A running breaker."""

    server: Server
    database: Database

    @property
    def port(self) -> int:
        return self.server.port


@asynccontextmanager
async def open_app(settings: BreakerSettings, *, clock: Clock | None = None) -> AsyncIterator[App]:
    """Migrates, starts, and answers calls within the block; at its end stops at once. For tests and for embedding;
    `clock` decides in place of the database's."""
    async with (
        _parts(settings, clock) as (database, servicers, health, _),
        Server(settings.server, servicers, health=health) as server,
    ):
        yield App(server, database)


async def run(settings: BreakerSettings) -> None:
    """Migrates, then serves until SIGTERM or SIGINT."""
    async with _parts(settings, None) as (_, servicers, health, changes):
        await serve(settings=settings.server, servicers=servicers, health=health, on_stop=[changes.close])


@asynccontextmanager
async def _parts(
    settings: BreakerSettings, clock: Clock | None
) -> AsyncIterator[tuple[Database, list[Servicer], Health, Changes]]:
    async with AsyncExitStack() as stack:
        database = await Database.open(
            settings.database, schema=ROOM, application_name="valkyr breaker", hot_settings=PINNED_PLANNER
        )
        stack.push_async_callback(database.close)
        await bring_up_to_date(database, ROOM)
        health, store = Health(), Store(database, clock)
        changes = Changes(store)
        pruner = Pruner(store, settings.retention)
        loops = [
            database.watch(health),
            run_every(settings.retention.prune_interval, pruner.step, name="prune breakers", health=health),
        ]
        if settings.enabled:
            listener = Listener(
                database,
                store,
                heard=changes.changed,
                hearing=changes.hearing,
                watched=lambda: changes.is_watched,
            )
            loops += [
                run_every(
                    LOOK_INTERVAL_HEARING, changes.step, name="look for changes", health=health, wake=changes.wake
                ),
                run_every(RECONNECT, listener.listen, name="listen for changes"),
            ]
            servicer = _servicer(store, settings, changes, stack)
        else:
            _log.warning("breaker.switched_off", note="breaker.enabled is false: every call is allowed")
            servicer = _servicer_switched_off(store, settings, changes)
        tasks = [asyncio.create_task(loop) for loop in loops]
        stack.push_async_callback(_cancel, tasks)
        add = breaker_pb2_grpc.add_BreakerServiceServicer_to_server
        yield database, [(SERVICE_NAME, add, servicer)], health, changes


def _servicer(store: Store, settings: BreakerSettings, changes: Changes, stack: AsyncExitStack) -> BreakerServicer:
    policy = settings.policy()
    permits = Permits(store, policy, changes.changed)
    outcomes = Outcomes(store, policy, changes.changed, max_breakers=settings.max_breakers)
    stack.push_async_callback(permits.close)
    stack.push_async_callback(outcomes.close)
    return BreakerServicer(
        permits,
        outcomes,
        Breakers(store),
        watch=lambda namespace: Watch(store, changes, namespace).batches(),
        policy=policy,
    )


def _servicer_switched_off(store: Store, settings: BreakerSettings, changes: Changes) -> BreakerServicer:
    return BreakerServicer(
        AllowingPermits(),
        IgnoringOutcomes(),
        ClosedBreakers(store),
        watch=changes.watch_nothing,
        policy=settings.policy(),
    )


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
