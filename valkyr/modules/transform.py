"""TransformModule: its outputs are its config's `output`, whose expressions the engine has resolved by then."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from valkyr.module import Context, ModuleSpec, spec_of


class TransformConfig(BaseModel):
    """`output` is any JSON with `${...}` in its strings."""

    model_config = ConfigDict(extra="forbid")

    output: Any


def transform(context: Context, config: TransformConfig) -> Any:
    return config.output


TRANSFORM: ModuleSpec = spec_of("TransformModule", transform, inline=True)
