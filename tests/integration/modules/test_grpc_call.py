"""GrpcCallModule against a real server with reflection: what it sends, what it makes of answers, and its bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from pydantic import ValidationError

from tests.free_ports import a_silent_port
from tests.integration.modules.grpc_server import DATA, SERVICE, OrderServer, message, never
from valkyr.module import Context, PermanentError, RetryLater
from valkyr.modules import GrpcRules
from valkyr.modules.grpc_module import GrpcCallConfig, grpc_call, target_of


async def here(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


RULES = GrpcRules(
    allow_hosts=frozenset({"target.test", "other.test"}),
    resolve=here,
    ca_file=str(DATA / "tls" / "certificate.pem"),
    max_message_bytes=50_000,
)
ORDER = {
    "customerName": "Jane",
    "lines": [{"sku": "a", "count": "2"}, {"sku": "b", "count": 9007199254740993}],
    "labels": {"team": "shop"},
    "wantedTime": "2026-01-02T03:04:05Z",
    "extra": {"note": ["x", 1.5, None]},
    "voucher": {"currency": "EUR", "units": 5},
}


async def call(
    server: OrderServer,
    rules: GrpcRules = RULES,
    host: str = "target.test",
    left: timedelta | None = None,
    **config: Any,
) -> dict[str, Any]:
    given = {"address": f"{host}:{server.port}", "method": f"{SERVICE}/Place", "tls": server.tls, **config}
    deadline = None if left is None else datetime.now(UTC) + left
    context = Context(idempotency_key="key-1", settings={"grpc": rules}, deadline=deadline)
    return await grpc_call(context, GrpcCallConfig.model_validate(given))


@pytest.mark.parametrize("reflection", ["v1", "v1alpha"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_call_says_what_the_config_says(tls: bool, reflection: str) -> None:
    async with OrderServer(tls=tls, reflection=reflection) as server:
        outputs = await call(server, request=ORDER, metadata={"authorization": "Bearer t"})
    [(request, metadata, _)] = server.seen
    assert request.customer_name == "Jane"
    assert [(line.sku, line.count) for line in request.lines] == [("a", 2), ("b", 9007199254740993)]
    assert request.voucher.units == 5
    assert metadata["idempotency-key"] == "key-1"
    assert metadata["authorization"] == "Bearer t"
    told = outputs["response"]
    assert (told["orderId"], told["state"], told["total"]) == ("7", "PLACED", {"currency": "EUR", "units": str(2**60)})
    assert (told["gift"], told["seal"]) == (False, ""), "what has its default is there"
    assert told["request"] == ORDER | {
        "lines": [{"sku": "a", "count": "2"}, {"sku": "b", "count": "9007199254740993"}],
        "voucher": {"currency": "EUR", "units": "5"},
    }


async def test_metadata_of_the_answer_is_an_output() -> None:
    async def answer(request: Any, context: grpc.aio.ServicerContext) -> Any:
        await context.send_initial_metadata((("x-early", "1"), ("x-twice", "a")))
        context.set_trailing_metadata((("x-late-bin", b"\0\1"), ("x-twice", "b")))
        return message("Order")()

    async with OrderServer(answer) as server:
        outputs = await call(server)
    assert outputs["metadata"] == {"x-early": "1", "x-twice": "a, b", "x-late-bin": "AAE="}


async def test_an_authors_idempotency_key_goes_before_the_runs() -> None:
    async with OrderServer() as server:
        await call(server, metadata={"idempotency-key": "mine"})
    assert server.seen[0][1]["idempotency-key"] == "mine"


TRANSIENT, PERMANENT, TIMEOUT, LATER = ConnectionError, PermanentError, TimeoutError, RetryLater
STATUSES = {
    "CANCELLED": TRANSIENT,
    "UNKNOWN": TRANSIENT,
    "INVALID_ARGUMENT": PERMANENT,
    "DEADLINE_EXCEEDED": TIMEOUT,
    "NOT_FOUND": PERMANENT,
    "ALREADY_EXISTS": PERMANENT,
    "PERMISSION_DENIED": PERMANENT,
    "RESOURCE_EXHAUSTED": LATER,
    "FAILED_PRECONDITION": PERMANENT,
    "ABORTED": TRANSIENT,
    "OUT_OF_RANGE": PERMANENT,
    "UNIMPLEMENTED": PERMANENT,
    "INTERNAL": TRANSIENT,
    "UNAVAILABLE": TRANSIENT,
    "DATA_LOSS": PERMANENT,
    "UNAUTHENTICATED": PERMANENT,
}


def test_every_status_has_its_place() -> None:
    assert set(STATUSES) == {code.name for code in grpc.StatusCode} - {"OK"}


@pytest.mark.parametrize("code", sorted(STATUSES))
async def test_a_status_says_whether_it_may_pass(code: str) -> None:
    async def answer(_request: Any, context: grpc.aio.ServicerContext) -> Any:
        await context.abort(grpc.StatusCode[code], "said\nthe server")

    async with OrderServer(answer) as server:
        with pytest.raises(STATUSES[code], match=f"answered {code} to {SERVICE}/Place: said the server"):
            await call(server)
    assert server.calls == 1, "how often it is tried is the engine's to say"


@pytest.mark.parametrize(("seconds", "expected"), [(7, 7), (10**9, 86400), (-5, 0), (None, None)])
async def test_a_rate_limit_says_when(seconds: int | None, expected: int | None) -> None:
    async def answer(_request: Any, context: grpc.aio.ServicerContext) -> Any:
        status = Status(code=8, message="slow down")
        if seconds is not None:
            packed = AnyMessage()
            packed.Pack(RetryInfo(retry_delay=Duration(seconds=seconds)))
            status.details.append(packed)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down")

    async with OrderServer(answer) as server:
        with pytest.raises(RetryLater) as limited:
            await call(server)
    assert limited.value.after == (None if expected is None else timedelta(seconds=expected))


async def test_the_server_hears_how_long_it_has() -> None:
    async with OrderServer() as server:
        await call(server, timeout="PT20S")
        await call(server, timeout="PT20S", left=timedelta(seconds=8))
        await call(server, replace(RULES, max_timeout=timedelta(seconds=4)), timeout="PT20S")
    told = [left or 0 for _, _, left in server.seen]
    assert [low < left <= high for left, low, high in zip(told, (9, 5, 1), (20.5, 8.5, 4.5), strict=True)] == [True] * 3


async def test_no_answer_in_time_is_a_timeout() -> None:
    async with OrderServer(never) as server:
        with pytest.raises(TimeoutError, match=rf"target\.test:{server.port}"):
            await call(server, timeout="PT0.2S")


async def test_nobody_there_is_transient() -> None:
    server = OrderServer()
    with a_silent_port() as server.port, pytest.raises(ConnectionError, match="answered UNAVAILABLE"):
        await call(server)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"method": "shop.v1.Nothing/Place"}, "has no shop.v1.Nothing"),
        ({"method": f"{SERVICE}/Nothing"}, "has no method Nothing; it has Collect, Follow, Place"),
        ({"method": f"{SERVICE}/Follow"}, "streaming method"),
        ({"method": f"{SERVICE}/Collect"}, "streaming method"),
        ({"request": {"customer": 1}}, 'no field named "customer"'),
        ({"request": {"lines": [{"count": "many"}]}}, "request is no shop.v1.PlaceRequest"),
        ({"request": {"card": "1", "voucher": {}}}, "request is no shop.v1.PlaceRequest"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_the_server_does_not_take_is_an_error_of_the_graph(config: dict[str, Any], said: str) -> None:
    async with OrderServer() as server:
        with pytest.raises(PermanentError, match=said):
            await call(server, **config)
    assert not server.calls


async def test_a_server_without_reflection_cannot_be_called() -> None:
    async with OrderServer(reflection="") as server:
        with pytest.raises(PermanentError, match="UNIMPLEMENTED"):
            await call(server)


async def test_a_schema_is_bounded() -> None:
    async with OrderServer() as server:
        with pytest.raises(PermanentError, match="more than 100 bytes"):
            await call(server, replace(RULES, max_schema_bytes=100))


@pytest.mark.parametrize("direction", ["request", "response"])
@pytest.mark.parametrize(("size", "fits"), [(40_000, True), (60_000, False)])
async def test_messages_are_bounded(direction: str, size: int, fits: bool) -> None:
    async def answer(_request: Any, _context: grpc.aio.ServicerContext) -> Any:
        return message("Order")(seal=b"x" * (size if direction == "response" else 1))

    request = {"card": "x" * (size if direction == "request" else 1)}
    async with OrderServer(answer) as server:
        if fits:
            await call(server, request=request)
        else:
            with pytest.raises(PermanentError, match="larger than max"):
                await call(server, request=request)


async def test_a_compressed_answer_is_refused_before_it_unfolds() -> None:
    async def answer(_request: Any, _context: grpc.aio.ServicerContext) -> Any:
        return message("Order")(seal=b"\0" * 10_000_000)

    async with OrderServer(answer, compression=grpc.Compression.Gzip) as server:
        with pytest.raises((PermanentError, ConnectionError)):
            await call(server)


async def test_it_asks_for_no_compressed_answer() -> None:
    """The refusal above would come of its size, too, once it has unfolded."""
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\0\0\0\4" + bytes(5))  # the SETTINGS with which a server of HTTP/2 begins, none set
        while b"grpc-accept-encoding" not in heard and (data := await reader.read(65_536)):
            heard.extend(data)
        writer.close()

    listening = await asyncio.start_server(listen, "127.0.0.1")
    async with listening, OrderServer() as server:
        server.port = listening.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionError):
            await call(server)
    assert b"grpc-accept-encoding" in heard
    assert b"gzip" not in heard


@pytest.mark.parametrize(("size", "fits"), [(20_000, True), (40_000, False)])
async def test_metadata_of_the_answer_is_bounded(size: int, fits: bool) -> None:
    async def answer(_request: Any, context: grpc.aio.ServicerContext) -> Any:
        context.set_trailing_metadata((("x-much", "x" * size),))
        return message("Order")()

    async with OrderServer(answer) as server:
        if fits:
            assert len((await call(server))["metadata"]["x-much"]) == size
        else:
            with pytest.raises(PermanentError, match="metadata size exceeds"):
                await call(server)


async def test_plain_calls_go_only_where_the_operator_says_so() -> None:
    async with OrderServer() as server:
        with pytest.raises(PermanentError, match="without TLS is refused"):
            await call(server, replace(RULES, allow_hosts=frozenset(), allow_networks=("127.0.0.0/8",)))
    assert not server.calls


@pytest.mark.parametrize(("host", "known"), [("other.test", True), ("target.test", False)], ids=["name", "issuer"])
async def test_tls_is_verified(host: str, known: bool) -> None:
    async with OrderServer(tls=True) as server:
        with pytest.raises(ConnectionError, match="answered UNAVAILABLE"):
            await call(server, RULES if known else replace(RULES, ca_file=None), host=host)
    assert not server.calls


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "[::1]", "127.1", "a b", "unix", "target.test", "a/b"]
)
async def test_by_default_nothing_inside_is_reached(host: str) -> None:
    async with OrderServer(tls=True) as server:
        with pytest.raises((PermanentError, ValidationError)):
            await call(server, GrpcRules(resolve=here), host=host)
    assert not server.calls


async def test_the_address_that_was_checked_is_the_one_connected_to() -> None:
    questions = []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        questions.append(host)
        return ["127.0.0.1"] if len(questions) == 1 else ["127.0.0.9"]

    async with OrderServer(tls=True) as server:
        await call(server, replace(RULES, resolve=rebinding))
    assert questions == ["target.test"]


@pytest.mark.parametrize(
    "config",
    [
        {"address": "target.test"},
        {"address": "target.test:0"},
        {"address": "target.test:99999"},
        {"address": "::1:443"},
        {"address": "unix:/run/x"},
        {"address": "dns:///x.test:443"},
        {"address": "a:1,b:2"},
        {"method": "Place"},
        {"method": "shop.v1.Orders.Place"},
        {"method": "a/b/c"},
        {"method": "a b/c"},
        {"metadata": {"X-Upper": "x"}},
        {"metadata": {"grpc-timeout": "1H"}},
        {"metadata": {"x-bin": "x"}},
        {"metadata": {"host": "x"}},
        {"metadata": {":authority": "x"}},
        {"metadata": {"x": "a\r\nb"}},
        {"metadata": {"x": "ä"}},
        {"request": [1]},
    ],
    ids=lambda config: ascii(config)[:50],
)
def test_a_config_that_no_call_can_be_made_of_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GrpcCallConfig.model_validate({"address": "target.test:443", "method": "a.B/C", **config})


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("API.example.com:443", "grpc:api.example.com:443"),
        ("api.example.com.:443", "grpc:api.example.com:443"),
        ("[2001:db8::1]:443", "grpc:[2001:db8::1]:443"),
        ("no address", None),
        (5, None),
        (None, None),
    ],
)
def test_the_target_of_a_call_is_its_server(address: Any, target: str | None) -> None:
    assert target_of({"address": address}) == target
