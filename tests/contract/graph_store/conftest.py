"""A graph store in this process, called over a real channel."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.graph_store.app import App, open_app
from services.graph_store.settings import GraphStoreSettings
from tests.postgres import patient
from valkyr.api.graph.v1 import graph_pb2_grpc
from valkyr.rpc.channel import open_channel


@pytest.fixture
async def app(graph_store_database_url: str) -> AsyncIterator[App]:
    settings = GraphStoreSettings(database=patient(graph_store_database_url))
    async with open_app(settings) as app:
        yield app


@pytest.fixture
async def stub(app: App) -> AsyncIterator[graph_pb2_grpc.GraphStoreServiceStub]:
    """Calls as the principal `tester`."""
    channel = open_channel(app.server.address, principal="tester")
    try:
        yield graph_pb2_grpc.GraphStoreServiceStub(channel)
    finally:
        await channel.close()
