"""The services as scripts over a real channel: each RPC answers with the next step of its script."""

from __future__ import annotations

import socket
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from valkyr.api.breaker.v1 import breaker_pb2
from valkyr.api.dlq.v1 import dlq_pb2
from valkyr.api.executor.v1 import executor_pb2
from valkyr.api.graph.v1 import graph_pb2
from valkyr.errors import ValkyrError
from valkyr.rpc.status import to_grpc_status

Step = Message | Sequence[Message] | ValkyrError | Callable[..., Any]


@dataclass
class Received:
    rpc: str
    request: Any
    metadata: dict[str, Any]
    time_left: float
    at: float


@dataclass
class Script:
    """`script.answer("GetGraph", step, ...)`: an answer, the messages of a stream, an error to raise, or a coroutine
    function of (request, context). The last step repeats."""

    steps: dict[str, list[Step]] = field(default_factory=lambda: defaultdict(list))
    received: list[Received] = field(default_factory=list)

    def answer(self, rpc: str, *steps: Step) -> None:
        self.steps[rpc] = list(steps)

    def requests(self, rpc: str) -> list[Any]:
        return [received.request for received in self.received if received.rpc == rpc]

    def next_step(self, rpc: str) -> Step:
        steps = self.steps[rpc]
        return steps.pop(0) if len(steps) > 1 else steps[0]


class ScriptedServices(grpc.GenericRpcHandler):
    def __init__(self, script: Script) -> None:
        self._script = script
        services = [
            *graph_pb2.DESCRIPTOR.services_by_name.values(),
            *executor_pb2.DESCRIPTOR.services_by_name.values(),
            *breaker_pb2.DESCRIPTOR.services_by_name.values(),
            *dlq_pb2.DESCRIPTOR.services_by_name.values(),
        ]
        self._methods = {
            f"/{service.full_name}/{method.name}": method for service in services for method in service.methods
        }

    def service(self, details: Any) -> Any:
        method = self._methods.get(details.method)
        if method is None or method.name not in self._script.steps:
            return None
        make = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        return make(
            self._stream(method.name) if method.server_streaming else self._unary(method.name),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def _unary(self, rpc: str) -> Any:
        async def handle(request: Any, context: Any) -> Any:
            step = self._step(rpc, request, context)
            return await _play(step, request, context)

        return handle

    def _stream(self, rpc: str) -> Any:
        async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
            steps = self._step(rpc, request, context)
            for step in steps if isinstance(steps, list | tuple) else [steps]:
                answer = await _play(step, request, context)
                if answer is not None:
                    yield answer

        return handle

    def _step(self, rpc: str, request: Any, context: Any) -> Any:
        self._script.received.append(
            Received(rpc, request, dict(context.invocation_metadata()), context.time_remaining(), time.monotonic())
        )
        return self._script.next_step(rpc)


async def _play(step: Any, request: Any, context: Any) -> Any:
    if isinstance(step, ValkyrError):
        status = to_grpc_status(step)
        await context.abort(status.code, status.details, status.trailing_metadata)
    return await step(request, context) if callable(step) else step


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def address(script: Script) -> AsyncIterator[str]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([ScriptedServices(script)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address that refuses connections for as long as the test lasts."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{reserved.getsockname()[1]}"
