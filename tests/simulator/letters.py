"""The dead letter queue: it takes each quarantine once, may be away, and its answers may be lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from tests.simulator.rows import OutboxRow
from tests.simulator.world import World

if TYPE_CHECKING:
    from tests.simulator.executor import Executor

LetterId = tuple[UUID, int]
AGAIN = 1.0
"""Seconds until the DLQ is told again."""


class DeadLetterQueue:
    """`resolved` holds letters and resolutions that came before their letters alike."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.away = False
        self.letters: dict[LetterId, int] = {}
        self.resolved: dict[LetterId, int] = {}
        self._relaying: set[str] = set()

    def come_back(self) -> None:
        self.away = False

    def relay_from(self, executor: Executor) -> None:
        """One batch of the outbox at a time; rows go when the answer has come, not before."""
        if executor.holder in self._relaying:
            return
        self._relaying.add(executor.holder)
        rows = list(self._world.store.outbox.values())[: self._world.dice.choice((1, 3, 100))]
        executor.later(self._world.dice.random() * 0.1, self._tell, executor, rows)

    def _tell(self, executor: Executor, rows: Sequence[OutboxRow]) -> None:
        world = self._world
        self._relaying.discard(executor.holder)
        if self.away or world.chance(world.weather.loses):
            world.counts["letters not taken"] += len(rows)
            executor.look_within(AGAIN)
            return
        for row in rows:
            self._take(row)
        if world.chance(world.weather.loses):
            world.counts["answers lost"] += 1
            executor.look_within(AGAIN)
            return
        world.store.delete_outbox([row.id for row in rows])
        if world.store.outbox:
            executor.wake()

    def _take(self, row: OutboxRow) -> None:
        key = (row.run, row.number)
        told = self.letters if row.kind == "QUARANTINED" else self.resolved
        if key in told:
            self._world.counts["letters told again"] += 1
        told.setdefault(key, row.id)
        if told[key] != row.id:
            self._world.invariants.ledger.fail("I15", "the DLQ is told twice: {} of {}", row.kind, row.run)
