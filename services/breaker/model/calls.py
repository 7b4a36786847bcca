"""What callers ask and report, folded per target: any number of them becomes one change of the target's circuit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

from services.breaker.model.machine import (
    Allow,
    Circuit,
    Decision,
    Holder,
    Permit,
    Probe,
    Transition,
    answerable,
    apply_outcome,
    decide_permit,
    is_current,
)
from services.breaker.model.policy import Policy
from services.breaker.model.states import Answer, Result, State


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Which breaker. Rows are locked in the order of the database's index over these two."""

    namespace: str
    target: str


@dataclass(frozen=True, slots=True)
class PermitRequest:
    """Leave to call that is asked for; a permit expires after `hold`."""

    key: Key
    holder: Holder
    hold: timedelta
    traceparent: str = ""
    principal: str = "anonymous"

    @property
    def run_id(self) -> str:
        return self.holder.run_id


@dataclass(frozen=True, slots=True)
class PermitAnswer:
    """Whether the call may be made. `permit_id` only of a probe; `generation` is to be reported with its outcome."""

    decision: Decision
    generation: int = 0
    permit_id: UUID | None = None
    episode_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """What became of one call, as its caller reports it."""

    key: Key
    result: Result
    generation: int
    report_id: str
    permit_id: UUID | None = None
    traceparent: str = ""
    principal: str = "anonymous"

    @property
    def run_id(self) -> str:
        """From a report id that says `<run id>:<epoch>`, as the executor's do; "" from any other."""
        run_id, colon, epoch = self.report_id.rpartition(":")
        return run_id if colon and epoch.isdigit() else ""


@dataclass(frozen=True, slots=True)
class Caused:
    """A transition, and the request or report that it came from."""

    transition: Transition
    by: PermitRequest | CallOutcome
    episode_id: UUID | None


@dataclass(frozen=True, slots=True)
class FoldedPermits:
    """The circuit after all requests of one target; `answers` are in their order. `granted` are permits that are new
    or that their holder was given again after they had expired, `ended` those that can be answered no more."""

    circuit: Circuit
    answers: Sequence[PermitAnswer]
    granted: Sequence[Permit]
    ended: Sequence[UUID]
    caused: Sequence[Caused]


@dataclass(frozen=True, slots=True)
class FoldedOutcomes:
    """The circuit after all outcomes of one target; `answers` are in their order. `ended` are permits that can be
    answered no more, `remembered` the ids of reports that changed something."""

    circuit: Circuit
    answers: Sequence[Answer]
    ended: Sequence[UUID]
    remembered: Sequence[str]
    caused: Sequence[Caused]


def answer_without_lock(circuit: Circuit, outcome: CallOutcome) -> Answer | None:
    """The answer to an outcome that leaves everything as it is: a success of a target that has not failed since the
    last one, an exclusion without a permit. None for any other.

    Such a report is not remembered; if it is repeated after a failure, that is as if it had come late.
    """
    if outcome.permit_id is not None:
        return None
    if outcome.result is Result.EXCLUDED:
        return Answer.IGNORED
    at_rest = circuit.state is State.CLOSED and circuit.failure_count == 0
    if outcome.result is Result.SUCCESS and at_rest and is_current(circuit, outcome.generation):
        return Answer.COUNTED
    return None


def fold_permits(
    circuit: Circuit,
    permits: Sequence[Permit],
    requests: Sequence[PermitRequest],
    *,
    now: datetime,
    policy: Policy,
    new_id: Callable[[], UUID],
) -> FoldedPermits:
    """Decides requests for one target, in order; each sees the permits granted before it."""
    known = {permit.id: permit for permit in permits}
    answers: list[PermitAnswer] = []
    granted: dict[UUID, Permit] = {}
    caused: list[Caused] = []
    for request in requests:
        decided = decide_permit(circuit, list(known.values()), holder=request.holder, now=now, policy=policy)
        circuit, decision = decided.circuit, decided.decision
        if decided.transition is not None:
            caused.append(Caused(decided.transition, request, circuit.episode_id))
        permit = None
        if isinstance(decision, Probe):
            permit = decision.held
            if permit is None:
                permit = _granted(circuit, known.values(), request, now, new_id)
                known[permit.id] = granted[permit.id] = permit
        answers.append(answer_of(circuit, decision, permit))
    return FoldedPermits(circuit, answers, list(granted.values()), _ended(circuit, permits), caused)


def _granted(
    circuit: Circuit, known: Iterable[Permit], request: PermitRequest, now: datetime, new_id: Callable[[], UUID]
) -> Permit:
    """The holder's own again, if it has one that expired: the call is the same, and may be answered under its id."""
    expires_at = now + request.hold
    mine = [permit for permit in answerable(circuit, list(known)) if permit.holder == request.holder]
    if mine:
        return replace(mine[0], expires_at=expires_at)
    return Permit(new_id(), circuit.generation, request.holder, expires_at)


def answer_of(circuit: Circuit, decision: Decision, permit: Permit | None = None) -> PermitAnswer:
    """The episode is said while it goes on."""
    episode_id = None if isinstance(decision, Allow) else circuit.episode_id
    return PermitAnswer(decision, circuit.generation, permit.id if permit else None, episode_id)


def fold_outcomes(
    circuit: Circuit,
    permits: Sequence[Permit],
    outcomes: Sequence[CallOutcome],
    *,
    reported: Collection[str],
    now: datetime,
    policy: Policy,
    episode_id: UUID,
) -> FoldedOutcomes:
    """Applies outcomes of one target, in order; a report that is in `reported`, or came before, counts no more (I18).

    `episode_id` is for the outage that begins, if one does: at most one can, as nobody was told of its generation.
    """
    fold = _Fold(circuit, {permit.id: permit for permit in permits}, set(reported))
    for outcome in outcomes:
        fold.take(outcome, now, policy, episode_id)
    left = _ended(fold.circuit, list(fold.permits.values()))
    return FoldedOutcomes(fold.circuit, fold.answers, [*fold.given_back, *left], fold.remembered, fold.caused)


def _ended(circuit: Circuit, permits: Sequence[Permit]) -> list[UUID]:
    left = {permit.id for permit in answerable(circuit, permits)}
    return [permit.id for permit in permits if permit.id not in left]


@dataclass(slots=True)
class _Fold:
    circuit: Circuit
    permits: dict[UUID, Permit]
    reported: set[str]
    answers: list[Answer] = field(default_factory=list)
    given_back: list[UUID] = field(default_factory=list)
    remembered: list[str] = field(default_factory=list)
    caused: list[Caused] = field(default_factory=list)

    def take(self, outcome: CallOutcome, now: datetime, policy: Policy, episode_id: UUID) -> None:
        if outcome.report_id in self.reported:
            self.answers.append(Answer.REPEATED)
            return
        permit = self._give_back(outcome)
        applied = apply_outcome(
            self.circuit,
            outcome.result,
            generation=outcome.generation,
            has_permit=permit is not None and bool(answerable(self.circuit, [permit])),
            now=now,
            policy=policy,
            episode_id=episode_id,
        )
        if applied.circuit != self.circuit:
            self.reported.add(outcome.report_id)
            self.remembered.append(outcome.report_id)
        self.circuit = applied.circuit
        if applied.transition is not None:
            self.caused.append(Caused(applied.transition, outcome, self.circuit.episode_id))
        self.answers.append(applied.answer)

    def _give_back(self, outcome: CallOutcome) -> Permit | None:
        permit = self.permits.pop(outcome.permit_id, None) if outcome.permit_id is not None else None
        if permit is not None:
            self.given_back.append(permit.id)
        return permit
