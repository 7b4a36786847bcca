"""Back-off arithmetic, pure: I14."""

from __future__ import annotations

from datetime import timedelta


def backoff_ceiling(failures: int, *, base: timedelta, maximum: timedelta) -> timedelta:
    """`min(maximum, base * 2^(n-1))` for the n-th failure, n >= 1."""
    doublings = min(failures - 1, 62)
    return min(maximum, base * (1 << doublings))


def backoff(failures: int, *, base: timedelta, maximum: timedelta, jitter: float) -> timedelta:
    """The ceiling with full jitter; `jitter` is uniform in [0, 1), drawn by the caller."""
    return backoff_ceiling(failures, base=base, maximum=maximum) * jitter
