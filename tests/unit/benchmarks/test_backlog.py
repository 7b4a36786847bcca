"""A backlog is let go only when the client's watch is back and has caught up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pytest

from benchmarks.client import Job, Load
from benchmarks.graphs import single
from benchmarks.tally import NoAnswer, Tally
from tests.unit.benchmarks.test_answers import ANSWER, an_execution
from valkyr.client import Execution, Start

WAITING = 3
"""Executions that were started before, and are held."""


class Executor:
    """A client's executions, and what its watch is told: only what a test says."""

    def __init__(self) -> None:
        self.executions = self
        self.started: asyncio.Queue[int] = asyncio.Queue()
        self.told: asyncio.Queue[Execution] = asyncio.Queue()

    async def start_many(self, starts: Sequence[Start], *, timeout: Any) -> list[Execution]:
        return [an_execution(start.payload["n"], state="PENDING") for start in starts]

    async def start(self, workflow_id: str, *, payload: Mapping[str, int], priority: int) -> Execution:
        self.started.put_nowait(payload["n"])
        return an_execution(payload["n"], state="PENDING")

    async def watch(self, **_: Any) -> AsyncGenerator[Execution, None]:
        while True:
            yield await self.told.get()


def a_load(executor: Executor) -> Load:
    job = Job("backlog", {}, "w", asdict(single().answer()), count=WAITING)
    return Load(executor, job)  # type: ignore[arg-type]


async def test_a_watch_has_caught_up_when_it_tells_what_was_started_after_it_was_heard() -> None:
    executor = Executor()
    async with a_load(executor).watching() as load:
        await load.start(WAITING, window=WAITING + 100)
        caught_up = asyncio.create_task(load.caught_up(waiting=WAITING))
        for _ in range(2):
            n = await executor.started.get()
            assert not caught_up.done()
            assert executor.started.empty()
            executor.told.put_nowait(an_execution(n))
        await caught_up


async def test_a_watch_that_is_not_back_holds_the_backlog() -> None:
    executor = Executor()
    load = a_load(executor)
    load.tally = Tally(ANSWER, silence=0.01)
    async with load.watching():
        await load.start(WAITING, window=WAITING + 100)
        with pytest.raises(NoAnswer, match="4 executions have not answered"):
            await load.caught_up(waiting=WAITING)
