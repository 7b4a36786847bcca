"""What follows the end of a lease: fence, retry, or failure for good. I06, I10, I14."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from valkyr.flow.results import Failure, FailureType, LetterType, Lost, Omitted, Result, Snooze, Success
from valkyr.flow.states import RunState
from valkyr.frozen import cheaply_made
from valkyr.graph.model import Retry
from valkyr.retry import backoff


class Fence(StrEnum):
    """The answer to a report. Only ACCEPTED changes anything."""

    ACCEPTED = "ACCEPTED"
    LEASE_LOST = "LEASE_LOST"
    ALREADY_REPORTED = "ALREADY_REPORTED"


@cheaply_made
@dataclass(frozen=True, slots=True)
class LeaseFacts:
    """The run as its row says it is, locked.

    `ending`: its execution ends, or it was told to stop for that; `deadline_passed`: its own deadline, by the
    database's clock.
    """

    state: RunState
    epoch: int
    failures: int
    lost_leases: int
    ending: bool = False
    deadline_passed: bool = False


@cheaply_made
@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Budgets and back-off. The failure that makes `max_attempts` is the last one, the lost lease that makes
    `max_lost_leases` the one that quarantines."""

    max_attempts: int
    max_lost_leases: int
    backoff_base: timedelta
    backoff_max: timedelta

    def narrowed(self, *retries: Retry | None) -> RetryPolicy:
        """With what the node, its graph and its module say; for each field the first that says something counts."""
        said = [retry for retry in retries if retry is not None]
        return RetryPolicy(
            max_attempts=next((r.max_attempts for r in said if r.max_attempts is not None), self.max_attempts),
            max_lost_leases=self.max_lost_leases,
            backoff_base=next((r.backoff_base for r in said if r.backoff_base is not None), self.backoff_base),
            backoff_max=next((r.backoff_max for r in said if r.backoff_max is not None), self.backoff_max),
        )


@cheaply_made
@dataclass(frozen=True, slots=True)
class Finish:
    """The outcome is final and good. In an execution that ends it is kept, and nothing follows it."""


@cheaply_made
@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Back to READY, not before `delay` from now by the database's clock."""

    delay: timedelta
    failures: int
    lost_leases: int


@cheaply_made
@dataclass(frozen=True, slots=True)
class FailForGood:
    """Handled by a FAILURE edge if one holds, else quarantined as `letter`."""

    letter: LetterType
    error_type: FailureType
    message: str
    failures: int
    lost_leases: int


@cheaply_made
@dataclass(frozen=True, slots=True)
class Cancel:
    """The execution ends: no retry, no letter, no edge."""


AfterLease = Finish | RetryAfter | FailForGood | Cancel

_LETTERS = {FailureType.PERMANENT: LetterType.PERMANENT_ERROR, FailureType.TIMEOUT: LetterType.TIMEOUT}


def fence(facts: LeaseFacts | None, epoch: int) -> Fence:
    """I06. Another epoch, or no such run: LEASE_LOST; the same: ACCEPTED if it is LEASED, else ALREADY_REPORTED."""
    if facts is None or facts.epoch != epoch:
        return Fence.LEASE_LOST
    return Fence.ACCEPTED if facts.state is RunState.LEASED else Fence.ALREADY_REPORTED


def decide_after_lease(
    facts: LeaseFacts, result: Result | Omitted | Lost, policy: RetryPolicy, *, jitter: float
) -> AfterLease:
    """What an accepted end of a lease means. Failures and lost runners draw on budgets of their own (I10); release,
    snooze and an omitted grant draw on neither.

    `jitter` is uniform in [0, 1), drawn by the caller.
    """
    if isinstance(result, Success):
        return Finish()
    if facts.ending:
        return Cancel()
    if facts.deadline_passed:
        return _after_deadline(facts, result)
    match result:
        case Snooze():
            return RetryAfter(max(result.delay, timedelta()), facts.failures, facts.lost_leases)
        case Failure():
            return _after_failure(facts, result, policy, jitter)
        case Lost():
            return _after_loss(facts, policy, jitter)
        case _:
            return RetryAfter(timedelta(), facts.failures, facts.lost_leases)


def _after_deadline(facts: LeaseFacts, result: Result | Omitted | Lost) -> FailForGood:
    last = f"; its last attempt: {result.message}" if isinstance(result, Failure) else ""
    failures = facts.failures + isinstance(result, Failure)
    lost = facts.lost_leases + isinstance(result, Lost)
    return FailForGood(LetterType.TIMEOUT, FailureType.TIMEOUT, f"the run's deadline passed{last}", failures, lost)


def _after_failure(facts: LeaseFacts, failure: Failure, policy: RetryPolicy, jitter: float) -> AfterLease:
    failures = facts.failures + 1
    if failure.type is FailureType.PERMANENT or failures >= policy.max_attempts:
        letter = _LETTERS.get(failure.type, LetterType.MAX_RETRIES)
        return FailForGood(letter, failure.type, failure.message, failures, facts.lost_leases)
    delay = backoff(failures, base=policy.backoff_base, maximum=policy.backoff_max, jitter=jitter)
    return RetryAfter(max(delay, failure.retry_after or delay), failures, facts.lost_leases)


def _after_loss(facts: LeaseFacts, policy: RetryPolicy, jitter: float) -> AfterLease:
    lost = facts.lost_leases + 1
    if lost >= policy.max_lost_leases:
        message = f"the runner was lost {lost} times while it held this run"
        return FailForGood(LetterType.RUNNER_LOST, FailureType.RUNNER_LOST, message, facts.failures, lost)
    delay = backoff(lost, base=policy.backoff_base, maximum=policy.backoff_max, jitter=jitter)
    return RetryAfter(delay, facts.failures, lost)
