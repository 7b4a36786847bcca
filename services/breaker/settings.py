"""Settings of the breaker: YAML section `breaker`, variables VALKYR_BREAKER__...; names and defaults as in v1."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from services.breaker.model.policy import OnUnavailable, Policy
from services.chassis.settings import Duration, Interval, RoomSettings, SettingsModel

LEAST_KEPT = timedelta(days=7)
"""Callers may hold the generation of a breaker for so long, and it must not begin at 0 again meanwhile."""


def _is_kept_long_enough(kept: timedelta) -> timedelta:
    if kept < LEAST_KEPT:
        raise ValueError("takes at least P7D: callers may remember a breaker's generation for so long")
    return kept


Kept = Annotated[Duration, AfterValidator(_is_kept_long_enough)]


class RetentionSettings(SettingsModel):
    """How long is kept what is no longer needed to decide."""

    reports: Duration = Field(default=timedelta(hours=24), description="ids of reports that counted")
    quiet: Duration = Field(default=timedelta(days=1), description="breakers that never opened and do not change")
    recovered: Kept = Field(default=timedelta(days=7), description="breakers that have opened and do not change")
    history: Kept = Field(default=timedelta(days=90), description="transitions, and episodes that are over")
    prune_interval: Interval = timedelta(minutes=10)


class BreakerSettings(RoomSettings):
    """What the breaker needs to start. `enabled: false` lets every call pass and counts nothing."""

    section: ClassVar[str] = "breaker"
    enabled: bool = True
    failure_threshold: int = Field(default=5, ge=1, le=1_000_000, description="consecutive failures that open it")
    timeout_duration: Interval = Field(default=timedelta(seconds=30), description="open before a probe is allowed")
    half_open_success_threshold: int = Field(default=2, ge=1, le=1_000_000, description="probes that close it")
    half_open_permits: int = Field(default=2, ge=1, le=10_000, description="probes in flight, over all callers")
    on_unavailable: OnUnavailable = Field(
        default=OnUnavailable.ALLOW, description="what callers do while this service is away"
    )
    max_breakers: int = Field(default=100_000, ge=1, le=10_000_000, description="targets with failures, per namespace")
    retention: RetentionSettings = RetentionSettings()

    def policy(self) -> Policy:
        """As the machine takes it."""
        return Policy(
            failure_threshold=self.failure_threshold,
            timeout_duration=self.timeout_duration,
            half_open_permits=self.half_open_permits,
            half_open_success_threshold=self.half_open_success_threshold,
            on_unavailable=self.on_unavailable,
        )
