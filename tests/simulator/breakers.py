"""Breakers that trip and recover as the schedule wills it, or by a probe, and what each executor believes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from tests.simulator.times import SLACK
from tests.simulator.workload import TARGETS
from tests.simulator.world import World
from valkyr.flow.effects import AttemptEnded
from valkyr.flow.results import Failure, FailureType, Success

if TYPE_CHECKING:
    from tests.simulator.executor import Executor

PERMITS = 2
OUTAGE = 5.0
LONGEST = 20.0
HOLD = 20.0
_FAILURES = (FailureType.TRANSIENT, FailureType.TIMEOUT)


class Breakers:
    """`away`: nobody hears of changes, and no leave is given."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._open_until: dict[str, float] = {}
        self._permits: dict[str, dict[UUID, float]] = {target: {} for target in TARGETS}
        self._believed: dict[str, dict[str, bool]] = {}
        self.away = False

    def closed(self, executor: Executor, target: str) -> bool:
        """As far as this executor knows: closed until it has heard otherwise, and while nobody can be asked."""
        return self.away or self._believed.get(executor.name, {}).get(target, True)

    def trip(self, target: str) -> None:
        self._world.counts["breakers tripped"] += 1
        if self._world.tracing:
            self._world.say("the breaker of {} opens", target)
        self._open_until[target] = self._world.clock.now + OUTAGE
        self._permits[target] = {}
        self._tell(target)
        self._world.clock.after(OUTAGE + self._world.dice.random() * LONGEST, self.close, target)

    def close(self, target: str) -> None:
        if self._open_until.pop(target, None) is not None:
            if self._world.tracing:
                self._world.say("the breaker of {} closes", target)
            self._tell(target)

    def come_back(self) -> None:
        """Reachable again: whoever watches hears how things stand."""
        self.away = False
        for target in TARGETS:
            self._tell(target)

    def snapshot(self, executor: Executor) -> None:
        """What an executor hears first."""
        for target in TARGETS:
            executor.later(self._world.dice.random(), self._hear, executor, target)

    def _tell(self, target: str) -> None:
        if not self.away:
            for executor in self._world.executors:
                executor.later(self._world.dice.random(), self._hear, executor, target)

    def _hear(self, executor: Executor, target: str) -> None:
        if self.away:
            return
        believed = self._believed.setdefault(executor.name, {})
        closed = target not in self._open_until
        if believed.get(target, True) is not closed:
            believed[target] = closed
            executor.wake()

    def wait_of(self, target: str) -> float:
        """Until it is worth asking for leave."""
        return max(0.0, self._open_until.get(target, 0.0) - self._world.clock.now)

    def acquire(self, target: str, run: UUID, epoch: int) -> UUID | None:
        """Leave for one probe; None if the target is not due, or enough are under way."""
        now = self._world.clock.now
        if not self.away and self._open_until.get(target, 0.0) > now + SLACK:
            self._world.invariants.ledger.fail(
                "I19", "leave to call {} is asked for while it is surely refused", target
            )
        held = {permit: until for permit, until in self._permits[target].items() if until > now}
        self._permits[target] = held
        if self.away or len(held) >= PERMITS:
            return None
        permit = UUID(int=run.int ^ (epoch << 96))
        held[permit] = now + HOLD
        return permit

    def ended(self, ended: AttemptEnded) -> None:
        """A probe's outcome closes its breaker, or opens it anew."""
        if self.away or ended.permit_id is None:
            return
        if self._permits[ended.target].pop(ended.permit_id, None) is None:
            return
        if isinstance(ended.result, Success):
            self.close(ended.target)
        elif isinstance(ended.result, Failure) and ended.result.type in _FAILURES:
            self.trip(ended.target)
