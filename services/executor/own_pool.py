"""The executor's own pool: the runner SDK's worker in this process, and the transport that joins it to the tables."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from services.executor.model import LeasePolicy
from services.executor.progress import Progress
from services.executor.store.heartbeats import Connect, HeartbeatLink
from services.executor.store.progress import id_of
from valkyr.errors import Internal, Unavailable
from valkyr.flow.attempts import Fence
from valkyr.flow.events import LeaseEnded
from valkyr.flow.intake import Answer
from valkyr.runner.leases import HeartbeatAnswer, LeasedRun, LeaseRef, ReportAnswer, RunResult

# By whether the lease may go on; None where it is not held any more.
_ANSWERS = {True: HeartbeatAnswer.CONTINUE, False: HeartbeatAnswer.CANCEL, None: HeartbeatAnswer.LEASE_LOST}
_REPORTED: Mapping[Answer, ReportAnswer] = {answer: ReportAnswer(answer.value) for answer in Fence}


class InProcessTransport:
    """valkyr.runner.leases.Transport without a network. Runs are pushed to the worker, never pulled by it."""

    def __init__(self, lease: LeasePolicy, connect: Connect) -> None:
        self._lease = lease
        self._progress: Progress | None = None
        self._beats = HeartbeatLink(connect, lease.duration)

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
        try:
            return await self._apply(self._progress, results)
        except Internal:
            if len(results) > 1:
                return [(await self.report_runs([result]))[0] for result in results]
            # Logged where it happened. Repeated here it would hold up every other report; let go of, the lease is
            # given back by the reaper, and the run is tried again.
            return [ReportAnswer.LEASE_LOST]

    async def _apply(self, progress: Progress, results: Sequence[RunResult]) -> Sequence[ReportAnswer]:
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
        return [_REPORTED[answer] for answer in await progress.apply(events)]

    def heartbeat_runs(self, leases: Sequence[LeaseRef]) -> Sequence[HeartbeatAnswer]:
        """Called in the worker's heartbeat thread, on a connection of its own: a busy event loop costs no lease."""
        held = self._beats.send([(id_of(ref.execution_id), id_of(ref.run_id), ref.epoch) for ref in leases])
        return [_ANSWERS[held.get((id_of(ref.run_id), ref.epoch))] for ref in leases]

    async def close(self) -> None:
        """After the worker has ended: a heartbeat under way is waited for, none is sent afterwards."""
        await asyncio.to_thread(self._beats.close)
