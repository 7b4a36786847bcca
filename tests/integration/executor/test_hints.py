"""Replicas wake each other: what one has no room for another takes at once, and tells those who watch at the first."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from services.executor import dispatcher, feed
from services.executor.hints import HELLO, WHO
from tests.builders import a_graph
from tests.executor_modules import GATES
from tests.executor_stack import Stack, until_true
from tests.integration.executor.conftest import OpenStack
from valkyr.client import ExecutionState
from valkyr.graph.model import Graph


async def both_know_each_other(stack: Stack) -> None:
    await until_true(
        lambda: not any(app.parts.hints.alone for app in stack.executors), "the replicas have heard of each other"
    )


def held(count: int) -> Graph:
    names = [f"n{i}" for i in range(count)]
    return a_graph(", ".join(names), modules=dict.fromkeys(names, "HeldModule"))


async def test_runs_that_one_replica_has_no_room_for_start_at_another_that_would_not_look_for_an_hour(
    make_stack: OpenStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "RESCAN", 3_600.0)
    async with make_stack(names=("one", "two"), runner={"concurrency": 2, "poll_interval": "PT1H"}) as stack:
        await both_know_each_other(stack)
        execution_id = await stack.start(held(4))
        await until_true(lambda: GATES.running == 4, "both pools are full")
        GATES.open.set()
        await stack.wait(execution_id)


async def test_an_end_made_by_one_replica_is_heard_at_another_that_would_not_look_for_an_hour(
    make_stack: OpenStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "LOOK_INTERVAL", timedelta(hours=1))
    async with make_stack(names=("one", "two"), runner={"concurrency": 1}) as stack:
        await both_know_each_other(stack)
        execution_id = await stack.start(held(1))
        await until_true(lambda: GATES.running == 1, "it runs at the first")
        waiting = asyncio.create_task(stack.clients[1].executions.wait(execution_id))
        changes = stack.clients[1].executions.watch([execution_id])
        assert (await anext(changes)).state is ExecutionState.RUNNING
        GATES.open.set()
        assert (await anext(changes)).state is ExecutionState.SUCCESS
        assert (await waiting).state is ExecutionState.SUCCESS


async def test_who_is_alone_tells_nobody_anything(make_stack: OpenStack) -> None:
    async with make_stack() as stack:
        hints = stack.app.parts.hints
        told: list[str] = []

        async def note(*said: str) -> None:
            told.extend(said)

        hints._notify = note  # type: ignore[method-assign]
        for _ in range(3):
            await stack.run(a_graph("a -> b"))
        assert hints.alone
        assert set(told) <= {WHO, HELLO}
