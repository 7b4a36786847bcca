"""client.executions: what is sent, what comes back, and the watch."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from valkyr import errors
from valkyr.api.executor.v1 import executor_pb2 as pb
from valkyr.client import Client, ExecutionState, RunState, Start, TriggerType
from valkyr.client.watch import Trouble


def an_execution(id: str = "e1", *, state: str = "RUNNING", revision: int = 1) -> pb.Execution:
    return pb.Execution(id=id, state=pb.Execution.State.Value(state), revision=revision)


def a_change(*executions: pb.Execution, token: str) -> pb.WatchExecutionsResponse:
    return pb.WatchExecutionsResponse(executions=executions, resume_token=token)


async def test_a_payload_arrives_as_it_was_given(script: Any, client: Client) -> None:
    answer = pb.StartExecutionResponse(execution=an_execution())

    async def echo(request: pb.StartExecutionRequest, _context: Any) -> pb.StartExecutionResponse:
        answer.execution.trigger_payload.CopyFrom(request.payload)
        return answer

    script.answer("StartExecution", echo)
    payload = {"n": 1, "f": 1.5, "list": [True, None, "ü"], "nested": {"empty": {}, "none": []}, "big": 1e300}
    execution = await client.executions.start(
        "w1", payload=payload, version=3, trigger_type=TriggerType.CRON, priority=5
    )
    assert execution.trigger_payload == payload
    assert isinstance(execution.trigger_payload["n"], int)
    (request,) = script.requests("StartExecution")
    assert (request.version, request.priority) == (3, 5)
    assert request.trigger_type == pb.Execution.CRON


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        ({"order": {"id": 2**53}}, r"payload\.order\.id: .*string"),
        ({"x": [1, float("nan")]}, r"payload\.x\[1\]: nan"),
        ({1: 2}, "keys of a JSON object are strings"),
        ({"x": {1, 2}}, r"payload\.x: is a set"),
        ("\ud800", "surrogate"),
    ],
    ids=["too big", "nan", "key", "set", "surrogate"],
)
async def test_i25_what_json_cannot_carry_is_refused_before_any_call(
    payload: Any, complaint: str, script: Any, client: Client
) -> None:
    with pytest.raises(errors.InvalidRequest, match=complaint):
        await client.executions.start("w1", payload=payload)
    assert not script.received


@pytest.mark.parametrize("depth", [33, 34, 49, 64, 65, 10_000])
@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}], ids=["lists", "objects"])
async def test_i25_a_payload_nested_too_deep_is_refused_before_any_call(
    wrap: Any, depth: int, script: Any, client: Client
) -> None:
    payload = nested(wrap, depth)
    with pytest.raises(errors.LimitExceeded, match=r"^payload[.\[].* nested deeper than 32 levels"):
        await client.executions.start("w1", payload=payload)
    with pytest.raises(errors.LimitExceeded, match=r"^executions\[0\]\.payload[.\[]"):
        await client.executions.start_many([Start("w1", payload=payload)])
    assert not script.received


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}], ids=["lists", "objects"])
async def test_i25_a_payload_at_the_limit_arrives_and_comes_back(wrap: Any, script: Any, client: Client) -> None:
    payload = nested(wrap, 32)
    script.answer("StartExecution", echo)
    script.answer("StartExecutions", echo_all)
    assert (await client.executions.start("w1", payload=payload)).trigger_payload == payload
    (started,) = await client.executions.start_many([Start("w1", payload=payload)])
    assert started.trigger_payload == payload


def nested(wrap: Any, depth: int) -> Any:
    payload: Any = 1
    for _ in range(depth):
        payload = wrap(payload)
    return payload


async def echo(request: Any, _context: Any) -> pb.StartExecutionResponse:
    execution = an_execution("e1")
    execution.trigger_payload.CopyFrom(request.payload)
    return pb.StartExecutionResponse(execution=execution)


async def echo_all(request: Any, context: Any) -> pb.StartExecutionsResponse:
    return pb.StartExecutionsResponse(executions=[(await echo(one, context)).execution for one in request.executions])


async def test_start_many_keeps_the_order_and_gives_each_a_request_id(script: Any, client: Client) -> None:
    script.answer("StartExecutions", pb.StartExecutionsResponse(executions=[an_execution("e1"), an_execution("e2")]))
    started = await client.executions.start_many([Start("w1"), Start("w2", request_id="mine", payload=[1])])
    assert [execution.id for execution in started] == ["e1", "e2"]
    first, second = script.requests("StartExecutions")[0].executions
    assert first.request_id
    assert second.request_id == "mine"


async def test_wait_repeats_the_long_poll_until_settled(script: Any, client: Client) -> None:
    script.answer(
        "WaitExecution",
        pb.WaitExecutionResponse(execution=an_execution()),
        errors.Unavailable("restarting"),
        pb.WaitExecutionResponse(execution=an_execution(state="SUCCESS")),
    )
    execution = await client.executions.wait("e1")
    assert execution.state is ExecutionState.SUCCESS
    assert execution.settled
    assert len(script.requests("WaitExecution")) == 3


async def test_wait_answers_with_the_execution_as_it_is_at_the_timeout(script: Any, client: Client) -> None:
    script.answer("WaitExecution", pb.WaitExecutionResponse(execution=an_execution()))
    execution = await client.executions.wait("e1", timeout=timedelta(0))
    assert not execution.settled
    (request,) = script.requests("WaitExecution")
    assert request.timeout.ToTimedelta() == timedelta(0)


async def test_watch_resumes_where_it_broke_and_drops_repeats(script: Any, client: Client) -> None:
    script.answer(
        "WatchExecutions",
        [a_change(an_execution(revision=1), an_execution("e2", revision=4), token="t1"), errors.Unavailable("gone")],
        [
            a_change(an_execution(revision=1), an_execution("e2", revision=3), token="t2"),
            a_change(an_execution(revision=2, state="SUCCESS"), token="t3"),
        ],
        [a_change(an_execution("e2", revision=5, state="FAILED"), token="t4")],
    )
    seen = [(change.id, change.revision) async for change in client.executions.watch(["e1", "e2"])]
    assert seen == [("e1", 1), ("e2", 4), ("e1", 2), ("e2", 5)]
    first, second, third = script.requests("WatchExecutions")
    assert [request.resume_token for request in (first, second, third)] == ["", "t1", "t3"]
    assert first.until_settled


async def test_watch_gives_up_after_its_patience(script: Any, client: Client) -> None:
    script.answer("WatchExecutions", errors.Unavailable("gone", hint="wait"))
    with pytest.raises(errors.Unavailable, match="gone"):
        async for _ in client.executions.watch(["e1"], patience=timedelta(seconds=1)):
            pass
    assert len(script.requests("WatchExecutions")) > 1


def test_a_stream_that_lived_long_ends_the_trouble_and_one_that_did_not_adds_to_it() -> None:
    away = errors.Unavailable("restarting")
    trouble = Trouble(patience=60)
    assert trouble.delay_after(away, lived=3600) <= 0.1
    assert [trouble.delay_after(away, lived=0.1) >= 0.1 for _ in range(4)] == [True] * 4
    assert trouble.delay_after(away, lived=60) <= 0.1
    impatient = Trouble(patience=-1)
    with pytest.raises(errors.Unavailable):
        impatient.delay_after(away, lived=-2)


async def test_a_server_that_ends_every_stream_at_once_is_not_hammered(script: Any, client: Client) -> None:
    script.answer("WatchExecutions", errors.DeadlineExceeded("at once"))
    with pytest.raises(errors.DeadlineExceeded):
        async for _ in client.executions.watch(["e1"], patience=timedelta(milliseconds=500)):
            pass
    assert len(script.received) < 12


async def test_a_watch_that_is_left_ends_its_stream(script: Any, client: Client) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def endless(_request: Any, context: Any) -> None:
        context.add_done_callback(lambda _: ended.set())
        begun.set()
        await asyncio.Event().wait()

    script.answer("WatchExecutions", [a_change(an_execution(), token="t1"), endless])
    watch = client.executions.watch(["e1"])
    assert (await anext(watch)).revision == 1
    await asyncio.wait_for(begun.wait(), 30)  # one that is left before that is cancelled within the first change
    await watch.aclose()
    await asyncio.wait_for(ended.wait(), 30)


async def test_watch_raises_what_repeating_cannot_mend(script: Any, client: Client) -> None:
    script.answer("WatchExecutions", errors.ExecutionNotFound("no execution e1"))
    with pytest.raises(errors.ExecutionNotFound):
        async for _ in client.executions.watch(["e1"]):
            pass


async def test_watch_renews_a_stream_that_grew_old(script: Any, client: Client) -> None:
    script.answer(
        "WatchExecutions",
        [a_change(an_execution(), token="t1"), errors.DeadlineExceeded("old")],
        [a_change(an_execution(revision=2, state="SUCCESS"), token="t2")],
    )
    assert [change.revision async for change in client.executions.watch(["e1"])] == [1, 2]


async def test_a_pause_and_a_resume_say_why_and_carry_a_request_id(script: Any, client: Client) -> None:
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    paused = an_execution(state="PAUSED")
    paused.paused_by, paused.pause_reason = "ada", "the warehouse moves"
    paused.pause_time.FromDatetime(when)
    script.answer("PauseExecution", errors.Unavailable("restarting"), pb.PauseExecutionResponse(execution=paused))
    script.answer("ResumeExecution", pb.ResumeExecutionResponse(execution=an_execution()))
    execution = await client.executions.pause("e1", reason="the warehouse moves")
    assert (execution.state, execution.settled) == (ExecutionState.PAUSED, False)
    assert (execution.paused_by, execution.pause_reason, execution.paused_at) == ("ada", "the warehouse moves", when)
    assert (await client.executions.resume("e1", request_id="mine")).paused_at is None
    first, second = script.requests("PauseExecution")
    assert (first.execution_id, first.reason) == ("e1", "the warehouse moves")
    assert first.request_id
    assert first.request_id == second.request_id
    (resumed,) = script.requests("ResumeExecution")
    assert resumed.request_id == "mine"


async def test_list_follows_the_pages(script: Any, client: Client) -> None:
    script.answer(
        "ListExecutions",
        pb.ListExecutionsResponse(executions=[an_execution("e1"), an_execution("e2")], next_page_token="more"),
        pb.ListExecutionsResponse(executions=[an_execution("e3")]),
    )
    pages = client.executions.list(workflow_id="w1", states=[ExecutionState.RUNNING])
    assert [execution.id async for execution in pages] == ["e1", "e2", "e3"]
    first, second = script.requests("ListExecutions")
    assert (first.page_token, second.page_token) == ("", "more")
    assert list(first.states) == [pb.Execution.RUNNING]
    assert first.workflow_id == "w1"


async def test_one_page_can_be_had_alone(script: Any, client: Client) -> None:
    script.answer("ListExecutions", pb.ListExecutionsResponse(executions=[an_execution()], next_page_token="more"))
    page = await client.executions.list(page_size=1).page()
    assert page.next_page_token == "more"
    assert len(script.received) == 1


async def test_runs_come_with_their_attempts(script: Any, client: Client) -> None:
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    stamp = Timestamp()
    stamp.FromDatetime(when)
    run = pb.Run(id="r1", node_id="a", map_index=-1, state=pb.Run.QUARANTINED, start_time=stamp, duration_ms=12)
    run.attempts.add(attempt=1, outcome="PERMANENT", error="no such card", start_time=stamp)
    script.answer("ListRuns", pb.ListRunsResponse(runs=[run]))
    (read,) = await client.executions.list_runs("e1", states=[RunState.QUARANTINED], include_outputs=True).all()
    assert read.state is RunState.QUARANTINED
    assert not read.final
    assert read.started_at == when
    assert read.finished_at is None
    assert read.attempts[0].error == "no such card"


async def test_a_state_of_a_newer_server_says_so(script: Any, client: Client) -> None:
    script.answer("GetExecution", pb.GetExecutionResponse(execution=pb.Execution(id="e1", state=99)))  # type: ignore[arg-type]
    with pytest.raises(errors.UnknownMethod, match="99"):
        await client.executions.get("e1")
