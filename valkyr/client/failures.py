"""What the client SDK answers about failures: breakers of targets, and letters of runs that failed for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from valkyr.client.results import Attempt


class BreakerState(StrEnum):
    """CLOSED lets every call through, OPEN none, HALF_OPEN a few probes; the rest is set by an operator."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"
    FORCED_OPEN = "FORCED_OPEN"
    DISABLED = "DISABLED"
    METRICS_ONLY = "METRICS_ONLY"


class OnUnavailable(StrEnum):
    """What callers do while the breaker service is away."""

    ALLOW = "ALLOW"
    DENY = "DENY"


class Resolution(StrEnum):
    """What was done about a dead letter."""

    PENDING = "PENDING"
    REQUEUED = "REQUEUED"
    FIXED = "FIXED"
    DISCARDED = "DISCARDED"


class DeadLetterType(StrEnum):
    """Why a run was quarantined."""

    MAX_RETRIES = "MAX_RETRIES"
    PERMANENT_ERROR = "PERMANENT_ERROR"
    RUNNER_LOST = "RUNNER_LOST"
    TIMEOUT = "TIMEOUT"
    CIRCUIT_BREAKER = "CIRCUIT_BREAKER"
    MANUAL = "MANUAL"


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens (consecutive failures), how long it stays open, and what closes it again."""

    failure_threshold: int
    timeout_duration: timedelta
    half_open_permits: int
    half_open_success_threshold: int
    on_unavailable: OnUnavailable | None


@dataclass(frozen=True, slots=True)
class Breaker:
    """What guards one target. `generation` grows with every transition; 0 is a breaker that nobody ever heard of.

    `next_retry_at` is when an open one lets a probe through; `episode_id` names the outage that goes on, or the last.
    """

    namespace: str
    target: str
    state: BreakerState
    failure_count: int
    success_count: int
    opened_at: datetime | None
    next_retry_at: datetime | None
    last_failure_at: datetime | None
    generation: int
    forced: bool
    policy: BreakerPolicy | None
    episode_id: str
    updated_at: datetime | None
    permits_in_flight: int


@dataclass(frozen=True, slots=True)
class RefusedResolution:
    """What somebody asked for and the executor would not do; `problem` is its reason and its sentence."""

    resolution: Resolution
    requested_by: str
    problem: str
    refused_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A run that failed for good, with what is needed to replay it.

    `original_inputs`, `original_config`, `refused` (the last one) and the stack traces of `attempts` are there where it
    was read alone. Until `resolution` leaves PENDING, `requested_resolution` says what was asked for and is not
    answered yet. `resolved_here` is False where somebody resolved it at the executor directly.
    """

    id: str
    namespace: str
    run_id: str
    execution_id: str
    task_id: str
    node_id: str
    workflow_id: str
    version: int
    class_name: str
    quarantine_number: int
    failure_type: DeadLetterType | None
    failure_reason: str
    error_type: str
    original_inputs: Any
    original_config: Any
    attempts: Sequence[Attempt]
    target: str
    episode_id: str
    trace_id: str
    traceparent: str
    quarantined_at: datetime | None
    resolution: Resolution
    requested_resolution: Resolution | None
    resolved_by: str
    resolved_at: datetime | None
    resolution_reason: str
    reviewed_by: str
    notes: str
    requeue_count: int
    previous_id: str
    idempotency_key: str
    refused: RefusedResolution | None = None
    resolved_here: bool = False

    @property
    def pending(self) -> bool:
        """Nobody has settled it."""
        return self.resolution is Resolution.PENDING
