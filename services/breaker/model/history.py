"""What is written about one breaker after its circuit went on: the row, permits, reports, transitions, episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.breaker.model.calls import CallOutcome, Caused, FoldedOutcomes, FoldedPermits, Key
from services.breaker.model.machine import Circuit, Permit, Transition
from services.breaker.model.states import State


@dataclass(frozen=True, slots=True)
class TransitionRow:
    """One transition with where it came from. `report_id` is "" where a request for a permit caused it."""

    key: Key
    breaker_id: UUID
    transition: Transition
    episode_id: UUID | None
    report_id: str
    run_id: str
    traceparent: str
    principal: str
    at: datetime

    @property
    def trace_id(self) -> str:
        return self.traceparent[3:35]


@dataclass(frozen=True, slots=True)
class EpisodeStart:
    """An outage begins."""

    key: Key
    id: UUID
    breaker_id: UUID
    opened_at: datetime
    generation: int
    trace_id: str


@dataclass(frozen=True, slots=True)
class EpisodeEnd:
    """The target has recovered."""

    key: Key
    id: UUID
    recovered_at: datetime
    generation: int


@dataclass(frozen=True, slots=True)
class Change:
    """All that is to be written about one breaker. `is_touched`: readers see another breaker than before."""

    key: Key
    id: UUID
    circuit: Circuit
    is_touched: bool
    granted: Sequence[Permit]
    ended: Sequence[UUID]
    remembered: Sequence[str]
    transitions: Sequence[TransitionRow]

    @property
    def is_visible(self) -> bool:
        """Whether watchers see it: those of breakers that ever left CLOSED."""
        return self.is_touched and self.circuit.generation > 0

    @property
    def episodes_started(self) -> list[EpisodeStart]:
        return [
            EpisodeStart(row.key, row.episode_id, row.breaker_id, row.at, row.transition.generation, row.trace_id)
            for row in self.transitions
            if row.episode_id is not None and row.transition.before is State.CLOSED
        ]

    @property
    def episodes_ended(self) -> list[EpisodeEnd]:
        return [
            EpisodeEnd(row.key, row.episode_id, row.at, row.transition.generation)
            for row in self.transitions
            if row.episode_id is not None and row.transition.after is State.CLOSED
        ]


def change_of(
    key: Key, breaker_id: UUID, before: Circuit, folded: FoldedPermits | FoldedOutcomes, now: datetime
) -> Change:
    """From the circuit as it was locked and what was folded into it."""
    granted = folded.granted if isinstance(folded, FoldedPermits) else ()
    remembered = folded.remembered if isinstance(folded, FoldedOutcomes) else ()
    return Change(
        key=key,
        id=breaker_id,
        circuit=folded.circuit,
        is_touched=bool(folded.circuit != before or granted or folded.ended),
        granted=granted,
        ended=folded.ended,
        remembered=remembered,
        transitions=[_row(breaker_id, caused, now) for caused in folded.caused],
    )


def _row(breaker_id: UUID, caused: Caused, now: datetime) -> TransitionRow:
    by = caused.by
    return TransitionRow(
        key=by.key,
        breaker_id=breaker_id,
        transition=caused.transition,
        episode_id=caused.episode_id,
        report_id=by.report_id if isinstance(by, CallOutcome) else "",
        run_id=by.run_id,
        traceparent=by.traceparent,
        principal=by.principal,
        at=now,
    )
