"""What is answered while the setting `breaker.enabled` is false: every call may be made, nothing is counted, every
breaker is shown CLOSED. The rows stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from services.breaker.breakers import Breakers
from services.breaker.examples import SWITCHED_OFF
from services.breaker.model.calls import CallOutcome, Key, PermitAnswer, PermitRequest
from services.breaker.model.machine import Allow
from services.breaker.model.states import Answer, State
from services.breaker.model.views import BreakerView, switched_off
from services.breaker.store import Scope
from services.chassis.example.query import Query


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

    resource = SWITCHED_OFF

    async def get(self, key: Key) -> BreakerView:
        return switched_off(await super().get(key))

    async def find(self, namespace: str, query: Query, scope: Scope) -> tuple[list[BreakerView], str]:
        if scope.states and State.CLOSED not in scope.states:
            return [], ""
        found, next_page_token = await super().find(namespace, query, replace(scope, states=()))
        return [switched_off(view) for view in found], next_page_token
