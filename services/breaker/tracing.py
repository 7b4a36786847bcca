"""What is done for a run: said in the log and, where its trace is sampled, as a span below the item's traceparent."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span

from services.breaker.model.calls import PermitAnswer, PermitRequest
from services.breaker.model.history import TransitionRow
from services.breaker.model.states import State
from valkyr.telemetry import context_of, get_logger, parse_traceparent, tracer

_EVENTS = {
    (State.CLOSED, State.OPEN): "breaker.opened",
    (State.OPEN, State.HALF_OPEN): "breaker.half_opened",
    (State.HALF_OPEN, State.OPEN): "breaker.reopened",
    (State.HALF_OPEN, State.CLOSED): "breaker.closed",
}
_log = get_logger(__name__)


def tell_transition(row: TransitionRow) -> None:
    """`breaker.transition`, and the event that says which; committed."""
    went = row.transition
    facts: dict[str, str | int] = {
        "namespace": row.key.namespace,
        "target": row.key.target,
        "generation": went.generation,
        "cause": str(went.cause),
        "episode_id": str(row.episode_id or ""),
        "run_id": row.run_id,
    }
    span = _span("breaker.transition", row.traceparent)
    span.set_attributes({f"valkyr.{name}": value for name, value in facts.items()})
    span.set_attributes({"valkyr.from_state": str(went.before), "valkyr.to_state": str(went.after)})
    with trace.use_span(span, end_on_exit=True):
        event = _EVENTS.get((went.before, went.after), "breaker.forced")
        span.add_event(event)
        _log.warning(event, from_state=str(went.before), to_state=str(went.after), **facts)


def tell_permit(request: PermitRequest, answer: PermitAnswer) -> None:
    """`breaker.permit`, of a probe that may be made."""
    span = _span("breaker.permit", request.traceparent)
    span.set_attributes(
        {
            "valkyr.namespace": request.key.namespace,
            "valkyr.target": request.key.target,
            "valkyr.run_id": request.holder.run_id,
            "valkyr.epoch": request.holder.epoch,
            "valkyr.generation": answer.generation,
            "valkyr.permit_id": str(answer.permit_id),
            "valkyr.episode_id": str(answer.episode_id or ""),
        }
    )
    span.end()


def _span(name: str, traceparent: str) -> Span:
    """Nothing is recorded of a trace that is not sampled, or where the caller named none; its ids are known still."""
    parent = parse_traceparent(traceparent)
    if parent is None:
        return trace.INVALID_SPAN
    if not parent.trace_flags.sampled:
        return NonRecordingSpan(parent)
    return tracer().start_span(name, context=context_of(traceparent))
