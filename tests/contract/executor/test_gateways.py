"""What the executor asks of its neighbours, over real channels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from services.chassis.serve import Server
from services.chassis.settings import ServerSettings
from services.executor.gateways import GraphStoreGateway
from tests.free_ports import a_port_base
from valkyr.api.graph.v1 import graph_pb2, graph_pb2_grpc
from valkyr.errors import Unavailable

SERVICE = "valkyr.api.graph.v1.GraphStoreService"


class FakeCatalogue(graph_pb2_grpc.GraphStoreServiceServicer):
    """Takes every spec, and can do nothing else."""

    def __init__(self) -> None:
        self.registered: list[str] = []

    async def RegisterModules(
        self, request: graph_pb2.RegisterModulesRequest, _context: object
    ) -> graph_pb2.RegisterModulesResponse:
        self.registered += [module.class_name for module in request.modules]
        return graph_pb2.RegisterModulesResponse()


@pytest.fixture
def port() -> int:
    return a_port_base()


@pytest.fixture
async def gateway(port: int) -> AsyncIterator[GraphStoreGateway]:
    gateway = GraphStoreGateway(f"127.0.0.1:{port}")
    yield gateway
    await gateway.close()


async def test_specs_wait_a_moment_for_a_graph_store_that_is_just_coming_back(
    gateway: GraphStoreGateway, port: int
) -> None:
    """Else they are in the catalogue ten seconds later, and what is saved meanwhile is warned about."""
    concrete: Any = type("Catalogue", (FakeCatalogue,), {})
    catalogue = concrete()
    add = graph_pb2_grpc.add_GraphStoreServiceServicer_to_server
    with pytest.raises(Unavailable):
        await gateway.register_modules("default", [], patience=timedelta())
    registering = asyncio.create_task(
        gateway.register_modules(
            "default", [graph_pb2.ModuleSpec(class_name="ChargeCard")], patience=timedelta(seconds=20)
        )
    )
    async with Server(ServerSettings(port=port), [(SERVICE, add, catalogue)]):
        await registering
    assert catalogue.registered == ["ChargeCard"]
