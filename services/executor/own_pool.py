"""The executor's own pool: the runner SDK's worker in this process, and the transport that joins it to the tables."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from services.executor.answers import HEARTBEAT_ANSWERS, apply_reports
from services.executor.model import LeasePolicy
from services.executor.progress import Progress
from services.executor.store.heartbeats import Connect, HeartbeatLink
from services.executor.store.progress import id_of
from valkyr.errors import Unavailable
from valkyr.flow.events import LeaseEnded
from valkyr.runner.leases import Granted, HeartbeatAnswer, LeaseRef, ReportAnswer, RunResult


class InProcessTransport:
    """valkyr.runner.leases.Transport without a network. Runs are pushed to the worker, never pulled by it."""

    def __init__(self, lease: LeasePolicy, connect: Connect) -> None:
        self._lease = lease
        self._progress: Progress | None = None
        self._beats = HeartbeatLink(connect, lease.duration)

    def attach(self, progress: Progress) -> None:
        """The worker is needed to make Progress, and Progress to report: they meet here."""
        self._progress = progress

    async def lease_runs(self, *, max_runs: int) -> Granted:
        """Never answers: the dispatcher and the hand-off push."""
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    async def report_runs(self, results: Sequence[RunResult]) -> Sequence[ReportAnswer]:
        if self._progress is None:
            raise Unavailable("the executor is still starting")
        said = [
            (id_of(ref.execution_id), id_of(ref.run_id), ref.epoch, result.progress.decode())
            for result in results
            if result.progress is not None and (ref := result.ref)
        ]
        if said:
            await self._progress.note(said)
        events = [
            LeaseEnded(
                id_of(result.ref.execution_id),
                id_of(result.ref.run_id),
                result.ref.epoch,
                result.result,
                result.duration_ms,
                makes_room=result.frees_slot,
            )
            for result in results
        ]
        return await apply_reports(self._progress, events)

    def told(self) -> datetime | None:
        """What is lost on the way within this process the executor finds by itself."""
        return None

    def heartbeat_runs(
        self,
        leases: Sequence[LeaseRef],
        *,
        progress: Mapping[LeaseRef, bytes] = MappingProxyType({}),
        as_of: datetime | None = None,
    ) -> Sequence[HeartbeatAnswer]:
        """Called in the worker's heartbeat thread, on a connection of its own: a busy event loop costs no lease."""
        if not leases:
            return []
        held = self._beats.send(
            [(id_of(ref.execution_id), id_of(ref.run_id), ref.epoch) for ref in leases],
            [(id_of(ref.execution_id), id_of(ref.run_id), ref.epoch, said.decode()) for ref, said in progress.items()],
        )
        return [HEARTBEAT_ANSWERS[held.get((id_of(ref.run_id), ref.epoch))] for ref in leases]

    async def close(self) -> None:
        """After the worker has ended: a heartbeat under way is waited for, none is sent afterwards."""
        await asyncio.to_thread(self._beats.close)
