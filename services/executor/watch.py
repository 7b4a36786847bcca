"""WatchExecutions: changes of executions, newest state only; those of this process at once, others within a second."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from services.executor.executions import LOOK_INTERVAL, Executions, execution_not_found, wait_for
from services.executor.model import ExecutionView
from services.executor.signals import Signals
from services.executor.store.reads import ExecutionFilter
from valkyr.flow.states import SETTLED_EXECUTION_STATES

OVERLAP = timedelta(seconds=10)
"""`last_modified_date` is a transaction's start: one may commit later than others that began after it, by less."""

AT_ONCE = 1_000
REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class Watched:
    """What a stream is about. `since` is from a resume token."""

    namespace: str
    ids: Sequence[UUID] = ()
    workflow_id: UUID | None = None
    since: datetime | None = None
    include_outputs: bool = False
    until_settled: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Some executions as they are now; `seen_to` is where to resume."""

    executions: Sequence[ExecutionView]
    seen_to: datetime


class Watch:
    """One stream. Holds at most the ids that changed and what was sent of late, however slow its reader is."""

    def __init__(self, executions: Executions, signals: Signals, watched: Watched) -> None:
        self._executions = executions
        self._signals = signals
        self._watched = watched
        self._only = frozenset(watched.ids)
        self._changed: dict[UUID, None] = {}
        self._overrun = False
        self._wake = asyncio.Event()
        self._sent: OrderedDict[UUID, int] = OrderedDict()
        self._unsettled = set(watched.ids)
        self._seen_to = watched.since

    async def batches(self) -> AsyncIterator[Batch]:
        """Until every named execution is settled, if that was asked for; else for as long as the caller listens.

        ExecutionNotFound if a named one does not exist.
        """
        self._signals.subscribe(self._listen)
        try:
            for batch in await self._beginning():
                yield batch
            look_at = self._in_a_while()
            while not self._is_over():
                await wait_for(self._wake, LOOK_INTERVAL)
                self._wake.clear()
                for batch in await self._heard():
                    yield batch
                if self._overrun or asyncio.get_running_loop().time() >= look_at:
                    self._overrun = False
                    for batch in await self._missed():
                        yield batch
                    look_at = self._in_a_while()
        finally:
            self._signals.unsubscribe(self._listen)

    def _listen(self, ids: frozenset[UUID]) -> None:
        for execution_id in ids:
            if not self._only or execution_id in self._only:
                self._changed[execution_id] = None
        if len(self._changed) > max(REMEMBERED, len(self._only)):
            self._changed.clear()
            self._overrun = True
        if self._changed:
            self._wake.set()

    def _in_a_while(self) -> float:
        return asyncio.get_running_loop().time() + LOOK_INTERVAL.total_seconds()

    def _is_over(self) -> bool:
        return self._watched.until_settled and bool(self._watched.ids) and not self._unsettled

    async def _beginning(self) -> list[Batch]:
        watched = self._watched
        now = await self._executions.now()
        if watched.ids:
            found = []
            for start in range(0, len(watched.ids), AT_ONCE):
                found += await self._executions.get_many(watched.namespace, watched.ids[start : start + AT_ONCE])
            missing = self._only - {view.id for view in found}
            if missing:
                raise execution_not_found(min(missing))
            since, self._seen_to = self._seen_to, now
            if since is not None:
                for view in found:
                    if view.modified_at < since - OVERLAP:
                        self._remember(view)
            return await self._batches_of(found)
        if self._seen_to is None:
            self._seen_to = now
            return [Batch((), now)]
        return await self._missed()

    async def _heard(self) -> list[Batch]:
        """What changed here."""
        ids = list(self._changed)
        self._changed.clear()
        batches = []
        for start in range(0, len(ids), AT_ONCE):
            views = await self._executions.get_many(self._watched.namespace, ids[start : start + AT_ONCE])
            batches += await self._batches_of(views)
        return batches

    async def _missed(self) -> list[Batch]:
        """What changed anywhere since we looked, with an overlap for transactions that committed late."""
        now = await self._executions.now()
        since = (self._seen_to or now) - OVERLAP
        wanted = ExecutionFilter(
            self._watched.namespace, self._watched.ids, self._watched.workflow_id, changed_since=since
        )
        batches = []
        while True:
            views = await self._executions.list_executions(wanted, limit=AT_ONCE)
            batches += await self._batches_of(views)
            if len(views) < AT_ONCE:
                self._seen_to = now
                return batches
            wanted = replace(wanted, before=views[-1].id)

    async def _batches_of(self, views: Sequence[ExecutionView]) -> list[Batch]:
        fresh = [view for view in views if self._is_news(view)]
        if not fresh:
            return []
        if self._watched.include_outputs:
            settled = [view for view in fresh if view.state in SETTLED_EXECUTION_STATES]
            filled = {view.id: view for view in await self._executions.fill(settled)}
            fresh = [filled.get(view.id, view) for view in fresh]
        for view in fresh:
            self._remember(view)
        return [Batch(fresh, self._seen_to or max(view.modified_at for view in fresh))]

    def _is_news(self, view: ExecutionView) -> bool:
        if self._watched.workflow_id is not None and view.workflow_id != self._watched.workflow_id:
            return False
        return self._sent.get(view.id, -1) < view.revision

    def _remember(self, view: ExecutionView) -> None:
        self._sent[view.id] = view.revision
        self._sent.move_to_end(view.id)
        if len(self._sent) > max(REMEMBERED, len(self._only)):
            self._sent.popitem(last=False)
        if view.state in SETTLED_EXECUTION_STATES:
            self._unsettled.discard(view.id)
        elif view.id in self._only:
            self._unsettled.add(view.id)
