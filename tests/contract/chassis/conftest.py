"""A toy service on a real port, and a channel to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.chassis.serve import Server
from services.chassis.settings import ServerSettings
from tests.contract.chassis.toys import SERVICE, ToyServicer, ToyStub, add_toy
from valkyr.rpc.channel import open_channel


async def _echo(text: str, _context: object) -> str:
    return text


@pytest.fixture
def toy() -> ToyServicer:
    """The servicer; set `toy.deed` to what its handlers shall do."""
    return ToyServicer(_echo)


@pytest.fixture
async def server(toy: ToyServicer) -> AsyncIterator[Server]:
    async with Server(ServerSettings(port=0), [(SERVICE, add_toy, toy)]) as server:
        yield server


@pytest.fixture
async def stub(server: Server) -> AsyncIterator[ToyStub]:
    async with open_channel(server.address, principal="Zoë") as channel:
        yield ToyStub(channel)
