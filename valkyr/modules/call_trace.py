"""The span of a call that a module makes: where to and what came back, nothing of what was said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.trace import Span, SpanKind, StatusCode

from valkyr.telemetry import traceparent_of, tracer


class ClientSpan:
    """`traceparent` is what the target is to be told, "" if there is no trace."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: Span) -> None:
        self._span = span
        self.traceparent = traceparent_of(span.get_span_context())

    def answered(self, name: str, status: int | str, *, failed: bool) -> None:
        """`name` is the attribute that `status` goes by."""
        self._span.set_attribute(name, status)
        if failed:
            self.failed(str(status))

    def failed(self, error_type: str) -> None:
        self._span.set_attribute("error.type", error_type)
        self._span.set_status(StatusCode.ERROR)


@contextmanager
def call_span(name: str, attributes: Mapping[str, str | int]) -> Iterator[ClientSpan]:
    """Below the current span, for one call; an exception that passes through ends it as an error."""
    started = tracer().start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
    span = ClientSpan(started)
    try:
        yield span
    except BaseException as error:
        span.failed(type(error).__name__)
        raise
    finally:
        started.end()
