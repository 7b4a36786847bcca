"""One trace from a client's call into the service; and an exit that no collector delays."""

from __future__ import annotations

import asyncio
import io
import socket
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from services.chassis.serve import Server
from tests.contract.chassis.toys import SERVICE, ToyServicer, ToyStub
from tests.otlp import OtlpReceiver
from valkyr import telemetry
from valkyr.errors import NotFound
from valkyr.rpc.status import rpc_errors


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        observed = telemetry.configure("toys", otlp_endpoint=receiver.endpoint, stream=io.StringIO())
        yield receiver
        observed.shutdown()
        telemetry.reset()


async def test_i23_the_clients_and_the_servers_span_are_one_trace(
    receiver: OtlpReceiver, server: Server, stub: ToyStub
) -> None:
    with telemetry.tracer().start_as_current_span("outermost"):
        await stub.unary("x")

    spans = await receiver.wait_for_spans(lambda spans: len(spans) >= 3)
    assert len({span.trace_id for span in spans}) == 1
    by_kind = {span.kind: span for span in spans}
    client, served = by_kind[Span.SPAN_KIND_CLIENT], by_kind[Span.SPAN_KIND_SERVER]
    assert served.parent_span_id == client.span_id
    assert client.name == served.name == f"{SERVICE}/Unary"
    assert client.parent_span_id == by_kind[Span.SPAN_KIND_INTERNAL].span_id
    assert set(receiver.services.values()) == {"toys"}


async def test_a_failed_call_is_an_error_in_both_spans_without_its_text(
    receiver: OtlpReceiver, toy: ToyServicer, stub: ToyStub
) -> None:
    async def deed(_text: str, _context: Any) -> str:
        raise NotFound("no such secret")

    toy.deed = deed
    with pytest.raises(NotFound), rpc_errors():
        await stub.unary("x")

    spans = await receiver.wait_for_spans(lambda spans: len(spans) >= 2)
    assert {span.status.code for span in spans} == {Status.STATUS_CODE_ERROR}
    assert "secret" not in str(spans)


async def test_s31_a_malformed_traceparent_starts_a_new_trace(
    receiver: OtlpReceiver, toy: ToyServicer, server: Server
) -> None:
    seen: list[str] = []

    async def deed(text: str, _context: Any) -> str:
        seen.append(telemetry.current_traceparent())
        return text

    toy.deed = deed
    async with grpc.aio.insecure_channel(server.address) as channel:
        for sent in ("nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 4000):
            await ToyStub(channel).unary("x", metadata=(("traceparent", sent),))
    contexts = [telemetry.parse_traceparent(text) for text in seen]
    assert len({context.trace_id for context in contexts if context is not None}) == 3


NEVER_HANGS = 30.0
EXITING = """
import io, sys
from valkyr import telemetry
from valkyr.telemetry import exporter
exporter.EXPORT_TIMEOUT_SECONDS = 600
observed = telemetry.configure("toys", otlp_endpoint=sys.argv[1], stream=io.StringIO())
for _ in range(2_000):
    telemetry.tracer().start_span("x").end()
print("exiting", flush=True)
observed.shutdown()
"""


@pytest.mark.parametrize("collector", ["nobody listens", "accepts and says nothing"])
async def test_a_dead_collector_does_not_hold_up_the_exit_of_a_process(collector: str) -> None:
    """Sending would go on for ten minutes, were it waited for."""
    assert timedelta(seconds=3) == telemetry.EXIT_BOUND
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if collector != "nobody listens":
            silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", EXITING, endpoint, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"exiting\n"
        async with asyncio.timeout(NEVER_HANGS):
            assert await process.wait() == 0
