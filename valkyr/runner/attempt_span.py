"""The span of an attempt: current while its module runs, and told how it ended, without payloads."""

from __future__ import annotations

from opentelemetry import context as otel_context
from opentelemetry import trace

from valkyr.runner.leases import Failure, LeasedRun, Success
from valkyr.runner.outcomes import message_without_values
from valkyr.telemetry import escaped, start_attempt_span, unrecorded_attempt_span

MAX_STATUS = 200
_ODD = frozenset("13579bdf")


class AttemptSpan:
    """`with AttemptSpan(leased) as span:`; in a trace that is not sampled it only hands the ids on."""

    __slots__ = ("_span", "_token")

    def __init__(self, leased: LeasedRun) -> None:
        ref = leased.ref
        if not _is_sampled(leased.traceparent):
            self._span = unrecorded_attempt_span(parent=leased.traceparent, run_id=ref.run_id, attempt=leased.attempt)
            return
        self._span = start_attempt_span(
            "run.attempt",
            parent=leased.traceparent,
            run_id=ref.run_id,
            attempt=leased.attempt,
            links=leased.links,
            attributes={
                "valkyr.execution_id": ref.execution_id,
                "valkyr.run_id": ref.run_id,
                "valkyr.node_id": leased.node_id,
                "valkyr.class_name": leased.class_name,
                "valkyr.target": leased.target,
                "valkyr.attempt": leased.attempt,
                "valkyr.epoch": ref.epoch,
            },
        )

    def __enter__(self) -> AttemptSpan:
        self._token = otel_context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(self, *_: object) -> None:
        otel_context.detach(self._token)
        self._span.end()

    def ended(self, outcome: Success | Failure, *, error: BaseException | None = None, lost: str = "") -> None:
        """`error`: what the module raised. `lost`: why nobody will hear of the outcome."""
        if not self._span.is_recording():
            return
        if isinstance(outcome, Success):
            self._span.set_attribute("valkyr.outcome", lost or "SUCCESS")
            return
        message = outcome.message if error is None else message_without_values(error)
        line = escaped(message.partition("\n")[0])
        self._span.set_attribute("valkyr.outcome", lost or outcome.type)
        self._span.set_attribute("error.type", outcome.type if error is None else type(error).__name__)
        self._span.set_status(trace.StatusCode.ERROR, f"{outcome.type}: {line}"[:MAX_STATUS])


class NoSpan:
    """The fast path: entering it costs nothing worth counting."""

    __slots__ = ()

    def __enter__(self) -> NoSpan:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def ended(self, outcome: Success | Failure, *, error: BaseException | None = None, lost: str = "") -> None:
        return None


_NO_SPAN = NoSpan()


def attempt_span(leased: LeasedRun, *, calls_out: bool) -> AttemptSpan | NoSpan:
    """No span for a run without a trace, nor, if its module makes no calls that could carry the ids on, for one that is
    not sampled."""
    traceparent = leased.traceparent
    if traceparent and (calls_out or _is_sampled(traceparent)):
        return AttemptSpan(leased)
    return _NO_SPAN


def _is_sampled(traceparent: str) -> bool:
    """Its last hexadecimal digit says so."""
    return traceparent[-1:] in _ODD
