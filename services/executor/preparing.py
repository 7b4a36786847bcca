"""Makes runs ready to be handed out: inputs and configs put together, targets told to the breaker's side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from services.executor.facts import Known
from services.executor.handoff import leased_run
from services.executor.model import LeasePolicy
from services.executor.modules import Modules
from services.executor.store import progress as store
from valkyr.flow.effects import AttemptEnded, Prepared
from valkyr.flow.events import LeaseEnded
from valkyr.flow.facts import NO_REPLAY, Replay
from valkyr.flow.ids import RunKey, run_id
from valkyr.flow.plan import Plan
from valkyr.flow.results import Failure, FailureType
from valkyr.flow.sights import StoredResult
from valkyr.frozen import cheaply_made
from valkyr.planning.inputs import needed_results, prepare
from valkyr.runner.leases import LeasedRun


class Calls(Protocol):
    """Where the breaker's side of an attempt goes: from memory, never waited for."""

    def leased(self, namespace: str, target: str, run_id: UUID, epoch: int) -> None: ...

    def ended(self, call: AttemptEnded) -> None: ...


@cheaply_made
@dataclass(frozen=True, slots=True)
class Wanted:
    """A run to prepare under the lease to come."""

    key: RunKey
    node: int
    taken: tuple[int, ...]
    epoch: int
    attempt: int
    ready_revision: int
    replay: Replay = NO_REPLAY
    deadline: datetime | None = None
    progress: str | None = None


class Preparing:
    """For everyone who leases: the hand-off, the starts, the dispatcher, the probes."""

    def __init__(self, modules: Modules, calls: Calls, lease: LeasePolicy, timeouts: Mapping[str, timedelta]) -> None:
        self._modules = modules
        self._calls = calls
        self._lease = lease
        self._timeouts = timeouts

    async def prepare_runs(
        self, tx: Any, known: Mapping[UUID, Known], wanted: Sequence[Wanted], results: Mapping[RunKey, StoredResult]
    ) -> list[Prepared]:
        """Inputs and configs of runs about to be leased; `results` are those already at hand, the rest is read."""
        sources = [_sources(known[want.key[0]].version.plan, want) for want in wanted]
        unread = {key for keys in sources for key in keys.values()} - results.keys()
        found = {**await store.read_results(tx, list(unread)), **results} if unread else results
        return [
            self._prepare(known[want.key[0]], want, {node: found.get(key) for node, key in keys.items()})
            for want, keys in zip(wanted, sources, strict=True)
        ]

    def _prepare(self, known: Known, want: Wanted, results: Mapping[int, StoredResult | None]) -> Prepared:
        plan = known.version.plan
        return prepare(
            plan,
            known.facts,
            plan.nodes[want.node],
            taken=want.taken,
            epoch=want.epoch,
            attempt=want.attempt,
            ready_revision=want.ready_revision,
            result_of=results.get,
            modules=self._modules,
            replay=want.replay,
            deadline=want.deadline,
            progress=want.progress,
            key=want.key,
        )

    def hand_out(self, prepared: Sequence[Prepared], known: Mapping[UUID, Known]) -> list[LeasedRun]:
        """Leased runs for the own pool; those with a problem are left to `refusals`."""
        handed = []
        for run in prepared:
            if run.problem:
                continue
            execution = known[run.execution_id]
            if run.target:
                self._calls.leased(execution.facts.namespace, run.target, run.id, run.epoch)
            handed.append(leased_run(run, execution.facts, execution.version.plan, self._lease, self._timeouts))
        return handed


def _sources(plan: Plan, want: Wanted) -> dict[int, RunKey]:
    """The runs by node whose results are needed to prepare this one."""
    execution_id = want.key[0]
    needed = needed_results(plan, plan.nodes[want.node], want.taken)
    return {source: (execution_id, run_id(execution_id, source)) for source in needed}


def refusals(prepared: Sequence[Prepared]) -> list[LeaseEnded]:
    """Runs that were leased but cannot be started: they fail at once, without a runner."""
    return [
        LeaseEnded(run.execution_id, run.id, run.epoch, Failure(FailureType.PERMANENT, run.problem), 0)
        for run in prepared
        if run.problem
    ]
