"""A receiver of OTLP traces for tests: keeps every span that arrives."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class OtlpReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """`with OtlpReceiver() as receiver:` listens at `receiver.endpoint`; `receiver.spans` grows from a thread.

    `services` maps a span's id to the `service.name` that sent it.
    """

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: dict[bytes, str] = {}
        self._arrived = threading.Condition()
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> OtlpReceiver:
        self._server.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.stop(None).wait()

    def Export(self, request: Any, context: Any) -> Any:
        """Called by exporters."""
        with self._arrived:
            for group in request.resource_spans:
                name = next(
                    (item.value.string_value for item in group.resource.attributes if item.key == "service.name"), ""
                )
                for scope in group.scope_spans:
                    self.spans.extend(scope.spans)
                    self.services.update((span.span_id, name) for span in scope.spans)
            self._arrived.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def wait_for(self, condition: Callable[[list[Span]], object], timeout: float = 60.0) -> list[Span]:
        """Blocks until `condition(spans)` is truthy; answers with the spans. TimeoutError lists what did arrive."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: condition(self.spans), timeout):
                raise TimeoutError(f"not within {timeout:.0f} s; arrived: {[span.name for span in self.spans]}")
            return list(self.spans)

    async def wait_for_spans(self, condition: Callable[[list[Span]], object], timeout: float = 60.0) -> list[Span]:
        """As `wait_for`, without blocking the event loop."""
        return await asyncio.to_thread(self.wait_for, condition, timeout)
