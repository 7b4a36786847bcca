"""What the SDK does around a call: deadlines, repeats, errors, who calls."""

from __future__ import annotations

import asyncio
import socket
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from valkyr import errors
from valkyr.api.executor.v1 import executor_pb2 as pb
from valkyr.client import Client
from valkyr.client.retries import RetryBudget, delay_before_repeat
from valkyr.rpc.status import to_grpc_status

NEVER_HANGS = 30.0
AN_EXECUTION = pb.GetExecutionResponse(execution=pb.Execution(id="e1", state=pb.Execution.RUNNING))
STARTED = pb.StartExecutionResponse(execution=pb.Execution(id="e1", state=pb.Execution.PENDING))


async def test_a_read_is_repeated_while_the_server_is_unavailable(script: Any, client: Client) -> None:
    script.answer("GetExecution", errors.Unavailable("starting"), errors.Unavailable("starting"), AN_EXECUTION)
    assert (await client.executions.get("e1")).id == "e1"
    assert len(script.requests("GetExecution")) == 3


async def test_a_change_is_repeated_with_the_same_request_id(script: Any, client: Client) -> None:
    script.answer("StartExecution", errors.Unavailable("reply lost"), STARTED)
    await client.executions.start("w1")
    first, second = script.requests("StartExecution")
    assert first.request_id
    assert first.request_id == second.request_id


async def test_every_start_gets_a_request_id_of_its_own(script: Any, client: Client) -> None:
    script.answer("StartExecution", STARTED)
    await client.executions.start("w1")
    await client.executions.start("w1")
    await client.executions.start("w1", request_id="mine")
    first, second, third = [request.request_id for request in script.requests("StartExecution")]
    assert first != second
    assert third == "mine"


async def test_other_errors_are_not_repeated(script: Any, client: Client) -> None:
    script.answer("GetExecution", errors.ExecutionNotFound("no execution e1", hint="list them"), AN_EXECUTION)
    with pytest.raises(errors.ExecutionNotFound, match="no execution e1") as caught:
        await client.executions.get("e1")
    assert caught.value.hint == "list them"
    assert len(script.requests("GetExecution")) == 1


async def test_retry_info_is_honoured(script: Any, client: Client) -> None:
    wish = timedelta(milliseconds=400)
    script.answer("GetExecution", errors.Unavailable("failing over", retry_after=wish), AN_EXECUTION)
    await client.executions.get("e1")
    first, second = script.received
    assert second.at - first.at >= 0.4


async def test_a_wish_beyond_the_deadline_ends_the_call_at_once(script: Any, client: Client) -> None:
    script.answer("GetExecution", errors.Unavailable("failing over", retry_after=timedelta(minutes=10)))
    async with asyncio.timeout(NEVER_HANGS):
        with pytest.raises(errors.Unavailable, match="failing over"):
            await client.executions.get("e1", timeout=timedelta(minutes=5))
    assert len(script.received) == 1


async def test_an_overload_is_repeated_only_when_the_server_says_when(script: Any, client: Client) -> None:
    script.answer("GetExecution", errors.Overloaded("busy", retry_after=timedelta(milliseconds=50)), AN_EXECUTION)
    await client.executions.get("e1")
    script.answer("GetExecution", errors.Overloaded("busy"), AN_EXECUTION)
    with pytest.raises(errors.Overloaded):
        await client.executions.get("e1")


async def test_a_server_that_does_not_answer_is_a_deadline_error_with_a_hint(script: Any, client: Client) -> None:
    async def hang(_request: Any, _context: Any) -> None:
        await asyncio.Event().wait()

    script.answer("GetExecution", hang)
    with pytest.raises(errors.DeadlineExceeded, match=r"the executor at .* did not answer within 0\.2 s") as caught:
        await client.executions.get("e1", timeout=timedelta(milliseconds=200))
    assert "request_id" in caught.value.hint


async def test_i24_what_the_server_said_is_told_where_a_repeat_runs_out_of_time(script: Any, client: Client) -> None:
    async def out_of_time(_request: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "as gRPC says it by itself")

    script.answer("DiscardDeadLetter", errors.Unavailable("the executor is away", hint="it is kept"), out_of_time)
    with pytest.raises(errors.Unavailable, match="the executor is away") as caught:
        await client.dead_letters.discard("l1", reason="x")
    assert caught.value.hint == "it is kept"
    assert len(script.requests("DiscardDeadLetter")) == 2


async def test_the_deadline_covers_all_repeats(script: Any, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("valkyr.client.calls.time", SimpleNamespace(monotonic=lambda: clock[0]))

    async def away(_request: Any, context: Any) -> None:
        clock[0] += 20
        status = to_grpc_status(errors.Unavailable("starting"))
        await context.abort(status.code, status.details, status.trailing_metadata)

    script.answer("GetExecution", away)
    with pytest.raises(errors.Unavailable):
        await client.executions.get("e1", timeout=timedelta(minutes=1))
    assert [round(received.time_left, -1) for received in script.received] == [60, 40, 20]


async def test_every_call_has_the_clients_deadline_unless_it_names_one(script: Any, client: Client) -> None:
    script.answer("GetExecution", AN_EXECUTION)
    await client.executions.get("e1")
    await client.executions.get("e1", timeout=timedelta(seconds=60))
    own, named = script.received
    assert 0 < own.time_left < 30.5
    assert 50 < named.time_left < 60.5


async def test_nobody_there_says_where_and_what_to_do() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{reserved.getsockname()[1]}"
        async with Client(nowhere, nowhere, connect_timeout=timedelta(milliseconds=300)) as client:
            with pytest.raises(errors.Unavailable, match=f"the executor at {nowhere} cannot be reached") as caught:
                await client.executions.get("e1")
    assert "make up" in caught.value.hint


async def test_a_server_that_was_never_reached_is_given_up_sooner() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{reserved.getsockname()[1]}"
        async with (
            asyncio.timeout(NEVER_HANGS),
            Client(
                nowhere, nowhere, connect_timeout=timedelta(milliseconds=300), timeout=timedelta(minutes=5)
            ) as client,
        ):
            with pytest.raises(errors.Unavailable):
                await client.executions.get("e1")


async def test_a_server_without_the_rpc_is_an_unknown_method(client: Client) -> None:
    with pytest.raises(errors.UnknownMethod) as caught:
        await client.executions.get("e1")
    assert caught.value.hint


async def test_calls_carry_principal_and_namespace(script: Any, address: str) -> None:
    script.answer("GetExecution", AN_EXECUTION)
    async with Client(address, address, namespace="shop", principal="Grace Hopper") as client:
        await client.executions.get("e1")
    (received,) = script.received
    assert received.metadata["principal"] == "Grace Hopper"
    assert received.request.namespace == "shop"


@pytest.mark.parametrize("kind", list(errors.all_kinds()), ids=lambda kind: kind.__name__)
async def test_every_error_comes_back_as_its_class(kind: type[errors.ValkyrError], script: Any, client: Client) -> None:
    # A wish beyond the deadline: what would be repeated is not.
    more: dict[str, Any] = {"metadata": {"currentVersion": "7"}, "retry_after": timedelta(hours=1)}
    script.answer("GetExecution", kind("what was wrong", hint="what to do", **more))
    with pytest.raises(kind, match="what was wrong") as caught:
        await client.executions.get("e1")
    assert type(caught.value) is kind
    assert caught.value.hint == "what to do"


async def test_a_crowd_of_failing_calls_does_not_multiply_itself(script: Any, client: Client) -> None:
    script.answer("GetExecution", errors.Unavailable("away"))
    calls = [client.executions.get("e1", timeout=timedelta(minutes=1)) for _ in range(100)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(answer, errors.Unavailable) for answer in answers)
    assert 100 < len(script.received) < 160


def test_a_budget_stops_repeats_in_an_outage_and_recovers() -> None:
    budget = RetryBudget()
    assert [budget.failed() for _ in range(60)].count(True) == 49
    for _ in range(100):
        budget.succeeded()
    assert budget.failed() is False
    for _ in range(20):
        budget.succeeded()
    assert budget.failed() is True


def test_back_off_grows_with_jitter_and_is_capped() -> None:
    error = errors.Unavailable("away")
    lowest = [delay_before_repeat(error, n, draw=lambda: 0.0) for n in (1, 2, 3, 50)]
    highest = [delay_before_repeat(error, n, draw=lambda: 1.0) for n in (1, 2, 3, 50)]
    assert lowest == [timedelta(milliseconds=ms) for ms in (50, 100, 200, 1000)]
    assert highest == [timedelta(milliseconds=ms) for ms in (100, 200, 400, 2000)]
