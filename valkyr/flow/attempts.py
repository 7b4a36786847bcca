"""What follows the end of a lease: fence, retry, or failure for good. I06, I10, I14."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from valkyr.flow.results import Failure, FailureType, LetterType, Lost, Omitted, Release, Success
from valkyr.flow.states import RunState
from valkyr.retry import backoff


class Fence(StrEnum):
    """The answer to a report. Only ACCEPTED changes anything."""

    ACCEPTED = "ACCEPTED"
    LEASE_LOST = "LEASE_LOST"
    ALREADY_REPORTED = "ALREADY_REPORTED"


@dataclass(frozen=True, slots=True)
class LeaseFacts:
    """The run as its row says it is, locked."""

    state: RunState
    epoch: int
    failures: int
    lost_leases: int


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Budgets and back-off. The lost lease that makes `max_lost_leases` is the one that quarantines."""

    max_lost_leases: int
    backoff_base: timedelta
    backoff_max: timedelta


@dataclass(frozen=True, slots=True)
class Finish:
    """The outcome is final and good."""


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Back to READY, not before `delay` from now by the database's clock."""

    delay: timedelta
    failures: int
    lost_leases: int


@dataclass(frozen=True, slots=True)
class FailForGood:
    """Handled by a FAILURE edge if one holds, else quarantined as `letter`."""

    letter: LetterType
    error_type: FailureType
    message: str
    failures: int
    lost_leases: int


AfterLease = Finish | RetryAfter | FailForGood

_LETTERS = {FailureType.PERMANENT: LetterType.PERMANENT_ERROR, FailureType.TIMEOUT: LetterType.TIMEOUT}


def fence(facts: LeaseFacts | None, epoch: int) -> Fence:
    """I06. Another epoch, or no such run: LEASE_LOST; the same: ACCEPTED if it is LEASED, else ALREADY_REPORTED."""
    if facts is None or facts.epoch != epoch:
        return Fence.LEASE_LOST
    return Fence.ACCEPTED if facts.state is RunState.LEASED else Fence.ALREADY_REPORTED


def decide_after_lease(
    facts: LeaseFacts, result: Success | Failure | Release | Omitted | Lost, policy: RetryPolicy, *, jitter: float
) -> AfterLease:
    """What an accepted end of a lease means. A business failure is final at once; lost runners have their own budget.

    `jitter` is uniform in [0, 1), drawn by the caller.
    """
    match result:
        case Success():
            return Finish()
        case Release() | Omitted():
            return RetryAfter(timedelta(), facts.failures, facts.lost_leases)
        case Failure():
            letter = _LETTERS.get(result.type, LetterType.MAX_RETRIES)
            return FailForGood(letter, result.type, result.message, facts.failures + 1, facts.lost_leases)
        case Lost():
            lost = facts.lost_leases + 1
            if lost >= policy.max_lost_leases:
                message = f"the runner was lost {lost} times while it held this run"
                return FailForGood(LetterType.RUNNER_LOST, FailureType.RUNNER_LOST, message, facts.failures, lost)
            delay = backoff(lost, base=policy.backoff_base, maximum=policy.backoff_max, jitter=jitter)
            return RetryAfter(delay, facts.failures, lost)
