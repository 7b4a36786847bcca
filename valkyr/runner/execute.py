"""Runs one module: finds it, reads its config, calls it, and turns what happened into an outcome."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ValidationError

from valkyr.module import Context, ModuleSpec
from valkyr.runner.attempt import LEASE_GONE, Attempt, Stop
from valkyr.runner.attempt_span import AttemptSpan, NoSpan, attempt_span
from valkyr.runner.interrupts import is_ctrl_c
from valkyr.runner.leases import Failure, FailureType, LeasedRun, Success
from valkyr.runner.outcomes import BadConfig, failure_of, success_of

Outcome = Success | Failure

NOOP_OUTCOME = Success(b"{}")


def unknown_class(class_name: str, known: Mapping[str, ModuleSpec]) -> Failure:
    """For a class that this runner does not have."""
    near = difflib.get_close_matches(class_name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(sorted(known)[:20]) or 'none'}"
    return Failure(FailureType.PERMANENT, f"this runner has no module called {class_name[:200]!r}{hint}")


def context_for(
    attempt: Attempt, settings: Mapping[str, Any], *, on_progress: Callable[[bytes], None] | None = None
) -> Context:
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
        traceparent=leased.traceparent,
        progress=leased.progress,
        on_progress=on_progress,
    )
    attempt.context = context
    if attempt.stop is not None:  # told to stop between its start and now, by another thread
        context.cancelled = True
    return context


def call_now(spec: ModuleSpec, context: Context, attempt: Attempt) -> Outcome:
    """Runs a `def` module here and now, on the loop (inline) or in a thread."""
    with attempt_span(attempt.leased, calls_out=not spec.inline) as span:
        try:
            value = spec.function(context, *config_of(spec, attempt.leased))
            return _succeeded(attempt, success_of(value, context.cost_tokens), span)
        except BaseException as error:  # SystemExit too: a module must not end the runner
            if is_ctrl_c(error):
                raise
            return _failed(attempt, error, span)


async def call(spec: ModuleSpec, context: Context, attempt: Attempt) -> Outcome:
    """Runs an `async def` module. One that was cancelled for no reason of the attempt's, by itself say, has failed like
    any other: were the exception let through, nobody would report and the lease would be kept for ever."""
    with attempt_span(attempt.leased, calls_out=True) as span:
        try:
            value = await spec.function(context, *config_of(spec, attempt.leased))
            return _succeeded(attempt, success_of(value, context.cost_tokens), span)
        except BaseException as error:  # SystemExit too: a module must not end the runner
            if is_ctrl_c(error):
                raise
            return _failed(attempt, error, span)


def not_called(attempt: Attempt, outcome: Outcome) -> Outcome:
    """The outcome of an attempt for which there is no module to call; it has its span all the same."""
    with attempt_span(attempt.leased, calls_out=False) as span:
        span.ended(outcome)
    return outcome


def stopped(attempt: Attempt, reason: Stop | None = None, *, still_running: bool = False) -> Failure:
    """The failure of an attempt that was told to stop, and did, or (`still_running`) did not. `reason`: where it has
    not been noted in the attempt yet."""
    if (reason or attempt.stop) is Stop.TIMEOUT:
        seconds = attempt.leased.timeout.total_seconds() if attempt.leased.timeout else 0
        kind, message = FailureType.TIMEOUT, f"the attempt took longer than its timeout of {seconds:g} s"
    else:
        kind, message = FailureType.CANCELLED, _cancelled_because(attempt, reason or attempt.stop)
    if still_running:
        message += "; the module did not stop when told to, and is still running"
    if attempt.killed:
        message += "; its process was killed"
    return Failure(kind, message)


def _cancelled_because(attempt: Attempt, reason: Stop | None) -> str:
    if reason in LEASE_GONE:
        return "the lease ended while the module was running"
    when = "before the module had started" if attempt.started is None else "while the module was running"
    deadline = attempt.leased.deadline
    if deadline is not None and datetime.now(UTC) >= deadline:
        return f"the run's deadline passed {when}"
    return f"the run was cancelled {when}"


def _succeeded(attempt: Attempt, success: Success, span: AttemptSpan | NoSpan) -> Success:
    span.ended(success, lost=lost_by(attempt))
    return success


def _failed(attempt: Attempt, error: BaseException, span: AttemptSpan | NoSpan) -> Failure:
    if attempt.stop is None:
        failure = failure_of(error)
        span.ended(failure, error=error)
    else:
        failure = stopped(attempt)
        span.ended(failure, lost=lost_by(attempt))
    return failure


def lost_by(attempt: Attempt) -> str:
    """Why nobody will hear of the outcome; "" if somebody will."""
    return attempt.stop.value if attempt.stop is not None and attempt.stop in LEASE_GONE else ""


def config_of(spec: ModuleSpec, leased: LeasedRun) -> tuple[BaseModel, ...]:
    """The arguments after the context. BadConfig if the config does not fit the module's model."""
    if not spec.takes_config:
        return ()
    try:
        return (spec.config_model.model_validate_json(leased.config or b"{}"),)
    except ValidationError as error:
        raise BadConfig(spec.class_name, error) from None
