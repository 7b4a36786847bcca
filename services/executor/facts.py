"""What never changes of an execution, cached: the way from an execution's id to its plan."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from services.executor.model import ExecutionFacts
from services.executor.plans import PlannedVersion, Plans
from services.executor.store.reads import read_facts
from services.executor.store.session import Session

MAX_EXECUTIONS = 20_000
MAX_TRIGGER_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Known:
    """An execution and its plan."""

    facts: ExecutionFacts
    version: PlannedVersion


class ExecutionCache:
    """Facts of the executions most recently touched, bounded by number and by the size of their payloads."""

    def __init__(self, session: Session, plans: Plans) -> None:
        self._session = session
        self._plans = plans
        self._facts: OrderedDict[UUID, ExecutionFacts] = OrderedDict()
        self._bytes = 0

    async def get_many(self, ids: Iterable[UUID]) -> dict[UUID, Known]:
        """Those that exist, with their plans. Unavailable if a plan cannot be had."""
        wanted = set(ids)
        facts = {execution_id: self._facts[execution_id] for execution_id in wanted if execution_id in self._facts}
        missing = wanted - facts.keys()
        if missing:
            async with self._session.reading() as connection:
                for found in await read_facts(connection, missing):
                    facts[found.id] = found
                    self.remember(found)
        known = {}
        for execution_id, fact in facts.items():
            key = (fact.namespace, fact.workflow_id, fact.version)
            known[execution_id] = Known(fact, self._plans.cached(key) or await self._plans.get(key))
        return known

    def remember(self, facts: ExecutionFacts) -> None:
        if facts.id in self._facts:
            return
        self._facts[facts.id] = facts
        self._bytes += len(facts.trigger_json)
        while len(self._facts) > MAX_EXECUTIONS or self._bytes > MAX_TRIGGER_BYTES:
            _, dropped = self._facts.popitem(last=False)
            self._bytes -= len(dropped.trigger_json)
