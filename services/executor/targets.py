"""Targets as their breakers have them: the values that travel between the executor and the breaker service. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

TargetKey = tuple[str, str]
"""Namespace and target."""

FORCED_LOOK = timedelta(seconds=30)
"""How often a target that an operator forced open is looked at."""


class BreakerState(StrEnum):
    """Spelled as on the wire."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"
    FORCED_OPEN = "FORCED_OPEN"
    DISABLED = "DISABLED"
    METRICS_ONLY = "METRICS_ONLY"


HOLDING = frozenset({BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.FORCED_OPEN})
"""States in which a run needs leave to go."""


@dataclass(frozen=True, slots=True)
class BreakerStatus:
    """A breaker as it was told. `wait` is how long, from then on, it is not worth asking; `denies` says that nothing
    goes to the target while the breaker service is away."""

    namespace: str
    target: str
    state: BreakerState
    generation: int
    wait: timedelta
    next_retry_at: datetime | None
    permits: int
    denies: bool
    episode_id: UUID | None

    @property
    def key(self) -> TargetKey:
        return self.namespace, self.target


@dataclass(frozen=True, slots=True)
class BreakerNews:
    """One message of the watch. `denies_by_default` is None where it says nothing about the default policy."""

    breakers: tuple[BreakerStatus, ...]
    snapshot: bool
    snapshot_complete: bool
    denies_by_default: bool | None


@dataclass(frozen=True, slots=True)
class PermitRequest:
    """Leave asked for one run, under the epoch that its lease will have."""

    namespace: str
    target: str
    run_id: UUID
    epoch: int
    hold: timedelta
    traceparent: str


@dataclass(frozen=True, slots=True)
class PermitDecision:
    """`permit_id` only while half open; `retry_after` only where it is not allowed."""

    allowed: bool
    permit_id: UUID | None
    retry_after: timedelta
    generation: int


class CallResult(StrEnum):
    """Spelled as on the wire. EXCLUDED says nothing about the target and gives a permit back."""

    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    EXCLUDED = "EXCLUDED"


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """What became of one call. `ended_at` is aware UTC."""

    namespace: str
    target: str
    result: CallResult
    duration_ms: int | None
    permit_id: UUID | None
    generation: int
    report_id: str
    traceparent: str
    ended_at: datetime
