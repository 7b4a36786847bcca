"""The breaker's state machine: a circuit and what happens to it go in, the circuit after it and a decision come out.

CLOSED -> OPEN -> HALF_OPEN -> CLOSED | OPEN          + FORCED_OPEN, DISABLED, METRICS_ONLY by an operator
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from services.breaker.model.policy import Policy
from services.breaker.model.states import BY_ITSELF, Answer, Cause, Result, State

FORCED_RETRY = timedelta(seconds=30)
"""How long callers wait before they ask again at a breaker that an operator holds open."""
LONGEST_WAIT_FOR_A_SLOT = timedelta(seconds=5)
"""A probe may answer long before its permit expires."""
MAX_COUNT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Circuit:
    """What the machine knows of one target. As it is by default a target is that was never heard of."""

    state: State = State.CLOSED
    generation: int = 0
    failure_count: int = 0
    success_count: int = 0
    last_failure_at: datetime | None = None
    opened_at: datetime | None = None
    next_retry_at: datetime | None = None
    window_start_at: datetime | None = None
    episode_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state; `generation` is the one that it began."""

    before: State
    after: State
    generation: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose permit it is: a run under one lease."""

    run_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to make one probe call."""

    id: UUID
    generation: int
    holder: Holder
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Allow:
    """The breaker does not stand in the way."""


@dataclass(frozen=True, slots=True)
class Deny:
    """Not now; `retry_after` is when it is worth asking again."""

    retry_after: timedelta


@dataclass(frozen=True, slots=True)
class Probe:
    """A permit: `held` already, or None where a new one is to be given."""

    held: Permit | None


Decision = Allow | Deny | Probe


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision, and the circuit with the transition that led to it, if any."""

    circuit: Circuit
    decision: Decision
    transition: Transition | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """The circuit after an outcome, and the transition that it caused, if any."""

    circuit: Circuit
    answer: Answer
    transition: Transition | None = None


def answerable(circuit: Circuit, permits: Sequence[Permit]) -> list[Permit]:
    """The permits whose outcome counts: given since the breaker is half open. A call may outlast its permit."""
    if circuit.state is not State.HALF_OPEN:
        return []
    return [permit for permit in permits if permit.generation == circuit.generation]


def in_flight(circuit: Circuit, permits: Sequence[Permit], now: datetime) -> list[Permit]:
    """The permits that keep others from probing: those of `answerable` that have not expired."""
    return [permit for permit in answerable(circuit, permits) if now < permit.expires_at]


def needs_lock(circuit: Circuit, now: datetime) -> bool:
    """Whether `decide_permit` may change something, so that it must see the circuit and its permits alone."""
    return circuit.state is State.HALF_OPEN or (circuit.state is State.OPEN and _retry_is_due(circuit, now))


def decide_permit(
    circuit: Circuit, permits: Sequence[Permit], *, holder: Holder, now: datetime, policy: Policy
) -> Decided:
    """What to answer to a request for a permit. Nothing is granted before `next_retry_at` (I17)."""
    match circuit.state:
        case State.CLOSED | State.DISABLED | State.METRICS_ONLY:
            return Decided(circuit, Allow())
        case State.FORCED_OPEN:
            return Decided(circuit, Deny(FORCED_RETRY))
        case State.OPEN if not _retry_is_due(circuit, now):
            assert circuit.next_retry_at is not None
            return Decided(circuit, Deny(circuit.next_retry_at - now))
        case State.OPEN:
            opened, transition = _go(circuit, State.HALF_OPEN, success_count=0)
            return Decided(opened, _probe(opened, (), holder, now, policy), transition)
        case State.HALF_OPEN:
            return Decided(circuit, _probe(circuit, permits, holder, now, policy))


def apply_outcome(
    circuit: Circuit,
    result: Result,
    *,
    generation: int,
    has_permit: bool,
    now: datetime,
    policy: Policy,
    episode_id: UUID,
) -> Applied:
    """What an outcome does that was not reported before. One of an older generation does nothing (I18).

    `has_permit`: the call was a probe, and its permit is `answerable`. `episode_id` is for the outage that begins, if
    one does.
    """
    if result is Result.EXCLUDED or not is_current(circuit, generation):
        return Applied(circuit, Answer.IGNORED)
    match circuit.state:
        case State.CLOSED:
            return _applied_closed(circuit, result, generation, now=now, policy=policy, episode_id=episode_id)
        case State.METRICS_ONLY:
            return Applied(_counted(circuit, result, now), Answer.COUNTED)
        case State.HALF_OPEN if has_permit:
            return _applied_to_probe(circuit, result, now, policy)
        case _:
            return Applied(circuit, Answer.IGNORED)


def is_current(circuit: Circuit, generation: int) -> bool:
    """Whether a call that was allowed under `generation` says something about the circuit as it is.

    A later one than the circuit's is of a life before this one: the breaker was quiet for so long that it was
    forgotten, and began at 0 again, but not so for the caller.
    """
    return generation == circuit.generation or (generation > circuit.generation and circuit.state is State.CLOSED)


def _applied_closed(
    circuit: Circuit, result: Result, generation: int, *, now: datetime, policy: Policy, episode_id: UUID
) -> Applied:
    counted = _counted(circuit, result, now)
    if counted.failure_count < policy.failure_threshold:
        return Applied(counted, Answer.COUNTED)
    tripped, transition = _go(
        replace(counted, generation=max(counted.generation, generation)),
        State.OPEN,
        success_count=0,
        opened_at=now,
        next_retry_at=now + policy.timeout_duration,
        episode_id=episode_id,
    )
    return Applied(tripped, Answer.COUNTED, transition)


def _applied_to_probe(circuit: Circuit, result: Result, now: datetime, policy: Policy) -> Applied:
    if result is Result.FAILURE:
        reopened, transition = _go(
            replace(circuit, last_failure_at=now),
            State.OPEN,
            success_count=0,
            opened_at=now,
            next_retry_at=now + policy.timeout_duration,
        )
        return Applied(reopened, Answer.COUNTED, transition)
    successes = circuit.success_count + 1
    if successes < policy.half_open_success_threshold:
        return Applied(replace(circuit, success_count=successes), Answer.COUNTED)
    closed, transition = _go(
        circuit,
        State.CLOSED,
        success_count=successes,
        failure_count=0,
        opened_at=None,
        next_retry_at=None,
        window_start_at=now,
    )
    return Applied(closed, Answer.COUNTED, transition)


def _counted(circuit: Circuit, result: Result, now: datetime) -> Circuit:
    """Failures since the last success; the window is where that count began."""
    if result is Result.FAILURE:
        return replace(circuit, failure_count=min(circuit.failure_count + 1, MAX_COUNT), last_failure_at=now)
    if circuit.failure_count == 0:
        return circuit
    return replace(circuit, failure_count=0, window_start_at=now)


def _probe(circuit: Circuit, permits: Sequence[Permit], holder: Holder, now: datetime, policy: Policy) -> Probe | Deny:
    held = in_flight(circuit, permits, now)
    mine = next((permit for permit in held if permit.holder == holder), None)
    if mine is not None or len(held) < policy.half_open_permits:
        return Probe(mine)
    first_expiry = min(permit.expires_at for permit in held)
    return Deny(min(first_expiry - now, LONGEST_WAIT_FOR_A_SLOT))


def _retry_is_due(circuit: Circuit, now: datetime) -> bool:
    return circuit.next_retry_at is None or now >= circuit.next_retry_at


def _go(circuit: Circuit, after: State, **changes: object) -> tuple[Circuit, Transition]:
    generation = circuit.generation + 1
    cause = BY_ITSELF[circuit.state, after]
    moved = replace(circuit, state=after, generation=generation, **changes)  # type: ignore[arg-type]
    return moved, Transition(circuit.state, after, generation, cause)
