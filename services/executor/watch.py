"""WatchExecutions: changes of executions, newest state only; those of this process at once, others within a second."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from services.executor.executions import Executions, execution_not_found
from services.executor.feed import Feed
from services.executor.model import ExecutionView
from services.executor.store.reads import ExecutionFilter
from valkyr.flow.states import SETTLED_EXECUTION_STATES

AT_ONCE = 1_000
REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class Watched:
    """What a stream is about. `since` is from a resume token."""

    namespace: str
    ids: Sequence[UUID] = ()
    workflow_id: UUID | None = None
    since: int | None = None
    include_outputs: bool = False
    until_settled: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Some executions as they are now; `seen_to` is where to resume, None where more has to be sent before that."""

    executions: Sequence[ExecutionView]
    seen_to: int | None


class Watch:
    """One stream. Remembers what was sent of late, so that nothing older is sent after it."""

    def __init__(self, executions: Executions, feed: Feed, watched: Watched) -> None:
        self._executions = executions
        self._feed = feed
        self._watched = watched
        self._only = frozenset(watched.ids)
        self._sent: OrderedDict[UUID, int] = OrderedDict()
        self._unsettled = set(watched.ids)

    async def batches(self) -> AsyncIterator[Batch]:
        """Until every named execution is settled, if that was asked for; else for as long as the caller listens.

        ExecutionNotFound if a named one does not exist.
        """
        watched = self._watched
        async with self._feed.subscription(watched.namespace, ids=watched.ids, workflow_id=watched.workflow_id) as news:
            mark = self._feed.mark
            async for batch in self._beginning(mark):
                yield batch
            while not self._is_over():
                views = await news.changed()
                before, mark = mark, self._feed.mark
                if news.overrun:
                    news.overrun = False
                    async for batch in self._missed(before, mark):
                        yield batch
                async for batch in self._batches_of(views, mark):
                    yield batch

    def _is_over(self) -> bool:
        return self._watched.until_settled and bool(self._watched.ids) and not self._unsettled

    async def _beginning(self, mark: int) -> AsyncIterator[Batch]:
        """The named executions as they are, or what changed since the token; where neither is given, where we are."""
        watched = self._watched
        if watched.ids:
            found = []
            for start in range(0, len(watched.ids), AT_ONCE):
                found += await self._executions.get_many(watched.namespace, watched.ids[start : start + AT_ONCE])
            missing = self._only - {view.id for view in found}
            if missing:
                raise execution_not_found(min(missing))
            if watched.since is None:
                async for batch in self._batches_of(found, mark):
                    yield batch
            else:
                self._unsettled = {view.id for view in found if view.state not in SETTLED_EXECUTION_STATES}
        elif watched.since is None:
            yield Batch((), mark)
        if watched.since is not None:
            async for batch in self._missed(watched.since, mark):
                yield batch

    async def _missed(self, since: int, mark: int) -> AsyncIterator[Batch]:
        """What changed anywhere since an earlier mark."""
        wanted = ExecutionFilter(
            self._watched.namespace, self._watched.ids, self._watched.workflow_id, changed_since=since
        )
        while True:
            views = await self._executions.list_executions(wanted, limit=AT_ONCE)
            async for batch in self._batches_of(views, mark if len(views) < AT_ONCE else None):
                yield batch
            if len(views) < AT_ONCE:
                return
            wanted = replace(wanted, before=views[-1].id)

    async def _batches_of(self, views: Sequence[ExecutionView], seen_to: int | None) -> AsyncIterator[Batch]:
        """Only the last says where to resume: a stream that breaks off before is told all of them again."""
        fresh = [view for view in views if self._sent.get(view.id, -1) < view.revision]
        for start in range(0, len(fresh), AT_ONCE):
            some = fresh[start : start + AT_ONCE]
            if self._watched.include_outputs:
                settled = [view for view in some if view.state in SETTLED_EXECUTION_STATES]
                filled = {view.id: view for view in await self._executions.fill(settled)}
                some = [filled.get(view.id, view) for view in some]
            for view in some:
                self._remember(view)
            yield Batch(some, seen_to if start + AT_ONCE >= len(fresh) else None)

    def _remember(self, view: ExecutionView) -> None:
        self._sent[view.id] = view.revision
        self._sent.move_to_end(view.id)
        if len(self._sent) > max(REMEMBERED, len(self._only)):
            self._sent.popitem(last=False)
        if view.state in SETTLED_EXECUTION_STATES:
            self._unsettled.discard(view.id)
        elif view.id in self._only:
            self._unsettled.add(view.id)
