"""The use cases of the graph store on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
import uuid_utils

from services.chassis.database import Database
from services.graph_store.graphs import Graphs
from services.graph_store.model import Author, SaveCommand, SavedVersion
from services.graph_store.saving import Saving
from services.graph_store.store import Store
from services.graph_store.store_requests import Requests
from services.graph_store.validation import Validation
from services.graph_store.workflows import Workflows
from tests.builders import a_graph
from tests.postgres import patient
from valkyr.graph.limits import DEFAULT_LIMITS, Limits
from valkyr.graph.model import Graph, WorkflowInfo

AUTHOR = Author("tester", None, "0af7651916cd43dd8448eb211c80319c")
KEPT = timedelta(hours=24)


@pytest.fixture
async def database(graph_store_database_url: str) -> AsyncIterator[Database]:
    settings = patient(graph_store_database_url, transaction_pool_size=10)
    database = await Database.open(settings, schema="graph_store", application_name="graph store under test")
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)


@pytest.fixture
def workflows(store: Store) -> Workflows:
    return Workflows(store)


@dataclass(frozen=True, slots=True)
class Saves:
    """Saves in few words."""

    graphs: Graphs

    async def __call__(
        self,
        graph: Graph | str,
        *,
        id: str | None = None,
        version: int | None = None,
        namespace: str = "default",
        **command: Any,
    ) -> SavedVersion:
        """`name`, `description` and `labels` are the workflow's; the rest is the command's."""
        said = {key: command.pop(key) for key in ("name", "description", "labels") if key in command}
        return await self.graphs.save(
            SaveCommand(
                namespace=namespace,
                workflow=WorkflowInfo(id=id, version=version, **said),
                graph=a_graph(graph) if isinstance(graph, str) else graph,
                **{"author": AUTHOR, **command},
            )
        )


def graphs_of(store: Store, *, limits: Limits = DEFAULT_LIMITS) -> Graphs:
    """The use cases over a store, that of the fixture or another."""
    return Graphs(store, Validation(limits=limits, known=None), saving_of(store, limits=limits))


def saving_of(store: Store, *, limits: Limits = DEFAULT_LIMITS) -> Saving:
    """The save over a store."""
    return Saving(
        store,
        Requests(KEPT),
        Validation(limits=limits, known=None),
        new_id=lambda: str(uuid_utils.uuid7()),
        max_answer_bytes=16 * 1024 * 1024,
    )


@pytest.fixture
def graphs(store: Store) -> Graphs:
    return graphs_of(store)


@pytest.fixture
def save(graphs: Graphs) -> Saves:
    return Saves(graphs)


@pytest.fixture
async def sql(graph_store_database_url: str) -> AsyncIterator[Callable[..., Any]]:
    """Rows of a query, over a connection beside the service's."""
    connection = await asyncpg.connect(graph_store_database_url)

    async def fetch(query: str, *arguments: object) -> Sequence[asyncpg.Record]:
        rows: Sequence[asyncpg.Record] = await connection.fetch(query, *arguments)
        return rows

    try:
        yield fetch
    finally:
        await connection.close()
