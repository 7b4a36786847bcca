"""What modules say where nodes say nothing, by namespace: as the graph store's catalogue has it, kept in the tables.

Every answer about versions tells how new the catalogue is. So a start has the defaults of that moment, and without the
graph store those are used that were known last (I16).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from services.executor.store.defaults import read_defaults, write_defaults
from services.executor.store.session import Session
from valkyr.errors import ValkyrError
from valkyr.graph.catalogue import CatalogueModule, defaults_to_document
from valkyr.telemetry import get_logger

LOOK_INTERVAL = timedelta(seconds=30)
"""How soon a change counts for executions that are under way, while nothing of their namespace is started."""
LOOKED_AT = 20
"""Namespaces at a time."""
MAX_NAMESPACES = 1_000
"""In memory; the others are read again. Of so many others it is known how new their catalogues are."""

ModuleDefaults = Mapping[str, CatalogueModule]
"""By class name; those that say something."""

log = get_logger(__name__)


class Catalogue(Protocol):
    """Where defaults come from."""

    async def resolve_versions(self, namespace: str, workflow_ids: list[UUID]) -> object: ...

    async def list_defaults(self, namespace: str) -> tuple[int, dict[str, CatalogueModule]]: ...


@dataclass(frozen=True, slots=True)
class _Known:
    revision: int
    modules: ModuleDefaults


class Defaults:
    """`on_change` is called with a namespace whose defaults are others now."""

    def __init__(self, session: Session, catalogue: Catalogue) -> None:
        self._session = session
        self._catalogue = catalogue
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._heard: OrderedDict[str, int] = OrderedDict()
        self._under_way: dict[str, asyncio.Task[ModuleDefaults]] = {}
        self.on_change: Callable[[str], None] = lambda namespace: None

    def heard(self, namespace: str, revision: int) -> None:
        """The catalogue of the namespace is at `revision`."""
        self._heard[namespace] = revision
        self._heard.move_to_end(namespace)
        if len(self._heard) > 2 * MAX_NAMESPACES:
            # Of one that is in use it is known, or is asked with the next start.
            self._heard.popitem(last=False)

    def holds(self, namespace: str, modules: ModuleDefaults) -> bool:
        """Whether these are the defaults of the namespace, as far as was heard."""
        known = self._known.get(namespace)
        return known is not None and known.modules is modules and self._is_new(namespace, known)

    async def of(self, namespace: str) -> ModuleDefaults:
        """The newest that is to be had; the same object as long as they stay the same."""
        known = self._known.get(namespace)
        if known is not None and self._is_new(namespace, known):
            return known.modules
        task = self._under_way.get(namespace)
        if task is None:
            task = asyncio.create_task(self._refresh(namespace))
            self._under_way[namespace] = task
            task.add_done_callback(lambda _done: self._under_way.pop(namespace, None))
        return await asyncio.shield(task)

    async def look(self) -> None:
        """Asks how new the catalogues are of the namespaces that are in use. What the graph store raises."""
        names = list(self._known)
        for first in range(0, len(names), LOOKED_AT):
            await asyncio.gather(*map(self._look_at, names[first : first + LOOKED_AT]))

    async def _look_at(self, namespace: str) -> None:
        await self._catalogue.resolve_versions(namespace, [])
        await self.of(namespace)

    def _is_new(self, namespace: str, known: _Known) -> bool:
        return self._heard.get(namespace, known.revision) == known.revision

    async def _refresh(self, namespace: str) -> ModuleDefaults:
        known = self._known.get(namespace)
        if known is None:
            async with self._session.reading() as connection:
                known = _Known(*await read_defaults(connection, namespace))
        if self._is_new(namespace, known):
            return self._keep(namespace, known)
        try:
            revision, listed = await self._catalogue.list_defaults(namespace)
        except ValkyrError as error:
            log.warning("module_defaults.not_read", namespace=namespace, error=error.message)
            # Until somebody hears of the catalogue again, which takes a graph store that answers.
            self._heard[namespace] = known.revision
            return self._keep(namespace, known)
        fresh = _Known(revision, {name: module for name, module in listed.items() if defaults_to_document(module)})
        async with self._session.transaction() as tx:
            await write_defaults(tx, namespace, revision, fresh.modules)
        self._heard[namespace] = revision
        same = _said(known.modules) == _said(fresh.modules)
        modules = self._keep(namespace, _Known(revision, known.modules) if same else fresh)
        if not same:
            self.on_change(namespace)
        return modules

    def _keep(self, namespace: str, known: _Known) -> ModuleDefaults:
        self._known[namespace] = known
        while len(self._known) > MAX_NAMESPACES:
            dropped, _ = self._known.popitem(last=False)
            self._heard.pop(dropped, None)
        return known.modules


def _said(modules: ModuleDefaults) -> dict[str, object]:
    return {name: defaults_to_document(module) for name, module in modules.items()}
