"""An executor in this process with its graph store, called over a real channel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from services.chassis.migrate import upgrade
from tests.executor_modules import GATES
from tests.executor_stack import Stack, open_stack
from tests.postgres import PostgresForTests
from valkyr.api.executor.v1 import executor_pb2_grpc
from valkyr.rpc.channel import open_channel

LIMITS = {"payload_bytes": 10_000, "starts": 50}
on_a_shared_stack = pytest.mark.asyncio(loop_scope="module")
"""Of a test that takes `shared_stack` or `shared_stub`: they live in one event loop."""


@pytest.fixture
async def stack(migrated_database_url: Callable[..., str], tmp_path: Path) -> AsyncIterator[Stack]:
    GATES.reset()
    async with open_stack(migrated_database_url("graph_store", "executor"), tmp_path, limits=LIMITS) as stack:
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_stack(postgres: PostgresForTests, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """One for all tests of a file that are `on_a_shared_stack`: those that change nothing."""
    template = postgres.template(("graph_store", "executor"), upgrade)
    with postgres.database(template) as url:
        async with open_stack(url, tmp_path_factory.mktemp("home"), limits=LIMITS) as stack:
            yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_stub(shared_stack: Stack) -> AsyncIterator[executor_pb2_grpc.ExecutorServiceStub]:
    """Calls as the principal `tester`."""
    async with _stub_of(shared_stack) as stub:
        yield stub


@pytest.fixture
async def stub(stack: Stack) -> AsyncIterator[executor_pb2_grpc.ExecutorServiceStub]:
    """Calls as the principal `tester`."""
    async with _stub_of(stack) as stub:
        yield stub


@asynccontextmanager
async def _stub_of(stack: Stack) -> AsyncIterator[executor_pb2_grpc.ExecutorServiceStub]:
    channel = open_channel(stack.app.server.address, principal="tester")
    try:
        yield executor_pb2_grpc.ExecutorServiceStub(channel)
    finally:
        await channel.close()
