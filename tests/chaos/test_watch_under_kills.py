"""Changes of workflows are told once each while replicas are killed and drained, and PostgreSQL is killed."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from pathlib import Path
from uuid import UUID

import grpc
import pytest

from tests.builders import a_graph
from tests.chaos.saving.house import House, Replica, open_house
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.rpc.graphs import fill_from_graph

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
GRACE = {"VALKYR_GRAPH_STORE__SERVER__DRAIN_GRACE": "PT60S"}
LONGEST_DRAIN = 30
"""Seconds; a stream that did not end by itself would hold a service up for its whole grace."""


def a_creation(number: int) -> pb.SaveGraphRequest:
    request = pb.SaveGraphRequest(workflow=pb.Workflow(id=str(UUID(int=number))), request_id=f"r{number}")
    fill_from_graph(request, a_graph("a -> b"))
    return request


class Watcher:
    """Counts what it is told, wherever it can be told; goes on from its last token."""

    def __init__(self, house: House, chance: random.Random) -> None:
        self.told: Counter[str] = Counter()
        self.breaks = 0
        self.began = asyncio.Event()
        self._house = house
        self._chance = chance
        self._token = ""

    async def run(self) -> None:
        while True:
            replica = self._chance.choice(self._house.replicas)
            try:
                await self._listen(replica)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE, error  # noqa: PT017 - of a stream that ended
                self.breaks += 1
                await asyncio.sleep(0.02)

    async def _listen(self, replica: Replica) -> None:
        async for answer in replica.first.WatchWorkflows(pb.WatchWorkflowsRequest(resume_token=self._token)):
            self.told.update(change.workflow.id for change in answer.changes)
            self._token = answer.resume_token
            self.began.set()


async def until_answered(house: House, chance: random.Random, request: pb.SaveGraphRequest) -> None:
    while True:
        try:
            await chance.choice(house.replicas).again.SaveGraph(request, timeout=5)
        except grpc.aio.AioRpcError as error:
            if error.code() not in AWAY:
                raise
            await asyncio.sleep(0.05)
        else:
            return


async def save_until(done: asyncio.Event, house: House, chance: random.Random) -> set[str]:
    """The ids of what was created, each once whatever the answers."""
    saved: set[str] = set()
    numbers = itertools.count(1)

    async def save_some() -> None:
        while not done.is_set():
            request = a_creation(next(numbers))
            await until_answered(house, chance, request)
            saved.add(request.workflow.id)
            await asyncio.sleep(0.02)

    await asyncio.gather(*(save_some() for _ in range(4)))
    return saved


async def disturb(house: House) -> None:
    """One replica killed, the other drained, then PostgreSQL killed."""
    killed, drained = house.victims
    killed.kill()
    killed.revive()
    await killed.healthy()
    assert await drained.service.stop(LONGEST_DRAIN)
    await drained.service.start()
    await drained.healthy()
    house.kill_postgres()
    await house.restart_postgres()
    for replica in house.replicas:
        await replica.healthy()


async def test_every_change_is_told_once_while_replicas_and_the_database_die(tmp_path: Path) -> None:
    chance = random.Random(5)
    async with open_house(tmp_path, **GRACE) as house:
        watchers = [Watcher(house, chance) for _ in range(8)]
        watching = [asyncio.create_task(watcher.run()) for watcher in watchers]
        try:
            async with asyncio.timeout(200):
                await asyncio.gather(*(watcher.began.wait() for watcher in watchers))
                done = asyncio.Event()
                saving = asyncio.create_task(save_until(done, house, chance))
                await disturb(house)
                done.set()
                saved = await saving
                while any(len(watcher.told) < len(saved) for watcher in watchers):
                    assert not [task for task in watching if task.done()]
                    await asyncio.sleep(0.05)
            # A change more, and all that could have been told twice was told before it.
            last = a_creation(2**64)
            await until_answered(house, chance, last)
            async with asyncio.timeout(30):
                while not all(last.workflow.id in watcher.told for watcher in watchers):
                    await asyncio.sleep(0.05)
        finally:
            for task in watching:
                task.cancel()
            await asyncio.wait(watching)
    for watcher in watchers:
        assert watcher.told == dict.fromkeys({*saved, last.workflow.id}, 1)
    assert sum(watcher.breaks for watcher in watchers) > 0, "no kill hit a stream: the test proves nothing"
