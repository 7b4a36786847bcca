"""LogModule: writes one line to the log of the runner."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from valkyr.module import Context, ModuleSpec, spec_of


class LogConfig(BaseModel):
    """`fields` stand beside the message, below the key `fields`, so that they hide nothing of the runner's own."""

    model_config = ConfigDict(extra="forbid")

    message: str = Field(max_length=10_000)
    level: Literal["debug", "info", "warning", "error"] = "info"
    fields: dict[str, Any] = Field(default_factory=dict)


def write_line(context: Context, config: LogConfig) -> dict[str, Any]:
    getattr(context.logger, config.level)("module.logged", message=config.message, fields=config.fields)
    return {}


LOG: ModuleSpec = spec_of("LogModule", write_line, inline=True)
