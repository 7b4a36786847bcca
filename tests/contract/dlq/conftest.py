"""A dead letter queue in this process, called over a real channel, with an executor that misbehaves if told to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from services.chassis.serve import Server
from services.dlq.app import App, open_app
from services.dlq.settings import DlqSettings
from tests.dlq_lab import FakeExecutor, executor_port, serving
from tests.postgres import patient
from valkyr.api.dlq.v1.dlq_pb2_grpc import DeadLetterQueueServiceStub
from valkyr.rpc.channel import open_channel


@pytest.fixture
def executor() -> FakeExecutor:
    return FakeExecutor()


@pytest.fixture
async def executor_server(executor: FakeExecutor) -> AsyncIterator[Server]:
    async with serving(executor, port=executor_port()) as server:
        yield server


@pytest.fixture
async def app(migrated_database_url: Callable[..., str], executor_server: Server) -> AsyncIterator[App]:
    settings = DlqSettings(database=patient(migrated_database_url("dlq")), executor=executor_server.address)
    async with open_app(settings) as app:
        yield app


@pytest.fixture
async def stub(app: App) -> AsyncIterator[DeadLetterQueueServiceStub]:
    """Calls as the principal `tester`."""
    channel = open_channel(app.server.address, principal="tester")
    try:
        yield DeadLetterQueueServiceStub(channel)
    finally:
        await channel.close()
