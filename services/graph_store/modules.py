"""RegisterModules and ListModules: the catalogue of a namespace, and in every one what comes with Valkyr."""

from __future__ import annotations

import asyncio
import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from heapq import merge

import orjson

from services.graph_store.model import AuditEvent, NewId, Request
from services.graph_store.model_modules import ModulePage, Registration
from services.graph_store.store import Store, Transaction
from services.graph_store.store_modules import StoredModules, schema_text
from services.graph_store.store_requests import Requests
from valkyr.errors import LimitExceeded
from valkyr.graph import fields
from valkyr.graph.catalogue import CatalogueModule, defaults_to_document
from valkyr.graph.catalogue_checks import check_modules
from valkyr.graph.limits import Limits

REGISTER = "RegisterModules"
MAX_MESSAGE = 1_000


class ModuleCatalogue:
    """The use cases."""

    def __init__(
        self,
        store: Store,
        stored: StoredModules,
        requests: Requests,
        built_in: Mapping[str, CatalogueModule],
        *,
        limits: Limits,
        most: int,
        most_bytes: int,
        new_id: NewId,
    ) -> None:
        """`built_in` in the order of class names; a namespace may register `most` beside these, whose schemas have at
        most `most_bytes` in all."""
        self._store = store
        self._stored = stored
        self._requests = requests
        self._built_in = built_in
        self._names = list(built_in)
        self._limits = limits
        self._most = most
        self._most_bytes = most_bytes
        self._new_id = new_id

    async def register(self, registration: Registration) -> list[CatalogueModule]:
        """All or none, as they are in the catalogue now. InvalidRequest, LimitExceeded, RequestIdReused."""
        problems = fields.Problems()
        for index, module in enumerate(registration.modules):
            if module.class_name in self._built_in:
                problems.add(
                    f"modules[{index}].className",
                    f"{module.class_name!r} comes with Valkyr and cannot be replaced; choose another name",
                )
        await asyncio.to_thread(check_modules, registration.modules, problems, limits=self._limits)
        problems.raise_if_any()
        request = Request(REGISTER, registration.request_id, _hash_of(registration.modules))
        return await self._store.in_transaction(lambda tx: self._register(tx, registration, request))

    async def list_modules(self, namespace: str, *, after: str, limit: int, with_schemas: bool) -> ModulePage:
        """By class name, from after one on: what was registered, and what comes with Valkyr."""
        revision, stored, more = await self._stored.list_modules(
            namespace, after=after, limit=limit, with_schemas=with_schemas
        )
        last = stored[-1].class_name if stored and more else None
        ours = [self._built_in[name] for name in self._names[bisect_right(self._names, after) :]]
        if not with_schemas:
            ours = [replace(module, config_schema=None) for module in ours]
        registered = (module for module in stored if module.class_name not in self._built_in)
        both = merge(registered, (m for m in ours if last is None or m.class_name <= last), key=lambda m: m.class_name)
        found = list(both)
        return ModulePage(revision, found[:limit], more or len(found) > limit)

    async def _register(self, tx: Transaction, wanted: Registration, request: Request) -> list[CatalogueModule]:
        revision = await self._stored.lock(tx, wanted.namespace)
        answered = await self._requests.answer_to(tx, wanted.namespace, request)
        if answered is not None:
            return [
                _dated(module, by, datetime.fromisoformat(when))
                for module, (by, when) in zip(wanted.modules, answered, strict=True)
            ]
        before = await self._stored.find(tx, wanted.namespace, [module.class_name for module in wanted.modules])
        changed = [module for module in wanted.modules if not _same(before.get(module.class_name), module)]
        if changed:
            revision += 1
            times = await self._stored.write(tx, wanted.namespace, changed, author=wanted.author, revision=revision)
            await self._check_size(tx, wanted.namespace)
            await tx.insert_audit_event(wanted.namespace, self._event(wanted, changed, before, revision))
        else:
            times = {}
        answer = [
            _dated(module, wanted.author.principal, times[module.class_name])
            if module.class_name in times
            else before[module.class_name]
            for module in wanted.modules
        ]
        remembered = [[module.registered_by, module.updated_at] for module in answer]
        await self._requests.remember(tx, wanted.namespace, request, remembered)
        return answer

    async def _check_size(self, tx: Transaction, namespace: str) -> None:
        """Of what is written by now: what is too much is undone."""
        number, size = await self._stored.measure(tx, namespace)
        if number > self._most:
            raise LimitExceeded.of_field(
                "modules",
                f"with these the namespace would have {number:,} modules; at most {self._most:,} are allowed; use"
                " another namespace for some of them",
            )
        if size > self._most_bytes:
            raise LimitExceeded.of_field(
                "modules",
                f"with these the schemas of the namespace would have {size:,} bytes as JSON; at most"
                f" {self._most_bytes:,} are allowed; make them smaller, or use another namespace for some of them",
            )

    def _event(
        self,
        wanted: Registration,
        changed: Sequence[CatalogueModule],
        before: Mapping[str, CatalogueModule],
        revision: int,
    ) -> AuditEvent:
        replaced = [before[module.class_name] for module in changed if module.class_name in before]
        return AuditEvent(
            id=self._new_id(),
            workflow_id=None,
            action="modules.registered",
            author=wanted.author,
            from_version=revision - 1 or None,
            to_version=revision,
            from_hash=_hash_of(replaced).hex() if replaced else None,
            to_hash=_hash_of(changed).hex(),
            message=_words([m.class_name for m in changed], {m.class_name for m in replaced}),
        )


def _dated(module: CatalogueModule, by: str, when: datetime) -> CatalogueModule:
    return replace(module, built_in=False, registered_by=by, updated_at=when)


def _same(stored: CatalogueModule | None, module: CatalogueModule) -> bool:
    return stored is not None and _text_of(stored) == _text_of(module)


def _text_of(module: CatalogueModule) -> bytes:
    return orjson.dumps(
        [module.class_name, module.description, schema_text(module), defaults_to_document(module)],
        option=orjson.OPT_SORT_KEYS,
    )


def _hash_of(modules: Sequence[CatalogueModule]) -> bytes:
    """Of all that is said of them, in order."""
    digest = hashlib.sha256()
    for module in modules:
        text = _text_of(module)
        digest.update(b"%d:" % len(text) + text)
    return digest.digest()


def _words(names: Sequence[str], replaced: set[str]) -> str:
    new = [name for name in names if name not in replaced]
    parts = [f"adds {', '.join(new)}"] if new else []
    if replaced:
        parts.append(f"replaces {', '.join(name for name in names if name in replaced)}")
    text = "; ".join(parts)
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}… ({len(names):,} in all)"
