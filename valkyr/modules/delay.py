"""DelayModule: waits for a time, holding no slot. A control node: the executor decides it, no runner runs it."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from valkyr.duration import ISO_8601_PATTERN, parse_duration
from valkyr.module import Context, ModuleSpec, spec_of


def _parsed(value: Any) -> Any:
    if not isinstance(value, str | timedelta):
        raise ValueError("write an ISO 8601 duration, such as PT30S")
    return parse_duration(value) if isinstance(value, str) else value


Duration = Annotated[
    timedelta,
    BeforeValidator(_parsed, json_schema_input_type=str),
    Field(
        json_schema_extra={
            "description": "ISO 8601, such as PT30S or P1DT12H; no months, years or negatives",
            "pattern": ISO_8601_PATTERN,
        }
    ),
]
"""A duration in a module's config: ISO 8601 text."""


class DelayConfig(BaseModel):
    """`duration` is ISO 8601: PT30S, P1DT12H."""

    model_config = ConfigDict(extra="forbid")

    duration: Duration


def delay(context: Context, config: DelayConfig) -> dict[str, Any]:
    """Never called; carries the signature from which the schema is read."""
    raise AssertionError("DelayModule is a control node")


DELAY: ModuleSpec = spec_of("DelayModule", delay, control=True)
