"""What runners report over the network: outcomes of many calls in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.chassis.batching import NaturalBatcher
from services.executor.answers import apply_reports
from services.executor.progress import Progress
from services.executor.runners import Runners
from valkyr.flow.events import LeaseEnded
from valkyr.flow.results import Result
from valkyr.runner.leases import ReportAnswer

TOGETHER = 500
"""Results of several calls in one transaction; a call with more has one of its own."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What a runner reports of one lease."""

    execution_id: UUID
    run_id: UUID
    epoch: int
    result: Result
    duration_ms: int | None
    progress: str | None = None


@dataclass(frozen=True, slots=True)
class _Said:
    """One call. What it names of other namespaces is not there for it."""

    namespace: str
    ended: Sequence[Ended]

    def events(self) -> list[LeaseEnded]:
        return [
            LeaseEnded(one.execution_id, one.run_id, one.epoch, one.result, one.duration_ms, namespace=self.namespace)
            for one in self.ended
        ]


class Reporting:
    """The use case of ReportRuns. I06: each lease is named with its epoch."""

    def __init__(self, progress: Progress, runners: Runners) -> None:
        self._progress = progress
        self._runners = runners
        self._batcher = NaturalBatcher[_Said, Sequence[ReportAnswer]](
            self._apply_all, limit=TOGETHER, weight=lambda said: len(said.ended)
        )

    async def report(
        self, namespace: str, runner_id: str, incarnation: UUID, ended: Sequence[Ended]
    ) -> tuple[Sequence[ReportAnswer], datetime]:
        """The answers in order. RunnerNotRegistered, RunnerReplaced; Unavailable and the like where it is not known
        what was applied: the same report again is answered for what it was."""
        row = await self._runners.seen(namespace, runner_id, incarnation)
        noted = [(one.execution_id, one.run_id, one.epoch, one.progress) for one in ended if one.progress is not None]
        if noted:
            await self._progress.note(noted, namespace=namespace)
        answers = await self._batcher.submit(_Said(namespace, ended)) if ended else ()
        return answers, row.now

    async def close(self) -> None:
        """Waits for what was reported."""
        await self._batcher.close()

    async def _apply_all(self, calls: Sequence[_Said]) -> Sequence[Sequence[ReportAnswer]]:
        answers = iter(await apply_reports(self._progress, [event for said in calls for event in said.events()]))
        return [[next(answers) for _ in said.ended] for said in calls]
