"""How an attempt can end: the plain values that runners report and that decisions are made from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from valkyr.frozen import cheaply_made


class FailureType(StrEnum):
    """Of one attempt. PERMANENT is final at once."""

    TRANSIENT = "TRANSIENT"
    RATE_LIMITED = "RATE_LIMITED"
    TIMEOUT = "TIMEOUT"
    PERMANENT = "PERMANENT"
    RUNNER_LOST = "RUNNER_LOST"
    CANCELLED = "CANCELLED"


class LetterType(StrEnum):
    """Why a run was quarantined."""

    MAX_RETRIES = "MAX_RETRIES"
    PERMANENT_ERROR = "PERMANENT_ERROR"
    RUNNER_LOST = "RUNNER_LOST"
    TIMEOUT = "TIMEOUT"
    # Its deadline passed while a breaker held it back.
    CIRCUIT_BREAKER = "CIRCUIT_BREAKER"


@cheaply_made
@dataclass(frozen=True, slots=True)
class Success:
    """`outputs` is JSON, at most the limit of outputs."""

    outputs: bytes
    cost_tokens: float | None = None


@cheaply_made
@dataclass(frozen=True, slots=True)
class Failure:
    """The work went wrong. `message` is for people, without stack; `retry_after` is the target's own wish."""

    type: FailureType
    message: str
    stack_trace: str = ""
    retry_after: timedelta | None = None


@cheaply_made
@dataclass(frozen=True, slots=True)
class Release:
    """Not started; burns nothing."""


@cheaply_made
@dataclass(frozen=True, slots=True)
class Snooze:
    """Not yet: the run comes back after `delay`, burning nothing."""

    delay: timedelta


@cheaply_made
@dataclass(frozen=True, slots=True)
class Lost:
    """The lease ran out, or its runner was replaced: nobody reported."""


@cheaply_made
@dataclass(frozen=True, slots=True)
class Omitted:
    """The runner no longer knows of a lease that it was given: it comes back, burning nothing."""


Result = Success | Failure | Release | Snooze
