"""The span of an outgoing HTTP request: where to and what came back. Paths, queries and bodies may hold secrets and
stay out of it. https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-client-span"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from opentelemetry.trace import Span, SpanKind, StatusCode

from valkyr.telemetry import traceparent_of, tracer

_PORTS = {"http": 80, "https": 443}


class ClientSpan:
    """`traceparent` is what the target is to be told, "" if there is no trace."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: Span) -> None:
        self._span = span
        self.traceparent = traceparent_of(span.get_span_context())

    def answered(self, status: int, *, failed: bool) -> None:
        self._span.set_attribute("http.response.status_code", status)
        if failed:
            self.failed(str(status))

    def failed(self, error_type: str) -> None:
        self._span.set_attribute("error.type", error_type)
        self._span.set_status(StatusCode.ERROR)


@contextmanager
def client_span(method: str, url: httpx.URL) -> Iterator[ClientSpan]:
    """Below the current span, for one request; an exception that passes through ends it as an error."""
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "url.scheme": url.scheme,
        "server.address": url.host,
        "server.port": url.port or _PORTS[url.scheme],
    }
    started = tracer().start_span(f"HTTP {method}", kind=SpanKind.CLIENT, attributes=attributes)
    span = ClientSpan(started)
    try:
        yield span
    except BaseException as error:
        span.failed(type(error).__name__)
        raise
    finally:
        started.end()
