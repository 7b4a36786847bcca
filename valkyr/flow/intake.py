"""Takes the events of one execution, each held against its locked row. What they mean is gathered, nothing moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson

from valkyr.errors import ValkyrError
from valkyr.flow.attempts import (
    AfterLease,
    Cancel,
    FailForGood,
    Fence,
    Finish,
    RetryAfter,
    RetryPolicy,
    decide_after_lease,
    fence,
)
from valkyr.flow.due import outcome_of_deadline, outcome_of_reuse, outcome_when_due
from valkyr.flow.effects import AttemptEnded, EndedAttempt, EndedRun, Intervention
from valkyr.flow.endings import answer_to_end
from valkyr.flow.events import (
    EndExecution,
    Event,
    LeaseEnded,
    PauseExecution,
    Resolution,
    Resolve,
    ResumeExecution,
    Reused,
    RunDeadline,
)
from valkyr.flow.facts import Asked, ExecutionFacts, LockedExecution, LockedRun, QuarantineRecord
from valkyr.flow.ids import RunKey, is_run_of, node_of
from valkyr.flow.leasing import has_run_out
from valkyr.flow.outcomes import Discarded, FailedForGood, Halted, Outcome, Requeued, Succeeded
from valkyr.flow.pauses import answer_to_pause, kind_of, state_after
from valkyr.flow.plan import Plan, PlannedNode
from valkyr.flow.resolutions import as_resolved, refusal_of
from valkyr.flow.results import FailureType, Lost, Omitted, Success
from valkyr.flow.states import SETTLED_EXECUTION_STATES, Ending, ExecutionState, RunState
from valkyr.flow.writes import call_of, noted_attempt, retried_run
from valkyr.graph.model import Settings

Answer = Fence | ValkyrError
_NO_RETRY = RetryPolicy(max_attempts=1, max_lost_leases=1, backoff_base=timedelta(), backoff_max=timedelta())


@dataclass(frozen=True, slots=True)
class StepRules:
    """What a step asks for. `jitter` draws from [0, 1), uniformly; `new_memory` makes the `memory` of a Sight."""

    retry_of: Callable[[PlannedNode, Settings], RetryPolicy]
    jitter: Callable[[], float]
    new_memory: Callable[[], Any]
    max_requeues: int


class Intake:
    """One execution in one transaction. `rows` may grow afterwards; they stay as they were locked.

    `quarantines` are the records that resolutions name, by run and number; `asked` what request_ids of pauses and
    resumes were used for before, also in this batch, by kind and id.
    """

    __slots__ = (
        "asked",
        "attempts",
        "calls",
        "ending",
        "error",
        "facts",
        "interventions",
        "locked",
        "moved",
        "outcomes",
        "plan",
        "quarantines",
        "reported",
        "resolved",
        "retried",
        "reused",
        "rows",
        "rules",
        "state",
        "stopped",
    )

    def __init__(
        self,
        facts: ExecutionFacts,
        plan: Plan,
        locked: LockedExecution,
        rows: dict[int, LockedRun],
        rules: StepRules,
        quarantines: Mapping[tuple[UUID, int], QuarantineRecord],
        asked: Mapping[tuple[str, str], Asked],
    ) -> None:
        self.facts = facts
        self.plan = plan
        self.locked = locked
        self.rows = rows
        self.rules = rules
        self.quarantines = quarantines
        self.asked = asked
        # As pauses and resumes of this batch leave it; its end is decided when all is known.
        self.state = locked.state
        self.interventions: list[Intervention] = []
        self.error: tuple[str, str] | None = None
        self.ending: EndExecution | None = None
        self.reported: dict[int, tuple[LeaseEnded, FailForGood | Finish | Cancel]] = {}
        self.retried: list[EndedRun] = []
        self.resolved: dict[int, Resolve] = {}
        self.reused: dict[int, Reused] = {}
        self.stopped: list[RunKey] = []
        # Runs that an event of this batch has moved, and the answer to a second report; the rows are as before.
        self.moved: dict[int, Fence] = {}
        self.attempts: list[EndedAttempt] = []
        self.calls: list[AttemptEnded] = []
        self.outcomes: list[Outcome] = []

    @property
    def ends(self) -> bool:
        """Whether nothing of the execution is to be started any more."""
        return self.ending is not None or self.locked.ending is not None

    @property
    def ended_by(self) -> Ending | None:
        """What ends the execution, also by an event of this batch."""
        return self.ending.ending if self.ending else self.locked.ending

    @property
    def planned(self) -> bool:
        """Whether it is known what follows what; all but ends and pauses ask for that."""
        return len(self.plan.nodes) > 0

    @property
    def paused(self) -> bool:
        """Whether what would be READY is to be PARKED."""
        return self.state is ExecutionState.PAUSED

    def take(self, event: Event) -> Answer:
        """Decides what an event means; the answer to whoever brought it. Only what is ACCEPTED changes anything."""
        if isinstance(event, EndExecution):
            return self._take_ending(event)
        if isinstance(event, PauseExecution | ResumeExecution):
            return self._take_pause(event)
        node = node_of(event.run_id)
        if isinstance(event, Resolve):
            return self._take_resolution(event, node)
        row = self.rows.get(node) if self._knows(event.run_id) else None
        if row is None or (isinstance(event, LeaseEnded) and event.namespace not in ("", self.facts.namespace)):
            return Fence.LEASE_LOST
        if node in self.moved:
            return self._answer_to_second(event, node, row)
        if isinstance(event, LeaseEnded):
            return self._take_lease(event, node, row)
        if self.ends:
            return Fence.LEASE_LOST
        if isinstance(event, RunDeadline):
            outcome: Outcome | RunDeadline | None = outcome_of_deadline(event, node, row)
        elif isinstance(event, Reused):
            outcome = self._outcome_of_reuse(event, node, row)
        else:
            outcome = outcome_when_due(event, node, row, paused=self.paused)
        if outcome is None:
            return Fence.LEASE_LOST
        if isinstance(outcome, RunDeadline):
            self.stopped.append((outcome.execution_id, outcome.run_id))
        else:
            self.outcomes.append(outcome)
        self.moved[node] = Fence.LEASE_LOST
        return Fence.ACCEPTED

    def _outcome_of_reuse(self, event: Reused, node: int, row: LockedRun) -> Outcome | None:
        outcome = outcome_of_reuse(event, node, row, watched=node in self.plan.watched, paused=self.paused)
        if outcome is not None:
            self.reused[node] = event
        return outcome

    def _knows(self, run: UUID) -> bool:
        """Where no plan can be made, what is leased can still end while the execution ends."""
        return (self.planned or self.ends) and is_run_of(run, self.facts.id)

    def _take_ending(self, event: EndExecution) -> Answer:
        answer = answer_to_end(event, self.locked, ending=self.ended_by)
        if answer is Fence.ACCEPTED:
            self.ending = event
            if event.ending is Ending.DEADLINE:
                self.error = (FailureType.TIMEOUT, "the execution's deadline passed")
        return answer

    def _take_pause(self, event: PauseExecution | ResumeExecution) -> Answer:
        kind, request = kind_of(event), event.request
        first = self.asked.get((kind, request.request_id)) if request.request_id else None
        answer = answer_to_pause(event, self.locked, ending=self.ends, paused=self.paused, first=first)
        accepted = answer is Fence.ACCEPTED
        if accepted:
            self.state = state_after(event)
        if accepted or (answer is Fence.ALREADY_REPORTED and first is None and request.request_id):
            self.interventions.append(Intervention(self.facts.namespace, self.facts.id, kind, request, accepted))
            if request.request_id:
                self.asked = {**self.asked, (kind, request.request_id): Asked(self.facts.id, request.hash)}
        return answer

    def _take_resolution(self, event: Resolve, node: int) -> Answer:
        answer = refusal_of(
            event,
            self.rows.get(node) if is_run_of(event.run_id, self.facts.id) else None,
            self._record_of(event, node),
            planned=self.planned,
            settled=self.locked.state in SETTLED_EXECUTION_STATES,
            ended=self.ends,
            deadline_passed=self.locked.deadline_passed,
            now=self.locked.now,
            max_requeues=self.rules.max_requeues,
        )
        if answer is not None:
            return answer
        self.resolved[node] = event
        self.outcomes.append(self._outcome_of(event, node))
        return Fence.ACCEPTED

    def _outcome_of(self, event: Resolve, node: int) -> Outcome:
        match event.resolution:
            case Resolution.REQUEUED:
                return Requeued(node)
            case Resolution.FIXED:
                watched = node in self.plan.watched and event.outputs is not None
                return Succeeded(node, orjson.loads(event.outputs or "null") if watched else None)
            case _:
                return Discarded(node) if self.planned and not self.ends else Halted(node, RunState.FAILED)

    def _record_of(self, event: Resolve, node: int) -> QuarantineRecord | None:
        """I22: the quarantine that is meant, as an earlier event of this batch has left it."""
        record = self.quarantines.get((event.run_id, event.quarantine_number))
        earlier = self.resolved.get(node)
        if record is None or earlier is None or earlier.quarantine_number != event.quarantine_number:
            return record
        return as_resolved(record, earlier)

    def _answer_to_second(self, event: Event, node: int, row: LockedRun) -> Fence:
        """I07: of two events of one batch for the same run, the second changes nothing."""
        if isinstance(event, LeaseEnded) and event.epoch == row.lease.epoch:
            return self.moved[node]
        return Fence.LEASE_LOST

    def _take_lease(self, event: LeaseEnded, node: int, row: LockedRun) -> Fence:
        answer = fence(row.lease, event.epoch)
        if answer is not Fence.ACCEPTED:
            return answer
        if event.only_if_expired and not has_run_out(row):
            return Fence.LEASE_LOST
        after = self._after_lease(event, node, row)
        self._note_attempt(event, row)
        # A lease that ended without a report takes its epoch with it.
        without_report = isinstance(event.result, Lost | Omitted)
        self.moved[node] = Fence.LEASE_LOST if without_report else Fence.ALREADY_REPORTED
        if isinstance(after, RetryAfter):
            self.retried.append(retried_run(event, after, paused=self.paused))
            return answer
        self.reported[node] = (event, after)
        self.outcomes.append(self._outcome_after(after, node))
        return answer

    def _after_lease(self, event: LeaseEnded, node: int, row: LockedRun) -> AfterLease:
        lease = replace(row.lease, ending=True) if self.ends else row.lease
        plan = self.plan
        asks = plan.nodes and not isinstance(event.result, Success)
        policy = self.rules.retry_of(plan.nodes[node], plan.settings) if asks else _NO_RETRY
        return decide_after_lease(lease, event.result, policy, jitter=self.rules.jitter())

    def _outcome_after(self, after: FailForGood | Finish | Cancel, node: int) -> Outcome:
        match after:
            case Finish():
                return Halted(node, RunState.SUCCESS) if self.ends else Succeeded(node)
            case FailForGood():
                return FailedForGood(node, after.letter, after.error_type, after.message)
            case Cancel():
                return Halted(node, RunState.CANCELLED)

    def _note_attempt(self, event: LeaseEnded, row: LockedRun) -> None:
        if row.target:
            self.calls.append(call_of(event, row, self.facts))
        said = noted_attempt(event, row)
        if said is not None:
            self.attempts.append(said)
