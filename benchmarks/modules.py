"""The modules of the workloads: their outputs prove that every predecessor ran before, and was read."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from pydantic import BaseModel

from valkyr import Context, module

STEP = "BenchStep"
HOLD = "BenchHold"


@module(STEP)
async def step(context: Context) -> dict[str, Any]:
    """One more than the deepest predecessor, and as many paths as all of them have; the first has the trigger's `n`."""
    before = [node["outputs"] for node in context.inputs["nodes"].values()]
    if not before:
        return {"depth": 1, "paths": context.trigger["n"]}
    return {"depth": 1 + max(each["depth"] for each in before), "paths": sum(each["paths"] for each in before)}


class HoldConfig(BaseModel):
    """How long a run is held, at random, in seconds."""

    least: float
    most: float


@module(HOLD)
async def hold(context: Context, config: HoldConfig) -> dict[str, Any]:
    """Says when it began, by the clock of this machine, and holds its lease for a while."""
    began = time.time()
    await asyncio.sleep(random.uniform(config.least, config.most))
    return {"began": began}
