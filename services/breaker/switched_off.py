"""What is answered while the setting `breaker.enabled` is false: every call may be made, nothing is counted, every
breaker is shown CLOSED. The rows stay as they are."""

from __future__ import annotations

from collections.abc import Sequence

from services.breaker.breakers import Breakers
from services.breaker.model.calls import CallOutcome, Key, PermitAnswer, PermitRequest
from services.breaker.model.machine import Allow
from services.breaker.model.states import Answer, State
from services.breaker.model.views import BreakerView, switched_off


class AllowingPermits:
    """In place of `Permits`."""

    async def acquire(self, requests: Sequence[PermitRequest]) -> list[PermitAnswer]:
        return [PermitAnswer(Allow()) for _ in requests]


class IgnoringOutcomes:
    """In place of `Outcomes`."""

    async def report(self, outcomes: Sequence[CallOutcome]) -> list[Answer]:
        return [Answer.IGNORED for _ in outcomes]


class ClosedBreakers(Breakers):
    """In place of `Breakers`."""

    async def get(self, key: Key) -> BreakerView:
        return switched_off(await super().get(key))

    async def list_breakers(
        self, namespace: str, *, after: str, prefix: str, states: Sequence[State], limit: int
    ) -> list[BreakerView]:
        if states and State.CLOSED not in states:
            return []
        found = await super().list_breakers(namespace, after=after, prefix=prefix, states=(), limit=limit)
        return [switched_off(view) for view in found]
