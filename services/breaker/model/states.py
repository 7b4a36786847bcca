"""Words of the breaker: states and which follows which, results of calls, answers, causes of transitions."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class State(StrEnum):
    """Spelled as in the proto enum and in the SQL column."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"
    FORCED_OPEN = "FORCED_OPEN"
    DISABLED = "DISABLED"
    METRICS_ONLY = "METRICS_ONLY"


class Result(StrEnum):
    """What became of one call."""

    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    EXCLUDED = "EXCLUDED"


class Answer(StrEnum):
    """What became of one outcome."""

    COUNTED = "COUNTED"
    REPEATED = "REPEATED"
    IGNORED = "IGNORED"


class Cause(StrEnum):
    """Why a breaker went from one state to another."""

    FAILURES = "FAILURES"
    RETRY_TIME = "RETRY_TIME"
    PROBE_FAILED = "PROBE_FAILED"
    PROBES_SUCCEEDED = "PROBES_SUCCEEDED"
    OPERATOR = "OPERATOR"
    FORGOTTEN = "FORGOTTEN"


FORCED_STATES = frozenset({State.FORCED_OPEN, State.DISABLED, State.METRICS_ONLY})
"""Set by an operator; no outcome and no time leads out of them."""

BY_ITSELF: Mapping[tuple[State, State], Cause] = {
    (State.CLOSED, State.OPEN): Cause.FAILURES,
    (State.OPEN, State.HALF_OPEN): Cause.RETRY_TIME,
    (State.HALF_OPEN, State.CLOSED): Cause.PROBES_SUCCEEDED,
    (State.HALF_OPEN, State.OPEN): Cause.PROBE_FAILED,
}
"""Every transition that outcomes and time make, with its one cause."""


def is_legal(before: State, after: State, cause: Cause) -> bool:
    """Whether a breaker may go that way for that cause. An operator may force any state, and let go to CLOSED; an
    outage that nobody has asked about for long is forgotten."""
    if cause is Cause.FORGOTTEN:
        return before in (State.OPEN, State.HALF_OPEN) and after is State.CLOSED
    if cause is Cause.OPERATOR:
        return before is not after and (after in FORCED_STATES or after is State.CLOSED)
    return BY_ITSELF.get((before, after)) is cause
