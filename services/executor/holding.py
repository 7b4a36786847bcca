"""What runners say over the network of the leases that they hold: that they go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from services.executor.answers import HEARTBEAT_ANSWERS
from services.executor.progress import Progress
from services.executor.runner_rows import holder_of
from services.executor.runners import Runners
from services.executor.store import runners as store
from services.executor.store.leases import heartbeat_runs
from services.executor.store.session import Session
from valkyr.flow.events import LeaseEnded
from valkyr.flow.results import Omitted
from valkyr.runner.leases import HeartbeatAnswer
from valkyr.telemetry import get_logger

FORGOTTEN_AFTER = timedelta(seconds=10)
"""A lease granted so long before what the runner had been told last, and not named by it, was lost on the way."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Held:
    """One lease that a runner names. `progress` is JSON; None: as it was. `problem`: why what was said of it cannot be
    stored, if so."""

    execution_id: UUID
    run_id: UUID
    epoch: int
    progress: str | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat, checked. `as_of` is the last time by the database's clock that the runner had been told."""

    namespace: str
    runner_id: str
    incarnation: UUID
    leases: Sequence[Held]
    as_of: datetime | None


@dataclass(frozen=True, slots=True)
class Heartbeaten:
    """The answers, in order."""

    answers: Sequence[HeartbeatAnswer]
    now: datetime
    drain: bool


class Holding:
    """The use case of HeartbeatRuns. I06: each lease is named with its epoch."""

    def __init__(self, session: Session, progress: Progress, runners: Runners, *, lease_duration: timedelta) -> None:
        self._session = session
        self._progress = progress
        self._runners = runners
        self._lease_duration = lease_duration

    async def heartbeat(self, beat: Beat) -> Heartbeaten:
        """Extends what is named; with `as_of` it gives back what is not. RunnerNotRegistered, RunnerReplaced."""
        row = await self._runners.seen(beat.namespace, beat.runner_id, beat.incarnation)
        ignored = [lease.problem for lease in beat.leases if lease.problem]
        if ignored:
            log.warning("progress.ignored", count=len(ignored), runner_id=beat.runner_id, problem=ignored[0])
        held: dict[tuple[UUID, int], bool] = {}
        if beat.leases:
            keys = [(lease.execution_id, lease.run_id, lease.epoch) for lease in beat.leases]
            said = [(*key, lease.progress) for key, lease in zip(keys, beat.leases, strict=True) if lease.progress]

            async def work(tx: Any) -> dict[tuple[UUID, int], bool]:
                extended = await heartbeat_runs(tx, keys, self._lease_duration, namespace=beat.namespace)
                await store.note_progress(tx, said, namespace=beat.namespace)
                return extended

            held = await self._session.repeat(work, reserved=True)
        if beat.as_of is not None:
            await self._give_back(beat, min(beat.as_of, row.now) - FORGOTTEN_AFTER)
        answers = [HEARTBEAT_ANSWERS[held.get((lease.run_id, lease.epoch))] for lease in beat.leases]
        return Heartbeaten(answers, row.now, row.draining)

    async def _give_back(self, beat: Beat, before: datetime) -> None:
        named = {(lease.run_id, lease.epoch) for lease in beat.leases}
        async with self._session.reading(reserved=True) as connection:
            holder = holder_of(beat.runner_id, beat.incarnation)
            granted = await store.leases_before(connection, beat.namespace, holder, before)
        forgotten = [
            LeaseEnded(*key, Omitted(), namespace=beat.namespace) for key in granted if (key[1], key[2]) not in named
        ]
        if forgotten:
            log.warning("leases.forgotten", count=len(forgotten), runner_id=beat.runner_id)
            await self._progress.apply(forgotten)
