"""A breaker in this process, with a clock that moves only when it is told to, called over a real channel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from services.breaker.app import App, open_app
from services.breaker.settings import BreakerSettings
from tests.postgres import patient
from valkyr.api.breaker.v1 import breaker_pb2_grpc
from valkyr.rpc.channel import open_channel

TARGET = "http:api.example.com"


@dataclass(slots=True)
class MovableClock:
    """In place of the database's."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **duration: float) -> None:
        self.now += timedelta(**duration)


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def breaker_database_url(migrated_database_url: Callable[..., str]) -> str:
    """A fresh database with the breaker's schema."""
    return migrated_database_url("breaker")


@pytest.fixture
def settings(breaker_database_url: str) -> BreakerSettings:
    return BreakerSettings(database=patient(breaker_database_url))


@pytest.fixture
async def app(settings: BreakerSettings, clock: MovableClock) -> AsyncIterator[App]:
    async with open_app(settings, clock=clock) as app:
        yield app


@pytest.fixture
async def stub(app: App) -> AsyncIterator[breaker_pb2_grpc.BreakerServiceStub]:
    """Calls as the principal `tester`."""
    channel = open_channel(app.server.address, principal="tester")
    try:
        yield breaker_pb2_grpc.BreakerServiceStub(channel)
    finally:
        await channel.close()
