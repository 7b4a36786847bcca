"""One execution over rows in memory, and one batch of events for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from tests.unit.executor.executions import EXECUTION, POLICY, a_fact, plan_of
from valkyr.errors import ValkyrError
from valkyr.flow.attempts import LeaseFacts
from valkyr.flow.effects import ChangedRun, EndedRun
from valkyr.flow.events import (
    ControlReady,
    EndExecution,
    Event,
    LeaseEnded,
    PauseExecution,
    Request,
    Resolution,
    Resolve,
    ResumeExecution,
    RunDeadline,
    TimerDue,
)
from valkyr.flow.facts import Asked, LockedExecution, LockedRun, QuarantineRecord
from valkyr.flow.ids import run_id
from valkyr.flow.intake import Answer, StepRules
from valkyr.flow.joins import Gate
from valkyr.flow.outcomes import Change, Loaded, RunFacts
from valkyr.flow.states import MOVABLE_RUN_STATES, Ending, ExecutionState, RunState
from valkyr.flow.step import ExecutionStep
from valkyr.flow.writes import Writes
from valkyr.graph.model import Graph
from valkyr.planning.compiled import new_memory

NOTHING = {"outputs": None, "error": None}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
_OF_LEASES = {field.name for field in fields(LeaseFacts)}


class Batch:
    """The roots are LEASED under epoch 4 unless `states` says otherwise. `run` replaces fields of every run, of its
    lease too; `execution` those of the execution. Quarantined runs have a record of their quarantine 1, PENDING. Not
    `planned`, the step is as where no plan can be made of the graph."""

    def __init__(
        self,
        graph: Graph,
        states: Mapping[str, RunState] | None = None,
        *,
        execution: Mapping[str, Any] | None = None,
        record: Mapping[str, Any] | None = None,
        max_requeues: int = 5,
        asked: Mapping[tuple[str, str], Asked] | None = None,
        planned: bool = True,
        **run: Any,
    ) -> None:
        self.plan = plan_of(graph)
        rows = {}
        for node in self.plan.nodes:
            state = (states or {}).get(node.node_id, RunState.PENDING if node.incoming else RunState.LEASED)
            rows[node.index] = _row(node.index, state, len(node.incoming), run)
        in_states = [row.facts.state for row in rows.values()]
        locked = LockedExecution(
            EXECUTION,
            ExecutionState.RUNNING,
            revision=6,
            open_runs=sum(state in MOVABLE_RUN_STATES for state in in_states),
            bad_runs=in_states.count(RunState.QUARANTINED),
        )
        records = {
            (row.id, 1): a_record(**(record or {}))
            for row in rows.values()
            if row.facts.state is RunState.QUARANTINED or record
        }
        self.step = ExecutionStep(
            a_fact(),
            self.plan if planned else plan_of(Graph()),
            replace(locked, **(execution or {})),
            rows,
            StepRules(lambda _node, _settings: POLICY, lambda: 0.5, new_memory, max_requeues),
            quarantines=records,
            asked=asked or {},
        )
        self.results: dict[int, Any] = {}
        self.writes = Writes()
        self.ready: list[ChangedRun] = []

    def run(self, node_id: str) -> UUID:
        return run_id(EXECUTION, self.plan.index_of[node_id])

    def ended(self, node_id: str, result: Any, *, epoch: int = 4, **more: Any) -> LeaseEnded:
        return LeaseEnded(EXECUTION, self.run(node_id), epoch, result, duration_ms=12, **more)

    def deadline(self, node_id: str) -> RunDeadline:
        return RunDeadline(EXECUTION, self.run(node_id))

    def due(self, node_id: str) -> TimerDue:
        return TimerDue(EXECUTION, self.run(node_id))

    def turn(self, node_id: str) -> ControlReady:
        return ControlReady(EXECUTION, self.run(node_id))

    def resolve(self, node_id: str, resolution: Resolution, **more: Any) -> Resolve:
        """By "Eve", of quarantine 1."""
        more = {"quarantine_number": 1, "request": a_request(), **more}
        return Resolve(EXECUTION, self.run(node_id), resolution=resolution, **more)

    def apply(self, *events: Event) -> list[Answer]:
        answers = [self.step.take(event) for event in events]
        self.ready = self.step.write(self._changes(), self.writes)
        return answers

    def _changes(self) -> list[Change]:
        if not self.step.plan.nodes:
            return self.step.halted()
        walk = self.step.walk()
        if walk is None:
            return []
        try:
            need = next(walk)
            while True:
                rows = {node: self.step.rows[node].facts for node in need.rows}
                need = walk.send(Loaded(rows, {node: self.results.get(node, NOTHING) for node in need.results}))
        except StopIteration as done:
            changes: list[Change] = done.value
        return changes

    def refused(self, event: Event) -> ValkyrError:
        """Applies an event that is refused, and changes nothing."""
        (answer,) = self.apply(event)
        assert isinstance(answer, ValkyrError)
        assert self.is_untouched
        return answer

    @property
    def is_untouched(self) -> bool:
        return self.writes == Writes() and not self.ready

    @property
    def execution(self) -> tuple[ExecutionState, int, int, int]:
        """State, revision, open and bad runs as written."""
        (written,) = self.writes.executions
        return written.state, written.revision, written.open_runs, written.bad_runs

    @property
    def states(self) -> dict[str, RunState]:
        """What is written of runs, by node id."""
        runs: list[EndedRun | ChangedRun] = [*self.writes.ended, *self.writes.changed, *self.ready]
        written = {run.key[1]: run.state for run in runs} | {
            run.key[1]: RunState.SUCCESS for run in self.writes.finished
        }
        return {node: written[self.run(node)] for node in self.plan.index_of if self.run(node) in written}


def _row(node: int, state: RunState, unmet: int, changes: Mapping[str, Any]) -> LockedRun:
    row = LockedRun(
        execution_id=EXECUTION,
        id=run_id(EXECUTION, node),
        node_index=node,
        attempt=4,
        quarantine_number=1,
        runner_id="me",
        lease=LeaseFacts(state, 4, 0, 0),
        facts=RunFacts(state, Gate(unmet), always_decided=state is RunState.QUARANTINED),
        lease_expired=False,
        due=True,
        ready_revision=2,
    )
    lease = {name: value for name, value in changes.items() if name in _OF_LEASES}
    others = {name: value for name, value in changes.items() if name not in _OF_LEASES}
    return replace(row, lease=replace(row.lease, **lease), **others)


def a_request(request_id: str | None = None, *, principal: str = "Eve", **more: Any) -> Request:
    return Request(principal, more.pop("reason", ""), request_id, more.pop("hash", b"all that was asked"), **more)


def a_record(**changes: Any) -> QuarantineRecord:
    """Of quarantine 1, PENDING."""
    record = QuarantineRecord(
        quarantine_number=1,
        failure_type="MAX_RETRIES",
        error_type="TRANSIENT",
        error="it broke",
        revision=3,
        quarantined_at=NOON,
        resolution=Resolution.PENDING,
        resolved_by=None,
        resolved_at=None,
        reason=None,
    )
    return replace(record, **changes)


def a_pause(request_id: str | None = None, **more: Any) -> PauseExecution:
    return PauseExecution(EXECUTION, a_request(request_id, **more))


def a_resume(request_id: str | None = None, **more: Any) -> ResumeExecution:
    return ResumeExecution(EXECUTION, a_request(request_id, **more))


def an_end(ending: Ending = Ending.CANCEL) -> EndExecution:
    return EndExecution(EXECUTION, ending, a_request() if ending is Ending.CANCEL else None)
