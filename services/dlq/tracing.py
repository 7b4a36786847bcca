"""The spans of the dead letter queue: below the trace that a letter belongs to, or in the operator's, linked to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import Link, StatusCode

from services.dlq.model import Intent
from services.dlq.planning import NewLetter
from valkyr import telemetry
from valkyr.errors import ValkyrError


def record_quarantines(letters: Iterable[NewLetter]) -> None:
    """A span for each stored letter, below the trace of its run, where that is recorded."""
    for letter in letters:
        what = letter.quarantined
        parent = telemetry.parse_traceparent(what.traceparent)
        if parent is None or not parent.trace_flags.sampled:
            continue
        span = telemetry.tracer().start_span(
            "dead_letter.quarantined",
            context=telemetry.context_of(what.traceparent),
            attributes={
                **_attributes(what.run_id, what.execution_id, what.target, letter.id),
                "valkyr.failure_type": what.failure_type,
            },
        )
        span.end()


@contextmanager
def resolving(intent: Intent) -> Iterator[None]:
    """A span for one try to carry out an intent: in the operator's trace, linked to the letter's."""
    quarantined = telemetry.parse_traceparent(intent.letter_traceparent)
    links = [] if quarantined is None else [Link(quarantined)]
    current = trace.get_current_span()
    if quarantined is not None and current.is_recording():
        current.add_link(quarantined)
    # In the loop there is no call any more: the span goes below the one that asked.
    context = None if current.get_span_context().is_valid else telemetry.context_of(intent.operator.traceparent)
    attributes = _attributes(intent.run_id, intent.execution_id, intent.target, intent.letter_id)
    span = telemetry.tracer().start_span(
        "dead_letter.resolve",
        context=context,
        links=links,
        attributes={**attributes, "valkyr.resolution": str(intent.resolution), "valkyr.tries": intent.tries},
    )
    with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield
        except ValkyrError as error:
            span.set_status(StatusCode.ERROR, error.reason)
            raise


def trace_id_of(traceparent: str) -> str:
    """32 hexadecimal digits, "" without a valid traceparent."""
    context = telemetry.parse_traceparent(traceparent)
    return "" if context is None else f"{context.trace_id:032x}"


def _attributes(run_id: str, execution_id: str, target: str, letter_id: str) -> dict[str, str]:
    return {
        "valkyr.run_id": run_id,
        "valkyr.execution_id": execution_id,
        "valkyr.target": target,
        "valkyr.dead_letter_id": letter_id,
    }
