"""FailModule: fails as it is told to, for drills: what do retries, breakers and dead letters do about it?"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from valkyr.module import Context, ModuleSpec, PermanentError, RetryLater, spec_of
from valkyr.modules.delay import Duration

_MAX_TIMES = 1_000_000

DrilledType = Literal["TRANSIENT", "RATE_LIMITED", "TIMEOUT", "PERMANENT"]
"""The failure types that a module may give itself; the others are for its runner to say."""


class DrillFailure(Exception):
    """A failure that may have passed the next time."""


class FailConfig(BaseModel):
    """Fails in the attempts 1 to `times`, then succeeds; without `times` always. Every lease is an attempt, so that a
    run that was requeued goes on counting. `retry_after` is for RATE_LIMITED."""

    model_config = ConfigDict(extra="forbid")

    type: DrilledType = "TRANSIENT"
    message: str = Field(default="this is a drill", min_length=1, max_length=1000)
    times: Annotated[int, Field(ge=0, le=_MAX_TIMES)] | None = None
    retry_after: Duration | None = None

    @model_validator(mode="after")
    def _check_retry_after(self) -> Self:
        if self.retry_after is not None and self.type != "RATE_LIMITED":
            raise ValueError(f"retry_after goes with the type RATE_LIMITED, not with {self.type}")
        return self


def fail(context: Context, config: FailConfig) -> dict[str, Any]:
    """Outputs once it succeeds: the attempt that did."""
    if config.times is not None and context.attempt > config.times:
        return {"attempt": context.attempt}
    raise _error_of(config.type, config.message, config.retry_after)


def _error_of(kind: DrilledType, message: str, retry_after: timedelta | None) -> Exception:
    match kind:
        case "RATE_LIMITED":
            return RetryLater(message, after=retry_after)
        case "TIMEOUT":
            return TimeoutError(message)
        case "PERMANENT":
            return PermanentError(message)
        case "TRANSIENT":
            return DrillFailure(message)


FAIL: ModuleSpec = spec_of("FailModule", fail, inline=True)
