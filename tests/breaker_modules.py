"""A target that goes up and down as the test says, and the module that calls it."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from valkyr.module import Context, module


@dataclass
class Target:
    """Shared by the test and the modules of one event loop; `reset` before each test."""

    up: bool = True
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    calls: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    most: int = 0

    def reset(self) -> None:
        self.__init__()  # type: ignore[misc]
        self.answers.set()


TARGET = Target()


@module("CallModule")
async def call(context: Context) -> dict[str, Any]:
    """Calls the target: waits for its answer, and fails while it is down."""
    TARGET.calls[context.node_id] += 1
    TARGET.in_flight += 1
    TARGET.most = max(TARGET.most, TARGET.in_flight)
    try:
        await TARGET.answers.wait()
    finally:
        TARGET.in_flight -= 1
    if not TARGET.up:
        raise RuntimeError("the target is down")
    return {"attempt": context.attempt}
