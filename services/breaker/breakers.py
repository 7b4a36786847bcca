"""GetBreaker and ListBreakers."""

from __future__ import annotations

from typing import ClassVar

from services.breaker.examples import BREAKERS
from services.breaker.model.calls import Key
from services.breaker.model.machine import Circuit
from services.breaker.model.views import BreakerView
from services.breaker.store import Scope, Store
from services.chassis.example.query import Query
from services.chassis.example.resource import Resource


class Breakers:
    """Reads of breakers as they are. `resource` is what they can be asked for by example."""

    resource: ClassVar[Resource] = BREAKERS

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, key: Key) -> BreakerView:
        """One that was never heard of as it would be."""
        return await self._store.find(key) or BreakerView(key, Circuit())

    async def find(self, namespace: str, query: Query, scope: Scope) -> tuple[list[BreakerView], str]:
        """A page and the next one's token."""
        return await self._store.find_breakers(namespace, query, scope)
