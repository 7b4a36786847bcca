"""NoopModule: does nothing, takes any config."""

from __future__ import annotations

from typing import Any

from valkyr.module import Context, ModuleSpec, spec_of


def noop(context: Context) -> dict[str, Any]:
    return {}


NOOP: ModuleSpec = spec_of("NoopModule", noop, inline=True)
