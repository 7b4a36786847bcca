"""The breakers of one executor, wired: gateway, mirror, outcomes, and the loops that keep them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

from services.chassis.loops import run_every
from services.executor.breakers.mirror import Mirror
from services.executor.breakers.outcomes import Outcomes
from services.executor.breakers.turns import ProbeTurn
from services.executor.gateways import BreakerGateway

FIRST_LOOK = timedelta(seconds=1)
LAST_OUTCOMES = timedelta(milliseconds=500)
OUTCOMES_INTERVAL = timedelta(seconds=30)


class Breakers:
    """No health is tied to these loops: with the breaker away runs go on."""

    def __init__(self, address: str) -> None:
        self.gateway = BreakerGateway(address)
        self.mirror = Mirror(self.gateway)
        self.turn = ProbeTurn()
        self.outcomes = Outcomes(self.gateway, self.mirror.generation, permits_answered=self.mirror.look_again)

    def loops(self) -> dict[str, Coroutine[Any, Any, None]]:
        """To be run as tasks, by name."""
        return {
            "mirror": self.mirror.run(),
            "outcomes": run_every(OUTCOMES_INTERVAL, self.outcomes.step, name="outcomes", wake=self.outcomes.wake),
        }

    async def first_look(self) -> None:
        """Waits for the mirror's first snapshot, not for long: what is leased before knows of no open target."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK.total_seconds()):
                await self.mirror.known.wait()

    async def close(self) -> None:
        """Once the loops have ended: sends what is left, if that is quickly done, so that no permit waits to expire."""
        if not self.mirror.away:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_OUTCOMES.total_seconds()):
                    await self.outcomes.step()
        await self.gateway.close()
