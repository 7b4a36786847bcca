"""Runners: they hold leases, work at them, keep them alive, stop by their own clock when they may have lost them, and
report what came of it until they are answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from tests.simulator.network import Reply, call
from tests.simulator.process import Process
from tests.simulator.rows import RunRow
from tests.simulator.weather import HEARTBEAT_INTERVAL, LATEST_START, LEASE
from tests.simulator.workload import Go, Goes
from tests.simulator.world import World
from valkyr.flow.attempts import Fence
from valkyr.flow.events import LeaseEnded
from valkyr.flow.results import Failure, FailureType, Release, Result, Snooze, Success

LeaseId = tuple[UUID, int]  # run, epoch


@dataclass(frozen=True, slots=True)
class Lease:
    """What a runner is handed."""

    execution_id: UUID
    run_id: UUID
    epoch: int
    go: Go
    timeout: float | None

    @property
    def id(self) -> LeaseId:
        return (self.run_id, self.epoch)


def lease_of(row: RunRow, world: World) -> Lease:
    go = world.workloads[row.key[0]].go_of(row.node.index, row.attempt)
    return Lease(row.key[0], row.id, row.epoch, go, row.node.timeout.total_seconds() if row.node.timeout else None)


@dataclass(slots=True, eq=False)
class Held:
    """A lease in the hands of a runner; `trusted_until` by the runner's own clock."""

    lease: Lease
    trusted_until: float
    working: bool = False
    told_to_stop: bool = False
    result: Result | None = None


class Link(Protocol):
    """How a runner reaches an executor. Answers may come late, or be None: not known whether it arrived."""

    def report(self, ended: Sequence[LeaseEnded], reply: Reply) -> None: ...

    def heartbeat(self, leases: Sequence[LeaseId], reply: Reply) -> None: ...


class Runner:
    """`process` is its own, or, of the own pool, its executor's."""

    def __init__(self, world: World, process: Process, link: Link, *, capacity: int, own: bool = False) -> None:
        self.world = world
        self.process = process
        self.capacity = capacity
        self.held: dict[LeaseId, Held] = {}
        self.settled: Callable[[], None] = lambda: None
        self._link = link
        self._own = own
        self._to_report: list[Held] = []
        self._reporting = False
        self._failures = 0
        self._beating = False

    def room(self) -> int:
        return self.capacity - len(self.held)

    def forget(self) -> None:
        """Its process has died: so has all that it worked at."""
        for held in self.held.values():
            self._stop_work(held)
        self.held = {}
        self._to_report = []
        self._reporting = self._beating = False

    def accept(self, leases: Sequence[Lease], *, sent_at: float) -> None:
        """`sent_at` by its own clock, from before the leases can have been granted."""
        own = self.process.monotonic
        for lease in leases:
            if lease.id in self.held:
                continue
            held = Held(lease, sent_at + LEASE)
            self.held[lease.id] = held
            if own() >= held.trusted_until:
                self._drop(held)
            elif own() > sent_at + LATEST_START:
                self._say_of(held, Release())
            else:
                self._begin(held)
        if not self._beating and self.held:
            self._beating = True
            self.process.later(HEARTBEAT_INTERVAL, self._beat)

    def _begin(self, held: Held) -> None:
        lease = held.lease
        held.working = True
        self.world.invariants.work_begins(lease, self)
        seconds = lease.go.seconds if lease.timeout is None else min(lease.go.seconds, lease.timeout)
        self.process.later(seconds, self._end_of_work, held)
        self.process.later(self.process.monotonic.seconds_until(held.trusted_until), self._look_at_clock, held)

    def _look_at_clock(self, held: Held) -> None:
        """I12: stops what its own clock says may be another's by now."""
        if self.held.get(held.lease.id) is not held:
            return
        left = self.process.monotonic.seconds_until(held.trusted_until)
        if left > 0:
            self.process.later(left, self._look_at_clock, held)
            return
        self.world.counts["leases stopped by the runner's clock"] += 1
        self._drop(held)

    def _end_of_work(self, held: Held) -> None:
        if not held.working or self.held.get(held.lease.id) is not held:
            return
        if held.lease.go.goes is Goes.VANISHES:
            self.world.counts["attempts vanished"] += 1
            self._drop(held)
            return
        late = held.lease.timeout is not None and held.lease.go.seconds > held.lease.timeout
        self._say_of(held, Failure(FailureType.TIMEOUT, "it took too long") if late else result_of(held.lease))

    def _say_of(self, held: Held, result: Result) -> None:
        self._stop_work(held)
        held.result = result
        self._to_report.append(held)
        if not self._reporting:
            self._reporting = True
            self.process.later(self.world.dice.random() * 0.01, self._report)

    def _report(self) -> None:
        """One call at a time; what gathers meanwhile forms the next."""
        own = self.process.monotonic()
        batch = []
        for held in self._to_report:
            if self.held.get(held.lease.id) is held:
                if held.trusted_until > own:
                    batch.append(held)
                else:
                    self._drop(held)
        self._to_report = []
        if not batch:
            self._reporting = False
            return
        ended = [
            LeaseEnded(held.lease.execution_id, held.lease.run_id, held.lease.epoch, held.result, makes_room=self._own)
            for held in batch
            if held.result is not None
        ]
        self._link.report(ended, lambda answers: self._answered(batch, answers))

    def _answered(self, batch: Sequence[Held], answers: Sequence[Fence] | None) -> None:
        if answers is None:
            self._to_report = [*batch, *self._to_report]
            self._failures += 1
            self.world.counts["reports repeated"] += 1
            self.process.later(self.world.dice.random() * min(2.0, 0.05 * 2**self._failures), self._report)
            return
        self._failures = 0
        for held in batch:
            if self.held.get(held.lease.id) is held:
                del self.held[held.lease.id]
        self.settled()
        self._report()

    def _beat(self) -> None:
        if not self.held:
            self._beating = False
            return
        sent_at = self.process.monotonic()
        beaten = list(self.held.values())
        self._link.heartbeat([held.lease.id for held in beaten], lambda answers: self._beaten(beaten, answers, sent_at))
        self.process.later(HEARTBEAT_INTERVAL, self._beat)

    def _beaten(self, beaten: Sequence[Held], answers: dict[LeaseId, bool] | None, sent_at: float) -> None:
        if answers is None:
            return
        for held in beaten:
            if self.held.get(held.lease.id) is not held:
                continue
            goes_on = answers.get(held.lease.id)
            if goes_on:
                held.trusted_until = max(held.trusted_until, sent_at + LEASE)
            elif goes_on is None and held.working:
                self._drop(held)
            elif goes_on is False and held.working and not held.told_to_stop:
                held.told_to_stop = True
                self._told_to_stop(held)

    def _told_to_stop(self, held: Held) -> None:
        """It stops; or it ends well just then; or it hears nothing, and its lease runs out."""
        self.world.counts["leases told to stop"] += 1
        roll = self.world.dice.random()
        if roll < 0.6:
            self._say_of(held, Failure(FailureType.CANCELLED, "told to stop"))
        elif roll < 0.8:
            self._say_of(held, success_of(held.lease))

    def _drop(self, held: Held) -> None:
        self._stop_work(held)
        self.held.pop(held.lease.id, None)
        self.settled()

    def _stop_work(self, held: Held) -> None:
        if held.working:
            held.working = False
            self.world.invariants.work_ends(held.lease, self)


def success_of(lease: Lease) -> Success:
    """Outputs tell which lease they are from."""
    return Success(f'{{"duration":"PT1S","run":"{lease.run_id}","epoch":{lease.epoch}}}'.encode())


def result_of(lease: Lease) -> Result:
    go = lease.go
    match go.goes:
        case Goes.WELL:
            return success_of(lease)
        case Goes.IS_LIMITED:
            return Failure(FailureType.RATE_LIMITED, "slow down", retry_after=timedelta(seconds=go.wait))
        case Goes.TIMES_OUT:
            return Failure(FailureType.TIMEOUT, "it took too long")
        case Goes.FAILS_FOR_GOOD:
            return Failure(FailureType.PERMANENT, "it will never work")
        case Goes.SNOOZES:
            return Snooze(timedelta(seconds=go.wait))
        case Goes.IS_RELEASED:
            return Release()
        case _:
            return Failure(FailureType.TRANSIENT, "it broke")


class RemoteRunner(Process):
    """A process of its own, somewhere: all that it says and hears goes over the network, to any executor."""

    def __init__(self, world: World, name: str, *, capacity: int) -> None:
        super().__init__(world, name)
        self.runner = Runner(world, self, self, capacity=capacity)
        self.runner.settled = self.wake
        self._asking = False
        self._looks = 0
        self._as_of: float | None = None

    def report(self, ended: Sequence[LeaseEnded], reply: Reply) -> None:
        executor = self.world.dice.choice(self.world.executors)
        call(self, executor, lambda answer: executor.report(ended, answer), reply)

    def heartbeat(self, leases: Sequence[LeaseId], reply: Reply) -> None:
        """With what it knows: a list that comes late, or again, must not take back what was granted since."""
        executor = self.world.dice.choice(self.world.executors)
        holder, as_of = self.holder, self._as_of

        def answered(answer: tuple[object, float] | None) -> None:
            if answer is not None:
                self._told(answer[1])
            reply(None if answer is None else answer[0])

        call(self, executor, lambda answer: executor.heartbeat(holder, leases, as_of, answer), answered)

    def _told(self, as_of: float) -> None:
        """The database's clock in an answer: all that was granted well before has come, or comes too late to start."""
        self._as_of = as_of if self._as_of is None else max(self._as_of, as_of)

    def wake(self) -> None:
        """There may be something to lease."""
        if self.alive and not self._asking and self.runner.room() > 0:
            self._asking = True
            self._looks += 1
            self.later(self.world.dice.random() * 0.05, self._ask)

    def _ask(self) -> None:
        room = self.runner.room()
        if room <= 0:
            self._asking = False
            return
        executor = self.world.dice.choice(self.world.executors)
        holder, sent_at = self.holder, self.monotonic()
        call(
            self,
            executor,
            lambda answer: executor.lease_for(holder, room, answer),
            lambda leases: self._handed(leases, sent_at),
        )

    def _handed(self, answer: tuple[Sequence[Lease], float] | None, sent_at: float) -> None:
        self._asking = False
        leases, as_of = answer or ((), None)
        if as_of is not None:
            self._told(as_of)
        if leases:
            self.runner.accept(leases, sent_at=sent_at)
            self.wake()
        else:
            self.later(1.0 + self.world.dice.random() * 20.0, self._look_again, self._looks)

    def _look_again(self, looks: int) -> None:
        """Unless it was woken meanwhile."""
        if looks == self._looks:
            self.wake()

    def crash(self) -> None:
        self.runner.forget()
        self.life += 1
        self.alive = self._asking = False
        self._as_of = None

    def start(self) -> None:
        """A new life; the leases of older ones end as soon as an executor has heard of it."""
        self.alive = True
        self._register(None)

    def _register(self, answer: object) -> None:
        if answer is None and self.life > 1:
            executor = self.world.dice.choice(self.world.executors)
            name, holder = self.name, self.holder
            call(self, executor, lambda reply: executor.register(name, holder, reply), self._register)
        else:
            self.wake()
