"""Which version a start is of, and whether its workflow is in use: the graph store is asked, for many starts at once.

A start that names its version needs no answer: with the graph store away it goes by what was known last (I16). See
docs/decisions, "A start by version asks whether it may".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from uuid import UUID

from services.chassis.batching import NaturalBatcher
from services.executor.gateways import GraphStoreGateway, LatestVersion
from services.executor.model import StartRequest
from services.executor.store.session import Session
from services.executor.store.starts import find_requests
from valkyr.errors import (
    DeadlineExceeded,
    Overloaded,
    Unavailable,
    ValkyrError,
    WorkflowArchived,
    WorkflowNotFound,
)
from valkyr.rpc.status import GRPC_CODE
from valkyr.telemetry import get_logger

WorkflowKey = tuple[str, UUID]  # namespace, workflow
Latest = Mapping[WorkflowKey, LatestVersion]

RESOLVED_AT_ONCE = 1_000
"""As many as the graph store takes in one call."""
CALLS_AT_ONCE = 16
"""One for each namespace of a batch of starts."""
MAX_REMEMBERED = 10_000
"""Archived workflows that somebody tried to start. Beyond that they are forgotten: they are asked about again."""

log = get_logger(__name__)


@dataclass(slots=True)
class _Known:
    """What the graph store said last."""

    archived: set[WorkflowKey]
    away: bool = False


class Versions:
    """Pins a version to each start."""

    def __init__(self, session: Session, graph_store: GraphStoreGateway) -> None:
        self._session = session
        self._graph_store = graph_store
        self._known = _Known(set())
        self._look: asyncio.Task[None] | None = None
        self._resolving = NaturalBatcher[Sequence[WorkflowKey], Latest](
            self._resolve_batch, limit=RESOLVED_AT_ONCE, weight=len
        )

    async def pin(self, requests: Sequence[StartRequest]) -> list[int]:
        """The versions, in order: as named, or the latest. What a request_id started before is no new start.

        WorkflowNotFound, WorkflowArchived; Unavailable if a version has to be looked up and cannot be.
        """
        keys = list(dict.fromkeys(map(_key, requests)))
        named = all(request.version is not None for request in requests)
        latest = await (self._ask_if_there(keys) if named else self._ask(keys))
        versions = []
        for request in requests:
            found = latest.get(_key(request))
            if request.version is None and found is None:
                raise workflow_not_found(request.workflow_id)
            versions.append(found.version if request.version is None and found else request.version or 0)
        if not self._known.archived.isdisjoint(keys):
            await self._refuse_archived([request for request in requests if _key(request) in self._known.archived])
        return versions

    async def close(self) -> None:
        """Asks no more."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait([self._look])

    async def _ask(self, keys: Sequence[WorkflowKey]) -> Latest:
        answer = await self._resolving.submit(keys)
        if self._known.away:
            self._known.away = False
            log.info("graph_store.answered")
        return answer

    async def _ask_if_there(self, keys: Sequence[WorkflowKey]) -> Latest:
        """Nothing where the graph store is away: who finds that out has waited for it, others only have a look."""
        if self._known.away:
            if self._look is None or self._look.done():
                self._look = asyncio.create_task(self._look_again(keys))
            return {}
        try:
            return await self._ask(keys)
        except ValkyrError as error:
            if not _is_away(error):
                raise
            if not self._known.away:
                self._known.away = True
                log.warning("graph_store.missed", error=error.message, archived=len(self._known.archived))
            return {}

    async def _look_again(self, keys: Sequence[WorkflowKey]) -> None:
        try:
            await self._ask(keys)
        except ValkyrError as error:
            if not _is_away(error):
                self._known.away = False  # it answers: the next start is told the same
                log.error("graph_store.answered_wrongly", error=error.message)

    async def _refuse_archived(self, requests: Sequence[StartRequest]) -> None:
        async with self._session.reading() as connection:
            used = await find_requests(connection, requests)
        for request in requests:
            if not request.request_id or (request.namespace, request.request_id) not in used:
                raise workflow_archived(request.workflow_id)

    async def _resolve_batch(self, asked: Sequence[Sequence[WorkflowKey]]) -> Sequence[Latest]:
        wanted: dict[str, set[UUID]] = {}
        for namespace, workflow_id in chain.from_iterable(asked):
            wanted.setdefault(namespace, set()).add(workflow_id)
        calls = [
            (namespace, listed[start : start + RESOLVED_AT_ONCE])
            for namespace, listed in ((namespace, list(ids)) for namespace, ids in wanted.items())
            for start in range(0, len(listed), RESOLVED_AT_ONCE)
        ]
        found: dict[WorkflowKey, LatestVersion] = {}
        for first in range(0, len(calls), CALLS_AT_ONCE):
            some = calls[first : first + CALLS_AT_ONCE]
            answers = await asyncio.gather(*(self._graph_store.resolve_versions(*call) for call in some))
            for (namespace, _), versions in zip(some, answers, strict=True):
                found.update({(namespace, workflow_id): latest for workflow_id, latest in versions.items()})
        self._remember(found)
        return [found] * len(asked)

    def _remember(self, found: Latest) -> None:
        archived = self._known.archived
        for key, latest in found.items():
            if latest.archived:
                archived.add(key)
            else:
                archived.discard(key)
        if len(archived) > MAX_REMEMBERED:
            self._known.archived = {key for key, latest in found.items() if latest.archived}


def _is_away(error: ValkyrError) -> bool:
    """Whether nobody has answered, be it that gRPC itself says so in whatever words."""
    return isinstance(error, Unavailable | DeadlineExceeded | Overloaded) or GRPC_CODE in error.details.metadata


def _key(request: StartRequest) -> WorkflowKey:
    return request.namespace, request.workflow_id


def workflow_not_found(workflow_id: UUID) -> WorkflowNotFound:
    return WorkflowNotFound(
        f"there is no workflow {workflow_id} in this namespace",
        hint="FindWorkflows (`valkyr graph list`) shows those there are",
    )


def workflow_archived(workflow_id: UUID) -> WorkflowArchived:
    return WorkflowArchived(
        f"workflow {workflow_id} is archived: it is not started any more",
        hint="UnarchiveWorkflow (`valkyr graph unarchive`) puts it back in use",
        metadata={"workflowId": str(workflow_id)},
    )
