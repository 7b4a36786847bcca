"""WatchExecution: one execution as it changes, newest state only; what happens in this process at once, else within a
second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from uuid import UUID

from services.executor.executions import LOOK_INTERVAL, Executions, execution_not_found, wait_for
from services.executor.model import ExecutionView
from services.executor.signals import Signals
from valkyr.flow.states import SETTLED_EXECUTION_STATES, ExecutionState


@dataclass(frozen=True, slots=True)
class WatchedOne:
    """What a stream is about. `after_revision` is the last one that was seen, by a stream before."""

    namespace: str
    execution_id: UUID
    after_revision: int | None = None


async def changes_of_one(
    executions: Executions, signals: Signals, watched: WatchedOne
) -> AsyncGenerator[ExecutionView, None]:
    """With run counts in each and outputs in the last, the settled one, after which it ends. ExecutionNotFound."""
    changed = asyncio.Event()

    def listen(ids: frozenset[UUID]) -> None:
        if watched.execution_id in ids:
            changed.set()

    seen: tuple[int, ExecutionState, bool] | None = None
    signals.subscribe(listen)
    try:
        while True:
            changed.clear()
            found = await executions.get_many(watched.namespace, [watched.execution_id])
            if not found:
                raise execution_not_found(watched.execution_id)
            [view] = found
            settled = view.state in SETTLED_EXECUTION_STATES
            # A lease or a cancel changes what is seen here without a new revision.
            news = (view.revision, view.state, view.cancel_requested)
            was_seen = seen is None and watched.after_revision is not None and view.revision <= watched.after_revision
            if news != seen and not was_seen:
                yield (await executions.fill([view]))[0] if settled else await executions.with_counts(view)
            seen = news
            if settled:
                return
            await wait_for(changed, LOOK_INTERVAL)
    finally:
        signals.unsubscribe(listen)
