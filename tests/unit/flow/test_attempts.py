"""What follows the end of a lease: the fence, the two budgets, the back-off."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from valkyr.flow.attempts import (
    FailForGood,
    Fence,
    Finish,
    LeaseFacts,
    RetryAfter,
    RetryPolicy,
    decide_after_lease,
    fence,
)
from valkyr.flow.results import Failure, FailureType, LetterType, Lost, Omitted, Release, Success
from valkyr.flow.states import RunState
from valkyr.retry import backoff, backoff_ceiling

BASE, MAXIMUM = timedelta(seconds=1), timedelta(seconds=30)
POLICY = RetryPolicy(max_attempts=3, max_lost_leases=5, backoff_base=BASE, backoff_max=MAXIMUM)


def leased(*, epoch: int = 3, failures: int = 0, lost_leases: int = 0) -> LeaseFacts:
    return LeaseFacts(RunState.LEASED, epoch, failures, lost_leases)


@pytest.mark.parametrize("state", RunState)
@pytest.mark.parametrize("epoch", [0, 2, 4, -3])
def test_i06_a_report_with_another_epoch_is_told_that_the_lease_is_lost(state: RunState, epoch: int) -> None:
    assert fence(LeaseFacts(state, 3, 0, 0), epoch) is Fence.LEASE_LOST


@pytest.mark.parametrize("state", RunState)
def test_i06_a_report_with_the_epoch_is_accepted_once(state: RunState) -> None:
    expected = Fence.ACCEPTED if state is RunState.LEASED else Fence.ALREADY_REPORTED
    assert fence(LeaseFacts(state, 3, 0, 0), 3) is expected


def test_i06_a_report_for_no_run_is_told_that_the_lease_is_lost() -> None:
    assert fence(None, 1) is Fence.LEASE_LOST


@pytest.mark.parametrize("lost_leases", [0, 4])
def test_a_success_finishes_whatever_went_before(lost_leases: int) -> None:
    facts = leased(failures=2, lost_leases=lost_leases)
    assert decide_after_lease(facts, Success(b"{}"), POLICY, jitter=0.5) == Finish()


@pytest.mark.parametrize("result", [Release(), Omitted()])
def test_what_was_not_started_burns_nothing_and_is_ready_at_once(result: Release | Omitted) -> None:
    facts = leased(failures=2, lost_leases=4)
    assert decide_after_lease(facts, result, POLICY, jitter=0.9) == RetryAfter(timedelta(), 2, 4)


@pytest.mark.parametrize(
    ("failure_type", "letter"),
    [
        (FailureType.TRANSIENT, LetterType.MAX_RETRIES),
        (FailureType.RATE_LIMITED, LetterType.MAX_RETRIES),
        (FailureType.TIMEOUT, LetterType.TIMEOUT),
        (FailureType.PERMANENT, LetterType.PERMANENT_ERROR),
        (FailureType.CANCELLED, LetterType.MAX_RETRIES),
    ],
)
def test_i10_the_last_business_failure_of_the_budget_fails_for_good(
    failure_type: FailureType, letter: LetterType
) -> None:
    failure = Failure(failure_type, "card declined", "a stack", timedelta(seconds=3))
    after = decide_after_lease(leased(failures=2, lost_leases=4), failure, POLICY, jitter=0.5)
    assert after == FailForGood(letter, failure_type, "card declined", 3, 4)


def test_i10_lost_leases_come_back_until_the_last_of_the_budget_fails_for_good() -> None:
    ends = [decide_after_lease(leased(failures=2, lost_leases=n), Lost(), POLICY, jitter=0.5) for n in range(5)]
    assert [type(end) for end in ends] == [RetryAfter] * 4 + [FailForGood]
    assert [(end.failures, end.lost_leases) for end in ends if not isinstance(end, Finish)] == [
        (2, 1),
        (2, 2),
        (2, 3),
        (2, 4),
        (2, 5),
    ]
    last = ends[-1]
    assert isinstance(last, FailForGood)
    assert (last.letter, last.error_type) == (LetterType.RUNNER_LOST, FailureType.RUNNER_LOST)
    assert "5 times" in last.message


def test_i10_a_budget_of_one_allows_no_lost_lease() -> None:
    policy = replace(POLICY, max_lost_leases=1)
    assert isinstance(decide_after_lease(leased(), Lost(), policy, jitter=0.5), FailForGood)


@pytest.mark.parametrize(
    ("n", "seconds"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 30), (7, 30), (63, 30), (100, 30), (10**6, 30)]
)
def test_i14_the_ceiling_doubles_up_to_the_maximum(n: int, seconds: int) -> None:
    assert backoff_ceiling(n, base=BASE, maximum=MAXIMUM) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("base", "maximum"),
    [
        (timedelta(), MAXIMUM),
        (MAXIMUM, timedelta()),
        (timedelta(days=3660), timedelta(days=3660)),
        (timedelta(microseconds=1), timedelta(days=3660)),
    ],
    ids=["no base", "no maximum", "both huge", "a tiny base"],
)
@pytest.mark.parametrize("n", [1, 40, 63, 10**6])
def test_i14_no_setting_makes_the_back_off_fail(base: timedelta, maximum: timedelta, n: int) -> None:
    assert timedelta() <= backoff_ceiling(n, base=base, maximum=maximum) <= maximum


@pytest.mark.parametrize("jitter", [0.0, 0.25, 0.999999])
@pytest.mark.parametrize("lost_leases", range(4))
def test_i14_a_lost_run_waits_between_nothing_and_the_ceiling(lost_leases: int, jitter: float) -> None:
    after = decide_after_lease(leased(lost_leases=lost_leases), Lost(), POLICY, jitter=jitter)
    assert isinstance(after, RetryAfter)
    assert after.delay == timedelta(seconds=2**lost_leases) * jitter
    assert after.delay == backoff(lost_leases + 1, base=BASE, maximum=MAXIMUM, jitter=jitter)
