"""A client of services that answer by a script."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tests.scripted_services import address, nowhere, script
from valkyr.client import Client

__all__ = ["address", "nowhere", "script"]


@pytest.fixture
async def client(address: str) -> AsyncIterator[Client]:
    async with Client(
        address, address, breaker=address, dlq=address, principal="ada", timeout=timedelta(seconds=30)
    ) as client:
        yield client
