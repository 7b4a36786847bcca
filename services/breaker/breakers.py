"""GetBreaker and ListBreakers."""

from __future__ import annotations

from collections.abc import Sequence

from services.breaker.model.calls import Key
from services.breaker.model.machine import Circuit
from services.breaker.model.states import State
from services.breaker.model.views import BreakerView
from services.breaker.store import Store


class Breakers:
    """Reads of breakers as they are."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, key: Key) -> BreakerView:
        """One that was never heard of as it would be."""
        return await self._store.find(key) or BreakerView(key, Circuit())

    async def list_breakers(
        self, namespace: str, *, after: str, prefix: str, states: Sequence[State], limit: int
    ) -> list[BreakerView]:
        """By target; of any of `states`, of all if it is empty."""
        return await self._store.list_breakers(namespace, after=after, prefix=prefix, states=states, limit=limit)
