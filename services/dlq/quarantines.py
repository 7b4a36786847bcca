"""Storing what the executor's outbox brings: quarantines and their resolutions, in whatever order, however often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.dlq import tracing
from services.dlq.model import (
    AuditEvent,
    Event,
    IntentState,
    NewId,
    Operator,
    Resolution,
    Resolved,
    Settlement,
    operator_of,
)
from services.dlq.planning import Batch, NewLetter, keys_of, plan_batch
from services.dlq.store import Store, Transaction
from valkyr.errors import InvalidRequest
from valkyr.telemetry import get_logger

_log = get_logger(__name__)

Entry = tuple[int, Event]
"""The sender's id of it, and what it says."""
_BY_INTENT = "the executor did it"
_BY_ANOTHER = "somebody came first"


@dataclass(slots=True)
class Answer:
    """Ids of entries that are stored now, or were before; and those that never can be, each with why."""

    accepted: list[int] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)

    def __add__(self, other: Answer) -> Answer:
        return Answer(self.accepted + other.accepted, self.refused + other.refused)


class Quarantines:
    """The use case of QuarantineRuns."""

    def __init__(self, store: Store, *, new_id: NewId) -> None:
        self._store = store
        self._new_id = new_id

    async def store(self, entries: Sequence[Entry], sender: Operator) -> Answer:
        """All in one transaction. An entry that the database cannot hold is found by halving and refused alone, so that
        it holds up none of the others. Unavailable: none is stored, all come again."""
        if not entries:
            return Answer()
        try:
            batch = await self._store.in_transaction(lambda tx: self._store_all(tx, entries, sender))
        except InvalidRequest as error:
            if len(entries) == 1:
                return Answer([], [(entries[0][0], error.message)])
            half = len(entries) // 2
            return await self.store(entries[:half], sender) + await self.store(entries[half:], sender)
        tracing.record_quarantines(batch.letters)
        for resolved in batch.contradicted:
            _log.error(
                "dead_letter.contradicted",
                run_id=resolved.run_id,
                quarantine_number=resolved.quarantine_number,
                resolution=str(resolved.resolution),
            )
        return Answer([entry_id for entry_id, _ in entries])

    async def _store_all(self, tx: Transaction, entries: Sequence[Entry], sender: Operator) -> Batch:
        events = [event for _, event in entries]
        runs = keys_of(events)
        await tx.lock_runs(runs)
        known, early = await tx.known_letters(runs), await tx.early_resolutions(runs)
        batch = plan_batch(events, known, early, new_id=self._new_id)
        await tx.insert_letters(batch.letters, sender)
        await tx.link_letters(batch.relinked)
        await tx.settle_letters(_settlements(batch))
        await tx.end_intents(_ended_intents(batch))
        await tx.insert_early_resolutions(batch.early)
        await tx.delete_early_resolutions(batch.met)
        await tx.insert_audit_events(self._audit_events(batch, sender))
        return batch

    def _audit_events(self, batch: Batch, sender: Operator) -> list[AuditEvent]:
        events = []
        for letter in batch.letters:
            events.append(self._quarantined(letter, sender))
            if letter.resolved is not None:
                events.append(self._resolved(letter.id, letter.resolved, ""))
        for one in batch.settled:
            intent = one.letter.intent
            detail = "" if intent is None else f"intent {intent.id} is {one.intent_state} by that"
            events.append(self._resolved(one.letter.id, one.resolved, detail))
        return events

    def _quarantined(self, letter: NewLetter, sender: Operator) -> AuditEvent:
        what = letter.quarantined
        return AuditEvent(
            id=self._new_id(),
            namespace=what.namespace,
            letter_id=letter.id,
            action="letter.quarantined",
            operator=sender,
            to_resolution=Resolution.PENDING,
            reason=what.failure_type,
            trace_id=what.trace_id,
        )

    def _resolved(self, letter_id: str, resolved: Resolved, detail: str) -> AuditEvent:
        return AuditEvent(
            id=self._new_id(),
            namespace=resolved.namespace,
            letter_id=letter_id,
            action="letter.resolved",
            operator=operator_of(resolved.resolved_by),
            from_resolution=Resolution.PENDING,
            to_resolution=resolved.resolution,
            reason=resolved.reason,
            detail=detail or "told by the executor",
        )


def _settlements(batch: Batch) -> list[Settlement]:
    """Of letters that the batch brings with their resolutions, and of letters that were there."""
    new = [_settlement(one.id, one.resolved, None) for one in batch.letters if one.resolved is not None]
    known = [
        _settlement(
            one.letter.id,
            one.resolved,
            None if one.letter.intent is None or one.intent_state is IntentState.LOST else one.letter.intent.id,
        )
        for one in batch.settled
    ]
    return new + known


def _settlement(letter_id: str, resolved: Resolved, intent_id: str | None) -> Settlement:
    return Settlement(
        namespace=resolved.namespace,
        letter_id=letter_id,
        resolution=resolved.resolution,
        operator=operator_of(resolved.resolved_by),
        reason=resolved.reason,
        resolved_at=resolved.resolved_at,
        intent_id=intent_id,
    )


def _ended_intents(batch: Batch) -> list[tuple[str, str, IntentState, str]]:
    return [
        (one.letter.key[0], one.letter.intent.id, one.intent_state, _why(one.intent_state))
        for one in batch.settled
        if one.letter.intent is not None and one.intent_state in (IntentState.DONE, IntentState.LOST)
    ]


def _why(state: IntentState) -> str:
    return _BY_INTENT if state is IntentState.DONE else _BY_ANOTHER
