"""Idle runners that are told to end, one after the other."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from time import monotonic

from tests.chaos.remote.findings import Drains
from tests.chaos.remote.house import House

AT_ONCE = 5

Tell = Callable[[str], None]


async def drained(house: House, *, number: int, tell: Tell) -> Drains:
    """Some are started at once; while one ends, the others are idle."""
    took: list[float] = []
    codes: list[int] = []
    while len(took) < number:
        async with AsyncExitStack() as stack:
            names = [f"runner-{len(took) + place}" for place in range(min(AT_ONCE, number - len(took)))]
            runners = await asyncio.gather(*(house.runner("drains", "drains", name) for name in names))
            for runner in runners:
                stack.push_async_callback(runner.kill)
            for runner in runners:
                told = monotonic()
                runner.signal(signal.SIGTERM)
                codes.append(await runner.ended(timeout=60))
                took.append(monotonic() - told)
        tell(f"drains: {len(took)}, the longest took {max(took):.2f} s")
    return Drains(took, [code for code in codes if code])
