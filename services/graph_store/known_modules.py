"""What configs are held against: the schemas of a namespace's modules, compiled once, and never out of date.

The catalogue's revision is read with every look, so that a registration that was answered counts at once, whichever
replica answered it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from services.graph_store.store_modules import StoredModules
from valkyr.graph.limits import Limits
from valkyr.graph.model import Graph
from valkyr.graph.schemas import BadSchema, ConfigSchema, compile_schema
from valkyr.graph.validate import Catalogue
from valkyr.telemetry import get_logger

MAX_BYTES = 8 * 1024 * 1024
"""Of schemas as JSON, of all namespaces; compiled they take some ten times as much."""

ENTRY_BYTES = 200
"""What one that is kept takes beside its schema, generously."""

log = get_logger(__name__)

Schemas = dict[str, ConfigSchema | None]


@dataclass(slots=True)
class _Namespace:
    revision: int
    schemas: Schemas = field(default_factory=dict)
    size: int = 0


class KnownModules:
    """The most recently used namespaces are kept, by the size of their schemas."""

    def __init__(
        self,
        stored: StoredModules,
        built_in: Mapping[str, ConfigSchema | None],
        *,
        limits: Limits,
        room: int = MAX_BYTES,
    ) -> None:
        self._stored = stored
        self._built_in = built_in
        self._id_chars = limits.id_chars
        self._room = room
        self._namespaces: OrderedDict[str, _Namespace] = OrderedDict()
        self._size = 0

    async def catalogue_for(self, namespace: str, graph: Graph) -> Catalogue:
        """All that the graph's classes may find there. Asks the database only about classes that are not ours."""
        wanted = {module.class_name for module in graph.modules} - self._built_in.keys()
        names = [name for name in wanted if 0 < len(name) <= self._id_chars and "\x00" not in name]
        if not names:
            return self._built_in
        kept = self._namespaces.get(namespace)
        known = kept.schemas if kept else {}
        unread = [name for name in names if name not in known]
        revision, texts = await self._stored.find_schemas(namespace, unread)
        if kept is not None and kept.revision != revision:
            known = {}
            if len(unread) < len(names):
                revision, texts = await self._stored.find_schemas(namespace, names)
        fresh = await asyncio.to_thread(_compiled, texts) if texts else {}
        self._keep(namespace, revision, fresh)
        return {**self._built_in, **{name: known[name] for name in names if name in known}, **fresh}

    def _keep(self, namespace: str, revision: int, fresh: Schemas) -> None:
        """A look that began earlier may end later: the newer revision stays. Nothing is kept of a namespace that has
        nothing: of those anybody can name any number."""
        kept = self._namespaces.get(namespace)
        if kept is not None and kept.revision < revision:
            self._size -= self._namespaces.pop(namespace).size
            kept = None
        if kept is None:
            if not fresh:
                return
            kept = self._namespaces[namespace] = _Namespace(revision)
        if kept.revision == revision:
            for name, schema in fresh.items():
                if name not in kept.schemas:
                    size = ENTRY_BYTES + len(name) + (schema.size if schema else 0)
                    kept.size += size
                    self._size += size
                    kept.schemas[name] = schema
        self._namespaces.move_to_end(namespace)
        while self._size > self._room:
            self._size -= self._namespaces.popitem(last=False)[1].size


def _compiled(texts: Mapping[str, str | None]) -> Schemas:
    return {name: None if text is None else _schema(name, text) for name, text in texts.items()}


def _schema(name: str, text: str) -> ConfigSchema | None:
    try:
        return compile_schema(orjson.loads(text))
    except BadSchema as error:
        # Registered when other schemas were taken: configs of this class are not checked until it is registered anew.
        log.error("module_schema.unusable", class_name=name, path=error.path, error=str(error))
        return None
