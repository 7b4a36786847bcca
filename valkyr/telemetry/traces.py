"""Traces: this process's tracer, W3C traceparents, and spans over OTLP that never hold anything up."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Link, NonRecordingSpan, SpanContext, TraceFlags

from valkyr.telemetry.unrecorded import UnrecordedTracerProvider

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    Provider = TracerProvider | UnrecordedTracerProvider

chosen_span_id: ContextVar[int] = ContextVar("chosen_span_id", default=0)
"""The id of the span that is being started, 0 for a random one. Set by `start_attempt_span` alone."""

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def tracer() -> trace.Tracer:
    """The tracer of this process; its spans are nothing before `configure`."""
    return _Proxy.provider.get_tracer("valkyr")


def traceparent_of(context: SpanContext) -> str:
    """W3C traceparent, "" for a context that is not valid."""
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags) & 1:02x}"


def parse_traceparent(text: str) -> SpanContext | None:
    """The span context that a W3C traceparent (version 00) names; None if it is malformed or all zero."""
    match = _TRACEPARENT.fullmatch(text)
    if match is None:
        return None
    context = SpanContext(
        trace_id=int(match[1], 16),
        span_id=int(match[2], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(match[3], 16) & 1),
    )
    return context if context.is_valid else None


def context_of(traceparent: str) -> Context:
    """A context to start spans in: below what the traceparent names, or the root of a new trace."""
    parent = parse_traceparent(traceparent)
    return Context() if parent is None else trace.set_span_in_context(NonRecordingSpan(parent), Context())


def current_traceparent() -> str:
    """Of the current span, "" outside of any."""
    return traceparent_of(trace.get_current_span().get_span_context())


def attempt_span_id(run_id: str, attempt: int) -> str:
    """The span id, 16 hexadecimal digits, of an attempt of a run: whoever knows both can link to the attempt's span
    without having been told of it. Never all zero."""
    number = int.from_bytes(hashlib.sha256(f"{run_id}:{attempt}".encode()).digest()[:8])
    return f"{number or 1:016x}"


def attempt_traceparent(parent: str, run_id: str, attempt: int) -> str:
    """W3C traceparent of an attempt's span, in the trace of the traceparent `parent`; "" if that is malformed."""
    context = parse_traceparent(parent)
    return "" if context is None else traceparent_of(_attempt_context(context, run_id, attempt))


def start_attempt_span(
    name: str, *, parent: str, run_id: str, attempt: int, links: Sequence[str], attributes: Mapping[str, str | int]
) -> trace.Span:
    """A span below the traceparent `parent` that has the attempt's own id, linked to the traceparents `links`.

    If the parent is not sampled or this process records nothing, a span that only hands the ids on. A malformed parent
    makes a span that is not valid; malformed links are left out.
    """
    above = parse_traceparent(parent)
    if above is None:
        return trace.INVALID_SPAN
    own = _attempt_context(above, run_id, attempt)
    if not above.trace_flags.sampled:
        return NonRecordingSpan(own)
    token = chosen_span_id.set(own.span_id)
    try:
        span = tracer().start_span(
            name,
            context=trace.set_span_in_context(NonRecordingSpan(above), Context()),
            attributes=attributes,
            links=[Link(context) for context in map(parse_traceparent, links) if context is not None],
        )
    finally:
        chosen_span_id.reset(token)
    return span if span.is_recording() else NonRecordingSpan(own)


def unrecorded_attempt_span(*, parent: str, run_id: str, attempt: int) -> trace.Span:
    """As `start_attempt_span` below a parent that is not sampled, at next to no cost while nobody asks for the ids."""
    return _Unrecorded(parent, run_id, attempt)


class _Unrecorded(NonRecordingSpan):
    def __init__(self, parent: str, run_id: str, attempt: int) -> None:
        super().__init__(INVALID_SPAN_CONTEXT)
        self._named = (parent, run_id, attempt)

    def get_span_context(self) -> SpanContext:
        if self._context is INVALID_SPAN_CONTEXT:
            parent, run_id, attempt = self._named
            above = parse_traceparent(parent)
            if above is not None:
                self._context = _attempt_context(above, run_id, attempt)
        return self._context


def _attempt_context(parent: SpanContext, run_id: str, attempt: int) -> SpanContext:
    span_id = int(attempt_span_id(run_id, attempt), 16)
    return SpanContext(parent.trace_id, span_id, is_remote=False, trace_flags=parent.trace_flags)


class _Proxy:
    """Where `tracer` looks. OpenTelemetry lets its global provider be set once; tests set up several."""

    provider: trace.TracerProvider = trace.NoOpTracerProvider()


def install(provider: trace.TracerProvider) -> None:
    """From now on `tracer` is of `provider`."""
    _Proxy.provider = provider


def provider_of(service_name: str, *, otlp_endpoint: str | None, sample_ratio: float) -> Provider:
    """Without an endpoint spans have ids, so that logs and rows can name them, and are recorded nowhere."""
    return (
        UnrecordedTracerProvider() if otlp_endpoint is None else _recording(service_name, otlp_endpoint, sample_ratio)
    )


def _recording(service_name: str, otlp_endpoint: str, sample_ratio: float) -> Provider:
    # The SDK and the exporter are imported here: most processes that import this module trace nothing.
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    from valkyr.telemetry.exporter import CollectorExporter
    from valkyr.telemetry.span_ids import ChosenOrRandomIds

    ratio = TraceIdRatioBased(sample_ratio)
    # A caller that records nothing itself does not decide that nobody does.
    sampler = ParentBased(ratio, remote_parent_not_sampled=ratio)
    resource = Resource({"service.name": service_name})
    provider = TracerProvider(
        sampler=sampler, resource=resource, shutdown_on_exit=False, id_generator=ChosenOrRandomIds()
    )
    exporter = CollectorExporter(otlp_endpoint)
    provider.add_span_processor(
        BatchSpanProcessor(exporter, max_queue_size=16384, schedule_delay_millis=1000, export_timeout_millis=2000)
    )
    return provider
