"""Executors in this process, on a fresh migrated database, with a graph store and a client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.executor_modules import GATES
from tests.executor_stack import Stack, open_stack
from tests.postgres import PostgresForTests
from valkyr.api.executor.v1 import runner_pb2_grpc
from valkyr.rpc.channel import open_channel

OpenStack = Callable[..., AbstractAsyncContextManager[Stack]]


@pytest.fixture(autouse=True)
def gates() -> None:
    """Every test begins with closed gates and empty counts."""
    GATES.reset()


@pytest.fixture
def make_stack(migrated_database_url: Callable[..., str], tmp_path: Path) -> OpenStack:
    """`async with make_stack(runner={"concurrency": 2}, names=("one", "two")) as stack:`"""
    return partial(open_stack, migrated_database_url("graph_store", "executor"), tmp_path)


@pytest.fixture
async def stack(make_stack: OpenStack) -> AsyncIterator[Stack]:
    """A stack with one executor and the settings of tests."""
    async with make_stack() as stack:
        yield stack


@pytest.fixture
async def stub(stack: Stack) -> AsyncIterator[Any]:
    """RunnerService, for runners by hand."""
    channel = open_channel(stack.app.server.address, principal="runner")
    try:
        yield runner_pb2_grpc.RunnerServiceStub(channel)
    finally:
        await channel.close()


@pytest.fixture
async def database_killer(postgres: PostgresForTests) -> AsyncIterator[asyncpg.Connection]:
    """The superuser's connection, which may end others'."""
    connection = await asyncpg.connect(postgres.admin_url)
    try:
        yield connection
    finally:
        await connection.close()
