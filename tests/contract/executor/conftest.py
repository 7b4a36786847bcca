"""An executor in this process with its graph store, called over a real channel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.executor_modules import GATES
from tests.executor_stack import Stack, open_stack
from valkyr.api.executor.v1 import executor_pb2_grpc
from valkyr.rpc.channel import open_channel


@pytest.fixture
async def stack(migrated_database_url: Callable[..., str], tmp_path: Path) -> AsyncIterator[Stack]:
    GATES.reset()
    limits = {"payload_bytes": 10_000, "starts": 50}
    async with open_stack(migrated_database_url("graph_store", "executor"), tmp_path, limits=limits) as stack:
        yield stack


@pytest.fixture
async def stub(stack: Stack) -> AsyncIterator[executor_pb2_grpc.ExecutorServiceStub]:
    """Calls as the principal `tester`."""
    channel = open_channel(stack.app.server.address, principal="tester")
    try:
        yield executor_pb2_grpc.ExecutorServiceStub(channel)
    finally:
        await channel.close()
