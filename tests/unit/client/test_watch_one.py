"""client.executions.watch_one: one execution to its end, whatever breaks in between."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.client.test_executions import an_execution
from valkyr import errors
from valkyr.api.executor.v1 import executor_pb2 as pb
from valkyr.client import Client


def a_change(**fields: Any) -> pb.WatchExecutionResponse:
    return pb.WatchExecutionResponse(execution=an_execution(**fields))


async def test_it_resumes_behind_what_was_seen_and_ends_with_the_settled_state(script: Any, client: Client) -> None:
    script.answer(
        "WatchExecution",
        [a_change(state="PENDING", revision=0), errors.Unavailable("gone")],
        [a_change(state="PENDING", revision=0), a_change(revision=0), a_change(revision=3), errors.Unavailable("gone")],
        [a_change(revision=4)],
        [a_change(revision=5, state="SUCCESS")],
    )
    seen = [(change.state.value, change.revision) async for change in client.executions.watch_one("e1")]
    assert seen == [("PENDING", 0), ("RUNNING", 0), ("RUNNING", 3), ("RUNNING", 4), ("SUCCESS", 5)]
    requests = script.requests("WatchExecution")
    assert [request.execution_id for request in requests] == ["e1"] * 4
    assert [request.after_revision if request.HasField("after_revision") else None for request in requests] == [
        None,
        None,
        3,
        4,
    ]


async def test_an_older_state_of_a_replica_that_lags_is_dropped(script: Any, client: Client) -> None:
    script.answer(
        "WatchExecution",
        [a_change(revision=3), a_change(revision=2), a_change(revision=3), a_change(revision=4, state="FAILED")],
    )
    assert [change.revision async for change in client.executions.watch_one("e1")] == [3, 4]


async def test_it_gives_up_after_its_patience(script: Any, client: Client) -> None:
    script.answer("WatchExecution", errors.Unavailable("gone", hint="wait"))
    with pytest.raises(errors.Unavailable, match="gone"):
        async for _ in client.executions.watch_one("e1", patience=timedelta(milliseconds=300)):
            pass
    assert len(script.requests("WatchExecution")) > 1


async def test_it_raises_what_repeating_cannot_mend(script: Any, client: Client) -> None:
    script.answer("WatchExecution", errors.ExecutionNotFound("no execution e1"))
    with pytest.raises(errors.ExecutionNotFound):
        async for _ in client.executions.watch_one("e1"):
            pass


async def test_one_that_is_left_ends_its_stream(script: Any, client: Client) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def endless(_request: Any, context: Any) -> None:
        context.add_done_callback(lambda _: ended.set())
        begun.set()
        await asyncio.Event().wait()

    script.answer("WatchExecution", [a_change(), endless])
    watch = client.executions.watch_one("e1")
    assert (await anext(watch)).revision == 1
    await asyncio.wait_for(begun.wait(), 30)  # one that is left before that is cancelled within the first change
    await watch.aclose()
    await asyncio.wait_for(ended.wait(), 30)
