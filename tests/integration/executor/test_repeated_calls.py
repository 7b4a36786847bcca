"""A runner that had no answer asks once more, at any time while its first call is under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from services.executor.lanes import _LeasingTo
from services.executor.runners import Runners
from tests.builders import a_graph
from tests.executor_stack import Stack, until_true
from tests.integration.executor.conftest import OpenStack
from tests.integration.executor.test_lanes import come_in, registered
from tests.integration.executor.test_remote_runners import BY_HAND, ByHand
from valkyr.api.executor.v1 import runner_pb2_grpc
from valkyr.rpc.channel import open_channel

WAITS = "SELECT count(*) = $1 FROM executor.runner WHERE last_seen_at > registered_at AND namespace <> '*'"


class Held:
    """What the first who gets so far stands still at, until it is let on."""

    def __init__(self) -> None:
        self.came, self.let_on = asyncio.Event(), asyncio.Event()

    async def stand(self) -> None:
        if not self.came.is_set():
            self.came.set()
            await self.let_on.wait()


@pytest.fixture
async def stack(make_stack: OpenStack) -> AsyncIterator[Stack]:
    """Nothing runs but what the test leases."""
    async with make_stack(runner=BY_HAND) as stack:
        yield stack


@pytest.fixture
def commit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """Stands still with the first leases written."""
    held, lease = Held(), _LeasingTo.lease

    async def write_and_stand(leasing: _LeasingTo, tx: Any, prepared: Any) -> None:
        await lease(leasing, tx, prepared)
        if prepared:
            await held.stand()

    monkeypatch.setattr(_LeasingTo, "lease", write_and_stand)
    yield held
    held.let_on.set()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """The first call that comes stands still once its row is read."""
    held, see = Held(), Runners.seen

    async def see_and_stand(runners: Runners, *key: Any) -> Any:
        row = await see(runners, *key)
        await held.stand()
        return row

    monkeypatch.setattr(Runners, "seen", see_and_stand)
    yield held
    held.let_on.set()


def calls_under_way(stack: Stack) -> list[Any]:
    return [call for turn in stack.app.parts.lending._turns.values() for call in turn.calls]


async def cut(call: asyncio.Task[Any], stack: Stack) -> None:
    """Its connection, seen to be gone."""
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await until_true(lambda: any(one.answer.cancelled() for one in calls_under_way(stack)), "the call is given up")


async def under_way(stack: Stack, calls: int) -> None:
    await until_true(lambda: len(calls_under_way(stack)) == calls, f"{calls} calls are under way")


async def cut_as_its_leases_are_committed(runner: ByHand, stack: Stack, commit: Held, nodes: str) -> None:
    call = asyncio.create_task(runner.lease(1, wait=30, request_id="q"))
    await stack.until(WAITS, 1)
    await stack.start(a_graph(nodes))
    await commit.came.wait()
    await cut(call, stack)


@pytest.mark.parametrize("early", [True, False], ids=["before the commit", "after the commit"])
async def test_a_call_that_is_cut_off_while_its_leases_are_committed_brings_them_when_it_comes_again(
    stack: Stack, stub: Any, commit: Held, early: bool
) -> None:
    [runner] = await registered(stub, "r1")
    await cut_as_its_leases_are_committed(runner, stack, commit, "a, b")
    if early:
        second = asyncio.create_task(runner.lease(1, wait=30, request_id="q"))
        await under_way(stack, 2)
        commit.let_on.set()
    else:
        commit.let_on.set()
        await stack.until("SELECT count(*) = 1 FROM executor.run WHERE state = 'LEASED'")
        second = asyncio.create_task(runner.lease(1, wait=30, request_id="q"))
    async with asyncio.timeout(10):
        [run] = (await second).runs
    held = await stack.sql.fetch("SELECT id FROM executor.run WHERE state = 'LEASED'")
    assert [str(row["id"]) for row in held] == [run.run_id]


async def test_a_call_that_is_cut_off_while_others_are_leased_to_waits_for_that_alone_and_comes_again(
    stack: Stack, stub: Any, commit: Held
) -> None:
    other, runner = await registered(stub, "r1", "r2")
    given = asyncio.create_task(other.lease(1, wait=30))
    await stack.until(WAITS, 1)
    await stack.start(a_graph("a"))
    await commit.came.wait()
    first = asyncio.create_task(runner.lease(1, wait=30, request_id="q"))
    await come_in(stack, 2)
    await cut(first, stack)
    second = asyncio.create_task(runner.lease(1, wait=30, request_id="q"))
    await under_way(stack, 3)
    commit.let_on.set()
    async with asyncio.timeout(10):
        assert len((await given).runs) == 1
        await stack.start(a_graph("b"))
        assert [run.node_id for run in (await second).runs] == ["b"]


async def test_a_call_that_comes_again_to_another_executor_while_its_leases_are_committed_brings_them(
    make_stack: OpenStack, commit: Held
) -> None:
    """That one sees them as it is about to write others."""
    async with make_stack(runner=BY_HAND, names=("one", "two")) as stack:
        one, two = (open_channel(app.server.address, principal="runner") for app in stack.executors)
        here, there = (ByHand(runner_pb2_grpc.RunnerServiceStub(channel)) for channel in (one, two))
        there.who = here.who
        await here.register()
        first = asyncio.create_task(here.lease(1, wait=30, request_id="q"))
        await stack.until(WAITS, 1)
        await stack.start(a_graph("a, b"))
        await commit.came.wait()
        await cut(first, stack)
        second = asyncio.create_task(there.lease(1, wait=30, request_id="q"))
        await stack.until_locked_out("the other executor waits for the row of the runner")
        commit.let_on.set()
        async with asyncio.timeout(10):
            [run] = (await second).runs
        held = await stack.sql.fetch("SELECT id FROM executor.run WHERE state = 'LEASED'")
        assert [str(row["id"]) for row in held] == [run.run_id]
        for channel in (one, two):
            await channel.close()


async def test_a_process_that_takes_the_place_of_one_that_died_as_leases_were_committed_has_its_runs(
    stack: Stack, stub: Any, commit: Held
) -> None:
    [older] = await registered(stub, "r1")
    await cut_as_its_leases_are_committed(older, stack, commit, "a")
    newer = asyncio.create_task(registered(stub, "r1"))
    await stack.until_locked_out("the newer process waits for the row of the runner")
    commit.let_on.set()
    async with asyncio.timeout(10):
        [runner] = await newer
        assert [run.attempt for run in (await runner.lease(1, wait=30)).runs] == [2]
    await under_way(stack, 0)


async def test_a_call_that_comes_again_before_the_first_waits_takes_its_place(
    stack: Stack, stub: Any, seen: Held
) -> None:
    """The connection of the first may have died half open: nobody hears its answer, nor that it is gone."""
    [runner] = await registered(stub, "r1")
    first = asyncio.create_task(runner.lease(wait=60, request_id="q"))
    await seen.came.wait()
    second = asyncio.create_task(runner.lease(wait=60, request_id="q"))
    await under_way(stack, 2)
    seen.let_on.set()
    async with asyncio.timeout(10):
        assert not (await first).runs
    await stack.start(a_graph("a"))
    async with asyncio.timeout(10):
        assert len((await second).runs) == 1


async def test_i12_a_drain_that_comes_before_a_call_waits_is_its_answer(stack: Stack, stub: Any, seen: Held) -> None:
    [runner] = await registered(stub, "r1")
    call = asyncio.create_task(runner.lease(wait=60))
    await seen.came.wait()
    await runner.drain()
    seen.let_on.set()
    async with asyncio.timeout(10):
        answer = await call
    assert (list(answer.runs), answer.drain) == ([], True)


async def test_a_call_that_does_not_wait_yet_is_answered_when_the_executor_is_to_stop(
    stack: Stack, stub: Any, seen: Held
) -> None:
    [runner] = await registered(stub, "r1")
    call = asyncio.create_task(runner.lease(wait=60))
    await seen.came.wait()
    await stack.app.parts.drain()
    seen.let_on.set()
    async with asyncio.timeout(10):
        assert not (await call).runs
