"""WatchExecution: one execution as it changes, newest state only; what happens in this process at once, else within a
second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from services.executor.executions import Executions, execution_not_found
from services.executor.feed import LOOK_INTERVAL, Feed, Subscription
from services.executor.model import ExecutionView
from valkyr.flow.states import SETTLED_EXECUTION_STATES

COUNTED_PER_SECOND = 20_000
"""How many runs are counted for a stream: of a large execution that goes on, fewer changes are told."""


@dataclass(frozen=True, slots=True)
class WatchedOne:
    """What a stream is about. `after_revision` is the last one that was seen, by a stream before."""

    namespace: str
    execution_id: UUID
    after_revision: int | None = None


async def changes_of_one(
    executions: Executions, feed: Feed, watched: WatchedOne
) -> AsyncGenerator[ExecutionView, None]:
    """With run counts in each and outputs in the last, the settled one, after which it ends. ExecutionNotFound."""
    async with feed.subscription(watched.namespace, ids=[watched.execution_id]) as news:
        view = await _look(executions, watched)
        is_new = watched.after_revision is None or view.revision > watched.after_revision
        rest = 0.0
        while view.state not in SETTLED_EXECUTION_STATES:
            if is_new:
                counted = await executions.with_counts(view)
                rest = sum(counted.run_counts.values()) / COUNTED_PER_SECOND
                yield counted
            before = view
            view = await _newer(news, view, rest=rest) or await _look(executions, watched)
            # That it is leased turns PENDING into RUNNING without a new revision.
            is_new = (view.revision, view.state) != (before.revision, before.state)
        if is_new:
            [ended] = await executions.fill([view])
            yield ended


async def _look(executions: Executions, watched: WatchedOne) -> ExecutionView:
    found = await executions.get_many(watched.namespace, [watched.execution_id])
    if not found:
        raise execution_not_found(watched.execution_id)
    return found[0]


async def _newer(news: Subscription, seen: ExecutionView, *, rest: float) -> ExecutionView | None:
    """What the feed tells after `rest` seconds; its end at once. None where it has told nothing for a while."""
    now = asyncio.get_running_loop().time
    rested = now() + rest
    newest = seen
    changes = await news.changed_within(LOOK_INTERVAL)
    while True:
        for view in changes:
            if view.revision > newest.revision:
                newest = view
        left = rested - now()
        if newest.state in SETTLED_EXECUTION_STATES or left <= 0:
            return None if newest is seen else newest
        changes = await news.changed_within(timedelta(seconds=left))
