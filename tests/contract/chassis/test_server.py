"""The server itself: its port, its health, its limits, its end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import ValidationError

from services.chassis import serve as serve_module
from services.chassis.health import LIVENESS, Health
from services.chassis.loops import run_every
from services.chassis.serve import PortInUse, Server, serve
from services.chassis.settings import ServerSettings
from tests.contract.chassis.toys import SERVICE, ToyServicer, ToyStub, add_toy
from tests.free_ports import a_port_base
from valkyr.api.graph.v1 import graph_pb2_grpc
from valkyr.errors import UnknownMethod, ValkyrError
from valkyr.rpc.channel import KEEPALIVE_TIME, MIN_PING_INTERVAL, open_channel
from valkyr.rpc.status import rpc_errors

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
GRAPHS = "valkyr.api.graph.v1.GraphStoreService"
GRPCURL = Path(sys.executable).with_name("grpcurl")


async def state_of(server: Server, service: str = "") -> int:
    async with open_channel(server.address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
        state: int = answer.status
        return state


async def until(condition: Callable[[], Awaitable[bool]], timeout: float = 30.0) -> None:
    async with asyncio.timeout(timeout):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_a_port_in_use_is_a_clear_message_and_never_shared(server: Server) -> None:
    second = Server(ServerSettings(port=server.port), [])

    with pytest.raises(PortInUse, match=rf"{server.address} .* in use.*VALKYR_PORT_BASE"):
        await second.start()


async def test_any_address_but_loopback_needs_insecure() -> None:
    with pytest.raises(ValidationError, match=r"neither encrypted nor authenticated.*--insecure.*0\.0\.0\.0"):
        Server(ServerSettings(host="0.0.0.0"), [])

    async with Server(ServerSettings(host="0.0.0.0", insecure=True), []) as server:
        assert server.port


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
async def test_an_ipv6_address_is_listened_on() -> None:
    async with Server(ServerSettings(host="::1"), []) as server:
        assert await state_of(server) == SERVING


async def test_health_is_answered_for_every_service_and_for_liveness(server: Server) -> None:
    for name in ("", SERVICE, "grpc.health.v1.Health", LIVENESS):
        assert await state_of(server, name) == SERVING
    with pytest.raises(ValkyrError), rpc_errors():
        await state_of(server, "no.such.Service")


async def test_a_loop_that_stalls_makes_the_service_not_serving_but_alive(server: Server) -> None:
    stall = asyncio.Event()

    async def step() -> None:
        await stall.wait()

    loop = asyncio.create_task(
        run_every(
            timedelta(milliseconds=10), step, name="toy", health=server.health, stale_after=timedelta(milliseconds=50)
        )
    )
    await until(lambda: is_state(server, NOT_SERVING))
    assert await state_of(server, LIVENESS) == SERVING
    assert await state_of(server, SERVICE) == NOT_SERVING
    assert "toy" in str(server.health.problems)

    stall.set()
    await until(lambda: is_state(server, SERVING))
    loop.cancel()
    await asyncio.wait([loop])
    assert server.health.serving


async def is_state(server: Server, state: int) -> bool:
    return await state_of(server) == state


async def test_a_stopping_server_is_not_serving_first_and_finishes_what_is_in_flight(
    server: Server, toy: ToyServicer, stub: ToyStub
) -> None:
    started, finish = asyncio.Event(), asyncio.Event()

    async def deed(text: str, _context: Any) -> str:
        started.set()
        await finish.wait()
        return text

    toy.deed = deed
    async with open_channel(server.address) as channel:
        states = []
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        states.append((await watch.read()).status)
        call = asyncio.create_task(stub.unary("in flight"))
        await started.wait()
        stopping = asyncio.create_task(server.stop(timedelta(seconds=10)))
        states.append((await watch.read()).status)
        watch.cancel()
        finish.set()
        assert await call == ["in flight"]
        await stopping
    assert states == [SERVING, NOT_SERVING]


async def test_sigterm_drains_in_order_and_a_call_in_flight_gets_its_answer(toy: ToyServicer) -> None:
    order: list[str] = []
    health = Health()
    started, finish = asyncio.Event(), asyncio.Event()

    async def deed(text: str, _context: Any) -> str:
        started.set()
        await finish.wait()
        order.append("answered")
        return text

    async def drained() -> None:
        order.append(f"drained, serving {health.serving}")
        finish.set()

    port = a_port_base()
    toy.deed = deed
    serving = asyncio.create_task(
        serve(settings=ServerSettings(port=port), servicers=[(SERVICE, add_toy, toy)], health=health, on_stop=[drained])
    )
    async with open_channel(f"127.0.0.1:{port}") as channel:
        call = asyncio.create_task(ToyStub(channel).unary("x", wait_for_ready=True))
        await started.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(30):
            await serving
        assert await call == ["x"]
    assert order == ["drained, serving False", "answered"]


async def test_compressed_messages_are_refused_so_that_none_can_inflate(server: Server) -> None:
    async with grpc.aio.insecure_channel(server.address, compression=grpc.Compression.Gzip) as channel:
        with pytest.raises(UnknownMethod), rpc_errors():
            await ToyStub(channel).unary("x" * 4096)


async def test_metadata_over_eight_kibibytes_is_refused_and_the_connection_stays_usable(
    server: Server, stub: ToyStub
) -> None:
    with pytest.raises(ValkyrError), rpc_errors():
        await stub.unary("x", metadata=(("big", "x" * 9000),))
    assert await stub.unary("x") == ["x"]


async def test_metadata_of_an_answer_is_as_limited(toy: ToyServicer, stub: ToyStub) -> None:
    async def deed(text: str, context: Any) -> str:
        context.set_trailing_metadata((("big", "x" * int(text)),))
        return text

    toy.deed = deed
    with pytest.raises(ValkyrError), rpc_errors():
        await stub.unary("9000")
    assert await stub.unary("7000") == ["7000"]


def test_clients_ping_less_often_than_servers_permit() -> None:
    assert KEEPALIVE_TIME > MIN_PING_INTERVAL


async def test_a_new_channel_does_not_wait_out_the_back_off_of_another_to_the_same_address(toy: ToyServicer) -> None:
    port = a_port_base()
    async with open_channel(f"127.0.0.1:{port}") as waiting:
        waiting.get_state(try_to_connect=True)
        await asyncio.sleep(1.2)  # each attempt in vain makes the back-off longer, up to a second

        async with (
            Server(ServerSettings(port=port), [(SERVICE, add_toy, toy)]) as server,
            open_channel(server.address) as new,
        ):
            assert await ToyStub(new).unary("hello") == ["hello"]


@pytest.fixture
async def described(toy: ToyServicer) -> Any:
    add = graph_pb2_grpc.add_GraphStoreServiceServicer_to_server
    servicer: Any = type("Nothing", (graph_pb2_grpc.GraphStoreServiceServicer,), {})()
    async with Server(ServerSettings(), [(GRAPHS, add, servicer)]) as server:
        yield server


async def grpcurl(*arguments: str) -> str:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(GRPCURL, "-plaintext", *arguments, stdout=pipe, stderr=pipe)
    answer, complaint = await process.communicate()
    assert process.returncode == 0, complaint.decode()
    return answer.decode()


async def test_grpcurl_lists_describes_and_calls(described: Server) -> None:
    listed = await grpcurl(described.address, "list")
    assert listed.split() == ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", GRAPHS]
    assert re.search(r"rpc SaveGraph \(", await grpcurl(described.address, "describe", GRAPHS))
    assert "SERVING" in await grpcurl(
        "-d", f'{{"service": "{GRAPHS}"}}', described.address, "grpc.health.v1.Health/Check"
    )


async def test_reflection_shows_json_names_methods_and_the_details_of_errors(described: Server) -> None:
    message = await grpcurl("-msg-template", described.address, "describe", "valkyr.api.graph.v1.GetGraphRequest")
    assert '"workflowId": ""' in message
    assert "rpc SaveGraph (" in await grpcurl(described.address, "describe", f"{GRAPHS}.SaveGraph")
    assert "message ErrorInfo" in await grpcurl(described.address, "describe", "google.rpc.ErrorInfo")
    with pytest.raises(AssertionError, match="NoSuch"):
        await grpcurl(described.address, "describe", f"{GRAPHS}.NoSuch")


async def test_reflection_is_a_setting() -> None:
    async with Server(ServerSettings(reflection=False), []) as server:
        with pytest.raises(AssertionError, match="reflection"):
            await grpcurl(server.address, "list")


async def test_an_idle_client_that_pings_as_often_as_is_permitted_is_not_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pings of an idle connection are counted by the server; three too many of them end it."""
    monkeypatch.setattr(serve_module, "MIN_PING_INTERVAL", timedelta(milliseconds=500))
    pings = [
        ("grpc.keepalive_time_ms", 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    async with Server(ServerSettings(), []) as server, grpc.aio.insecure_channel(server.address, pings) as channel:
        await channel.channel_ready()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(6):
                await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
