"""Back-off arithmetic, pure: I14."""

from __future__ import annotations

from datetime import timedelta


def backoff_ceiling(failures: int, *, base: timedelta, maximum: timedelta) -> timedelta:
    """`min(maximum, base * 2^(n-1))` for the n-th failure, n >= 1."""
    factor = 1 << min(failures - 1, 62)
    # Compared before it is multiplied: the product of a patient budget is no timedelta any more.
    return maximum if base and factor > maximum // base else base * factor


def backoff(failures: int, *, base: timedelta, maximum: timedelta, jitter: float) -> timedelta:
    """The ceiling with full jitter; `jitter` is uniform in [0, 1), drawn by the caller."""
    return backoff_ceiling(failures, base=base, maximum=maximum) * jitter
