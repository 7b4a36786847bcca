"""WatchExecution: one execution from now to its settled state, each revision at most once, resumable by revision."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.json_format import MessageToDict

from tests.builders import a_chain, a_graph
from tests.contract.executor.test_answers import HELD, SERVICE, State, grpcurl
from tests.executor_modules import GATES
from tests.executor_stack import Stack, add_executor, until_true
from valkyr.api.executor.v1 import executor_pb2 as pb
from valkyr.api.executor.v1.executor_pb2_grpc import ExecutorServiceStub
from valkyr.rpc.channel import open_channel

PERMANENT = ("FailModule", {"type": "PERMANENT"})


def watch(stub: ExecutorServiceStub, execution_id: str, after: int | None = None) -> Any:
    return stub.WatchExecution(pb.WatchExecutionRequest(execution_id=execution_id, after_revision=after), timeout=30)


async def told(stream: AsyncIterator[pb.WatchExecutionResponse]) -> list[pb.Execution]:
    return [answer.execution async for answer in stream]


async def test_a_settled_execution_is_told_once_as_it_would_be_read(stack: Stack, stub: ExecutorServiceStub) -> None:
    execution_id = (await stack.run(a_graph("a", modules={"a": "BriefModule"}))).id
    read = await stub.GetExecution(pb.GetExecutionRequest(execution_id=execution_id))
    assert await told(watch(stub, execution_id)) == [read.execution]
    assert MessageToDict(read.execution.outputs) == {"a": {"node": "a"}}


async def test_a_watch_tells_newer_revisions_only_and_ends_with_the_settled_one(
    stack: Stack, stub: ExecutorServiceStub
) -> None:
    chain = " -> ".join(f"n{n}" for n in range(10))
    execution_id = await stack.start(a_graph(f"held -> {chain}", modules={"held": "HeldModule"}))
    await until_true(lambda: GATES.running == 1, "it runs")
    stream = watch(stub, execution_id)
    first = (await anext(aiter(stream))).execution
    assert (first.state, first.run_counts["LEASED"], first.run_counts["PENDING"]) == (State.RUNNING, 1, 10)
    assert not first.HasField("outputs")
    GATES.open.set()
    rest = await told(stream)
    revisions = [first.revision, *(execution.revision for execution in rest)]
    assert revisions == sorted(set(revisions))
    assert [execution.state for execution in rest][:-1] == [State.RUNNING] * (len(rest) - 1)
    assert (rest[-1].state, dict(rest[-1].run_counts)) == (State.SUCCESS, {"SUCCESS": 11})
    assert "n9" in rest[-1].outputs.fields


async def test_a_pending_execution_is_told_to_run_though_a_lease_raises_no_revision(
    stack: Stack, stub: ExecutorServiceStub
) -> None:
    execution_id = await stack.start(a_graph("a", modules={"a": "NobodyKnowsModule"}))
    stream = watch(stub, execution_id)
    assert (await anext(aiter(stream))).execution.state == State.PENDING
    await stack.sql.execute("UPDATE executor.workflow_execution SET state = 'RUNNING'")
    assert (await anext(aiter(stream))).execution.state == State.RUNNING
    stream.cancel()


async def test_a_cancel_that_waits_for_a_module_is_told_before_its_end(stack: Stack, stub: ExecutorServiceStub) -> None:
    execution_id = await stack.start(a_graph("a", modules={"a": "StubbornModule"}))
    await until_true(lambda: GATES.running == 1, "it runs")
    stream = watch(stub, execution_id)
    await anext(aiter(stream))
    await stack.client.executions.cancel(execution_id, reason="wrong order")
    asked = (await anext(aiter(stream))).execution
    assert (asked.state, asked.cancel_requested, asked.cancel_reason) == (State.RUNNING, True, "wrong order")
    GATES.open.set()
    assert (await told(stream))[-1].state == State.CANCELLED


async def test_a_watch_resumes_behind_the_revision_that_was_seen(stack: Stack, stub: ExecutorServiceStub) -> None:
    execution_id = await stack.start(HELD)
    await until_true(lambda: GATES.running == 1, "it runs")
    stream = watch(stub, execution_id)
    seen = (await anext(aiter(stream))).execution.revision
    stream.cancel()
    resumed = asyncio.ensure_future(told(watch(stub, execution_id, seen)))
    await until_true(lambda: stack.app.parts.feed.watched, "it listens")
    GATES.open.set()
    assert [execution.state for execution in await resumed] == [State.SUCCESS]
    settled = (await told(watch(stub, execution_id, seen)))[-1]
    assert settled.state == State.SUCCESS
    assert await told(watch(stub, execution_id, settled.revision)) == []
    assert [found.revision for found in await told(watch(stub, execution_id, settled.revision - 1))] == [
        settled.revision
    ]


async def test_a_failed_execution_that_was_reopened_can_be_watched_again(
    stack: Stack, stub: ExecutorServiceStub
) -> None:
    execution_id = (await stack.run(a_graph("a", modules={"a": PERMANENT}))).id
    [failed] = await told(watch(stub, execution_id))
    [run] = (await stack.runs(execution_id)).values()
    await stack.client.runs.complete(execution_id, run.id, quarantine_number=1, outputs="by hand")
    [mended] = await told(watch(stub, execution_id, failed.revision))
    assert (failed.state, mended.state) == (State.FAILED, State.SUCCESS)


async def test_what_another_replica_does_is_told(stack: Stack) -> None:
    workflow_id = await stack.save(a_chain(3))
    async with add_executor(stack, name="two"), open_channel(stack.app.server.address) as channel:
        execution = await stack.clients[1].executions.start(workflow_id)
        last = (await told(watch(ExecutorServiceStub(channel), execution.id)))[-1]
        assert last.state == State.SUCCESS


async def test_watches_that_were_left_leave_nothing_behind(stack: Stack, stub: ExecutorServiceStub) -> None:
    execution_id = await stack.start(HELD)
    feed = stack.app.parts.feed
    streams = [watch(stub, execution_id) for _ in range(20)]
    for stream in streams:
        await anext(aiter(stream))
    assert feed.watched == 20
    for stream in streams:
        stream.cancel()
    await until_true(lambda: not feed.watched, "the streams are gone")


async def test_grpcurl_watches_to_the_end(stack: Stack) -> None:
    execution_id = (await stack.run(a_graph("a"))).id
    code, output = await grpcurl(stack, f"{SERVICE}/WatchExecution", data=f'{{"executionId": "{execution_id}"}}')
    assert code == 0, output
    assert '"state": "SUCCESS"' in output
