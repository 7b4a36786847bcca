"""The loop that carries out intents whose answer from the executor is outstanding; any replica does."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from services.dlq.model import Intent
from services.dlq.resolutions import Resolutions
from services.dlq.store import Store
from valkyr.errors import ValkyrError
from valkyr.telemetry import get_logger

BATCH = 10
"""Intents carried out side by side; each may hold four MiB of inputs."""

_log = get_logger(__name__)


class Outstanding:
    """Takes up what a crash, or an executor that was away, has left open."""

    def __init__(self, store: Store, resolutions: Resolutions) -> None:
        self._store = store
        self._resolutions = resolutions

    async def step(self) -> timedelta | None:
        """Tries what is due; how long it is to the next look, None if nothing is outstanding."""
        async with self._store.transaction() as tx:
            due = await tx.next_due()
            if due is None or due > timedelta():
                return due
            intents = await tx.claim_due_intents(BATCH, self._resolutions.lease)
        await asyncio.gather(*(self._carry_out(intent) for intent in intents))
        return timedelta() if intents else None  # none: another replica has just taken them

    async def _carry_out(self, intent: Intent) -> None:
        ids = {"dead_letter_id": intent.letter_id, "resolution": str(intent.resolution), "tries": intent.tries}
        try:
            await self._resolutions.carry_out(intent)
        except ValkyrError as error:
            _log.warning("intent.not_carried_out", **ids, reason=error.reason, problem=error.message)
        else:
            _log.info("intent.carried_out", **ids)
