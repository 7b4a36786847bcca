"""What clients ask about executions and their runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from services.chassis.example.query import Query
from services.executor.facts import ExecutionCache
from services.executor.feed import Feed, wait_for
from services.executor.model import ExecutionView, RunView
from services.executor.store import lists
from services.executor.store import reads as store
from services.executor.store.lists import ExecutionScope, RunScope
from services.executor.store.reads import ExecutionFilter, StoredOutputs
from services.executor.store.session import Session
from valkyr.errors import ExecutionNotFound, RunNotFound
from valkyr.flow.ids import run_id
from valkyr.flow.states import SETTLED_EXECUTION_STATES

PAGE_CHARACTERS = 2 * 1024 * 1024
"""Of errors and of requeued inputs in one page of runs: as protobuf they may take more than five times as much."""

UNASKED = timedelta(milliseconds=50)
"""How long who waits for what has just begun here waits without having asked: most executions end sooner."""


class Executions:
    """Reads; nothing here changes anything."""

    def __init__(self, session: Session, cache: ExecutionCache, feed: Feed) -> None:
        self._session = session
        self._cache = cache
        self._feed = feed

    async def get(self, namespace: str, execution_id: UUID) -> ExecutionView:
        """With trigger payload, outputs and run counts. ExecutionNotFound."""
        return await self._read(namespace, execution_id, only_settled=False)

    async def _read(self, namespace: str, execution_id: UUID, *, only_settled: bool) -> ExecutionView:
        """As `get`; of one that is not settled only its state and what goes with it, if that is enough."""
        known = self._cache.cached(execution_id) or (await self._cache.get_many([execution_id])).get(execution_id)
        leaves = [run_id(execution_id, leaf) for leaf in known.version.plan.leaves] if known else []
        async with self._session.reading() as connection:
            view = await store.read_execution(connection, namespace, execution_id, leaves, only_settled=only_settled)
        if view is None:
            raise execution_not_found(execution_id)
        return view

    async def get_many(self, namespace: str, ids: Sequence[UUID]) -> list[ExecutionView]:
        """In the order asked, without outputs; those that do not exist are absent."""
        async with self._session.reading() as connection:
            found = await store.list_executions(connection, ExecutionFilter(namespace, ids), limit=len(ids))
        by_id = {view.id: view for view in found}
        return [by_id[execution_id] for execution_id in ids if execution_id in by_id]

    async def wait(self, namespace: str, execution_id: UUID, timeout: timedelta) -> ExecutionView:
        """The execution when it is settled, or as it is at the timeout. ExecutionNotFound."""
        now = asyncio.get_running_loop().time
        deadline = now() + timeout.total_seconds()
        with self._feed.settling(execution_id) as perhaps_settled:
            if self._feed.goes_on(namespace, execution_id):
                await wait_for(perhaps_settled, min(timeout, UNASKED))
            while now() < deadline:
                perhaps_settled.clear()
                view = await self._read(namespace, execution_id, only_settled=True)
                if view.state in SETTLED_EXECUTION_STATES:
                    return view
                await wait_for(perhaps_settled, timedelta(seconds=deadline - now()))
            return await self.get(namespace, execution_id)

    async def must_exist(self, namespace: str, execution_id: UUID) -> None:
        """ExecutionNotFound, also for one of another namespace."""
        if not await self.get_many(namespace, [execution_id]):
            raise execution_not_found(execution_id)

    async def list_executions(self, wanted: ExecutionFilter, *, limit: int) -> list[ExecutionView]:
        """Newest first, without outputs and counts."""
        async with self._session.reading() as connection:
            return await store.list_executions(connection, wanted, limit=limit)

    async def find_executions(self, query: Query, scope: ExecutionScope) -> tuple[Sequence[ExecutionView], str]:
        """A page and the next one's token; without outputs and counts."""
        async with self._session.listing() as connection:
            return await lists.find_executions(connection, query, scope)

    async def find_runs(self, query: Query, scope: RunScope, *, include_outputs: bool) -> tuple[Sequence[RunView], str]:
        """A page and the next one's token. Fewer than were asked for where outputs or errors fill a page."""
        async with self._session.listing() as connection:
            found = await lists.find_runs(connection, query, scope)
            runs = await _page_of(connection, found.runs[: query.size], include_outputs=include_outputs)
        return runs, query.page(found.rows, kept=len(runs))[1]

    async def get_run(self, namespace: str, execution_id: UUID, *, run: UUID | None, node_id: str | None) -> RunView:
        """With outputs, inputs that a requeue replaced and stack traces. ExecutionNotFound, RunNotFound."""
        await self.must_exist(namespace, execution_id)
        async with self._session.reading() as connection:
            found = await store.read_run(connection, namespace, execution_id, run=run, node_id=node_id)
            if found is None:
                what = f"run {run}" if node_id is None else f"node {node_id!r}"
                raise RunNotFound(
                    f"execution {execution_id} has no {what}",
                    hint="ListRuns (`valkyr execution get`) shows those there are",
                )
            [view] = await _page_of(connection, [found], include_outputs=True)
            traces = await store.read_stack_traces(connection, (view.execution_id, view.id))
        attempts = [replace(attempt, stack_trace=traces.get(attempt.attempt, "")) for attempt in view.attempts]
        return replace(view, attempts=attempts)

    async def with_counts(self, view: ExecutionView) -> ExecutionView:
        """With run counts, without outputs."""
        async with self._session.reading() as connection:
            counts = await store.count_runs(connection, [view.id])
        return replace(view, run_counts=counts.get(view.id, {}))

    async def fill(self, views: Sequence[ExecutionView]) -> list[ExecutionView]:
        """With outputs and run counts."""
        if not views:
            return []
        ids = [view.id for view in views]
        known = await self._cache.get_many(ids)
        keys = [(id_, run_id(id_, leaf)) for id_ in ids if id_ in known for leaf in known[id_].version.plan.leaves]
        async with self._session.reading() as connection:
            counts = await store.count_runs(connection, ids)
            stored_outputs = await store.read_outputs(connection, keys)
        outputs: dict[UUID, dict[str, str]] = {execution_id: {} for execution_id in ids}
        omitted: dict[UUID, list[str]] = {execution_id: [] for execution_id in ids}
        for stored in stored_outputs:
            if stored.text is None:
                omitted[stored.execution_id].append(stored.node_id)
            else:
                outputs[stored.execution_id][stored.node_id] = stored.text
        return [
            replace(
                view, run_counts=counts.get(view.id, {}), outputs=outputs[view.id], omitted_outputs=omitted[view.id]
            )
            for view in views
        ]


async def _page_of(connection: Any, runs: Sequence[RunView], *, include_outputs: bool) -> list[RunView]:
    page = _as_many_as_fit(runs, include_inputs=include_outputs)
    if not include_outputs:
        return page
    return _with_outputs(page, await store.read_outputs(connection, [(run.execution_id, run.id) for run in page]))


def _as_many_as_fit(runs: Sequence[RunView], *, include_inputs: bool) -> list[RunView]:
    """Up to the budget of a page, at least one: what requeues put in and what attempts said may be long."""
    page: list[RunView] = []
    size = 0
    for run in runs:
        view = run if include_inputs else replace(run, inputs=None)
        said = [view.error, view.inputs, *(a.error for a in view.attempts), *(q.error for q in view.quarantines)]
        size += sum(len(text) for text in said if text) + 200 * len(view.attempts)
        if page and size > PAGE_CHARACTERS:
            break
        page.append(view)
    return page


def _with_outputs(runs: Sequence[RunView], stored: Sequence[StoredOutputs]) -> list[RunView]:
    """Up to the first run whose outputs did not fit."""
    texts = {outputs.run_id: outputs.text for outputs in stored}
    filled = []
    for run in runs:
        if run.id in texts and texts[run.id] is None:
            break
        filled.append(replace(run, outputs=texts.get(run.id)))
    return filled


def execution_not_found(execution_id: UUID) -> ExecutionNotFound:
    return ExecutionNotFound(
        f"there is no execution {execution_id} in this namespace",
        hint="ListExecutions (`valkyr execution list`) shows those there are",
    )
