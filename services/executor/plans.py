"""Pinned graphs, planned: a version is fetched from the graph store once, kept in the executor's tables, compiled once.

So running needs no graph store (I16); only starts without a version do.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import orjson

from services.executor.defaults import Defaults, ModuleDefaults
from services.executor.gateways import FetchedGraph, GraphStoreGateway
from services.executor.store.reads import PinnedGraph, pin_graph, read_pinned_graph
from services.executor.store.session import Session
from valkyr.flow.plan import DedupeOf, Plan, TargetOf
from valkyr.graph.catalogue import said_dedupe, with_defaults
from valkyr.graph.document import graph_from_document, graph_to_document
from valkyr.planning.compiled import plan_of

VersionKey = tuple[str, UUID, int]  # namespace, workflow, version


@dataclass(frozen=True, slots=True)
class PlannedVersion:
    """A version ready to run. `task_ids` in the order of the plan's nodes; `defaults` stand in it where its author has
    said nothing."""

    plan: Plan
    task_ids: Sequence[UUID | None]
    defaults: ModuleDefaults = field(default_factory=dict)


class Plans:
    """Plans by version, the most recently used ones in memory, by number of nodes."""

    def __init__(
        self,
        session: Session,
        graph_store: GraphStoreGateway,
        defaults: Defaults,
        *,
        target_of: TargetOf,
        dedupe_of: DedupeOf,
        nodes_in_memory: int = 100_000,
    ) -> None:
        self._target_of = target_of
        self._dedupe_of = dedupe_of
        self._session = session
        self._graph_store = graph_store
        self._defaults = defaults
        defaults.on_change = self._forget
        self._planned: OrderedDict[VersionKey, PlannedVersion] = OrderedDict()
        self._nodes = 0
        self._limit = nodes_in_memory
        self._under_way: dict[VersionKey, asyncio.Task[PlannedVersion]] = {}

    async def get(self, key: VersionKey) -> PlannedVersion:
        """The plan of a version. WorkflowNotFound, VersionNotFound; Unavailable if new and not to be had."""
        planned = self._planned.get(key)
        if planned is not None and not self._defaults.holds(key[0], planned.defaults):
            modules = await self._defaults.of(key[0])
            planned = self._planned.get(key)
            if planned is not None and planned.defaults is not modules:
                planned = None  # made with others: of a replica that heard of them first, or read again since
        if planned is not None:
            self._planned.move_to_end(key)
            return planned
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._load(key))
            self._under_way[key] = task
            task.add_done_callback(lambda _done: self._under_way.pop(key, None))
        return await asyncio.shield(task)

    def cached(self, key: VersionKey) -> PlannedVersion | None:
        return self._planned.get(key)

    async def _load(self, key: VersionKey) -> PlannedVersion:
        async with self._session.reading() as connection:
            pinned = await read_pinned_graph(connection, key)
        if pinned is None:
            pinned = _pinned(await self._graph_store.get_graph(*key))
            async with self._session.transaction() as tx:
                await pin_graph(tx, key, pinned)
        while True:
            defaults = await self._defaults.of(key[0])
            planned = await asyncio.to_thread(_plan, pinned, defaults, self._target_of, self._dedupe_of)
            if self._defaults.holds(key[0], defaults):
                self._remember(key, planned)
                return planned

    def _forget(self, namespace: str) -> None:
        """Plans with defaults that are others now: they are made anew when they are asked for."""
        for key in [key for key in self._planned if key[0] == namespace]:
            self._nodes -= len(self._planned.pop(key).plan.nodes) + 1

    def _remember(self, key: VersionKey, planned: PlannedVersion) -> None:
        replaced = self._planned.pop(key, None)
        self._nodes -= len(replaced.plan.nodes) + 1 if replaced else 0
        self._planned[key] = planned
        self._nodes += len(planned.plan.nodes) + 1
        while self._nodes > self._limit and len(self._planned) > 1:
            _, dropped = self._planned.popitem(last=False)
            self._nodes -= len(dropped.plan.nodes) + 1


def _pinned(fetched: FetchedGraph) -> PinnedGraph:
    return PinnedGraph(
        document=orjson.dumps(graph_to_document(fetched.graph)).decode(),
        task_ids=orjson.dumps([str(task_id) if task_id else None for task_id in fetched.task_ids]).decode(),
        content_hash=fetched.content_hash,
    )


def _plan(pinned: PinnedGraph, defaults: ModuleDefaults, target_of: TargetOf, dedupe_of: DedupeOf) -> PlannedVersion:
    graph = with_defaults(graph_from_document(orjson.loads(pinned.document)), defaults)
    plan = plan_of(graph, target_of, lambda class_name: said_dedupe(defaults, class_name) or dedupe_of(class_name))
    task_ids = [UUID(task_id) if task_id else None for task_id in orjson.loads(pinned.task_ids)]
    return PlannedVersion(plan, task_ids, defaults)
