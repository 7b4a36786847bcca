"""A tracer that only hands ids on, for a process without a collector: logs and rows can name its spans, and it does not
load the SDK, which would record nothing."""

from __future__ import annotations

import random
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

_NOT_SAMPLED = TraceFlags(TraceFlags.DEFAULT)


class UnrecordedTracerProvider(trace.TracerProvider):
    """Spans have ids of their own, below their parent's, and are not sampled."""

    def __init__(self) -> None:
        self._tracer = _UnrecordedTracer()

    def get_tracer(self, *_arguments: Any, **_options: Any) -> trace.Tracer:
        """Always the same one."""
        return self._tracer

    def shutdown(self) -> None:
        """There is nothing to send."""


class _UnrecordedTracer(trace.NoOpTracer):
    def start_span(self, name: str, context: Context | None = None, *_arguments: Any, **_options: Any) -> trace.Span:
        parent = trace.get_current_span(context).get_span_context()
        return NonRecordingSpan(
            SpanContext(
                trace_id=parent.trace_id if parent.is_valid else _random_id(128),
                span_id=_random_id(64),
                is_remote=False,
                trace_flags=_NOT_SAMPLED,
                trace_state=parent.trace_state if parent.is_valid else None,
            )
        )


def _random_id(bits: int) -> int:
    """Never 0, which means none."""
    return random.getrandbits(bits) or 1
