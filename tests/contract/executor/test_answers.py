"""What ExecutorService answers, over a real channel and through grpcurl: lists in pages, long polls, watches."""

from __future__ import annotations

import asyncio
import shutil
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import orjson
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.executor import servicer, watch
from tests.builders import a_graph
from tests.executor_modules import GATES
from tests.executor_stack import PATIENCE, Stack, add_executor, until_true
from valkyr.api.executor.v1 import executor_pb2 as pb
from valkyr.api.executor.v1.executor_pb2_grpc import ExecutorServiceStub
from valkyr.client import Start
from valkyr.errors import DeadlineExceeded
from valkyr.rpc.channel import open_channel
from valkyr.rpc.status import rpc_errors

SERVICE = "valkyr.api.executor.v1.ExecutorService"
HELD = a_graph("a", modules={"a": "HeldModule"})
State = pb.Execution.State


async def grpcurl(stack: Stack, *arguments: str, data: str | None = None) -> tuple[int, str]:
    """Exit code, and what it printed on both streams."""
    program = shutil.which("grpcurl", path=str(Path(sys.executable).parent)) or "grpcurl"
    flags = ["-plaintext", "-max-time", "60", *(["-d", "@"] if data is not None else [])]
    process = await asyncio.create_subprocess_exec(
        program,
        *flags,
        stack.app.server.address,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate((data or "").encode())
    return process.returncode or 0, output.decode()


async def test_grpcurl_lists_and_describes_the_service(stack: Stack) -> None:
    assert SERVICE in (await grpcurl(stack, "list"))[1].split()
    code, output = await grpcurl(stack, "describe", SERVICE)
    assert code == 0
    for rpc in pb.DESCRIPTOR.services_by_name["ExecutorService"].methods_by_name:
        assert f"rpc {rpc} (" in output


async def test_grpcurl_starts_waits_and_reads(stack: Stack) -> None:
    workflow_id = await stack.save(a_graph("a", modules={"a": ("TransformModule", {"output": "${trigger}"})}))
    body = orjson.dumps({"workflowId": workflow_id, "payload": {"n": 1, "who": "Zoë"}, "triggerType": "WEBHOOK"})

    code, output = await grpcurl(stack, f"{SERVICE}/StartExecution", data=body.decode())
    assert code == 0, output
    execution = orjson.loads(output)["execution"]
    wait = orjson.dumps({"executionId": execution["id"], "timeout": "30s"}).decode()
    code, output = await grpcurl(stack, f"{SERVICE}/WaitExecution", data=wait)

    settled = orjson.loads(output)["execution"]
    assert (settled["state"], settled["triggerType"]) == ("SUCCESS", "WEBHOOK")
    assert settled["outputs"] == {"a": {"n": 1, "who": "Zoë"}}
    assert settled["triggerPayload"] == {"n": 1, "who": "Zoë"}
    assert settled["runCounts"] == {"SUCCESS": 1}
    code, output = await grpcurl(
        stack, f"{SERVICE}/ListRuns", data=orjson.dumps({"executionId": settled["id"]}).decode()
    )
    assert [run["state"] for run in orjson.loads(output)["runs"]] == ["SUCCESS"]


async def test_grpcurl_shows_what_is_wrong_with_a_request(stack: Stack) -> None:
    code, output = await grpcurl(stack, f"{SERVICE}/GetExecution", data='{"executionId": "blue"}')
    assert code != 0
    assert all(word in output for word in ("InvalidArgument", "executionId", "'blue'", "INVALID_REQUEST"))


async def test_the_service_says_that_it_is_healthy(stack: Stack) -> None:
    async with open_channel(stack.app.server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE, "liveness"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_run_says_all_there_is_to_know(stack: Stack, stub: ExecutorServiceStub) -> None:
    saved = await stack.client.graphs.save(a_graph("a -> b", modules={"a": "BriefModule", "b": "BrokenModule"}))
    execution = await stack.wait((await stack.client.executions.start(saved.workflow.id)).id)

    answer = await stub.ListRuns(pb.ListRunsRequest(execution_id=execution.id, include_outputs=True))

    a, b = answer.runs
    assert (a.node_id, a.state, a.attempt, a.class_name, a.pool) == (
        "a",
        pb.Run.State.SUCCESS,
        1,
        "BriefModule",
        "default",
    )
    assert a.task_id == saved.node_id_to_task_id["a"]
    assert MessageToDict(a.outputs) == {"node": "a"}
    assert a.start_time.ToDatetime() <= a.finish_time.ToDatetime()
    assert [(attempt.outcome, attempt.runner_id) for attempt in a.attempts] == [("SUCCESS", "runner-one")]
    assert (b.state, b.error, b.error_type, b.quarantine_number) == (
        pb.Run.State.QUARANTINED,
        "it broke",
        "PERMANENT",
        1,
    )
    assert [(attempt.attempt, attempt.outcome, attempt.error) for attempt in b.attempts] == [
        (1, "PERMANENT", "it broke")
    ]
    assert a.map_index == b.map_index == -1
    without = await stub.ListRuns(pb.ListRunsRequest(execution_id=execution.id))
    assert not without.runs[0].HasField("outputs")


async def test_executions_come_newest_first_in_pages_without_gaps_or_repeats(
    stack: Stack, stub: ExecutorServiceStub
) -> None:
    one, two = await stack.save(a_graph("a")), await stack.save(a_graph("b"))
    started = [(await stack.client.executions.start(one if n % 3 else two)).id for n in range(11)]
    for execution_id in started:
        await stack.wait(execution_id)

    async def listed(**fields: Any) -> list[str]:
        return [execution_id for page in await pages(**fields) for execution_id in page]

    async def pages(**fields: Any) -> list[list[str]]:
        found, token = [], ""
        while True:
            answer = await stub.ListExecutions(pb.ListExecutionsRequest(page_size=4, page_token=token, **fields))
            found.append([execution.id for execution in answer.executions])
            token = answer.next_page_token
            if not token:
                return found

    assert [len(page) for page in await pages()] == [4, 4, 3]
    assert await listed() == started[::-1]
    assert await listed(workflow_id=two) == started[::3][::-1]
    assert await listed(states=[State.SUCCESS]) == started[::-1]
    assert await listed(states=[State.FAILED, State.RUNNING, State.PENDING]) == []
    assert await listed(execution_ids=[started[5], started[2].upper(), started[5]]) == [started[5], started[2]]


async def test_runs_come_in_the_order_of_the_graph_in_pages(stack: Stack, stub: ExecutorServiceStub) -> None:
    graph = a_graph(", ".join(f"n{n}" for n in range(10)), modules={"n3": "BrokenModule"})
    execution_id = (await stack.run(graph)).id
    found, token = [], ""
    while True:
        answer = await stub.ListRuns(pb.ListRunsRequest(execution_id=execution_id, page_size=3, page_token=token))
        found += [run.node_id for run in answer.runs]
        token = answer.next_page_token
        if not token:
            break
    assert found == [f"n{n}" for n in range(10)]
    answer = await stub.ListRuns(pb.ListRunsRequest(execution_id=execution_id, states=[pb.Run.State.QUARANTINED]))
    assert [run.node_id for run in answer.runs] == ["n3"]


async def test_an_execution_that_waits_for_its_first_run_is_pending_and_then_running(
    stack: Stack, stub: ExecutorServiceStub
) -> None:
    waiting = await stack.start(a_graph("a", modules={"a": "NobodyKnowsModule"}))
    running = await stack.start(HELD)
    await until_true(lambda: GATES.running == 1, "it runs")
    assert (await stub.GetExecution(pb.GetExecutionRequest(execution_id=waiting))).execution.state == State.PENDING
    assert (await stub.GetExecution(pb.GetExecutionRequest(execution_id=running))).execution.state == State.RUNNING
    listed = await stub.ListExecutions(pb.ListExecutionsRequest(states=[State.RUNNING]))
    assert [execution.id for execution in listed.executions] == [running]


async def test_a_wait_answers_as_soon_as_the_execution_is_settled(stack: Stack, stub: ExecutorServiceStub) -> None:
    execution_id = await stack.start(HELD)
    request = pb.WaitExecutionRequest(execution_id=execution_id, timeout=Duration(seconds=3600))
    waiting = asyncio.ensure_future(stub.WaitExecution(request, timeout=3600))
    await until_true(lambda: GATES.running == 1, "it runs")
    GATES.open.set()
    answer = await asyncio.wait_for(waiting, PATIENCE)
    assert answer.execution.state == State.SUCCESS
    assert MessageToDict(answer.execution.outputs)["a"]["attempt"] == 1


async def test_a_wait_answers_with_what_is_at_its_timeout(stack: Stack, stub: ExecutorServiceStub) -> None:
    execution_id = await stack.start(HELD)
    await until_true(lambda: GATES.running == 1, "it runs")
    for timeout in (Duration(), Duration(nanos=200_000_000)):
        answer = await stub.WaitExecution(
            pb.WaitExecutionRequest(execution_id=execution_id, timeout=timeout), timeout=20
        )
        assert answer.execution.state == State.RUNNING


@pytest.mark.parametrize("deadline", [PATIENCE - 1, PATIENCE + 0.4], ids=["at once", "before its end"])
async def test_a_wait_answers_in_time_before_the_callers_deadline(
    stack: Stack, stub: ExecutorServiceStub, deadline: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time that is kept for the answer is long here, so that none comes late."""
    monkeypatch.setattr(servicer, "ANSWER_IN_TIME", timedelta(seconds=PATIENCE))
    execution_id = await stack.start(HELD)
    await until_true(lambda: GATES.running == 1, "it runs")
    answer = await stub.WaitExecution(
        pb.WaitExecutionRequest(execution_id=execution_id, timeout=Duration(seconds=60)), timeout=deadline
    )
    assert answer.execution.state == State.RUNNING


async def watched(stub: ExecutorServiceStub, request: pb.WatchExecutionsRequest, count: int) -> tuple[list[Any], str]:
    """The first `count` executions that a stream brings, and its last token."""
    stream = stub.WatchExecutions(request, timeout=30)
    found: list[Any] = []
    token = ""
    with rpc_errors():
        async for answer in stream:
            found += answer.executions
            token = answer.resume_token or token
            if len(found) >= count and token:
                break
    stream.cancel()
    return found, token


async def test_a_watch_ends_when_all_that_it_names_are_settled(stack: Stack, stub: ExecutorServiceStub) -> None:
    held = [(await stack.start(HELD)) for _ in range(3)]
    done = (await stack.run(a_graph("a"))).id
    stream = stub.WatchExecutions(
        pb.WatchExecutionsRequest(execution_ids=[*held, done], until_settled=True, include_outputs=True), timeout=30
    )
    last: dict[str, Any] = {}
    revisions: list[tuple[str, int]] = []
    async for answer in stream:
        for execution in answer.executions:
            last[execution.id] = execution
            revisions.append((execution.id, execution.revision))
        if len(last) == 4:
            GATES.open.set()
    assert set(last) == {*held, done}
    assert {execution.state for execution in last.values()} == {State.SUCCESS}
    assert all("a" in execution.outputs.fields for execution in last.values())
    assert len(revisions) == len(set(revisions))


async def test_a_watch_of_settled_executions_tells_them_and_ends(stack: Stack, stub: ExecutorServiceStub) -> None:
    done = (await stack.run(a_graph("a"))).id
    stream = stub.WatchExecutions(pb.WatchExecutionsRequest(execution_ids=[done, done], until_settled=True), timeout=20)
    told = [execution.id async for answer in stream for execution in answer.executions]
    assert told == [done]


async def test_a_watch_that_breaks_off_in_its_first_answers_is_told_all_when_it_is_resumed(
    stack: Stack, stub: ExecutorServiceStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "AT_ONCE", 2)
    done = [(await stack.run(a_graph("a"))).id for _ in range(6)]
    feed = stack.app.parts.feed
    await until_true(lambda: feed._task is None, "the next look begins anew, so that its mark is past all of them")
    request = pb.WatchExecutionsRequest(execution_ids=done, until_settled=True)
    broken = stub.WatchExecutions(request, timeout=30)
    first = await broken.read()
    broken.cancel()
    assert len(first.executions) == 2
    request.resume_token = first.resume_token
    told = [
        execution.id async for answer in stub.WatchExecutions(request, timeout=30) for execution in answer.executions
    ]
    assert {*told, *(execution.id for execution in first.executions)} == set(done)


async def test_a_watch_of_the_namespace_tells_of_every_execution_that_starts(
    stack: Stack, stub: ExecutorServiceStub
) -> None:
    mine, other = await stack.save(a_graph("a")), await stack.save(a_graph("b"))
    stream = stub.WatchExecutions(pb.WatchExecutionsRequest(workflow_id=mine), timeout=30)
    first = await anext(aiter(stream))
    assert not first.executions
    assert first.resume_token
    started = await stack.client.executions.start_many([Start(mine), Start(other), Start(mine)])
    settled: set[str] = set()
    async for answer in stream:
        assert {execution.workflow_id for execution in answer.executions} <= {mine}
        settled |= {execution.id for execution in answer.executions if execution.state == State.SUCCESS}
        if len(settled) == 2:
            break
    assert settled == {started[0].id, started[2].id}
    stream.cancel()


async def test_a_watch_that_resumes_misses_no_change(stack: Stack, stub: ExecutorServiceStub) -> None:
    """Between two streams executions start and end; the second stream, from the token of the first, tells of all."""
    workflow_id = await stack.save(a_graph("a"))
    _, token = await watched(stub, pb.WatchExecutionsRequest(), 0)
    for _ in range(3):
        started = await stack.client.executions.start_many([Start(workflow_id)] * 5)
        for execution in started:
            await stack.wait(execution.id)
        found, token = await watched(stub, pb.WatchExecutionsRequest(resume_token=token), 5)
        latest = {execution.id: execution for execution in found}
        assert {execution.id for execution in started} <= latest.keys()
        assert all(latest[execution.id].state == State.SUCCESS for execution in started)


async def test_a_watch_sees_what_another_replica_does_however_busy_this_one_is(stack: Stack) -> None:
    workflow_id = await stack.save(a_graph("a"))
    async with (
        add_executor(stack, name="two", limits={"starts": 50}),
        open_channel(stack.app.server.address) as channel,
    ):
        stub = ExecutorServiceStub(channel)
        stream = stub.WatchExecutions(pb.WatchExecutionsRequest(), timeout=30)
        await anext(aiter(stream))
        busy = asyncio.create_task(keep_busy(stack, workflow_id))
        try:
            theirs = await stack.clients[1].executions.start(workflow_id)
            async for answer in stream:
                if theirs.id in {execution.id for execution in answer.executions}:
                    break
            else:
                pytest.fail("the stream ended")
        finally:
            busy.cancel()
            await asyncio.gather(busy, return_exceptions=True)
            stream.cancel()


async def keep_busy(stack: Stack, workflow_id: str) -> None:
    while True:
        await stack.client.executions.start_many([Start(workflow_id)] * 5)


async def test_watches_that_were_left_leave_nothing_behind(stack: Stack, stub: ExecutorServiceStub) -> None:
    feed = stack.app.parts.feed
    streams = [stub.WatchExecutions(pb.WatchExecutionsRequest(), timeout=30) for _ in range(20)]
    for stream in streams:
        await anext(aiter(stream))
    assert feed.watched == 20
    for stream in streams:
        stream.cancel()
    await stack.run(a_graph("a"))
    await until_true(lambda: not feed.watched, "the streams are gone")


async def test_a_watch_past_its_deadline_ends_with_it(stub: ExecutorServiceStub) -> None:
    with pytest.raises(DeadlineExceeded), rpc_errors():
        async for _ in stub.WatchExecutions(pb.WatchExecutionsRequest(), timeout=0.5):
            pass


async def test_many_outputs_come_as_far_as_they_fit_and_the_rest_is_named(
    stack: Stack, stub: ExecutorServiceStub
) -> None:
    arrows = ", ".join(f"n{n}" for n in range(20))
    graph = a_graph(arrows, modules={f"n{n}": ("SizeModule", {"size": 900_000}) for n in range(20)})
    execution_id = (await stack.run(graph)).id
    answer = (await stub.GetExecution(pb.GetExecutionRequest(execution_id=execution_id), timeout=20)).execution
    assert len(answer.outputs.fields) + len(answer.omitted_outputs) == 20
    assert answer.omitted_outputs
    seen, token = [], ""
    while True:
        page = await stub.ListRuns(
            pb.ListRunsRequest(execution_id=execution_id, include_outputs=True, page_token=token), timeout=20
        )
        seen += [(run.node_id, len(run.outputs.struct_value.fields["text"].string_value)) for run in page.runs]
        token = page.next_page_token
        if not token:
            break
    assert seen == [(f"n{n}", 900_000) for n in range(20)]


async def test_the_principal_of_the_call_is_kept(stack: Stack) -> None:
    workflow_id = await stack.save(a_graph("a"))
    who = str(UUID(int=77))
    async with open_channel(stack.app.server.address, principal=who) as channel:
        answer = await ExecutorServiceStub(channel).StartExecution(pb.StartExecutionRequest(workflow_id=workflow_id))
    assert answer.execution.created_by == who
    row = await stack.sql.fetchrow("SELECT created_by, created_by_name FROM executor.workflow_execution")
    assert (str(row[0]), row[1]) == (who, who)


async def test_a_stopping_server_refuses_new_calls_as_unavailable(stack: Stack, stub: ExecutorServiceStub) -> None:
    await stack.app.server.stop(timedelta())
    with pytest.raises(grpc.RpcError) as caught:
        await stub.ListExecutions(pb.ListExecutionsRequest(), timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
