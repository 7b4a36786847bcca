"""The executor's own pool: the runner SDK's worker in this process, and the transport that joins it to the tables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg

from services.executor.model import LeaseEnded, LeasePolicy
from services.executor.progress import Progress
from services.executor.store.leases import heartbeat_runs
from valkyr.errors import Unavailable
from valkyr.runner.leases import HeartbeatAnswer, LeasedRun, LeaseRef, ReportAnswer, RunResult

Connect = Callable[[], Any]
HEARTBEAT_TIMEOUT = timedelta(seconds=5)


class InProcessTransport:
    """valkyr.runner.leases.Transport without a network. Runs are pushed to the worker, never pulled by it."""

    def __init__(self, lease: LeasePolicy, connect: Connect) -> None:
        self._lease = lease
        self._progress: Progress | None = None
        self._beats = _HeartbeatLink(connect, lease.duration)

    def attach(self, progress: Progress) -> None:
        """The worker is needed to make Progress, and Progress to report: they meet here."""
        self._progress = progress

    async def lease_runs(self, *, max_runs: int) -> Sequence[LeasedRun]:
        """Never answers: the dispatcher and the hand-off push."""
        await asyncio.Event().wait()
        return ()

    async def report_runs(self, results: Sequence[RunResult]) -> Sequence[ReportAnswer]:
        if self._progress is None:
            raise Unavailable("the executor is still starting")
        events = [
            LeaseEnded(
                UUID(result.ref.execution_id),
                UUID(result.ref.run_id),
                result.ref.epoch,
                result.result,
                result.duration_ms,
                from_own_pool=True,
            )
            for result in results
        ]
        return [ReportAnswer(answer) for answer in await self._progress.apply(events)]

    def heartbeat_runs(self, leases: Sequence[LeaseRef]) -> Sequence[HeartbeatAnswer]:
        """Called in the worker's heartbeat thread, on a connection of its own: a busy event loop costs no lease."""
        held = self._beats.send([(UUID(ref.execution_id), UUID(ref.run_id), ref.epoch) for ref in leases])
        return [HeartbeatAnswer.CONTINUE if UUID(ref.run_id) in held else HeartbeatAnswer.LEASE_LOST for ref in leases]

    def close(self) -> None:
        self._beats.close()


class _HeartbeatLink:
    """A connection that lives on an event loop of the heartbeat thread's own."""

    def __init__(self, connect: Connect, duration: timedelta) -> None:
        self._connect = connect
        self._duration = duration
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: Any = None

    def send(self, leases: Sequence[tuple[UUID, UUID, int]]) -> set[UUID]:
        """The runs that are still held. Unavailable if the database does not answer."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        try:
            return self._loop.run_until_complete(self._send(leases))
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self._connection = None
            raise Unavailable(f"heartbeats do not reach the database: {error}") from error

    async def _send(self, leases: Sequence[tuple[UUID, UUID, int]]) -> set[UUID]:
        async with asyncio.timeout(HEARTBEAT_TIMEOUT.total_seconds()):
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._connect()
            return await heartbeat_runs(self._connection, leases, self._duration)

    def close(self) -> None:
        """After the worker has ended; its heartbeat thread sends nothing more."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
