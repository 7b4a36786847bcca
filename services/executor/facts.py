"""What never changes of an execution, cached: the way from an execution's id to its plan."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from services.executor.plans import PlannedVersion, Plans, VersionKey
from services.executor.store.reads import read_facts
from services.executor.store.session import Session
from valkyr.expressions import ExpressionError
from valkyr.flow.facts import ExecutionFacts
from valkyr.flow.plan import Plan
from valkyr.frozen import cheaply_made
from valkyr.graph.model import Settings
from valkyr.telemetry import get_logger

log = get_logger(__name__)

MAX_EXECUTIONS = 20_000
MAX_TRIGGER_BYTES = 32 * 1024 * 1024
_NO_PLAN = PlannedVersion(
    Plan(
        nodes=(),
        edges=(),
        roots=(),
        leaves=(),
        settings=Settings(),
        index_of={},
        control_roots=(),
        watched=frozenset(),
        evaluates=False,
    ),
    (),
)


@cheaply_made
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

    async def get_many(self, ids: Iterable[UUID], *, reserved: bool = False) -> dict[UUID, Known]:
        """Those that exist, with their plans; one whose plan cannot be made is left out, and logged.

        Takes a connection where something is missing: never call it while holding one. Unavailable.
        """
        facts = await self._facts_of(ids, reserved=reserved)
        versions: dict[VersionKey, PlannedVersion | None] = {}
        known: dict[UUID, Known] = {}
        for execution_id, fact in facts.items():
            key = fact.version_key
            if key not in versions:
                versions[key] = await self.version(key)
            version = versions[key]
            if version is not None:
                known[execution_id] = Known(fact, version)
        return known

    async def get_without_plans(self, ids: Iterable[UUID], *, reserved: bool = False) -> dict[UUID, Known]:
        """Those that exist, each with a plan of no nodes: for what needs none, such as their end. As `get_many`
        otherwise."""
        facts = await self._facts_of(ids, reserved=reserved)
        return {execution_id: Known(fact, _NO_PLAN) for execution_id, fact in facts.items()}

    async def _facts_of(self, ids: Iterable[UUID], *, reserved: bool) -> dict[UUID, ExecutionFacts]:
        facts, missing = self._remembered(ids)
        if missing:
            async with self._session.reading(reserved=reserved) as connection:
                facts |= await self._read(connection, missing)
        return facts

    async def facts_by(self, connection: Any, ids: Iterable[UUID]) -> dict[UUID, ExecutionFacts]:
        """Those that exist, by the connection that the caller has in hand: one statement where memory lacks some, none
        otherwise."""
        facts, missing = self._remembered(ids)
        return facts | await self._read(connection, missing) if missing else facts

    def _remembered(self, ids: Iterable[UUID]) -> tuple[dict[UUID, ExecutionFacts], set[UUID]]:
        """What is in memory, and what is not."""
        facts: dict[UUID, ExecutionFacts] = {}
        missing: set[UUID] = set()
        for execution_id in ids:
            fact = self._facts.get(execution_id)
            if fact is None:
                missing.add(execution_id)
            else:
                facts[execution_id] = fact
        return facts, missing

    async def _read(self, connection: Any, ids: Iterable[UUID]) -> dict[UUID, ExecutionFacts]:
        found = await read_facts(connection, ids)
        for facts in found:
            self.remember(facts)
        return {facts.id: facts for facts in found}

    def cached(self, execution_id: UUID) -> Known | None:
        """Without asking the database."""
        facts = self._facts.get(execution_id)
        version = self._plans.cached(facts.version_key) if facts else None
        return Known(facts, version) if facts and version else None

    def cached_version(self, key: VersionKey) -> PlannedVersion | None:
        """Without asking anybody."""
        return self._plans.cached(key)

    async def version(self, key: VersionKey) -> PlannedVersion | None:
        """None, and logged, where no plan can be made of it. Takes a connection as `get_many` does. Unavailable."""
        version = self._plans.cached(key)
        if version is not None:
            return version
        try:
            return await self._plans.get(key)
        except ExpressionError as error:
            # Saved when the expression language was another: nothing can run it, and it must not stop the others.
            log.error("plan.unusable", workflow_id=str(key[1]), version=key[2], error=str(error))
            return None

    def remember(self, facts: ExecutionFacts) -> None:
        if facts.id in self._facts:
            return
        self._facts[facts.id] = facts
        self._bytes += len(facts.trigger_json)
        while len(self._facts) > MAX_EXECUTIONS or self._bytes > MAX_TRIGGER_BYTES:
            _, dropped = self._facts.popitem(last=False)
            self._bytes -= len(dropped.trigger_json)
