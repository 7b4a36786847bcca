"""The trace of an execution: below the call that started it, or a new one; stored, to survive restarts (I23). A replay
begins a trace of its own, linked to the old."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from opentelemetry import trace
from opentelemetry.trace import Link

from valkyr.flow.events import Resolve
from valkyr.telemetry import current_traceparent, parse_traceparent, traceparent_of, tracer


def traceparent_for_start() -> str:
    """The present span's, or a trace of our own, not sampled, so that every execution has a trace id."""
    return current_traceparent() or f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"


@contextmanager
def replay_span(event: Resolve, execution_traceparent: str) -> Iterator[Resolve]:
    """A span for a resolution, in the trace of the call that asks for it and linked to the execution's; the event with
    this span's traceparent, which the attempts of a requeued run stand below."""
    old = parse_traceparent(execution_traceparent)
    span = tracer().start_span(
        f"run.{event.resolution.lower()}",
        links=[Link(old)] if old is not None else [],
        attributes={
            "valkyr.execution_id": str(event.execution_id),
            "valkyr.run_id": str(event.run_id),
            "valkyr.quarantine_number": event.quarantine_number,
        },
    )
    with trace.use_span(span, end_on_exit=True, record_exception=False):
        traceparent = traceparent_of(span.get_span_context()) or traceparent_for_start()
        yield replace(event, request=replace(event.request, traceparent=traceparent))
