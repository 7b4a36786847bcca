"""Runners of one kind wait together: what one look does for all of them, and what becomes of one of them does to none
of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from services.executor.callers import Callers, Share
from services.executor.lanes import MAX_BATCH_BYTES
from tests.builders import a_graph
from tests.executor_stack import Stack, until_true
from tests.integration.executor.conftest import OpenStack
from tests.integration.executor.test_remote_runners import ACCEPTED, BY_HAND, CONTINUE, ByHand, done
from valkyr.api.executor.v1 import runner_pb2_grpc
from valkyr.errors import RunnerReplaced
from valkyr.flow.effects import Prepared
from valkyr.rpc.channel import open_channel


@pytest.fixture
async def stack(make_stack: OpenStack) -> AsyncIterator[Stack]:
    """Nothing runs but what the test leases."""
    async with make_stack(runner=BY_HAND) as stack:
        yield stack


async def registered(stub: Any, *ids: str) -> list[ByHand]:
    runners = [ByHand(stub, runner_id) for runner_id in ids]
    for runner in runners:
        await runner.register()
    return runners


async def waiting(stack: Stack, *runners: ByHand, max_runs: int = 100) -> list[asyncio.Task[Any]]:
    """Their calls, seen to have come in."""
    calls = [asyncio.create_task(runner.lease(max_runs, wait=30)) for runner in runners]
    await come_in(stack, len(runners))
    return calls


async def come_in(stack: Stack, calls: int) -> None:
    lanes = stack.app.parts.lending._lanes
    await until_true(lambda: sum(len(lane._callers.waiting) for lane in lanes.values()) == calls, "the calls wait")


async def test_what_becomes_ready_at_once_is_shared_by_those_who_wait(stack: Stack, stub: Any) -> None:
    runners = await registered(stub, "r1", "r2")
    calls = await waiting(stack, *runners)
    await stack.start(a_graph("a, b, c, d"))
    async with asyncio.timeout(10):
        answers = [await call for call in calls]
    assert [len(answer.runs) for answer in answers] == [2, 2]
    rows = await stack.sql.fetch(
        "SELECT runner_id, count(*) AS runs, count(DISTINCT xmin::text) AS written, min(started_at) AS at"
        " FROM executor.run GROUP BY runner_id ORDER BY runner_id"
    )
    assert [(row["runner_id"], row["runs"], row["written"]) for row in rows] == [("r1", 2, 1), ("r2", 2, 1)]
    assert rows[0]["at"] == rows[1]["at"], "leased in one transaction"
    for runner, answer in zip(runners, answers, strict=True):
        assert await runner.beat(*answer.runs) == [CONTINUE, CONTINUE]
        assert await runner.report(*map(done, answer.runs)) == [ACCEPTED, ACCEPTED]


async def test_no_answer_is_larger_than_a_message_may_be(stack: Stack, stub: Any) -> None:
    """What attempts before have said of their progress travels too."""
    await stack.start(a_graph(", ".join(f"n{number}" for number in range(300))))
    await stack.sql.execute("UPDATE executor.run SET progress = to_json(repeat('x', 60000))::text")
    [runner] = await registered(stub, "r1")
    sizes = [len((await runner.lease(500)).runs) for _ in range(3)]
    assert sum(sizes) == 300
    assert max(sizes) * 60_000 <= MAX_BATCH_BYTES


async def test_each_call_of_those_who_shared_brings_its_own_runs_again(stack: Stack, stub: Any) -> None:
    runners = await registered(stub, "r1", "r2")
    calls = [asyncio.create_task(runner.lease(wait=30, request_id="q")) for runner in runners]
    await come_in(stack, 2)
    await stack.start(a_graph("a, b, c, d"))
    for runner, call in zip(runners, calls, strict=True):
        first = await call
        assert await runner.lease(request_id="q") == first


async def test_i12_one_that_was_replaced_costs_those_who_wait_with_it_nothing(stack: Stack, stub: Any) -> None:
    older, other = await registered(stub, "r1", "r2")
    replaced, call = await waiting(stack, older, other, max_runs=1)
    [newer] = await registered(stub, "r1")
    await stack.start(a_graph("a, b"))
    async with asyncio.timeout(10):
        with pytest.raises(RunnerReplaced):
            await replaced
        assert len((await call).runs) == 1
    assert len((await newer.lease()).runs) == 1, "what would have been its own is leased by who took its place"


async def test_a_new_process_does_not_wait_for_a_call_that_its_predecessor_has_left(stack: Stack, stub: Any) -> None:
    """Its connection may have died half open; and the older served other classes."""
    older, newer = ByHand(stub, "r1"), ByHand(stub, "r1")
    await older.register(classes=("NoopModule",))
    [left] = await waiting(stack, older)
    await newer.register(classes=("OtherModule",))
    await stack.start(a_graph("a", modules={"a": "OtherModule"}))
    async with asyncio.timeout(10):
        assert len((await newer.lease()).runs) == 1
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)


async def test_i12_one_that_is_to_drain_is_answered_at_once_and_the_others_wait_on(stack: Stack, stub: Any) -> None:
    runners = await registered(stub, "r1", "r2")
    drained, call = await waiting(stack, *runners)
    await runners[0].drain()
    async with asyncio.timeout(10):
        answer = await drained
    assert (list(answer.runs), answer.drain) == ([], True)
    await stack.start(a_graph("a, b"))
    async with asyncio.timeout(10):
        assert len((await call).runs) == 2


async def test_i12_a_drain_that_another_replica_was_told_of_is_seen_as_leases_are_written(
    stack: Stack, stub: Any
) -> None:
    runners = await registered(stub, "r1", "r2")
    drained, call = await waiting(stack, *runners)
    await stack.sql.execute("UPDATE executor.runner SET draining = true WHERE runner_id = 'r1'")
    await stack.start(a_graph("a, b"))
    async with asyncio.timeout(10):
        answer = await drained
        assert (list(answer.runs), answer.drain) == ([], True)
        assert len((await call).runs) == 2


async def test_a_repeated_call_takes_the_place_of_the_first_which_is_not_heard_any_more(
    stack: Stack, stub: Any
) -> None:
    """Where a connection died half open the executor does not know it yet: the runner comes again by another."""
    [runner] = await registered(stub, "r1")
    first = asyncio.create_task(runner.lease(wait=30, request_id="q"))
    await come_in(stack, 1)
    second = asyncio.create_task(runner.lease(wait=30, request_id="q"))
    async with asyncio.timeout(10):
        assert not (await first).runs
    await stack.start(a_graph("a"))
    async with asyncio.timeout(10):
        assert len((await second).runs) == 1


async def test_a_call_that_its_client_has_given_up_is_leased_nothing(stack: Stack, stub: Any) -> None:
    gone, other = await registered(stub, "r1", "r2")
    given_up, call = await waiting(stack, gone, other)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    [lane] = stack.app.parts.lending._lanes.values()
    async with asyncio.timeout(10):
        while len(lane._callers.waiting) > 1:
            await asyncio.sleep(0.01)
    await stack.start(a_graph("a, b"))
    async with asyncio.timeout(10):
        assert len((await call).runs) == 2


async def test_lanes_end_with_their_executor(make_stack: OpenStack) -> None:
    async with make_stack(runner={"concurrency": 0}) as stack:
        channel = open_channel(stack.app.server.address, principal="runner")
        [runner] = await registered(runner_pb2_grpc.RunnerServiceStub(channel), "r1")
        await runner.lease(wait=0)
        lanes = [task for task in asyncio.all_tasks() if task.get_name().startswith("lane of ")]
        assert len(lanes) == 1
        await channel.close()
    assert [task.cancelled() for task in lanes] == [True]


@pytest.mark.parametrize("others", [[], ["r2"]], ids=["nobody is left", "another is left"])
async def test_a_call_that_goes_while_runs_are_looked_for_takes_none_along(
    stack: Stack, stub: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, others: list[str]
) -> None:
    gone, *left = await registered(stub, "r1", *others)
    calls = await waiting(stack, gone, *left, max_runs=1)
    divide = Callers.divide

    def divided(callers: Callers, runs: Sequence[Prepared]) -> Sequence[Share]:
        for caller in callers.waiting:
            if caller.asked.runner_id == "r1":
                caller.answer.cancel()
        return divide(callers, runs)

    monkeypatch.setattr(Callers, "divide", divided)
    execution_id = await stack.start(a_graph("a, b"))
    async with asyncio.timeout(10):
        for call in calls[1:]:
            assert len((await call).runs) == 1
        await asyncio.gather(calls[0], return_exceptions=True)
    assert sorted((await stack.states(execution_id)).values()) == ["LEASED"] * len(left) + ["READY"] * (2 - len(left))
    assert "lane.look_failed" not in caplog.text
    [newer] = await registered(stub, "r3")
    assert len((await newer.lease()).runs) == 2 - len(left)


async def test_i08_what_several_runners_report_at_once_is_answered_to_each_for_its_own(stack: Stack, stub: Any) -> None:
    ids = [await stack.start(a_graph("a")) for _ in range(12)]
    runners = await registered(stub, *(f"r{number}" for number in range(4)))
    held = [(runner, run) for runner in runners for run in (await runner.lease(3)).runs]
    stale = held[5][1]
    await held[5][0].report(done(stale))
    answers = await asyncio.gather(*(runner.report(done(run)) for runner, run in held))
    already = [place for place, answer in enumerate(answers) if answer != [ACCEPTED]]
    assert already == [5]
    assert {(await stack.wait(execution_id)).state for execution_id in ids} == {"SUCCESS"}
