"""What all parts of a schedule share: the clock, the dice, the rows, and what is counted and told of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tests.simulator.clock import Clock
from tests.simulator.store import Store
from tests.simulator.weather import CANCEL_GRACE, LEASE, Weather
from tests.simulator.workload import Workload, retry_of
from valkyr.flow.ids import node_of
from valkyr.flow.intake import StepRules

if TYPE_CHECKING:
    from tests.simulator.breakers import Breakers
    from tests.simulator.executor import Executor
    from tests.simulator.invariants import Invariants
    from tests.simulator.letters import DeadLetterQueue
    from tests.simulator.runners import RemoteRunner

MAX_REQUEUES = 3


class World:
    """Of one schedule. Whatever happens at random is drawn from `dice`, so that a seed repeats it."""

    def __init__(self, dice: random.Random, weather: Weather, trace: Callable[[str], None] | None) -> None:
        self.clock = Clock()
        self.dice = dice
        self.weather = weather
        self.store = Store(lease=LEASE, grace=CANCEL_GRACE)
        self.workloads: dict[UUID, Workload] = {}
        self.executors: list[Executor] = []
        self.remote: list[RemoteRunner] = []
        self.counts: Counter[str] = Counter()
        self.tracing = trace is not None
        self._trace = trace
        self.invariants: Invariants
        self.letters: DeadLetterQueue
        self.breakers: Breakers
        self.rules = StepRules(retry_of, dice.random, lambda: None, MAX_REQUEUES)
        self.finished = False
        # What waits for locks, to try again.
        self.waiting: list[Callable[[], None]] = []

    def say(self, text: str, *parts: Any) -> None:
        """Tells what happens, if anybody listens; `text` is a format."""
        if self._trace is not None:
            shown = [self.name_of(part) if isinstance(part, UUID) else part for part in parts]
            self._trace(f"{self.clock.now:10.3f}  {text.format(*shown)}")

    def name_of(self, id_: UUID) -> str:
        """A run as people know it: the execution's letter, and the node's name."""
        row = self.store.runs.get(id_)
        if row is None:
            return f"unknown run {node_of(id_)}"
        return f"{self.store.executions[row.key[0]].name}.{row.node.node_id}"

    def locks_released(self) -> None:
        waiting, self.waiting = self.waiting, []
        for again in waiting:
            again()

    def chance(self, probability: float) -> bool:
        return probability > 0.0 and self.dice.random() < probability
