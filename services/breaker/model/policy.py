"""When a breaker opens, and how it comes back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class OnUnavailable(StrEnum):
    """What callers do while the breaker service is away."""

    ALLOW = "ALLOW"
    DENY = "DENY"


@dataclass(frozen=True, slots=True)
class Policy:
    """The defaults are v1's."""

    failure_threshold: int = 5
    timeout_duration: timedelta = timedelta(seconds=30)
    half_open_permits: int = 2
    half_open_success_threshold: int = 2
    on_unavailable: OnUnavailable = OnUnavailable.ALLOW
