"""READY runs are leased, or parked where a breaker holds their target back; parked ones are brought back, or probe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from tests.simulator.network import Reply
from tests.simulator.rows import RunRow
from tests.simulator.runners import lease_of
from tests.simulator.workload import OWN, REMOTE, TARGETS
from valkyr.flow.leasing import AGAIN, BREAKER, Serving, Way, look_at, may_lease
from valkyr.flow.states import RunState

if TYPE_CHECKING:
    from tests.simulator.executor import Executor
    from tests.simulator.transaction import Transaction

HandOver = Callable[[Sequence[RunRow]], None]


@dataclass(slots=True, eq=False)
class _Batch:
    """One transaction that leases: runs with the permits of their probes, and runs to park. It locks only runs."""

    holder: str
    hand_over: HandOver
    began: float
    leased: Sequence[RunRow]
    parked: Sequence[RunRow] = ()
    permits: dict[UUID, UUID] = field(default_factory=dict)
    aborted: bool = False

    def lock(self) -> None:
        for row in (*self.leased, *self.parked):
            row.locked_by = self

    def release(self) -> None:
        if not self.aborted:
            for row in (*self.leased, *self.parked):
                row.locked_by = None


class Leasing:
    """Of one executor. What is locked by others is passed over."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._world = executor.world
        self._open: list[_Batch] = []

    @property
    def granted(self) -> int:
        """Room of the own pool that open transactions have set aside."""
        return sum(len(batch.leased) for batch in self._open if batch.holder == self._executor.holder)

    def let_go(self) -> None:
        """The database ends what is open."""
        for batch in self._open:
            self._release(batch)
            batch.aborted = True

    def _release(self, batch: _Batch) -> None:
        batch.release()
        self._world.locks_released()

    def crash(self) -> None:
        self.let_go()
        self._open = []

    def dispatch(self, ready: Sequence[RunRow]) -> None:
        """For the own pool."""
        rows = self._choose(ready, OWN)
        self._begin(rows, self._executor.room(), self._executor.holder, self._own_door())

    def lease_at_start(self, rows: Sequence[RunRow]) -> None:
        """Of an execution that is only just written."""
        if rows and self._world.dice.random() < 0.5:
            self._world.counts["runs leased at the start"] += len(rows)
            self._commit(self._opened(_Batch(self._executor.holder, self._own_door(), self._world.clock.now, rows)))

    def _opened(self, batch: _Batch) -> _Batch:
        for row in batch.leased:
            if row.id not in batch.permits:
                self._world.invariants.chosen(row, self._executor)
        batch.lock()
        self._open.append(batch)
        return batch

    def lease_for(self, holder: str, room: int, reply: Reply) -> None:
        """For a remote runner: the answer is leases, and as of when."""
        ready = [row for row in self._world.store.runs.values() if row.state is RunState.READY]
        as_of = self._world.clock.now

        def hand_over(rows: Sequence[RunRow]) -> None:
            reply(([lease_of(row, self._world) for row in rows], as_of))

        self._begin(self._choose(ready, REMOTE), room, holder, hand_over)

    def _own_door(self) -> HandOver:
        sent_at = self._executor.monotonic()

        def hand_over(rows: Sequence[RunRow]) -> None:
            self._executor.runner.accept([lease_of(row, self._world) for row in rows], sent_at=sent_at)

        return hand_over

    def _choose(self, ready: Sequence[RunRow], serving: Serving) -> list[RunRow]:
        now = self._world.clock.now
        rows = [row for row in ready if serving.takes(row.node) and _may_lease(row, now)]
        if any(row.locked_by is not None for row in rows):
            self._executor.look_within(AGAIN.total_seconds())
        rows = [row for row in rows if row.locked_by is None]
        self._world.dice.shuffle(rows)
        return rows

    def _begin(self, rows: Sequence[RunRow], room: int, holder: str, hand_over: HandOver) -> None:
        closed = self._executor.closed
        parked = [row for row in rows if not closed(row.node.target)]
        leased = [row for row in rows if closed(row.node.target)][: max(0, room)]
        if leased or parked:
            self._go(_Batch(holder, hand_over, self._world.clock.now, leased, parked))
        else:
            hand_over([])

    def _go(self, batch: _Batch) -> None:
        world = self._world
        self._opened(batch)
        if world.chance(world.weather.opens_gap):
            self._executor.later(world.dice.random() * 0.05, self._commit, batch)
        else:
            self._commit(batch)

    def _commit(self, batch: _Batch) -> None:
        world = self._world
        self._open.remove(batch)
        self._release(batch)
        if batch.aborted or world.chance(world.weather.rolls_back):
            world.counts["transactions rolled back"] += 1
            self._executor.wake()
            return
        world.store.now = batch.began
        world.store.lease_runs(((row, batch.permits.get(row.id)) for row in batch.leased), batch.holder)
        world.store.park_runs((row, world.breakers.wait_of(row.node.target)) for row in batch.parked)
        world.counts["runs parked by breakers"] += len(batch.parked)
        # The reaper must know of leases that nobody hears of again, and parked runs are looked at when they are due.
        self._executor.wake()
        world.invariants.leased(batch.leased, batch.parked, batch.holder, now=batch.began)
        if world.chance(world.weather.commits_unknown):
            world.counts["commits nobody heard of"] += 1
        else:
            batch.hand_over(batch.leased)

    def look_at_parked(self, parked: Sequence[RunRow]) -> None:
        """What the breakers let go is brought back; half open, some go with permits."""
        for target in TARGETS:
            rows = [row for row in parked if row.node.target == target and self._is_free(row)]
            if len(rows) < sum(row.node.target == target for row in parked):
                self._executor.look_within(AGAIN.total_seconds())
            if rows:
                self._look_at(target, rows)

    def _is_free(self, row: RunRow) -> bool:
        return row.locked_by is None and row.state is RunState.PARKED and row.parked_by == BREAKER

    def _look_at(self, target: str, rows: Sequence[RunRow]) -> None:
        world, executor = self._world, self._executor
        now = world.store.now = world.clock.now
        first_due = min(row.retry_after or now for row in rows) - now
        closed, away = executor.closed(target), world.breakers.away
        wait = 0.0 if closed else world.breakers.wait_of(target)
        look = look_at(timedelta(seconds=first_due), closed=closed, wait=timedelta(seconds=wait), away=away)
        world.invariants.looked(target, look.way, closed=closed, due=first_due <= 0)
        executor.look_within(max(0.001, look.wait.total_seconds()))
        due = [row for row in rows if (row.retry_after or now) <= now]
        match look.way:
            case Way.BRING_BACK:
                self._bring_back(rows)
            case Way.BRING_BACK_DUE:
                self._bring_back(due)
            case Way.POSTPONE:
                world.store.postpone_runs(due, wait)
            case Way.PROBE:
                for row in rows:
                    if OWN.takes(row.node) and executor.room() > 0:
                        self._probe(row, target)

    def _bring_back(self, rows: Sequence[RunRow]) -> None:
        world = self._world
        world.store.unpark(rows)
        world.counts["runs unparked"] += len(rows)
        world.invariants.unparked(rows)
        self._executor.wake()

    def _probe(self, row: RunRow, target: str) -> None:
        permit = self._world.breakers.acquire(target, row.id, row.epoch + 1)
        if permit is not None:
            self._world.counts["probes"] += 1
            began = self._world.clock.now
            self._go(_Batch(self._executor.holder, self._own_door(), began, [row], permits={row.id: permit}))

    def tell_breakers(self, transaction: Transaction) -> None:
        """What calls came to, after their commit."""
        for ended in transaction.calls:
            self._world.breakers.ended(ended)


def _may_lease(row: RunRow, now: float) -> bool:
    due = row.ready_at is not None and row.ready_at <= now
    return may_lease(row.state, control=row.undecided, due=due)
