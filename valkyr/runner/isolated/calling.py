"""What a slot calls for a module that is isolated."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace

from valkyr.module import ModuleSpec
from valkyr.runner.attempt import Attempt, Stop
from valkyr.runner.attempt_span import attempt_span
from valkyr.runner.execute import lost_by
from valkyr.runner.isolated.orders import Outcome
from valkyr.runner.isolated.pool import ChildProcesses
from valkyr.runner.isolated.watch import Watch
from valkyr.runner.leases import Failure, FailureType
from valkyr.runner.outcomes import message_of
from valkyr.telemetry import get_logger

log = get_logger(__name__)


def call_isolated(
    children: ChildProcesses,
    spec: ModuleSpec,
    attempt: Attempt,
    *,
    clock: Callable[[], float],
    expire: Callable[[Stop], None],
) -> Outcome:
    """Runs a module in a child process, and starts the attempt when that is ready. Blocks; raises nothing."""
    with attempt_span(attempt.leased, calls_out=False) as span:
        try:
            outcome, public = _called(children, spec, attempt, clock=clock, expire=expire)
        except Exception as error:  # as below: a run must have an end
            log.exception("module.not_watched", run_id=attempt.leased.ref.run_id, class_name=spec.class_name)
            outcome = Failure(FailureType.TRANSIENT, f"its runner could not follow it: {message_of(error)}")
            public = outcome.message
        said = replace(outcome, message=public) if isinstance(outcome, Failure) and public else outcome
        span.ended(said, lost=lost_by(attempt))
    return outcome


def _called(
    children: ChildProcesses,
    spec: ModuleSpec,
    attempt: Attempt,
    *,
    clock: Callable[[], float],
    expire: Callable[[Stop], None],
) -> tuple[Outcome, str]:
    """The outcome, and a failure's message without values."""
    try:
        child = children.take(spec)
    except OSError as error:
        failure = Failure(FailureType.TRANSIENT, f"no process could be started for it: {message_of(error)}")
        return failure, failure.message
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        text = f"the runner's settings cannot be handed to another process: {message_of(error)}"
        return Failure(FailureType.PERMANENT, text), text
    watch = Watch(child, attempt, clock=clock, expire=expire)
    ended = False
    try:
        outcome = watch.outcome()
        ended = True
    finally:
        if not ended:
            child.wear_out()
        children.give_back(child)
    return outcome, watch.without_values
