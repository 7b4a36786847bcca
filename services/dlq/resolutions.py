"""Resolving letters: the operator's intent is stored, then carried out at the executor, then its answer is stored.

After a crash between any two of these the loop takes it up again, with the same request id, so that it is done once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from services.dlq import tracing
from services.dlq.gateways import REFUSALS, ExecutorGateway
from services.dlq.model import (
    AuditEvent,
    Intent,
    IntentState,
    Letter,
    NewId,
    Operator,
    Resolution,
    ResolveCommand,
    Settlement,
    operator_of,
)
from services.dlq.rulings import check_deadline, check_requeues, dead_letter_resolved, decide_request
from services.dlq.settings import IntentSettings
from services.dlq.store import Store, Transaction
from valkyr.errors import QuarantineResolved, Unavailable, ValkyrError
from valkyr.retry import backoff
from valkyr.telemetry import get_logger

MAX_RACES = 5
CALL_SLACK = timedelta(seconds=5)
"""How much longer than the call itself the loop leaves an intent to whoever calls."""
METHODS = {
    Resolution.REQUEUED: "RequeueDeadLetter",
    Resolution.FIXED: "FixDeadLetter",
    Resolution.DISCARDED: "DiscardDeadLetter",
}

_log = get_logger(__name__)


class _Raced(Exception):
    """Another transaction was first: look again from the start."""


class Resolutions:
    """The use cases of RequeueDeadLetter, FixDeadLetter and DiscardDeadLetter."""

    def __init__(
        self,
        store: Store,
        executor: ExecutorGateway,
        *,
        new_id: NewId,
        max_requeues: int,
        requests_kept: timedelta,
        intents: IntentSettings,
        on_postponed: Callable[[], None],
    ) -> None:
        self._store = store
        self._executor = executor
        self._new_id = new_id
        self._max_requeues = max_requeues
        self._requests_kept = requests_kept
        self._intents = intents
        self._on_postponed = on_postponed

    @property
    def lease(self) -> timedelta:
        """How long whoever tries an intent has it for itself."""
        return self._intents.call_timeout + CALL_SLACK

    async def resolve(self, command: ResolveCommand) -> Letter:
        """The letter, resolved.

        DeadLetterNotFound; DeadLetterResolved naming who won; TooManyRequeues; RequestIdReused; what the executor
        refuses with. Unavailable if it does not answer: the intent stays and is carried out later.
        """
        accepted = await self._accept(command)
        return accepted if isinstance(accepted, Letter) else await self.carry_out(accepted)

    async def carry_out(self, intent: Intent) -> Letter:
        """Calls the executor and stores its answer; errors as `resolve`. Any number of replicas may do it at once."""
        with tracing.resolving(intent):
            try:
                await self._executor.resolve(intent)
            except QuarantineResolved as lost:
                raise dead_letter_resolved(await self._lose(intent, lost)) from lost
            except REFUSALS as refusal:
                await self._store.in_transaction(partial(self._refuse, intent=intent, refusal=refusal))
                raise
            except Unavailable:
                await self._postpone(intent)
                raise
            letter = await self._store.in_transaction(lambda tx: self._succeed(tx, intent))
        if letter.resolution is not intent.resolution:
            _log.error("dead_letter.contradicted", dead_letter_id=letter.id, resolution=str(intent.resolution))
            raise dead_letter_resolved(letter)
        return letter

    async def _accept(self, command: ResolveCommand) -> Letter | Intent:
        for _ in range(MAX_RACES):
            try:
                return await self._store.in_transaction(lambda tx: self._accept_in(tx, command))
            except _Raced:
                continue
        raise Unavailable(
            "others keep resolving the same letter at the same time", retry_after=timedelta(milliseconds=100)
        )

    async def _accept_in(self, tx: Transaction, command: ResolveCommand) -> Letter | Intent:
        letter = await tx.lock_letter(command.namespace, command.letter_id)
        method, answered, current = METHODS[command.resolution], None, None
        if command.request_id:
            # Looked up under the lock: a repetition that waited for the first sees what that has written.
            answered = await tx.find_request(command.namespace, method, command.request_id, self._requests_kept)
        if letter is not None and letter.intent_id is not None and letter.resolution is Resolution.PENDING:
            current = await tx.find_intent(letter.namespace, letter.intent_id)
        decided = decide_request(command, letter, answered, current)
        if decided is not None:
            return await _whole(tx, decided) if isinstance(decided, Letter) else decided
        assert letter is not None
        check_requeues(command, letter, self._max_requeues)
        if command.deadline is not None:
            check_deadline(command.deadline, await tx.now())
        return await self._store_intent(tx, command, letter, method)

    async def _store_intent(self, tx: Transaction, command: ResolveCommand, letter: Letter, method: str) -> Intent:
        intent = Intent(
            namespace=letter.namespace,
            id=self._new_id(),
            letter_id=letter.id,
            resolution=command.resolution,
            state=IntentState.OPEN,
            content=command.content,
            reason=command.reason,
            request_hash=command.request_hash,
            operator=command.operator,
            requested_at=datetime.now(UTC),
            run_id=letter.run_id,
            execution_id=letter.execution_id,
            quarantine_number=letter.quarantine_number,
            letter_traceparent=letter.traceparent,
            target=letter.target,
        )
        if not await tx.request_resolution(letter.namespace, letter.id, command.resolution, intent.id):
            raise _Raced
        await tx.insert_intent(intent, due_in=self.lease)
        kept = self._requests_kept
        if command.request_id and not await tx.insert_request(method, command.request_id, intent, kept):
            raise _Raced
        await tx.insert_audit_events([self._event("letter.resolution_requested", intent, Resolution.PENDING)])
        return intent

    async def _succeed(self, tx: Transaction, intent: Intent) -> Letter:
        """The executor did it. Where the outbox said so before, the letter is resolved already."""
        letter = await _locked(tx, intent)
        if letter.resolution is Resolution.PENDING:
            settlement = Settlement(
                intent.namespace, intent.letter_id, intent.resolution, intent.operator, intent.reason, None, intent.id
            )
            await tx.settle_letters([settlement])
            await tx.insert_audit_events([self._event("letter.resolved", intent, intent.resolution)])
        await tx.end_intents([(intent.namespace, intent.id, IntentState.DONE, "")])
        return await _whole(tx, letter)

    async def _refuse(self, tx: Transaction, intent: Intent, refusal: ValkyrError) -> None:
        letter = await _locked(tx, intent)
        if not await _is_open(tx, intent):
            return
        await tx.withdraw_intent(intent)
        await tx.end_intents([(intent.namespace, intent.id, IntentState.REFUSED, f"{refusal.reason}: {refusal}")])
        await tx.forget_request(intent)
        event = self._event("letter.resolution_refused", intent, letter.resolution)
        await tx.insert_audit_events([replace(event, detail=f"{refusal.reason}: {refusal}")])

    async def _lose(self, intent: Intent, lost: QuarantineResolved) -> Letter:
        """Somebody came first at the executor: the letter is resolved by what really happened."""
        winner = _winner(intent, lost)
        if winner is None:
            await self._store.in_transaction(partial(self._refuse, intent=intent, refusal=lost))
            raise lost
        return await self._store.in_transaction(lambda tx: self._lose_to(tx, intent, winner))

    async def _lose_to(self, tx: Transaction, intent: Intent, winner: Settlement) -> Letter:
        letter = await _locked(tx, intent)
        events = []
        if await _is_open(tx, intent):
            await tx.withdraw_intent(intent)
            await tx.end_intents([(intent.namespace, intent.id, IntentState.LOST, "somebody came first")])
            events.append(self._event("letter.resolution_lost", intent, winner.resolution))
        if await tx.settle_letters([winner]):
            event = self._event("letter.resolved", intent, winner.resolution)
            events.append(replace(event, operator=winner.operator, reason="", detail="told by the executor"))
        await tx.insert_audit_events(events)
        return await _whole(tx, letter)

    async def _postpone(self, intent: Intent) -> None:
        settings = self._intents
        delay = backoff(
            intent.tries, base=settings.backoff_base, maximum=settings.backoff_max, jitter=random.uniform(0.5, 1.0)
        )
        async with self._store.transaction() as tx:
            await tx.postpone_intent(intent, delay)
        self._on_postponed()

    def _event(self, action: str, intent: Intent, to: Resolution) -> AuditEvent:
        return AuditEvent(
            id=self._new_id(),
            namespace=intent.namespace,
            letter_id=intent.letter_id,
            action=action,
            operator=intent.operator,
            from_resolution=Resolution.PENDING,
            to_resolution=to,
            reason=intent.reason,
            detail=f"intent {intent.id}: {intent.resolution}",
            trace_id=tracing.trace_id_of(intent.operator.traceparent),
        )


async def _locked(tx: Transaction, intent: Intent) -> Letter:
    letter = await tx.lock_letter(intent.namespace, intent.letter_id)
    assert letter is not None, "letters are never deleted"
    return letter


async def _is_open(tx: Transaction, intent: Intent) -> bool:
    """Whether nobody has stored its outcome meanwhile; the letter's lock is held."""
    current = await tx.find_intent(intent.namespace, intent.id)
    return current is not None and current.state is IntentState.OPEN


async def _whole(tx: Transaction, letter: Letter) -> Letter:
    """As it is now, with what is heavy."""
    found = await tx.find_letter(letter.namespace, letter.id)
    assert found is not None
    return found


def _winner(intent: Intent, lost: QuarantineResolved) -> Settlement | None:
    """Who won, by the executor's word; None if it does not say."""
    said = lost.details.metadata
    try:
        resolution = Resolution(said.get("resolution", ""))
    except ValueError:
        return None
    try:
        moment = datetime.fromisoformat(said.get("resolvedTime", ""))
    except ValueError:
        moment = None
    by: Operator = operator_of(said.get("resolvedBy", ""))
    if resolution is Resolution.PENDING:
        return None
    return Settlement(
        intent.namespace, intent.letter_id, resolution, by, "", moment if moment and moment.tzinfo else None
    )
