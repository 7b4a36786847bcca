"""The dead letter queue's values and its decisions: what a batch of events changes, who may resolve, who won. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from valkyr.errors import DeadLetterNotFound, DeadLetterResolved, RequestIdReused, TooManyRequeues

NewId = Callable[[], str]
Key = tuple[str, str, int]
"""Namespace, run, quarantine number: what names a quarantine everywhere."""
RunKey = tuple[str, str]


class Resolution(StrEnum):
    """Of a letter. PENDING is left once, for one of the others."""

    PENDING = "PENDING"
    REQUEUED = "REQUEUED"
    FIXED = "FIXED"
    DISCARDED = "DISCARDED"


class IntentState(StrEnum):
    """OPEN: the executor's answer is outstanding. DONE: it did it. REFUSED: it did not. LOST: somebody came first."""

    OPEN = "OPEN"
    DONE = "DONE"
    REFUSED = "REFUSED"
    LOST = "LOST"


@dataclass(frozen=True, slots=True)
class Operator:
    """Who resolves, and in which trace. `principal_id` is the name where that is a UUID."""

    principal: str
    principal_id: str | None = None
    traceparent: str = ""


def operator_of(principal: str, traceparent: str = "") -> Operator:
    try:
        return Operator(principal, str(uuid.UUID(principal)), traceparent)
    except ValueError:
        return Operator(principal, None, traceparent)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A run failed for good. `inputs`, `config`, `attempts` and `stack_traces` are JSON texts."""

    namespace: str
    run_id: str
    execution_id: str
    quarantine_number: int
    task_id: str | None = None
    node_id: str = ""
    workflow_id: str | None = None
    version: int = 0
    class_name: str = ""
    failure_type: str = ""
    failure_reason: str = ""
    error_type: str = ""
    inputs: str | None = None
    config: str | None = None
    attempts: str = "[]"
    stack_traces: str = "[]"
    target: str = ""
    episode_id: str = ""
    traceparent: str = ""
    trace_id: str = ""
    quarantined_at: datetime | None = None
    idempotency_key: str = ""

    @property
    def key(self) -> Key:
        return self.namespace, self.run_id, self.quarantine_number


@dataclass(frozen=True, slots=True)
class Resolved:
    """A quarantine was resolved at the executor."""

    namespace: str
    run_id: str
    execution_id: str
    quarantine_number: int
    resolution: Resolution
    resolved_by: str
    reason: str = ""
    resolved_at: datetime | None = None

    @property
    def key(self) -> Key:
        return self.namespace, self.run_id, self.quarantine_number


Event = Quarantined | Resolved


@dataclass(frozen=True, slots=True)
class OpenIntent:
    """What decides whether a resolution at the executor was this intent's."""

    id: str
    resolution: Resolution
    principal: str
    reason: str


@dataclass(frozen=True, slots=True)
class KnownLetter:
    """A stored letter as far as a batch of events needs it."""

    key: Key
    id: str
    resolution: Resolution
    previous_id: str | None = None
    intent: OpenIntent | None = None


@dataclass(frozen=True, slots=True)
class NewLetter:
    """A letter to be stored; `resolved` where that came first."""

    id: str
    quarantined: Quarantined
    resolved: Resolved | None = None
    previous_id: str | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """A stored letter that an event resolves; `intent_state` is what its open intent becomes, if it has one."""

    letter: KnownLetter
    resolved: Resolved
    intent_state: IntentState | None = None


@dataclass(slots=True)
class Batch:
    """What a batch of events changes. `early` resolutions came before their letters; those `met` found theirs."""

    letters: list[NewLetter] = field(default_factory=list)
    settled: list[Settled] = field(default_factory=list)
    early: list[Resolved] = field(default_factory=list)
    met: list[Key] = field(default_factory=list)
    relinked: list[tuple[KnownLetter, str]] = field(default_factory=list)
    contradicted: list[Resolved] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter. What is heavy is None or empty where letters are listed."""

    namespace: str
    id: str
    run_id: str
    execution_id: str
    quarantine_number: int
    task_id: str | None
    node_id: str
    workflow_id: str | None
    version: int
    class_name: str
    failure_type: str
    failure_reason: str
    error_type: str
    attempts: str
    target: str
    episode_id: str
    traceparent: str
    trace_id: str
    quarantined_at: datetime
    idempotency_key: str
    resolution: Resolution
    requeue_count: int
    previous_id: str | None = None
    reviewed_by: str = ""
    notes: str = ""
    resolved_at: datetime | None = None
    resolved_by: str = ""
    resolution_reason: str = ""
    requested_resolution: Resolution | None = None
    intent_id: str | None = None
    inputs: str | None = None
    config: str | None = None
    stack_traces: str = "[]"


@dataclass(frozen=True, slots=True)
class ResolveCommand:
    """A call of an operator. `content` is JSON: `inputs`, `newKey` and `deadline`, or `outputs`, or nothing."""

    namespace: str
    letter_id: str
    resolution: Resolution
    content: str
    reason: str
    request_hash: bytes
    operator: Operator
    request_id: str = ""
    force: bool = False


@dataclass(frozen=True, slots=True)
class Intent:
    """A resolution that was asked for, with what its execution needs of the letter. `tries` counts the calls so far."""

    namespace: str
    id: str
    letter_id: str
    resolution: Resolution
    state: IntentState
    content: str
    reason: str
    request_hash: bytes
    operator: Operator
    requested_at: datetime
    run_id: str
    execution_id: str
    quarantine_number: int
    letter_traceparent: str
    target: str
    tries: int = 1

    @property
    def request_id(self) -> str:
        """For the executor: the same for every try, so that it is done once."""
        return f"{self.letter_id}:{self.resolution}"


@dataclass(frozen=True, slots=True)
class AnsweredRequest:
    """What a `request_id` led to."""

    request_hash: bytes
    intent: Intent


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One thing that happened to a letter."""

    id: str
    namespace: str
    letter_id: str
    action: str
    operator: Operator
    to_resolution: Resolution
    from_resolution: Resolution | None = None
    reason: str = ""
    detail: str = ""
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a letter is resolved; `resolved_at` None for now, `intent_id` of the intent that may have done it."""

    namespace: str
    letter_id: str
    resolution: Resolution
    operator: Operator
    reason: str
    resolved_at: datetime | None = None
    intent_id: str | None = None


def plan_batch(
    events: Iterable[Event],
    known: Iterable[KnownLetter],
    early: Iterable[Resolved],
    *,
    new_id: NewId,
) -> Batch:
    """What the events change, in their order; repeats change nothing.

    `known` are all letters of the runs that the events name, `early` the resolutions remembered for them.
    """
    batch = Batch()
    stored = {letter.key: letter for letter in known}
    remembered = {resolved.key: resolved for resolved in early}
    made: dict[Key, NewLetter] = {}
    settled: dict[Key, Settled] = {}
    ahead: dict[Key, Resolved] = {}
    for event in events:
        key = event.key
        if isinstance(event, Quarantined):
            if key not in stored and key not in made:
                first = ahead.pop(key, None) or remembered.get(key)
                made[key] = NewLetter(new_id(), event, first)
        elif key in made:
            made[key] = _also_resolved(made[key], event, batch)
        elif key in stored:
            _settle(stored[key], event, settled, batch)
        elif (first := ahead.get(key) or remembered.get(key)) is None:
            ahead[key] = event
        elif first.resolution != event.resolution:
            batch.contradicted.append(event)
    batch.settled = list(settled.values())
    batch.early = list(ahead.values())
    batch.met = [key for key in made if key in remembered]
    _link(batch, stored, made)
    return batch


def _also_resolved(letter: NewLetter, event: Resolved, batch: Batch) -> NewLetter:
    if letter.resolved is None:
        return NewLetter(letter.id, letter.quarantined, event)
    if letter.resolved.resolution != event.resolution:
        batch.contradicted.append(event)
    return letter


def _settle(letter: KnownLetter, event: Resolved, settled: dict[Key, Settled], batch: Batch) -> None:
    so_far = settled[event.key].resolved.resolution if event.key in settled else letter.resolution
    if so_far is Resolution.PENDING:
        settled[event.key] = Settled(letter, event, verdict_on(letter.intent, event))
    elif so_far != event.resolution:
        batch.contradicted.append(event)


def _link(batch: Batch, stored: Mapping[Key, KnownLetter], made: Mapping[Key, NewLetter]) -> None:
    """Each letter to the one before of its run, in whatever order they came."""
    ids = {key: letter.id for key, letter in stored.items()} | {key: letter.id for key, letter in made.items()}
    previous: dict[Key, str] = {}
    before: Key | None = None
    for key in sorted(ids):
        if before is not None and before[:2] == key[:2]:
            previous[key] = ids[before]
        before = key
    batch.letters = [
        NewLetter(letter.id, letter.quarantined, letter.resolved, previous.get(key)) for key, letter in made.items()
    ]
    batch.relinked = [
        (letter, previous[key])
        for key, letter in stored.items()
        if key in previous and previous[key] != letter.previous_id
    ]


def verdict_on(intent: OpenIntent | None, resolved: Resolved) -> IntentState | None:
    """Whether what happened at the executor was the open intent's doing.

    Where only the reason differs it stays OPEN: the executor, asked again with the same request id, knows.
    """
    if intent is None:
        return None
    if (intent.resolution, intent.principal) != (resolved.resolution, resolved.resolved_by):
        return IntentState.LOST
    return IntentState.DONE if intent.reason == resolved.reason else IntentState.OPEN


def requeues_before(quarantine_number: int) -> int:
    """A run leaves QUARANTINED and comes back only by a requeue: the n-th quarantine follows n - 1 of them."""
    return quarantine_number - 1


def decide_request(
    command: ResolveCommand, letter: Letter | None, answered: AnsweredRequest | None, current: Intent | None
) -> Letter | Intent | None:
    """What a resolution that is asked for leads to: the first answer, an intent to be carried out again, or None for a
    new intent. `answered` is the same request id's, `current` the letter's open intent.

    RequestIdReused, DeadLetterNotFound, DeadLetterResolved.
    """
    if answered is not None and answered.request_hash != command.request_hash:
        raise RequestIdReused(
            f"request_id {command.request_id!r} was used before, with another request",
            hint="make a new request_id for every resolution; repeat one only with the same body",
        )
    if letter is None:
        raise DeadLetterNotFound(
            f"there is no dead letter {command.letter_id} in this namespace", hint="ListDeadLetters lists what there is"
        )
    if answered is not None and answered.intent.state is IntentState.OPEN:
        return answered.intent
    if answered is not None and answered.intent.state is IntentState.DONE:
        return letter
    if letter.resolution is not Resolution.PENDING:
        raise dead_letter_resolved(letter)
    if current is None:
        return None
    if not command.request_id and _is_the_same(command, current):
        return current
    raise resolution_in_flight(current)


def check_requeues(command: ResolveCommand, letter: Letter, max_requeues: int) -> None:
    """TooManyRequeues where only `force` requeues once more."""
    if command.resolution is not Resolution.REQUEUED or command.force or letter.requeue_count < max_requeues:
        return
    raise TooManyRequeues(
        f"the run was requeued {letter.requeue_count} times already, and dlq.max-requeues is {max_requeues}",
        hint="find out why it keeps failing; `force` requeues it once more, FixDeadLetter supplies its outputs",
        metadata={"requeueCount": str(letter.requeue_count), "maxRequeues": str(max_requeues)},
    )


def dead_letter_resolved(letter: Letter) -> DeadLetterResolved:
    """What a loser is told."""
    when = letter.resolved_at.isoformat() if letter.resolved_at else ""
    return DeadLetterResolved(
        f"dead letter {letter.id} was {letter.resolution} by {letter.resolved_by or 'somebody'} at {when or '?'}",
        hint="read the letter; a run that failed again has a letter of its own",
        metadata={"resolution": str(letter.resolution), "resolvedBy": letter.resolved_by, "resolvedTime": when},
    )


def resolution_in_flight(intent: Intent) -> DeadLetterResolved:
    """What is told to whoever comes while another's resolution is being carried out."""
    when = intent.requested_at.isoformat()
    return DeadLetterResolved(
        f"{intent.operator.principal} asked for dead letter {intent.letter_id} to be {intent.resolution} at {when};"
        " the executor's answer is outstanding",
        hint="read the letter again: if the executor refuses, it is open to others",
        metadata={
            "resolution": str(intent.resolution),
            "resolvedBy": intent.operator.principal,
            "resolvedTime": when,
            "outstanding": "true",
        },
    )


def keys_of(events: Sequence[Event]) -> list[RunKey]:
    """The runs that the events name, each once, in a fixed order."""
    return sorted({(event.namespace, event.run_id) for event in events})


def _is_the_same(command: ResolveCommand, intent: Intent) -> bool:
    return intent.request_hash == command.request_hash and intent.operator.principal == command.operator.principal
