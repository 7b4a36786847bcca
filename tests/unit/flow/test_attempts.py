"""What follows the end of a lease: the fence, the two budgets, the back-off."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valkyr.flow.attempts import (
    AfterLease,
    Cancel,
    FailForGood,
    Fence,
    Finish,
    LeaseFacts,
    RetryAfter,
    RetryPolicy,
    decide_after_lease,
    fence,
)
from valkyr.flow.results import Failure, FailureType, LetterType, Lost, Omitted, Release, Result, Snooze, Success
from valkyr.flow.states import RunState
from valkyr.graph.model import Retry
from valkyr.retry import backoff, backoff_ceiling

BASE, MAXIMUM = timedelta(seconds=1), timedelta(seconds=30)
POLICY = RetryPolicy(max_attempts=3, max_lost_leases=5, backoff_base=BASE, backoff_max=MAXIMUM)


BROKE = Failure(FailureType.TRANSIENT, "it broke")
NO_SUCCESS = [
    *(pytest.param(Failure(kind, "it broke"), id=kind) for kind in FailureType),
    *(pytest.param(result, id=type(result).__name__) for result in (Snooze(BASE), Release(), Omitted(), Lost())),
]


def leased(*, failures: int = 0, lost_leases: int = 0, **more: bool) -> LeaseFacts:
    return LeaseFacts(RunState.LEASED, 3, failures, lost_leases, **more)


def decided(facts: LeaseFacts, result: Result | Lost | Omitted, policy: RetryPolicy = POLICY) -> AfterLease:
    return decide_after_lease(facts, result, policy, jitter=0.5)


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


@pytest.mark.parametrize("result", [Release(), Omitted()], ids=lambda result: type(result).__name__)
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
    assert [(end.failures, end.lost_leases) for end in ends if isinstance(end, RetryAfter | FailForGood)] == [
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


@pytest.mark.parametrize("delay", [timedelta(), timedelta(milliseconds=1), timedelta(days=30)], ids=str)
def test_a_snooze_comes_back_after_its_own_delay_and_burns_nothing(delay: timedelta) -> None:
    facts = leased(failures=2, lost_leases=4)
    assert decided(facts, Snooze(delay)) == RetryAfter(delay, failures=2, lost_leases=4)


def test_a_snooze_into_the_past_comes_back_at_once() -> None:
    assert decided(leased(), Snooze(timedelta(seconds=-5))) == RetryAfter(timedelta(), 0, 0)


@pytest.mark.parametrize("failure_type", sorted(set(FailureType) - {FailureType.PERMANENT}))
@pytest.mark.parametrize("budget", [1, 2, 3, 10])
def test_i10_a_business_failure_is_tried_again_until_the_one_that_makes_the_budget(
    budget: int, failure_type: FailureType
) -> None:
    policy = replace(POLICY, max_attempts=budget)
    failure = Failure(failure_type, "it broke")
    ends = [decided(leased(failures=n, lost_leases=4), failure, policy) for n in range(budget)]
    assert [type(end) for end in ends] == [RetryAfter] * (budget - 1) + [FailForGood]
    counted = [(end.failures, end.lost_leases) for end in ends if isinstance(end, RetryAfter | FailForGood)]
    assert counted == [(n, 4) for n in range(1, budget + 1)], "lost leases are another budget"


@pytest.mark.parametrize("failures", [0, 1, 2, 7])
def test_a_permanent_failure_is_final_at_once_whatever_is_left_of_the_budget(failures: int) -> None:
    after = decided(leased(failures=failures), Failure(FailureType.PERMANENT, "no such card"))
    letter = LetterType.PERMANENT_ERROR
    assert after == FailForGood(letter, FailureType.PERMANENT, "no such card", failures + 1, 0)


def test_a_budget_that_was_made_smaller_meanwhile_ends_with_the_next_failure() -> None:
    assert isinstance(decided(leased(failures=7), BROKE), FailForGood)
    assert isinstance(decided(leased(lost_leases=9), Lost()), FailForGood)


@pytest.mark.parametrize(
    ("failures", "wish", "jitter", "expected"),
    [
        pytest.param(0, None, 0.5, 0.5, id="no wish"),
        pytest.param(0, 60, 0.5, 60, id="a wish longer than the back-off"),
        pytest.param(3, 1, 0.5, 4, id="a wish shorter than the back-off"),
        pytest.param(0, 0, 0.5, 0.5, id="a wish for nothing"),
        pytest.param(0, -9, 0.5, 0.5, id="a wish for the past"),
        pytest.param(0, 3_600, 0.0, 3_600, id="a wish over the maximum"),
    ],
)
def test_i14_the_target_s_own_wish_counts_where_it_is_longer(
    failures: int, wish: float | None, jitter: float, expected: float
) -> None:
    retry_after = None if wish is None else timedelta(seconds=wish)
    failure = Failure(FailureType.RATE_LIMITED, "slow down", retry_after=retry_after)
    policy = replace(POLICY, max_attempts=10)
    after = decide_after_lease(leased(failures=failures), failure, policy, jitter=jitter)
    assert after == RetryAfter(timedelta(seconds=expected), failures + 1, 0)


@given(
    n=st.integers(0, 200),
    base=st.timedeltas(timedelta(), timedelta(days=365)),
    maximum=st.timedeltas(timedelta(), timedelta(days=3650)),
    jitter=st.floats(0, 1, exclude_max=True),
    lost=st.booleans(),
)
def test_i14_full_jitter_stays_between_nothing_and_the_ceiling_of_its_own_counter(
    n: int, base: timedelta, maximum: timedelta, jitter: float, lost: bool
) -> None:
    policy = RetryPolicy(max_attempts=1_000, max_lost_leases=1_000, backoff_base=base, backoff_max=maximum)
    facts = leased(failures=3 if lost else n, lost_leases=n if lost else 3)
    after = decide_after_lease(facts, Lost() if lost else BROKE, policy, jitter=jitter)
    assert isinstance(after, RetryAfter)
    ceiling = min(maximum, base * 2 ** min(n, 40)) if base < timedelta.max / 2 ** min(n, 40) else maximum
    assert timedelta() <= after.delay <= ceiling
    assert (after.failures, after.lost_leases) == ((3, n + 1) if lost else (n + 1, 3))
    none = decide_after_lease(facts, Lost() if lost else BROKE, policy, jitter=0.0)
    assert isinstance(none, RetryAfter)
    assert none.delay == timedelta(), "full jitter begins at nothing"


@pytest.mark.parametrize("passed", [False, True], ids=["in time", "deadline passed"])
@pytest.mark.parametrize("result", NO_SUCCESS)
def test_in_an_execution_that_ends_any_end_but_a_success_is_a_cancel(
    result: Result | Lost | Omitted, passed: bool
) -> None:
    facts = leased(failures=2, lost_leases=4, ending=True, deadline_passed=passed)
    assert decided(facts, result) == Cancel()


@pytest.mark.parametrize("ending", [False, True])
@pytest.mark.parametrize("passed", [False, True])
def test_a_success_that_still_arrives_is_kept(ending: bool, passed: bool) -> None:
    assert decided(leased(failures=2, ending=ending, deadline_passed=passed), Success(b"1")) == Finish()


@pytest.mark.parametrize("result", NO_SUCCESS)
def test_past_the_deadline_any_end_but_a_success_fails_for_good_by_it(result: Result | Lost | Omitted) -> None:
    after = decided(leased(failures=1, lost_leases=2, deadline_passed=True), result)
    assert isinstance(after, FailForGood)
    assert (after.letter, after.error_type) == (LetterType.TIMEOUT, FailureType.TIMEOUT)
    assert after.message.startswith("the run's deadline passed")
    assert ("it broke" in after.message) is isinstance(result, Failure), "what the last attempt said is not lost"
    assert after.failures == 1 + isinstance(result, Failure)
    assert after.lost_leases == 2 + isinstance(result, Lost)


SECOND = timedelta(seconds=1)
NARROWED = [
    pytest.param([None, None, None], (3, 1, 30), id="nobody says anything"),
    pytest.param([Retry(7, 2 * SECOND, 3 * SECOND), Retry(8, SECOND, SECOND), None], (7, 2, 3), id="the first counts"),
    pytest.param([None, None, Retry(9, 4 * SECOND, 5 * SECOND)], (9, 4, 5), id="the last counts alone"),
    pytest.param(
        [Retry(max_attempts=7), Retry(8, backoff_base=4 * SECOND), Retry(9, 5 * SECOND, 6 * SECOND)],
        (7, 4, 6),
        id="each field by itself",
    ),
    pytest.param([Retry(), Retry(max_attempts=8)], (8, 1, 30), id="an empty one says nothing"),
    pytest.param([Retry(backoff_base=timedelta()), Retry(backoff_base=SECOND)], (3, 0, 30), id="nothing is something"),
]


@pytest.mark.parametrize(("said", "expected"), NARROWED)
def test_node_then_graph_then_module_then_settings_say_how_it_is_tried_again(
    said: list[Retry | None], expected: tuple[int, int, int]
) -> None:
    policy = POLICY.narrowed(*said)
    assert (policy.max_attempts, policy.backoff_base // SECOND, policy.backoff_max // SECOND) == expected
    assert policy.max_lost_leases == POLICY.max_lost_leases, "of lost runners only the settings speak"
