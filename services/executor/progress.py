"""The heart: batches of events are applied, each in one transaction (`transaction.py`), and what follows is told: what
was leased is delivered, loops are woken. What cannot be applied together is applied apart; what cannot be at all ends
where somebody can see it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any
from uuid import UUID

from services.executor.facts import ExecutionCache, Known
from services.executor.handoff import Grant, Handoff, monotonic
from services.executor.model import LeasePolicy, new_id
from services.executor.modules import Modules
from services.executor.portions import apply_in_portions
from services.executor.preparing import Calls, Preparing
from services.executor.signals import Signals
from services.executor.store.runners import note_progress
from services.executor.store.session import Session, took_too_long
from services.executor.transaction import Applied, Means, Rules, Transaction
from valkyr.errors import Conflict, DeadlineExceeded, Internal, Overloaded, RequestIdReused, Unavailable, ValkyrError
from valkyr.flow.events import Event, LeaseEnded, OfExecution, Resolve
from valkyr.flow.ids import node_of
from valkyr.flow.intake import Answer, StepRules
from valkyr.planning.compiled import new_memory
from valkyr.telemetry import get_logger

log = get_logger(__name__)

WORTH_REPEATING = (Unavailable, Overloaded, DeadlineExceeded, Conflict)
"""What passes by itself; everything else would come again."""


class Progress:
    """Applies events. Safe to repeat: what was applied before is answered ALREADY_REPORTED and changes nothing."""

    def __init__(
        self,
        session: Session,
        cache: ExecutionCache,
        handoff: Handoff,
        signals: Signals,
        *,
        modules: Modules,
        calls: Calls,
        lease: LeasePolicy,
        rules: Rules,
    ) -> None:
        self._session = session
        self._cache = cache
        self._handoff = handoff
        self._signals = signals
        self._calls = calls
        self.preparing = Preparing(modules, calls, lease, rules.timeouts)
        step_rules = StepRules(modules.retry_of, random.random, new_memory, rules.max_requeues)
        self._means = Means(handoff, self.preparing, step_rules, lease, rules)

    async def note(self, said: Sequence[tuple[UUID, UUID, int, str]], *, namespace: str = "") -> None:
        """(execution, run, epoch, JSON): what attempts have done so far, for those that follow; of one namespace, or of
        all. Before the leases end."""
        await self._session.repeat(lambda tx: note_progress(tx, said, namespace=namespace), reserved=True)

    async def apply(self, events: Sequence[Event]) -> list[Answer]:
        """One transaction; the answers in order, an error for a request that is refused. Unavailable and the like when
        it is not known whether it committed, or when it could not be: apply again.

        What is too much for one transaction, or waits for rows that others hold, is applied in several.
        """
        try:
            return await self._apply_or_give_up(events)
        except Overloaded as error:
            if len({event.execution_id for event in events}) == 1 or not took_too_long(error):
                raise
            log.warning("progress.batch_divided", events=len(events), error=str(error))
        return await apply_in_portions(events, self._apply_or_give_up)

    async def _apply_or_give_up(self, events: Sequence[Event]) -> list[Answer]:
        """Where one execution cannot be carried on for a reason that nobody foresaw, the others are applied without it,
        and its runs are quarantined as they are: it ends where somebody can see it, and holds up nobody.
        """
        try:
            return await self._apply(events)
        except (*WORTH_REPEATING, RequestIdReused):
            raise
        except Exception as error:
            if len({event.execution_id for event in events}) > 1:
                log.error("progress.batch_failed", events=len(events), error=str(error), exc_info=error)
                return await self._apply_apart(events)
            return await self._give_up(events, error)

    async def _apply_apart(self, events: Sequence[Event]) -> list[Answer]:
        """Each execution alone; the first error is raised after all were tried."""
        answers: dict[int, Answer] = {}
        problem: ValkyrError | None = None
        for execution_id in dict.fromkeys(event.execution_id for event in events):
            places = [place for place, event in enumerate(events) if event.execution_id == execution_id]
            try:
                applied = await self.apply([events[place] for place in places])
                answers.update(zip(places, applied, strict=True))
            except ValkyrError as error:
                problem = problem or error
        if problem is not None:
            raise problem
        return [answers[place] for place in range(len(events))]

    async def _give_up(self, events: Sequence[Event], error: Exception) -> list[Answer]:
        correlation_id = str(new_id())
        execution_id = str(events[0].execution_id)
        log.error(
            "progress.failed",
            execution_id=execution_id,
            correlation_id=correlation_id,
            error=str(error),
            exc_info=error,
        )
        if any(isinstance(event, Resolve | OfExecution) for event in events):
            # Somebody asked for this and is told: nothing has changed.
            raise Internal("this change cannot be made; see the log", metadata={"correlationId": correlation_id})
        problem = f"the engine could not carry on after this run; correlation id {correlation_id} finds it in the log"
        try:
            return await self._apply(events, problem=problem)
        except WORTH_REPEATING:
            raise
        except Exception as again:
            log.critical("progress.stuck", execution_id=execution_id, error=str(again), exc_info=again)
            raise Internal("this execution cannot be carried on; see the log") from again

    async def _apply(self, events: Sequence[Event], *, problem: str | None = None) -> list[Answer]:
        # Overload by anything else must not hold up what runners report.
        reserved = any(isinstance(event, LeaseEnded) for event in events)
        known = await self._known(events, reserved=reserved)
        own = sum(isinstance(event, LeaseEnded) and event.makes_room for event in events)
        wanted = sum(_likely_to_follow(event, known) for event in events)
        granted_at = monotonic()
        with ExitStack() as granted:

            def grant() -> Grant:
                return granted.enter_context(self._handoff.grant(wanted=wanted, freed=own))

            async def attempt(tx: Any) -> Applied:
                granted.close()  # of an attempt before
                return await Transaction(self._means, tx, known, grant).run(events, problem)

            applied = await self._session.repeat(attempt, reserved=reserved)
            self._handoff.deliver(applied.granted, granted_at=granted_at)
        self._tell(applied)
        if applied.refused:
            await self._refuse(applied.refused)
        return applied.answers

    async def _known(self, events: Sequence[Event], *, reserved: bool) -> dict[UUID, Known]:
        """With their plans, but for what is only to end or to pause: that must be possible even where no plan can be
        made, and what is leased then must be able to end as well."""
        going_on = {event.execution_id for event in events if not isinstance(event, OfExecution)}
        known = await self._cache.get_many(going_on, reserved=reserved)
        others = {event.execution_id for event in events} - known.keys()
        return known | await self._cache.get_without_plans(others, reserved=reserved)

    async def _refuse(self, refused: Sequence[LeaseEnded]) -> None:
        """The batch before is committed, whatever becomes of these: a lease that is left is given back as forgotten."""
        try:
            await self.apply(refused)
        except ValkyrError as error:
            log.error("progress.refusal_failed", runs=len(refused), error=str(error))

    def _tell(self, applied: Applied) -> None:
        self._signals.executions_changed(applied.changed)
        if applied.left_ready:
            self._signals.left_ready(applied.left_ready)
        if applied.left_somewhere is not None:
            self._signals.left_ready_somewhere(applied.left_somewhere)
        if self._handoff.ready.backlog:
            self._handoff.ready.wake.set()  # leases that ended made room
        if applied.left_control:
            self._signals.control_ready.set()
        if applied.timers:
            self._signals.timers_changed.set()
        if applied.deadlines:
            self._signals.deadlines_changed.set()
        if applied.outbox:
            self._signals.outbox_filled.set()
        for call in applied.calls:
            self._calls.ended(call)


def _likely_to_follow(event: Event, known: Mapping[UUID, Known]) -> int:
    """How many runs may become ready by an event, but for what skips carry further: more room is left to others."""
    if isinstance(event, OfExecution) or event.execution_id not in known:
        return 0
    nodes = known[event.execution_id].version.plan.nodes
    node = node_of(event.run_id)
    return 1 + len(nodes[node].outgoing) if node < len(nodes) else 1
