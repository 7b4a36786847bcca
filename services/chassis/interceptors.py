"""Between gRPC and the servicers: the outermost error interceptor with the request's span, and what a servicer may ask
about its call: who, which namespace, how much time."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
import uuid_utils
from google.protobuf.message import DecodeError
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from valkyr import telemetry
from valkyr.errors import Internal, InvalidRequest, LimitExceeded, Unavailable, ValkyrError
from valkyr.rpc.auth import principal_of
from valkyr.rpc.status import to_grpc_status

DEFAULT_NAMESPACE = "default"
MAX_NAMESPACE_LENGTH = 255

_NAMESPACE = re.compile(r"[A-Za-z0-9._-]{1,255}")
_log = telemetry.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls; "anonymous" if the call does not say."""

    principal: str


def caller(context: Any) -> Caller:
    """The caller of this RPC. InvalidRequest if its principal is no printable text of at most 255 characters."""
    return Caller(principal_of(context.invocation_metadata() or ()))


def namespace_of(request: Any) -> str:
    """The request's namespace, "default" if empty. InvalidRequest if it is no name."""
    namespace: str = request.namespace
    if not namespace:
        return DEFAULT_NAMESPACE
    if _NAMESPACE.fullmatch(namespace) is None:
        raise InvalidRequest.of_field(
            "namespace", f"{namespace[:64]!r} is no namespace; takes 1 to 255 of letters, digits, '.', '_' and '-'"
        )
    return namespace


def remaining(context: Any) -> timedelta | None:
    """Time left until the caller's deadline, never negative; None if it set none."""
    seconds = context.time_remaining()
    return None if seconds is None else timedelta(seconds=max(0.0, seconds))


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Turns exceptions into statuses and gives each RPC a span, below the caller's if it sent a traceparent.

    A ValkyrError keeps its text, reason and details. Anything else is INTERNAL with a correlation id and logged here,
    once. Requests are decoded here too, so that bytes which are no message are INVALID_ARGUMENT.
    """

    def __init__(self) -> None:
        self._wrapped: dict[str, tuple[Any, Any]] = {}

    async def intercept_service(self, continuation: Callable[..., Any], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None:
            return None
        inner, wrapped = self._wrapped.get(details.method, (None, None))
        if inner is not handler:
            wrapped = _wrap(handler, details.method)
            self._wrapped[details.method] = (handler, wrapped)
        return wrapped


def _wrap(handler: Any, method: str) -> Any:
    call = _Calls(method.removeprefix("/"), None if handler.request_streaming else handler.request_deserializer)
    deserializer = handler.request_deserializer if handler.request_streaming else None
    if handler.response_streaming:
        behavior = handler.stream_stream if handler.request_streaming else handler.unary_stream
        make = (
            grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
        )
        wrap = call.generating if inspect.isasyncgenfunction(behavior) else call.answering
    else:
        behavior = handler.stream_unary if handler.request_streaming else handler.unary_unary
        make = (
            grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        )
        wrap = call.answering
    return make(wrap(behavior), request_deserializer=deserializer, response_serializer=handler.response_serializer)


class _Calls:
    """The calls of one method."""

    def __init__(self, method: str, decode: Callable[[bytes], Any] | None) -> None:
        self._method = method
        self._decode = decode

    def answering(self, behavior: Callable[..., Any]) -> Callable[..., Any]:
        """For handlers that are coroutines: unary answers, and streams that call `context.write`."""

        async def answer(request: Any, context: Any) -> Any:
            with self._span(context) as span:
                try:
                    return await behavior(self._decoded(request), context)
                except grpc.aio.AbortError:
                    raise
                except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the outermost edge
                    await self._abort(context, span, error)

        return answer

    def generating(self, behavior: Callable[..., AsyncIterator[Any]]) -> Callable[..., Any]:
        """For handlers that are asynchronous generators."""

        async def generate(request: Any, context: Any) -> AsyncIterator[Any]:
            with self._span(context) as span:
                try:
                    async for answer in behavior(self._decoded(request), context):
                        yield answer
                except grpc.aio.AbortError:
                    raise
                except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the outermost edge
                    await self._abort(context, span, error)

        return generate

    def _decoded(self, request: Any) -> Any:
        if self._decode is None:
            return request
        try:
            return self._decode(request)
        except DecodeError as error:
            if "Depth" in str(error):
                raise LimitExceeded(
                    "the request is nested deeper than 100 protobuf levels, about 32 objects or 48 lists",
                    hint="flatten it, or send the inner part as a string of JSON",
                ) from None
            raise InvalidRequest(
                f"the request is no valid message: {error}", hint="client and server may be of different versions"
            ) from None

    @contextmanager
    def _span(self, context: Any) -> Iterator[trace.Span]:
        sent = next((value for key, value in context.invocation_metadata() or () if key == "traceparent"), "")
        parent = telemetry.context_of(sent if isinstance(sent, str) else "")
        span = telemetry.tracer().start_span(self._method, context=parent, kind=SpanKind.SERVER)
        # `end_on_exit` only: what went wrong is put on the span by _abort, without the exception's text.
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            yield span

    async def _abort(self, context: Any, span: trace.Span, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
            # The client went away or its deadline passed: gRPC has answered already.
            raise error
        status = to_grpc_status(self._as_told(error))
        number, name = status.code.value
        if span.is_recording():
            span.set_attribute("rpc.grpc.status_code", number)
            span.set_status(StatusCode.ERROR, name)
        await context.abort(status.code, status.details, status.trailing_metadata)

    def _as_told(self, error: BaseException) -> ValkyrError:
        if isinstance(error, ValkyrError) and not isinstance(error, Internal):
            return error
        if isinstance(error, asyncio.CancelledError):
            # Something that the handler waited for was cancelled. Raised out of it, the caller would wait for ever.
            return Unavailable("the service stopped working on this call", retry_after=timedelta(seconds=1))
        correlation_id = str(uuid_utils.uuid7())
        _log.error("rpc.failed", method=self._method, correlation_id=correlation_id, exc_info=error)
        return Internal(
            "something went wrong inside the service",
            hint=f"report it with the correlation id {correlation_id}",
            metadata={"correlationId": correlation_id},
        )


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
