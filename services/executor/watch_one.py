"""WatchExecution: one execution as it changes, newest state only; what happens in this process at once, else within a
second."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from uuid import UUID

from services.executor.executions import Executions, execution_not_found
from services.executor.feed import LOOK_INTERVAL, Feed
from services.executor.model import ExecutionView
from valkyr.flow.states import SETTLED_EXECUTION_STATES, ExecutionState


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
    seen: tuple[int, ExecutionState] | None = None
    async with feed.subscription(watched.namespace, ids=[watched.execution_id]) as changes:
        while True:
            found = await executions.get_many(watched.namespace, [watched.execution_id])
            if not found:
                raise execution_not_found(watched.execution_id)
            [view] = found
            settled = view.state in SETTLED_EXECUTION_STATES
            # That it is leased turns PENDING into RUNNING without a new revision.
            news = (view.revision, view.state)
            was_seen = seen is None and watched.after_revision is not None and view.revision <= watched.after_revision
            if news != seen and not was_seen:
                yield (await executions.fill([view]))[0] if settled else await executions.with_counts(view)
            seen = news
            if settled:
                return
            await changes.changed_within(LOOK_INTERVAL)
