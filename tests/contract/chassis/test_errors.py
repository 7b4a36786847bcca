"""What servicers raise, as clients see it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf.struct_pb2 import Value
from google.protobuf.wrappers_pb2 import StringValue

from services.chassis.interceptors import caller, remaining
from services.chassis.serve import Server
from services.chassis.settings import ServerSettings
from tests.contract.chassis.toys import ToyServicer, ToyStub
from valkyr.api.executor.v1 import executor_pb2, executor_pb2_grpc
from valkyr.errors import (
    DeadlineExceeded,
    Internal,
    InvalidRequest,
    LimitExceeded,
    Unavailable,
    UnknownMethod,
    ValkyrError,
    Violation,
    all_kinds,
)
from valkyr.rpc.channel import open_channel
from valkyr.rpc.status import rpc_errors

KINDS = ["unary", "generated", "written", "gathered", "echoed"]


def raising(error: BaseException) -> Any:
    async def deed(_text: str, _context: Any) -> str:
        raise error

    return deed


@pytest.mark.parametrize("kind", [kind for kind in all_kinds() if kind is not Internal], ids=lambda kind: kind.__name__)
async def test_every_kind_and_reason_comes_back_as_the_same_class(
    toy: ToyServicer, stub: ToyStub, kind: type[ValkyrError]
) -> None:
    toy.deed = raising(
        kind(
            "no, ünsinn",
            hint="do this",
            metadata={"currentVersion": "7"},
            violations=[Violation("nodes[3].nodeId", "is empty")],
            retry_after=timedelta(seconds=1.5),
        )
    )

    with pytest.raises(ValkyrError) as caught, rpc_errors():
        await stub.unary("x")

    assert type(caught.value) is kind
    assert caught.value.message == "no, ünsinn"
    assert caught.value.hint == "do this"
    assert caught.value.details.metadata == {"currentVersion": "7"}
    assert caught.value.details.violations == (Violation("nodes[3].nodeId", "is empty"),)
    assert caught.value.details.retry_after == timedelta(seconds=1.5)


@pytest.mark.parametrize("kind", KINDS)
async def test_all_four_kinds_of_rpc_answer_and_turn_errors_into_statuses(
    toy: ToyServicer, stub: ToyStub, kind: str
) -> None:
    assert (await getattr(stub, kind)("hello"))[-1] == "hello"

    toy.deed = raising(LimitExceeded("too much"))
    with pytest.raises(LimitExceeded, match="too much"), rpc_errors():
        await getattr(stub, kind)("hello")


@pytest.mark.parametrize("kind", KINDS)
async def test_i25_an_unexpected_exception_is_internal_with_nothing_but_a_correlation_id(
    toy: ToyServicer, stub: ToyStub, kind: str
) -> None:
    toy.deed = raising(KeyError("select secret from /etc/passwd"))

    with structlog.testing.capture_logs() as events, pytest.raises(Internal) as caught, rpc_errors():
        await getattr(stub, kind)("hello")

    told = f"{caught.value.message} {caught.value.details}"
    assert "secret" not in told
    assert "KeyError" not in told
    logged = [event for event in events if event["event"] == "rpc.failed"]
    assert [event["correlation_id"] for event in logged] == [caught.value.details.metadata["correlationId"]]
    assert isinstance(logged[0]["exc_info"], KeyError)


async def test_an_internal_error_of_another_service_is_withheld_too(toy: ToyServicer, stub: ToyStub) -> None:
    toy.deed = raising(Internal("somebody else's secret"))

    with pytest.raises(Internal) as caught, rpc_errors():
        await stub.unary("x")

    assert "secret" not in caught.value.message


async def test_what_the_handler_awaited_was_cancelled_and_the_caller_does_not_hang(
    toy: ToyServicer, stub: ToyStub
) -> None:
    toy.deed = raising(asyncio.CancelledError())

    with pytest.raises(Unavailable), rpc_errors():
        await stub.unary("x", timeout=10)


async def test_a_deadline_cancels_the_handler_and_comes_back_as_deadline_exceeded(
    toy: ToyServicer, stub: ToyStub
) -> None:
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def deed(_text: str, _context: Any) -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return ""

    toy.deed = deed
    timeout = 0.2
    while not began.is_set():  # a deadline may pass on the way to the handler
        with pytest.raises(DeadlineExceeded), rpc_errors():
            await stub.unary("x", timeout=timeout)
        timeout *= 2
    async with asyncio.timeout(30):
        await cancelled.wait()


async def test_i25_bytes_that_are_no_message_are_an_invalid_request(stub: ToyStub) -> None:
    with pytest.raises(InvalidRequest, match="no valid message"), rpc_errors():
        await stub.raw_unary(b"\xff\xff\xff")


async def test_i25_bytes_nested_too_deep_are_over_a_stated_limit() -> None:
    value = innermost = Value()
    for _ in range(60):
        innermost = innermost.list_value.values.add()
    servicer: Any = type("Nothing", (executor_pb2_grpc.ExecutorServiceServicer,), {})()
    add = executor_pb2_grpc.add_ExecutorServiceServicer_to_server
    name = "valkyr.api.executor.v1.ExecutorService"
    field = executor_pb2.StartExecutionRequest.DESCRIPTOR.fields_by_name["payload"].number
    message = bytes([field << 3 | 2]) + _sized(value.SerializeToString())
    async with Server(ServerSettings(), [(name, add, servicer)]) as other, open_channel(other.address) as channel:
        with pytest.raises(LimitExceeded, match="nested"), rpc_errors():
            await channel.unary_unary(f"/{name}/StartExecution")(message)


def _sized(content: bytes) -> bytes:
    """With its length as a varint in front."""
    return bytes([len(content) & 127 | 128, len(content) >> 7]) + content


async def test_an_unknown_method_names_the_difference_of_versions(stub: ToyStub) -> None:
    with pytest.raises(UnknownMethod) as caught, rpc_errors():
        await stub.unknown_method(StringValue(value="x"))

    assert "versions" in caught.value.hint


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_message_over_the_limit_is_refused_and_the_connection_stays_usable(
    toy: ToyServicer, stub: ToyStub, direction: str
) -> None:
    huge = "x" * (17 * 1024 * 1024)

    async def deed(text: str, _context: Any) -> str:
        return huge if text == "down" else text

    toy.deed = deed
    with pytest.raises(LimitExceeded), rpc_errors():
        await stub.unary(huge if direction == "up" else "down")
    assert await stub.unary("still here") == ["still here"]


async def test_trailers_stay_under_six_kibibytes_and_say_what_they_leave_out(toy: ToyServicer, stub: ToyStub) -> None:
    violations = [Violation(f"nodes[{index}]." + "é" * 300, "is wrong: " + "漢" * 5000) for index in range(1000)]
    metadata = {f"key{index}": "🙂" * 1000 for index in range(50)}
    toy.deed = raising(
        InvalidRequest("漢" * 10_000, hint="call ValidateGraph", violations=violations, metadata=metadata)
    )

    with pytest.raises(grpc.RpcError) as raw:
        await stub.unary("x")
    trailers = sum(len(key) + len(value) * 4 / 3 + 32 for key, value in raw.value.trailing_metadata())
    told = len(raw.value.details().encode()) * 3
    assert trailers + told < 6 * 1024

    with pytest.raises(InvalidRequest) as caught, rpc_errors():
        await stub.unary("x")
    assert caught.value.hint == "call ValidateGraph"
    assert caught.value.details.metadata["truncated"] == "true"
    assert caught.value.details.metadata["total"] == "1000"
    assert caught.value.details.violations
    assert all(len(violation.description) <= 400 for violation in caught.value.details.violations)


async def test_the_principal_and_the_time_left_reach_the_servicer(toy: ToyServicer, stub: ToyStub) -> None:
    async def deed(_text: str, context: Any) -> str:
        left = remaining(context)
        assert left is not None
        assert timedelta(seconds=5) < left < timedelta(seconds=31)  # gRPC counts it a moment generously
        return caller(context).principal

    toy.deed = deed
    assert await stub.unary("x") == ["Zoë"]


async def test_i25_a_principal_that_is_no_name_is_an_invalid_request(toy: ToyServicer, server: Server) -> None:
    async def deed(_text: str, context: Any) -> str:
        return caller(context).principal

    toy.deed = deed
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = ToyStub(channel)
        assert await stub.unary("x") == ["anonymous"]
        with pytest.raises(InvalidRequest, match="principal"), rpc_errors():
            await stub.unary("x", metadata=(("principal", "a%0Ab"),))
        with pytest.raises(InvalidRequest, match="principal"), rpc_errors():
            await stub.unary("x", metadata=(("principal", "a" * 256),))


async def test_nobody_listening_is_unavailable_with_a_hint() -> None:
    async with open_channel("127.0.0.1:1") as channel:
        with pytest.raises(Unavailable) as caught, rpc_errors():
            await ToyStub(channel).unary("x", timeout=5)
    assert "running" in caught.value.hint
