"""Composition root of the graph store: settings -> database -> store -> use cases -> servicer -> server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import uuid_utils

from services.chassis.database import Database
from services.chassis.health import Health
from services.chassis.loops import run_every
from services.chassis.schema import bring_up_to_date
from services.chassis.serve import Server, Servicer, serve
from services.graph_store.archiving import Archiving
from services.graph_store.drafts import Drafts
from services.graph_store.events import Events
from services.graph_store.feed import Feed
from services.graph_store.graphs import Graphs
from services.graph_store.hints import Hints
from services.graph_store.history import History
from services.graph_store.known_modules import KnownModules
from services.graph_store.merging import Merging
from services.graph_store.modules import ModuleCatalogue
from services.graph_store.publishing import Publishing
from services.graph_store.saving import Saving
from services.graph_store.servicer import GraphStoreServicer, UseCases
from services.graph_store.settings import GraphStoreSettings
from services.graph_store.store import Store
from services.graph_store.store_drafts import Drafts as DraftRows
from services.graph_store.store_modules import StoredModules
from services.graph_store.store_requests import Requests
from services.graph_store.validation import Validation
from services.graph_store.watch import Watching
from services.graph_store.wire import MAX_WARNING_BYTES
from services.graph_store.workflows import Workflows
from valkyr.api.graph.v1 import graph_pb2, graph_pb2_grpc
from valkyr.modules.described import builtin_catalogue, builtin_schemas
from valkyr.rpc.channel import MAX_MESSAGE_BYTES

ROOM = "graph_store"
SERVICE_NAME: str = graph_pb2.DESCRIPTOR.services_by_name["GraphStoreService"].full_name
PRUNE_LIMIT = 1_000
HINT_INTERVAL = timedelta(hours=1)
"""Hints are told when there is something to tell."""
ENVELOPE_BYTES = MAX_WARNING_BYTES + 256 * 1024
"""Room in a message for what is neither document nor row: warnings, names, labels, framing."""


@dataclass(frozen=True, slots=True)
class App:
    """A running graph store."""

    server: Server
    database: Database

    @property
    def port(self) -> int:
        return self.server.port


@asynccontextmanager
async def open_app(settings: GraphStoreSettings) -> AsyncIterator[App]:
    """Migrates, starts, and answers calls within the block; at its end stops at once. For tests and for embedding."""
    async with (
        _parts(settings) as parts,
        Server(settings.server, parts.servicers, health=parts.health) as server,
    ):
        try:
            yield App(server, parts.database)
        finally:
            await parts.feed.close()


async def run(settings: GraphStoreSettings) -> None:
    """Migrates, then serves until SIGTERM or SIGINT."""
    async with _parts(settings) as parts:
        servicers, health = parts.servicers, parts.health
        await serve(settings=settings.server, servicers=servicers, health=health, on_stop=[parts.feed.close])


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a server is made of."""

    database: Database
    servicers: list[Servicer]
    health: Health
    feed: Feed


@asynccontextmanager
async def _parts(settings: GraphStoreSettings) -> AsyncIterator[_Parts]:
    database = await Database.open(settings.database, schema=ROOM, application_name="valkyr graph-store")
    try:
        await bring_up_to_date(database, ROOM)
        health, events = Health(), Events(database)
        hints = Hints(database, events)
        feed = Feed(events, hints.listen)
        store = Store(database, changed=partial(_changed, feed, hints))
        requests = Requests(settings.requests.kept)
        use_cases = _use_cases(store, requests, StoredModules(database), Watching(events, feed), events, settings)
        tasks = [
            asyncio.create_task(database.watch(health), name="database"),
            asyncio.create_task(_prune(store, requests, settings, health), name="prune"),
            asyncio.create_task(_prune_drafts(use_cases.drafts, settings, health), name="prune drafts"),
            asyncio.create_task(run_every(HINT_INTERVAL, hints.tell, name="tell", wake=hints.wake), name="tell"),
        ]
        add = graph_pb2_grpc.add_GraphStoreServiceServicer_to_server
        try:
            yield _Parts(database, [(SERVICE_NAME, add, GraphStoreServicer(use_cases))], health, feed)
        finally:
            await feed.close()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    finally:
        await database.close()


def _changed(feed: Feed, hints: Hints) -> None:
    """After a commit."""
    feed.look_now()
    hints.changed()


def _use_cases(
    store: Store,
    requests: Requests,
    modules: StoredModules,
    watching: Watching,
    events: Events,
    settings: GraphStoreSettings,
) -> UseCases:
    limits = settings.limits.of_graph()
    validation = Validation(limits=limits, known=KnownModules(modules, builtin_schemas(), limits=limits))
    largest = MAX_MESSAGE_BYTES - ENVELOPE_BYTES
    saving = Saving(store, requests, validation, new_id=_new_id, max_answer_bytes=largest)
    merging = Merging(store, validation, max_answer_bytes=largest)
    rows = DraftRows(settings.drafts.kept)
    return UseCases(
        graphs=Graphs(store, validation, saving),
        workflows=Workflows(store),
        history=History(store, events, saving),
        watching=watching,
        merging=merging,
        drafts=Drafts(store, rows, requests, validation, new_id=_new_id, max_answer_bytes=largest),
        publishing=Publishing(store, rows, merging, saving, new_id=_new_id),
        archiving=Archiving(store, requests, new_id=_new_id),
        modules=ModuleCatalogue(
            store,
            modules,
            requests,
            builtin_catalogue(),
            limits=limits,
            most=settings.catalogue.modules,
            most_bytes=settings.catalogue.schema_bytes,
            new_id=_new_id,
        ),
    )


def _new_id() -> str:
    return str(uuid_utils.uuid7())


async def _prune(store: Store, requests: Requests, settings: GraphStoreSettings, health: Health) -> None:
    async def step() -> timedelta | None:
        return timedelta() if await requests.prune(store, PRUNE_LIMIT) == PRUNE_LIMIT else None

    await run_every(settings.requests.prune_interval, step, name="prune requests", health=health)


async def _prune_drafts(drafts: Drafts, settings: GraphStoreSettings, health: Health) -> None:
    async def step() -> timedelta | None:
        return timedelta() if await drafts.prune(PRUNE_LIMIT) == PRUNE_LIMIT else None

    await run_every(settings.drafts.prune_interval, step, name="prune drafts", health=health)
