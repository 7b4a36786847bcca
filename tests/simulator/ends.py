"""What must follow the accepted end of a lease: the tables of docs/state_machines.md once more, to check against."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from valkyr.flow.attempts import RetryPolicy
from valkyr.flow.results import Failure, FailureType, Lost, Omitted, Result, Snooze, Success
from valkyr.flow.states import RunState

_GOES_BACK = frozenset({RunState.READY, RunState.PARKED})
_FOR_GOOD = frozenset({RunState.FAILED, RunState.QUARANTINED})
_WELL = frozenset({RunState.SUCCESS})
_CANCELLED = frozenset({RunState.CANCELLED})


@dataclass(frozen=True, slots=True)
class Expected:
    """States that may follow, the counters then, and the least and the longest wait where the run goes back."""

    states: frozenset[RunState]
    failures: int
    lost_leases: int
    epoch_raised: int
    least: float = 0.0
    longest: float = 0.0


def expected_after(
    result: Result | Omitted | Lost,
    policy: RetryPolicy,
    *,
    failures: int,
    lost_leases: int,
    ending: bool,
    overdue: bool,
) -> Expected:
    """`ending`: the execution ended before, or in the same transaction by a request; `overdue`: the run's deadline."""
    raised = int(isinstance(result, Lost | Omitted))
    if isinstance(result, Success):
        return Expected(_WELL, failures, lost_leases, raised)
    if ending:
        return Expected(_CANCELLED, failures, lost_leases, raised)
    failed = failures + isinstance(result, Failure)
    lost = lost_leases + isinstance(result, Lost)
    if overdue or _is_last(result, policy, failed, lost):
        return Expected(_FOR_GOOD, failed, lost, raised)
    least, longest = _wait(result, policy, failed if isinstance(result, Failure) else lost)
    return Expected(_GOES_BACK, failed, lost, raised, least, longest)


def _is_last(result: Result | Omitted | Lost, policy: RetryPolicy, failures: int, lost_leases: int) -> bool:
    """I10: two budgets, and neither draws on the other."""
    if isinstance(result, Failure):
        return result.type is FailureType.PERMANENT or failures >= policy.max_attempts
    return isinstance(result, Lost) and lost_leases >= policy.max_lost_leases


def _wait(result: Result | Omitted | Lost, policy: RetryPolicy, number: int) -> tuple[float, float]:
    """I14."""
    if isinstance(result, Snooze):
        delay = max(result.delay, timedelta()).total_seconds()
        return delay, delay
    if not isinstance(result, Failure | Lost):
        return 0.0, 0.0
    ceiling = min(policy.backoff_max.total_seconds(), policy.backoff_base.total_seconds() * 2.0 ** (number - 1))
    wish = result.retry_after if isinstance(result, Failure) else None
    least = wish.total_seconds() if wish else 0.0
    return least, max(ceiling, least)
