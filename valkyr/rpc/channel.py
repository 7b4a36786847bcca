"""Channels to Valkyr's services: limits and keepalive that both ends agree on, a deadline on every call, the caller's
principal and trace with it, and repeats of what is safe to repeat."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import grpc
import orjson
from opentelemetry.trace import Span, SpanKind, StatusCode

from valkyr import telemetry
from valkyr.rpc.auth import principal_metadata

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_METADATA_BYTES = 8 * 1024
KEEPALIVE_TIME = timedelta(seconds=15)
KEEPALIVE_TIMEOUT = timedelta(seconds=5)
MIN_PING_INTERVAL = timedelta(seconds=10)
"""What servers permit; below KEEPALIVE_TIME, so that no client is told "too many pings"."""
DEFAULT_DEADLINE = timedelta(seconds=30)

_GRAPHS = "valkyr.api.graph.v1.GraphStoreService"
_EXECUTIONS = "valkyr.api.executor.v1.ExecutorService"
_RUNNERS = "valkyr.api.executor.v1.RunnerService"
_BREAKERS = "valkyr.api.breaker.v1.BreakerService"
_DEAD_LETTERS = "valkyr.api.dlq.v1.DeadLetterQueueService"
IDEMPOTENT_READS = {
    _GRAPHS: (
        "ValidateGraph",
        "GetGraph",
        "ResolveVersions",
        "FindWorkflows",
        "ListVersions",
        "DiffVersions",
        "MergeGraph",
        "GetDraft",
        "ListAuditEvents",
        "ListModules",
    ),
    _EXECUTIONS: ("GetExecution", "WaitExecution", "ListExecutions", "ListRuns", "GetRun"),
    _RUNNERS: ("ListRunners",),
    _BREAKERS: ("GetBreaker", "ListBreakers"),
    _DEAD_LETTERS: ("GetDeadLetter", "ListDeadLetters"),
    "grpc.health.v1.Health": ("Check",),
}


def message_options() -> list[tuple[str, int]]:
    """Limits for either end, in both directions."""
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # The soft limit refuses at random up to the hard one: both are the same, so that the limit is one number.
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ]


def open_channel(
    address: str,
    *,
    principal: str | None = None,
    deadline: timedelta = DEFAULT_DEADLINE,
    options: Iterable[tuple[str, int | str]] = (),
) -> grpc.aio.Channel:
    """A channel to `host:port` or `dns:///host:port`; connects at the first call, balances over all addresses.

    A call without a `timeout` of its own gets `deadline`. Unary reads are repeated when the service is unavailable,
    at most four attempts, under a throttle. Close it with `await channel.close()`.
    """
    channel = grpc.aio.insecure_channel(address, options=[*_channel_options(), *options])
    return _CallingChannel(channel, metadata=principal_metadata(principal), deadline=deadline.total_seconds())


def open_blocking_channel(address: str, *, principal: str | None = None) -> grpc.Channel:
    """As `open_channel`, for threads: every call says its `timeout`. Close it with `close()`."""
    return grpc.intercept_channel(
        grpc.insecure_channel(address, options=_channel_options()), _Principal(principal_metadata(principal))
    )


class _Principal(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    """Says who calls."""

    def __init__(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        sent = [*(details.metadata or ()), *self._metadata]
        return continuation(details._replace(metadata=sent), request)


def _channel_options() -> list[tuple[str, int | str]]:
    return [
        *message_options(),
        ("grpc.keepalive_time_ms", _milliseconds(KEEPALIVE_TIME)),
        ("grpc.keepalive_timeout_ms", _milliseconds(KEEPALIVE_TIMEOUT)),
        # A ping by which gRPC measures the way holds back those of keepalive: without this for a minute. Not shorter,
        # as its answer comes behind what the peer has sent before.
        ("grpc.http2.ping_timeout_ms", _milliseconds(KEEPALIVE_TIME + KEEPALIVE_TIMEOUT)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        # Also how long one attempt to connect may take: a busy peer is slow to answer, not away.
        ("grpc.min_reconnect_backoff_ms", 2000),
        # Whoever watches is back within a second of a restart.
        ("grpc.max_reconnect_backoff_ms", 1000),
        # Who has moved is found at once: gRPC by itself asks for a name again after thirty seconds.
        ("grpc.dns_min_time_between_resolutions_ms", 1000),
        # Each channel has connections of its own. By default those to one address share them, and their back-off: where
        # a service is up again, a new client would be refused for up to a second for another's attempts in vain.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.service_config", _service_config()),
    ]


def _service_config() -> str:
    names = [{"service": service, "method": name} for service, names in IDEMPOTENT_READS.items() for name in names]
    retry = {
        "maxAttempts": 4,
        "initialBackoff": "0.1s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [{"name": names, "retryPolicy": retry}],
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    }
    return orjson.dumps(config).decode()


def _milliseconds(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)


class _CallingChannel(grpc.aio.Channel):  # type: ignore[misc]
    """Puts deadline, principal and trace on every call. A wrapper and no interceptor: those cost a task per call."""

    def __init__(
        self, channel: grpc.aio.Channel, *, metadata: tuple[tuple[str, str], ...], deadline: float | None
    ) -> None:
        self._channel = channel
        self._metadata = metadata
        self._deadline = deadline

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> _Method:
        return self._method(method, self._channel.unary_unary(method, *args, **kwargs), deadline=self._deadline)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> _Method:
        return self._method(method, self._channel.stream_unary(method, *args, **kwargs), deadline=self._deadline)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> _Method:
        return self._method(method, self._channel.unary_stream(method, *args, **kwargs), deadline=None)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> _Method:
        return self._method(method, self._channel.stream_stream(method, *args, **kwargs), deadline=None)

    def _method(self, name: str, inner: Any, *, deadline: float | None) -> _Method:
        return _Method(name, inner, metadata=self._metadata, deadline=deadline)

    async def __aenter__(self) -> _CallingChannel:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._channel.channel_ready()


class _Method:
    """One method of a stub. Streams have no default deadline: they live as long as their reader wants."""

    __slots__ = ("_deadline", "_inner", "_metadata", "_name")

    def __init__(self, name: str, inner: Any, *, metadata: tuple[tuple[str, str], ...], deadline: float | None) -> None:
        self._name = name.removeprefix("/")
        self._inner = inner
        self._metadata = metadata
        self._deadline = deadline

    def __call__(
        self, request: Any = None, *, timeout: float | None = None, metadata: Any = None, **kwargs: Any
    ) -> Any:
        span = telemetry.tracer().start_span(self._name, kind=SpanKind.CLIENT)
        traceparent = telemetry.traceparent_of(span.get_span_context())
        sent = (*self._metadata, *(metadata or ()))
        if traceparent:
            sent = (*sent, ("traceparent", traceparent))
        call = self._inner(request, timeout=self._deadline if timeout is None else timeout, metadata=sent, **kwargs)
        if span.is_recording():
            call.add_done_callback(lambda done: _endings.add(_ending(span, done)))
        return call


_endings: set[asyncio.Task[None]] = set()


def _ending(span: Span, call: Any) -> asyncio.Task[None]:
    """The code of a finished call is only to be had by awaiting it; the set keeps the task from being collected."""
    task = asyncio.get_running_loop().create_task(_end_span(span, call))
    task.add_done_callback(_endings.discard)
    return task


async def _end_span(span: Span, call: Any) -> None:
    number, name = (await call.code()).value
    span.set_attribute("rpc.grpc.status_code", number)
    if number:
        span.set_status(StatusCode.ERROR, name)
    span.end()
