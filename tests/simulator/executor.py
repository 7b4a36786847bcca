"""An executor: transactions of progress, reports in natural batches, and the loops - dispatcher, reaper, timers,
control nodes, deadlines, probes, outbox - as one look at the rows, and what follows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from functools import partial

from tests.simulator.leasing import Leasing
from tests.simulator.looks import Found
from tests.simulator.network import Reply
from tests.simulator.process import Process
from tests.simulator.reusing import Reusing
from tests.simulator.rows import ExecutionRow
from tests.simulator.runners import LeaseId, Runner
from tests.simulator.transaction import Transaction
from tests.simulator.weather import FORGOTTEN_AFTER
from tests.simulator.workload import OWN, Unforeseen
from tests.simulator.world import World
from valkyr.errors import Internal
from valkyr.flow.attempts import Fence
from valkyr.flow.events import (
    EndExecution,
    Event,
    LeaseEnded,
    Resolve,
)
from valkyr.flow.intake import Answer
from valkyr.flow.plan import PlannedNode
from valkyr.flow.results import Lost, Omitted
from valkyr.flow.states import RunState

AGAIN = 1.0
"""Seconds until what could not be done just now is looked at again. Nothing else is: whoever is not woken sleeps until
the next time that stands in the rows, so that a schedule shows what nobody would have looked at."""

_WITH_DEADLINE = frozenset({RunState.READY, RunState.LEASED, RunState.WAITING, RunState.PARKED})

Done = Callable[[Sequence[Answer] | None], None]
"""Told the answers, or None where it is not known whether the events were applied."""


def _nobody(_answers: Sequence[Answer] | None) -> None:
    """Nobody waits for the answers: the loops look again."""


def _only(count: int, done: Done) -> Done:
    """Whoever brought the first of a batch is told of these."""
    return lambda answers: done(None if answers is None else answers[:count])


class Executor(Process):
    """Its own pool lives and dies with it."""

    def __init__(self, world: World, name: str, *, capacity: int) -> None:
        super().__init__(world, name)
        self.runner = Runner(world, self, OwnLink(self), capacity=capacity, own=True)
        self.runner.settled = self.wake
        self.leasing = Leasing(self)
        self._reusing = Reusing(self)
        self.open: list[Transaction] = []
        self._granted = 0
        self._waiting: list[tuple[list[LeaseEnded], Reply]] = []
        self._applying = False
        self._look_at = float("inf")
        self._look_number = 0

    def start(self) -> None:
        """What it held in an earlier life is lost, at once."""
        self.alive = True
        older = [
            LeaseEnded(*row.key, row.epoch, Lost())
            for row in self.world.store.runs.values()
            if row.state is RunState.LEASED and row.holder and self._is_older(row.holder)
        ]
        if older:
            self.apply(older)
        self.world.breakers.snapshot(self)
        self.wake()

    def _is_older(self, holder: str) -> bool:
        return holder.startswith(f"{self.name}/") and holder != self.holder

    def crash(self) -> None:
        """What was not committed never was; what was in memory is gone."""
        for transaction in self.open:
            transaction.release()
        self.leasing.crash()
        self.runner.forget()
        self.open, self._waiting, self._applying, self._granted = [], [], False, 0
        self._look_at = float("inf")
        self.life += 1
        self.alive = False

    def pause(self, seconds: float) -> None:
        """The database does not wait for whoever holds locks and says nothing: it ends such transactions."""
        super().pause(seconds)
        self.leasing.let_go()
        for transaction in self.open:
            transaction.abort()

    def room(self) -> int:
        """I13: what is free less what open transactions have set aside."""
        return max(0, self.runner.room() - self._granted - self.leasing.granted)

    def may_take(self, node: PlannedNode) -> bool:
        """Whether a run of this node may go to the own pool at once."""
        return node.dedupe is None and OWN.takes(node) and self.closed(node.target)

    def closed(self, target: str) -> bool:
        return not target or self.world.breakers.closed(self, target)

    def lease_roots(self, execution: ExecutionRow) -> None:
        """In the transaction that starts an execution: as many of its first runs as there is room for."""
        rows = [row for row in execution.runs if row.state is RunState.READY and self.may_take(row.node)]
        self.leasing.lease_at_start(rows[: self.room()])

    def apply(self, events: Sequence[Event], done: Done = _nobody, problem: str | None = None) -> None:
        """One transaction, begun now; it may take a while, fail, or be committed without anybody knowing."""
        told = len(events)
        if problem is None and self.world.chance(self.world.weather.mixes):
            self.world.counts["batches with more in them"] += 1
            events = [*events, *(event for batch in Found.of(self.world).batches() for event in batch)]
        self._begin(Transaction(self, events, problem), _only(told, done))

    def _begin(self, transaction: Transaction, done: Done) -> None:
        """Waits for its locks; by the database's clock it has begun before."""
        world = self.world
        if not transaction.lock():
            world.counts["transactions that waited"] += 1
            world.waiting.append(partial(self.later, world.dice.random() * 0.002, self._begin, transaction, done))
            return
        events = transaction.events
        freed = sum(isinstance(event, LeaseEnded) and event.makes_room for event in events)
        transaction.room = self.room() + freed
        reserved = max(0, transaction.room - freed)
        try:
            transaction.decide()
        except Unforeseen:
            transaction.release()
            self._apply_apart(events, done)
            return
        self._granted += reserved
        self.open.append(transaction)
        if world.chance(world.weather.opens_gap):
            world.counts["transactions with something in between"] += 1
            self.later(
                world.dice.random() * world.dice.choice((0.05, 0.05, 3.0)), self._end, transaction, done, reserved
            )
        else:
            self._end(transaction, done, reserved)

    def _end(self, transaction: Transaction, done: Done, reserved: int) -> None:
        world = self.world
        if not transaction.aborted and transaction.waits():
            self.later(0.002, self._end, transaction, done, reserved)
            return
        self.open.remove(transaction)
        self._granted -= reserved
        if transaction.aborted or world.chance(world.weather.rolls_back):
            world.counts["transactions rolled back"] += 1
            transaction.release()
            self.look_within(AGAIN)
            done(None)
            return
        handed = transaction.commit()
        world.invariants.committed(transaction)
        if Fence.ACCEPTED in transaction.answers:
            self.wake_all()
        else:
            self.look_within(AGAIN)
        if world.chance(world.weather.commits_unknown):
            world.counts["commits nobody heard of"] += 1
            done(None)
            return
        self.runner.accept(handed, sent_at=transaction.sent_at)
        self.leasing.tell_breakers(transaction)
        done(transaction.answers)

    def _apply_apart(self, events: Sequence[Event], done: Done) -> None:
        """Where one execution cannot be carried on, the others go without it; alone, its runs are quarantined."""
        self.world.counts["events that nobody foresaw"] += 1
        ids = list(dict.fromkeys(event.execution_id for event in events))
        if len(ids) == 1:
            if any(isinstance(event, Resolve | EndExecution) for event in events):
                self.look_within(AGAIN)
                done([Internal("this change cannot be made")] * len(events))
            else:
                self.apply(events, done, "the engine could not carry on after this run")
            return
        answers: dict[int, Answer] = {}
        missing = len(ids)
        failed = False

        def one_done(places: Sequence[int], applied: Sequence[Answer] | None) -> None:
            nonlocal missing, failed
            missing -= 1
            failed = failed or applied is None
            answers.update(zip(places, applied or (), strict=False))
            if missing == 0:
                done(None if failed else [answers[place] for place in range(len(events))])

        for id_ in ids:
            places = [place for place, event in enumerate(events) if event.execution_id == id_]
            self.apply([events[place] for place in places], partial(one_done, places))

    def report(self, ended: Sequence[LeaseEnded], reply: Reply) -> None:
        """Reports that come while a transaction is under way form the next."""
        self._waiting.append((list(ended), reply))
        if not self._applying:
            self._apply_reports()

    def _apply_reports(self) -> None:
        batch, self._waiting = self._waiting, []
        self._applying = bool(batch)
        if not batch:
            return

        def done(answers: Sequence[Answer] | None) -> None:
            start = 0
            for ended, reply in batch:
                reply(None if answers is None else answers[start : start + len(ended)])
                start += len(ended)
            self._apply_reports()

        self.apply([event for ended, _ in batch for event in ended], done)

    def heartbeat(self, holder: str, leases: Sequence[LeaseId], as_of: float | None, reply: Reply) -> None:
        """Extends what is held; the answer is that, and when. What this holder was granted a while before `as_of`, and
        does not name, goes back. `as_of` is the time that it had been told last as it named its leases: when this is
        handled, there may be leases that the list is too old for."""
        began = self.world.clock.now
        self.extend(leases, began, lambda answers: reply((answers, began)))
        if as_of is not None:
            self._give_back(holder, set(leases), as_of)

    def extend(self, leases: Sequence[LeaseId], began: float, reply: Reply) -> None:
        """One statement, which waits for whoever holds one of these rows."""
        world = self.world
        if any(world.store.runs[run].locked_by is not None for run, _ in leases):
            world.counts["heartbeats that waited"] += 1
            world.waiting.append(partial(self.later, 0.0, self.extend, leases, began, reply))
            return
        world.store.now = began
        reply(world.store.heartbeat_runs(leases))

    def _give_back(self, holder: str, held: Set[LeaseId], as_of: float) -> None:
        before = as_of - FORGOTTEN_AFTER
        forgotten = [
            LeaseEnded(*row.key, row.epoch, Omitted())
            for row in self.world.store.runs.values()
            if row.holder == holder and row.leased_at < before and (row.id, row.epoch) not in held
        ]
        if forgotten:
            self.world.counts["leases forgotten"] += len(forgotten)
            self.apply(forgotten)

    def register(self, name: str, holder: str, reply: Reply) -> None:
        """A remote runner begins a new life: its older leases are lost at once."""
        older = [
            LeaseEnded(*row.key, row.epoch, Lost())
            for row in self.world.store.runs.values()
            if row.state is RunState.LEASED
            and row.holder is not None
            and row.holder.startswith(f"{name}/")
            and int(row.holder.rpartition("/")[2]) < int(holder.rpartition("/")[2])
        ]
        if older:
            self.apply(older, reply)
        else:
            reply([])

    def lease_for(self, holder: str, room: int, reply: Reply) -> None:
        self.leasing.lease_for(holder, room, reply)

    def wake_all(self) -> None:
        """This executor hears of what it committed; others hear of it, or look by themselves some time."""
        self.wake()
        for executor in self.world.executors:
            if executor is not self and self.world.dice.random() < 0.3:
                executor.look_within(self.world.dice.random())
        if self.world.remote:
            self.world.dice.choice(self.world.remote).wake()

    def wake(self) -> None:
        self.look_within(self.world.dice.random() * 0.02)

    def look_within(self, seconds: float) -> None:
        at = self.world.clock.now + seconds
        if self.alive and at < self._look_at:
            self._look_at = at
            self._look_number += 1
            self.later(seconds, self._look, self._look_number)

    def _look(self, number: int) -> None:
        if number != self._look_number:
            return
        world = self.world
        self._look_at = float("inf")
        found = Found.of(world)
        batches = found.batches()
        world.dice.shuffle(batches)
        if len(batches) > 1 and world.chance(world.weather.lingers):
            world.counts["batches of several loops"] += 1
            batches = [[event for batch in batches for event in batch]]
        for batch in batches:
            self._apply_later(batch)
        if found.undecided:
            self._reusing.look(found.undecided)
        if found.ready:
            self.leasing.dispatch(found.ready)
        if found.parked:
            self.leasing.look_at_parked(found.parked)
        if world.store.outbox:
            world.letters.relay_from(self)
        self._give_back(self.holder, self.runner.held.keys(), world.clock.now)
        if not world.finished:
            self._look_next(found, late=world.dice.random() * (1.0 if batches else 0.2))

    def _look_next(self, found: Found, *, late: float) -> None:
        if found.next_at is not None:
            self.look_within(found.next_at - self.world.clock.now + late)
        if found.unplannable:
            self.look_within(AGAIN)

    def _apply_later(self, events: Sequence[Event]) -> None:
        """What was found is acted on a little later, sometimes a lot."""
        if self.world.chance(self.world.weather.lingers):
            self.world.counts["events of an old look"] += 1
            self.later(self.world.dice.random() * 5.0, self.apply, events)
        else:
            self.apply(events)


class OwnLink:
    """The own pool's way to its executor, through memory."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def report(self, ended: Sequence[LeaseEnded], reply: Reply) -> None:
        self._executor.report(ended, reply)

    def heartbeat(self, leases: Sequence[LeaseId], reply: Reply) -> None:
        world = self._executor.world
        if world.chance(world.weather.loses):
            world.counts["heartbeats lost"] += 1
            reply(None)
        else:
            self._executor.extend(leases, world.clock.now, reply)
