"""Runs that breakers hold back, on their way out: all of a target that has closed, a few where a probe is due.

Everything waits in rows, so that a restart forgets nothing. While the breaker can be reached its mirror says what is
due; while it cannot, each row's own time does, and then the policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import zip_longest
from typing import Any, Protocol
from uuid import UUID

from services.executor.breakers.mirror import Mirror
from services.executor.breakers.outcomes import Outcomes
from services.executor.breakers.turns import ProbeTurn
from services.executor.facts import ExecutionCache, Known
from services.executor.handoff import Handoff, monotonic
from services.executor.leasing import Leasing, NotLeased
from services.executor.signals import Signals
from services.executor.store import parking as store
from services.executor.store.parking import ParkedRun, ParkedTarget
from services.executor.store.session import Session
from services.executor.targets import PermitDecision, PermitRequest, TargetKey
from valkyr.errors import ValkyrError
from valkyr.flow.effects import Prepared
from valkyr.flow.ids import node_of
from valkyr.flow.leasing import AGAIN, WORTH_WRITING, Look, Way, goes_back, look_at
from valkyr.telemetry import get_logger

CHUNK = 500
"""Rows in one statement that brings runs back or moves their times."""

POSTPONED_CHUNKS = 4
"""Of one target in one look; what is left is due all the same, and waits its turn."""

TARGETS = 1_000
PROBES_OF_TARGET = 10
PERMITS = 1_000
LEFT_FREE = 2
"""Slots that the dispatcher leaves free at most while probes wait for room."""

HOLD_MARGIN = timedelta(seconds=10)
HOLD_WITHOUT_TIMEOUT = timedelta(minutes=10)
"""A permit is answered when its run ends, also if that is lost; this counts only if the executor is."""
LONGEST_HOLD = timedelta(hours=1)

NOT_HERE = timedelta(seconds=5)
"""Until a target none of whose runs this pool can take is looked at again."""

LEAST_WAIT = timedelta(milliseconds=100)
log = get_logger(__name__)


class Permits(Protocol):
    """Where leave is asked for."""

    async def acquire_permits(self, requests: Sequence[PermitRequest]) -> list[PermitDecision]: ...


@dataclass(frozen=True, slots=True)
class _Asked:
    """A run with the leave that it got."""

    run: ParkedRun
    decision: PermitDecision


class Probes:
    """One step looks at every target that runs are parked for; any number of replicas may run it.

    `slots` is how many runs the own pool takes at once. With none of them it has no use for leave, and asks for none.
    """

    def __init__(
        self,
        session: Session,
        cache: ExecutionCache,
        handoff: Handoff,
        leasing: Leasing,
        signals: Signals,
        *,
        mirror: Mirror,
        outcomes: Outcomes,
        permits: Permits,
        turn: ProbeTurn,
        slots: int,
        timeouts: Mapping[str, timedelta],
    ) -> None:
        self._session = session
        self._cache = cache
        self._handoff = handoff
        self._leasing = leasing
        self._signals = signals
        self._mirror = mirror
        self._outcomes = outcomes
        self._permits = permits
        self._turn = turn
        self._slots = slots
        self._timeouts = timeouts
        # Targets none of whose runs this pool can take, and until when that need not be looked at again.
        self._elsewhere: dict[TargetKey, float] = {}
        mirror.subscribe(self._hear)

    def close(self) -> None:
        """Hears of breakers no more."""
        self._mirror.unsubscribe(self._hear)

    async def step(self) -> timedelta | None:
        """Does what is due; how long until the next is, None if there is nothing to wait for but news."""
        await self._mirror.known.wait()
        try:
            return await self._look()
        except BaseException:
            self._leave_free(0)  # until the next look nothing waits
            raise

    async def _look(self) -> timedelta | None:
        looks = await self._looks()
        # First, as slots are left free for it; to bring back a long queue takes its time.
        probing = await self._probe_all([key for key, look in looks if look.way is Way.PROBE])
        for key, look in looks:
            await self._go(key, look)
        waits = [look.wait for _, look in looks if look.way is not Way.PROBE]
        return min([*waits, probing] if probing is not None else waits, default=None)

    async def step_of_probes(self) -> timedelta | None:
        """As `step`, but that all else than probes is left to others."""
        await self._mirror.known.wait()
        try:
            return await self._probe_all([key for key, look in await self._looks() if look.way is Way.PROBE])
        except BaseException:
            self._leave_free(0)
            raise

    async def _looks(self) -> list[tuple[TargetKey, Look]]:
        looks: list[tuple[TargetKey, Look]] = []
        after: TargetKey = ("", "")
        while True:
            async with self._session.reading() as connection:
                parked = await store.parked_targets(connection, after, TARGETS)
            looks += [(target.key, self._look_at(target)) for target in parked if self._serves(target.key)]
            if len(parked) < TARGETS:
                there = {key for key, _ in looks}
                self._elsewhere = {key: until for key, until in self._elsewhere.items() if key in there}
                return looks
            after = parked[-1].key

    def _serves(self, key: TargetKey) -> bool:
        """Leave is never asked for, nor anything leased, of a namespace whose runs this pool does not take."""
        return self._handoff.namespace in (None, key[0])

    def _look_at(self, parked: ParkedTarget) -> Look:
        closed = self._mirror.closed(*parked.key)
        wait = max(self._mirror.wait(*parked.key), self._not_here(parked.key))
        return look_at(parked.wait, closed=closed, wait=wait, away=self._mirror.away)

    async def _go(self, key: TargetKey, look: Look) -> None:
        match look.way:
            case Way.BRING_BACK | Way.BRING_BACK_DUE:
                await self._bring_back(key, only_due=look.way is Way.BRING_BACK_DUE)
            case Way.POSTPONE if key not in self._elsewhere:
                await self._postpone(key, look.wait)

    async def _bring_back(self, key: TargetKey, *, only_due: bool) -> None:
        bring = store.unpark_due_runs if only_due else store.unpark_runs
        total, number = 0, CHUNK
        while number == CHUNK:
            async with self._session.transaction() as tx:
                number, rank = await bring(tx, key, limit=CHUNK)
            total += number
            if number:
                self._signals.left_ready_somewhere(rank)
            if not only_due and not self._mirror.closed(*key):
                break  # it opened again meanwhile: the dispatcher would only park them anew
        if total:
            log.info("run.unparked", namespace=key[0], target=key[1], runs=total, breaker_away=self._mirror.away)

    async def _postpone(self, key: TargetKey, wait: timedelta) -> None:
        for _ in range(POSTPONED_CHUNKS):
            async with self._session.transaction() as tx:
                if await store.postpone_runs(tx, key, wait, limit=CHUNK) < CHUNK:
                    return

    async def _probe_all(self, due: Sequence[TargetKey]) -> timedelta | None:
        """Probes targets that are due, as far as there is room; how long until it is worth looking again."""
        found = await self._candidates(due[:PERMITS]) if due and self._slots else []
        room = self._handoff.room()
        self._leave_free(min(LEFT_FREE, len(found), max(1, self._slots - 1)))
        if not found:
            if not due or not self._slots:
                return None
            return NOT_HERE if len(due) <= PERMITS else timedelta()
        if room == 0:
            return AGAIN
        try:
            await self._probe(_in_turn(found)[: min(room, PERMITS)])
        finally:
            self._leave_free(0)
        return AGAIN

    def _leave_free(self, slots: int) -> None:
        """Never more than there are probes for: what is left free stands still. Nor the whole pool, unless that is a
        single slot: a queue that is never empty would keep every probe out of that."""
        fewer = slots < self._turn.waiting
        self._turn.waiting = slots
        if fewer:
            self._handoff.ready.wake.set()  # the dispatcher may have found that all room was left to probes

    async def _candidates(self, due: Sequence[TargetKey]) -> list[ParkedRun]:
        targets = [(key, min(PROBES_OF_TARGET, self._mirror.permits(*key))) for key in due]
        serving = self._handoff.serving
        classes = None if serving.serves_all else sorted(serving.class_names)
        async with self._session.reading() as connection:
            found = await store.select_probes(connection, targets, pool=serving.pool, class_names=classes)
        self._hold_off(due, {run.key for run in found})
        return found

    def _hold_off(self, due: Sequence[TargetKey], found: Set[TargetKey]) -> None:
        """Targets without a run for this pool stand in the way of none that has one. Their rows are left to those
        whose runs they are."""
        until = monotonic() + NOT_HERE.total_seconds()
        for key in due:
            if key not in found:
                self._elsewhere[key] = until
            else:
                self._elsewhere.pop(key, None)

    def _not_here(self, key: TargetKey) -> timedelta:
        """How long it is not worth looking for runs of that target that this pool can take."""
        return timedelta(seconds=max(0.0, self._elsewhere.get(key, 0.0) - monotonic()))

    def _hear(self, keys: frozenset[TargetKey]) -> None:
        for key in keys:
            self._elsewhere.pop(key, None)
        self._turn.wake.set()

    async def _probe(self, runs: Sequence[ParkedRun]) -> None:
        known = await self._cache.get_many(run.execution_id for run in runs)
        await self._let_go([run for run in runs if run.execution_id not in known])
        asked = await self._ask([run for run in runs if run.execution_id in known], known)
        # Before they run: a probe that has ended is to be followed by the next at once.
        refused = self._heed(asked)
        allowed = [item for item in asked if item.decision.allowed]
        if allowed:
            await self._lease(allowed, known)
        for key, wait in refused.items():
            await self._postpone(key, wait)

    async def _let_go(self, runs: Sequence[ParkedRun]) -> None:
        """Nobody leases these; they are left READY, where they are in nobody's way."""
        if runs:
            async with self._session.transaction() as tx:
                await store.unpark_probes(tx, runs)

    async def _ask(self, runs: Sequence[ParkedRun], known: Mapping[UUID, Known]) -> list[_Asked]:
        """Leave for each. Without an answer nothing happens: the mirror finds out whether the breaker is away, and
        what is wrong with it is no reason to take this executor out of service."""
        if not runs:
            return []
        try:
            decisions = await self._permits.acquire_permits([self._request(run, known) for run in runs])
        except ValkyrError as error:
            log.warning("permits.not_answered", runs=len(runs), error=str(error))
            for run in runs:
                self._mirror.hold(run.key, NOT_HERE)
            return []
        return [_Asked(run, decision) for run, decision in zip(runs, decisions, strict=True)]

    def _request(self, run: ParkedRun, known: Mapping[UUID, Known]) -> PermitRequest:
        execution = known[run.execution_id]
        node = execution.version.plan.nodes[node_of(run.id)]
        timeout = node.timeout or self._timeouts.get(node.class_name, HOLD_WITHOUT_TIMEOUT)
        return PermitRequest(
            namespace=run.key[0],
            target=run.key[1],
            run_id=run.id,
            epoch=run.epoch + 1,
            hold=min(timeout + HOLD_MARGIN, LONGEST_HOLD),
            traceparent=run.traceparent or execution.facts.traceparent,
        )

    async def _lease(self, allowed: Sequence[_Asked], known: Mapping[UUID, Known]) -> None:
        """Leases those that are still parked under the epoch they asked for; the other permits go back."""
        granted_at = monotonic()
        with self._handoff.grant(wanted=len(allowed)) as grant:
            chosen, left = allowed[: grant.left], allowed[grant.left :]
            leased = await self._lease_or_drop(chosen, known) if chosen else []
            decisions = {item.run.id: item.decision for item in chosen}
            for run in leased:
                namespace = known[run.execution_id].facts.namespace
                generation = decisions[run.id].generation
                self._outcomes.leased(namespace, run.target, run.id, run.epoch, generation=generation)
            await self._leasing.hand_over(leased, known, granted_at=granted_at)
        mine = {run.id for run in leased}
        await self._give_back([item for item in chosen if item.run.id not in mine])
        await self._drop(left)

    async def _lease_or_drop(self, chosen: Sequence[_Asked], known: Mapping[UUID, Known]) -> list[Prepared]:
        try:
            return await self._session.repeat(lambda tx: self._lease_in(tx, chosen, known))
        except NotLeased:
            await self._drop(chosen)
            raise

    async def _drop(self, allowed: Sequence[_Asked]) -> None:
        """The room for them is gone. Parked they would keep their leave, which others may want."""
        await self._let_go([item.run for item in allowed])
        await self._give_back(allowed)

    async def _lease_in(self, tx: Any, chosen: Sequence[_Asked], known: Mapping[UUID, Known]) -> list[Prepared]:
        candidates = await store.unpark_probes(tx, [item.run for item in chosen])
        asked = {item.run.id: item for item in chosen}
        prepared = await self._leasing.prepare(tx, known, candidates)
        # One whose target has come to be another stays READY: the leave is not for that.
        fitting = [
            replace(run, permit_id=asked[run.id].decision.permit_id)
            for run in prepared
            if run.problem or run.target == asked[run.id].run.key[1]
        ]
        await self._leasing.lease(tx, fitting)
        return fitting

    async def _give_back(self, unused: Sequence[_Asked]) -> None:
        held = [item for item in unused if item.decision.permit_id is not None]
        if not held:
            return
        async with self._session.reading() as connection:
            rows = await store.read_probes(connection, [item.run for item in held])
        for item in held:
            run, permit_id = item.run, item.decision.permit_id
            if permit_id is not None and goes_back(rows.get(run.id), run.epoch + 1, permit_id):
                self._outcomes.not_used(*run.key, run.id, run.epoch + 1, permit_id, item.decision.generation)

    def _heed(self, asked: Sequence[_Asked]) -> dict[TargetKey, timedelta]:
        """No target is asked for again before the breaker said, or its change; those that are worth a word in their
        rows, with how long."""
        waits: dict[TargetKey, timedelta] = {}
        for item in asked:
            wait = AGAIN if item.decision.allowed else max(item.decision.retry_after, LEAST_WAIT)
            waits[item.run.key] = max(wait, waits.get(item.run.key, wait))
        for key, wait in waits.items():
            self._mirror.hold(key, wait)
        return {key: wait for key, wait in waits.items() if wait >= WORTH_WRITING}


def _in_turn(runs: Sequence[ParkedRun]) -> list[ParkedRun]:
    """The first of every target, then the second of every target, and so on."""
    by_target: dict[TargetKey, list[ParkedRun]] = {}
    for run in runs:
        by_target.setdefault(run.key, []).append(run)
    return [run for row in zip_longest(*by_target.values()) for run in row if run is not None]
