"""What a batch of events from the outbox changes, and whose doing a resolution was. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from services.dlq.model import Event, IntentState, Key, NewId, Quarantined, Resolution, Resolved, RunKey


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


def keys_of(events: Sequence[Event]) -> list[RunKey]:
    """The runs that the events name, each once, in a fixed order."""
    return sorted({(event.namespace, event.run_id) for event in events})
