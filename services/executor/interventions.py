"""What operators, and the DLQ for them, do to executions and runs: end, pause, resume, requeue, complete, discard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

from services.executor.executions import Executions
from services.executor.facts import ExecutionCache
from services.executor.model import ExecutionView, RunView
from services.executor.progress import Progress
from services.executor.store import pausing
from services.executor.store import reads as store
from services.executor.store.session import Session
from services.executor.tracing import replay_span
from valkyr.errors import Overloaded, RequestIdReused, RunNotFound, ValkyrError
from valkyr.flow.events import EndExecution, OfExecution, PauseExecution, Resolve, ResumeExecution

FORGOTTEN_AT_ONCE = 1_000


class Interventions:
    """Each is one event to Progress, so that counters, edges and outbox are those of any other outcome.

    No more than `at_once` have a transaction at the same time, so that a flood of them leaves connections for starts
    and leases; the others wait for their turn for no longer than `patience`, and are Overloaded.
    """

    def __init__(
        self,
        session: Session,
        cache: ExecutionCache,
        progress: Progress,
        executions: Executions,
        *,
        at_once: int,
        patience: timedelta,
    ) -> None:
        self._session = session
        self._cache = cache
        self._progress = progress
        self._executions = executions
        self._turns = asyncio.Semaphore(at_once)
        self._patience = patience

    async def cancel(self, namespace: str, event: EndExecution) -> ExecutionView:
        """The execution as it is then. ExecutionNotFound, ExecutionSettled, RequestIdReused."""
        await self._executions.must_exist(namespace, event.execution_id)
        request = event.request
        if request is not None and request.request_id:
            async with self._session.reading() as connection:
                first = await store.find_cancel(connection, namespace, request.request_id)
            if first is not None and (first[0] != event.execution_id or first[1] != request.hash):
                raise _reused(request.request_id)
        await self._apply(event)
        return await self._executions.get(namespace, event.execution_id)

    async def pause(self, namespace: str, event: PauseExecution) -> ExecutionView:
        """The execution as it is then; it stays as it is where it is paused already, or where this very request was
        answered before. ExecutionNotFound, ExecutionSettled, RequestIdReused."""
        return await self._change(namespace, event)

    async def resume(self, namespace: str, event: ResumeExecution) -> ExecutionView:
        """As `pause`; the execution stays as it is where it is not paused."""
        return await self._change(namespace, event)

    async def _change(self, namespace: str, event: PauseExecution | ResumeExecution) -> ExecutionView:
        await self._executions.must_exist(namespace, event.execution_id)
        await self._apply(event)
        return await self._executions.get(namespace, event.execution_id)

    async def forget_requests(self, kept: timedelta, *, limit: int = FORGOTTEN_AT_ONCE) -> timedelta | None:
        """A step for a loop: of pauses and resumes. Those of resolutions and cancels stand on the rows they made."""
        async with self._session.reading() as connection:
            forgotten = await pausing.forget_requests(connection, kept, limit)
        return timedelta() if forgotten == limit else None

    async def resolve(self, namespace: str, event: Resolve) -> RunView:
        """The run as it is then. ExecutionNotFound, RunNotFound, NotQuarantined, QuarantineResolved, ExecutionEnded,
        TooManyRequeues, DeadlinePassed, RequestIdReused; WrongState where the graph cannot be run any more."""
        await self._executions.must_exist(namespace, event.execution_id)
        request_id = event.request.request_id
        if request_id:
            async with self._session.reading() as connection:
                first = await store.find_resolution(connection, namespace, event.resolution, request_id)
            if first is not None and first != (event.execution_id, event.run_id, event.request.hash):
                raise _reused(request_id)
        known = (await self._cache.get_without_plans([event.execution_id]))[event.execution_id]
        with replay_span(event, known.facts.traceparent) as traced:
            await self._apply(traced)
        return await self._run(namespace, event.execution_id, event.run_id)

    async def _apply(self, event: OfExecution | Resolve) -> None:
        async with self._turn():
            [answer] = await self._progress.apply([event])
        if isinstance(answer, ValkyrError):
            raise answer

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._patience.total_seconds()):
                await self._turns.acquire()
        except TimeoutError as error:
            raise Overloaded(
                "too many executions are being changed at the same time", retry_after=timedelta(seconds=1)
            ) from error
        try:
            yield
        finally:
            self._turns.release()

    async def _run(self, namespace: str, execution_id: UUID, run: UUID) -> RunView:
        async with self._session.reading() as connection:
            found = await store.read_run(connection, namespace, execution_id, run=run)
        if found is None:
            raise RunNotFound(f"execution {execution_id} has no run {run}")
        return found


def _reused(request_id: str) -> RequestIdReused:
    return RequestIdReused(
        f"request_id {request_id!r} was used before, with another request", hint="use a new request_id"
    )
