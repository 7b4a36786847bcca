"""PauseExecution and ResumeExecution: what they answer and leave, who is named, and what a repeat does."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import a_graph
from tests.contract.executor.test_answers import SERVICE, State, grpcurl
from tests.contract.executor.test_errors import call
from tests.contract.executor.test_interventions import ask, refused
from tests.executor_modules import GATES
from tests.executor_stack import Stack, until_true
from valkyr.api.executor.v1 import executor_pb2 as pb
from valkyr.api.executor.v1.executor_pb2_grpc import ExecutorServiceStub
from valkyr.errors import ExecutionSettled, RequestIdReused
from valkyr.rpc.channel import open_channel

BOTH = pytest.mark.parametrize("rpc", ["PauseExecution", "ResumeExecution"])


@pytest.fixture
async def held(stack: Stack) -> str:
    """An execution whose first run is under way."""
    execution_id = await stack.start(a_graph("a -> b -> c", modules={"a": "HeldModule"}))
    await until_true(lambda: GATES.running == 1, "it runs")
    return execution_id


async def change(stub: ExecutorServiceStub, rpc: str, execution_id: str, **fields: Any) -> pb.Execution:
    answer: pb.PauseExecutionResponse | pb.ResumeExecutionResponse
    answer = await call(stub, rpc, ask(rpc, execution_id, **fields))
    return answer.execution


async def test_a_pause_says_who_when_and_why_until_it_is_resumed(
    stack: Stack, stub: ExecutorServiceStub, held: str
) -> None:
    before = (await stub.GetExecution(pb.GetExecutionRequest(execution_id=held))).execution
    paused = await change(stub, "PauseExecution", held, reason="the warehouse moves")
    assert paused.state == State.PAUSED
    assert (paused.paused_by, paused.pause_reason) == ("tester", "the warehouse moves")
    assert paused.pause_time.ToDatetime() >= paused.create_time.ToDatetime()
    assert paused.revision > before.revision
    assert dict(paused.run_counts) == {"LEASED": 1, "PENDING": 2}
    listed = await stub.ListExecutions(pb.ListExecutionsRequest(states=[State.PAUSED]))
    assert [(found.id, found.paused_by) for found in listed.executions] == [(held, "tester")]

    GATES.open.set()
    await stack.until("SELECT count(*) = 1 FROM executor.run WHERE state = 'PARKED'", what="b is parked")
    run = (await stub.GetRun(pb.GetRunRequest(execution_id=held, node_id="b"))).run
    assert (run.state, run.parked_by, run.attempt) == (pb.Run.PARKED, "PAUSE", 0)

    resumed = await change(stub, "ResumeExecution", held)
    assert resumed.state in (State.RUNNING, State.SUCCESS)
    assert (resumed.paused_by, resumed.pause_reason, resumed.HasField("pause_time")) == ("", "", False)
    await stack.wait(held)
    run = (await stub.GetRun(pb.GetRunRequest(execution_id=held, node_id="b"))).run
    assert (run.state, run.parked_by) == (pb.Run.SUCCESS, "")


async def test_a_watch_tells_of_the_pause_and_the_resume(stack: Stack, stub: ExecutorServiceStub, held: str) -> None:
    stream = stub.WatchExecution(pb.WatchExecutionRequest(execution_id=held), timeout=30)
    await anext(aiter(stream))
    await change(stub, "PauseExecution", held, reason="to look")
    paused = (await anext(aiter(stream))).execution
    assert (paused.state, paused.pause_reason) == (State.PAUSED, "to look")
    await change(stub, "ResumeExecution", held)
    assert (await anext(aiter(stream))).execution.state == State.RUNNING
    GATES.open.set()
    assert [answer.execution.state async for answer in stream][-1] == State.SUCCESS


async def test_the_first_who_paused_is_named_whoever_pauses_too(
    stack: Stack, stub: ExecutorServiceStub, held: str
) -> None:
    await change(stub, "PauseExecution", held, reason="first")
    async with open_channel(stack.app.server.address, principal="another") as channel:
        again = await change(ExecutorServiceStub(channel), "PauseExecution", held, reason="second", request_id="r")
    assert (again.state, again.paused_by, again.pause_reason) == (State.PAUSED, "tester", "first")


async def test_who_paused_last_is_named_also_where_the_pause_before_ended_without_a_resume(
    stack: Stack, stub: ExecutorServiceStub, held: str
) -> None:
    await change(stub, "PauseExecution", held, reason="first")
    # As a requeue leaves an execution that failed while it was paused.
    await stack.sql.execute("UPDATE executor.workflow_execution SET state = 'RUNNING'")
    assert (await change(stub, "PauseExecution", held, reason="second")).pause_reason == "second"


async def test_a_repeat_that_comes_after_a_resume_does_not_pause_again(stub: ExecutorServiceStub, held: str) -> None:
    await change(stub, "PauseExecution", held, request_id="once")
    assert (await change(stub, "PauseExecution", held, request_id="once")).state == State.PAUSED
    await change(stub, "ResumeExecution", held, request_id="once")
    assert (await change(stub, "PauseExecution", held, request_id="once")).state == State.RUNNING
    assert (await change(stub, "PauseExecution", held, request_id="twice")).state == State.PAUSED
    assert (await change(stub, "ResumeExecution", held, request_id="once")).state == State.PAUSED


@BOTH
async def test_a_request_id_with_another_request_is_already_exists(
    stack: Stack, stub: ExecutorServiceStub, held: str, rpc: str
) -> None:
    other = await stack.start(a_graph("x", nodes={"x": {"pool": "elsewhere"}}))
    await change(stub, rpc, held, request_id="mine", reason="one")
    for changed in (ask(rpc, held, request_id="mine", reason="two"), ask(rpc, other, request_id="mine", reason="one")):
        assert "'mine'" in (await refused(stub, RequestIdReused, rpc, changed)).message


@BOTH
async def test_what_has_ended_is_refused_with_the_state_it_ended_in(
    stack: Stack, stub: ExecutorServiceStub, rpc: str
) -> None:
    done = (await stack.run(a_graph("a"))).id
    error = await refused(stub, ExecutionSettled, rpc, ask(rpc, done))
    assert error.details.metadata == {"state": "SUCCESS"}
    assert done in error.message


@BOTH
async def test_what_is_being_cancelled_is_refused(stack: Stack, stub: ExecutorServiceStub, rpc: str) -> None:
    execution_id = await stack.start(a_graph("a", modules={"a": "StubbornModule"}))
    await until_true(lambda: GATES.running == 1, "it runs")
    await stack.client.executions.cancel(execution_id)
    assert "ending" in (await refused(stub, ExecutionSettled, rpc, ask(rpc, execution_id))).message
    GATES.open.set()


async def test_grpcurl_pauses_and_resumes(stack: Stack, held: str) -> None:
    body = f'{{"executionId": "{held}", "reason": "to look"}}'
    code, output = await grpcurl(stack, f"{SERVICE}/PauseExecution", data=body)
    assert code == 0, output
    for said in ('"state": "PAUSED"', '"pausedBy": "anonymous"', '"pauseReason": "to look"', '"pauseTime": "'):
        assert said in output
    code, output = await grpcurl(stack, f"{SERVICE}/ResumeExecution", data=f'{{"executionId": "{held}"}}')
    assert code == 0, output
    assert "paused" not in output
