"""Runs one module: finds it, reads its config, calls it, and turns what happened into an outcome."""

from __future__ import annotations

import asyncio
import difflib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from pydantic import BaseModel, ValidationError

from valkyr.module import Context, ModuleSpec, PermanentError
from valkyr.runner.attempt import Attempt, Stop
from valkyr.runner.leases import Failure, FailureType, LeasedRun, Success
from valkyr.runner.outcomes import describe_bad_config, failure_of, success_of
from valkyr.telemetry import context_of, tracer

Outcome = Success | Failure

NOOP_OUTCOME = Success(b"{}")


def unknown_class(class_name: str, known: Mapping[str, ModuleSpec]) -> Failure:
    """For a class that this runner does not have."""
    near = difflib.get_close_matches(class_name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(sorted(known)[:20]) or 'none'}"
    return Failure(FailureType.PERMANENT, f"this runner has no module called {class_name[:200]!r}{hint}")


def context_for(attempt: Attempt, settings: Mapping[str, Any]) -> Context:
    """What the module sees of an attempt that has been started."""
    leased = attempt.leased
    context = Context(
        execution_id=leased.ref.execution_id,
        run_id=leased.ref.run_id,
        node_id=leased.node_id,
        attempt=leased.attempt,
        idempotency_key=leased.idempotency_key,
        inputs=leased.inputs,
        deadline=attempt.deadline(),
        settings=settings,
    )
    attempt.context = context
    if attempt.stop is not None:  # told to stop between its start and now, by another thread
        context.cancelled = True
    return context


def call_now(spec: ModuleSpec, context: Context, leased: LeasedRun) -> Outcome:
    """Runs a `def` module here and now, on the loop (inline) or in a thread."""
    with _span(leased) as span:
        try:
            value = spec.function(context, *_config(spec, leased))
            return success_of(value, context.cost_tokens)
        except BaseException as error:  # SystemExit too: a module must not end the runner
            if _is_interrupt(error):
                raise
            return _failed(error, span)


async def call(spec: ModuleSpec, context: Context, attempt: Attempt) -> Outcome:
    """Runs an `async def` module. CancelledError only if this task was cancelled for no reason of the attempt's."""
    with _span(attempt.leased) as span:
        try:
            value = await spec.function(context, *_config(spec, attempt.leased))
            return success_of(value, context.cost_tokens)
        except asyncio.CancelledError as error:
            if attempt.stop is not None:
                return stopped(attempt, span)
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return _failed(error, span)
        except BaseException as error:  # SystemExit too: a module must not end the runner
            if _is_interrupt(error):
                raise
            if attempt.stop is not None:
                return stopped(attempt, span)
            return _failed(error, span)


def stopped(attempt: Attempt, span: trace.Span | None = None, *, still_running: bool = False) -> Failure:
    """The failure of an attempt that was told to stop, and did, or (`still_running`) did not."""
    if attempt.stop is Stop.TIMEOUT:
        seconds = attempt.leased.timeout.total_seconds() if attempt.leased.timeout else 0
        message = f"the attempt took longer than its timeout of {seconds:g} s"
        if still_running:
            message += "; the module did not stop when told to, and is still running"
        failure = Failure(FailureType.TIMEOUT, message)
    else:
        failure = Failure(FailureType.CANCELLED, "the run was cancelled while the module was running")
    if span is not None:
        span.set_status(trace.StatusCode.ERROR, failure.message)
    return failure


def _config(spec: ModuleSpec, leased: LeasedRun) -> tuple[BaseModel, ...]:
    """The arguments after the context. PermanentError if the config does not fit the module's model."""
    if not spec.takes_config:
        return ()
    try:
        return (spec.config_model.model_validate_json(leased.config or b"{}"),)
    except ValidationError as error:
        raise PermanentError(describe_bad_config(spec.class_name, error)) from None


def _is_interrupt(error: BaseException) -> bool:
    """Ctrl-C, which only the main thread gets; anywhere else a module has raised it."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


def _failed(error: BaseException, span: trace.Span | None) -> Failure:
    failure = failure_of(error)
    if span is not None:
        span.set_attribute("valkyr.failure_type", failure.type)
        span.set_status(trace.StatusCode.ERROR, failure.message)
    return failure


@contextmanager
def _recorded_span(leased: LeasedRun) -> Iterator[trace.Span]:
    span = tracer().start_span(
        "run.attempt",
        context=context_of(leased.traceparent),
        attributes={
            "valkyr.execution_id": leased.ref.execution_id,
            "valkyr.run_id": leased.ref.run_id,
            "valkyr.node_id": leased.node_id,
            "valkyr.attempt": leased.attempt,
            "valkyr.epoch": leased.ref.epoch,
        },
    )
    token = otel_context.attach(trace.set_span_in_context(span))
    try:
        yield span
    finally:
        otel_context.detach(token)
        span.end()


class _NoSpan:
    """The fast path: entering it costs nothing worth counting."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


_NO_SPAN = _NoSpan()


def _span(leased: LeasedRun) -> Any:
    """A span named run.attempt if the run's trace is sampled, which its last hexadecimal digit says."""
    sampled = leased.traceparent[-1:] in "13579bdf" and leased.traceparent
    return _recorded_span(leased) if sampled else _NO_SPAN
