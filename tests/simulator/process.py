"""A process: it may stand still, and it may die and forget all that it knew."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from tests.simulator.clock import MonotonicClock
from tests.simulator.weather import DRIFT
from tests.simulator.world import World


class Process(ABC):
    """What it does later happens in the same life of it, and not while it stands still."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.life = 1
        self.alive = True
        self.paused_until = 0.0
        dice = world.dice
        self.monotonic = MonotonicClock(world.clock, start=dice.uniform(0, 1e6), rate=1 + dice.uniform(-DRIFT, DRIFT))

    @property
    def holder(self) -> str:
        """Unique per life."""
        return f"{self.name}/{self.life}"

    @abstractmethod
    def start(self) -> None:
        """Begins to live, for the first time or again."""

    @abstractmethod
    def crash(self) -> None:
        """Forgets all that was in memory."""

    @abstractmethod
    def wake(self) -> None:
        """There may be something to do."""

    def pause(self, seconds: float) -> None:
        """Stands still, and does not know of it."""
        self.paused_until = self.world.clock.now + seconds

    def later(self, seconds: float, action: Callable[..., None], *args: Any) -> None:
        self.world.clock.after(seconds, self._do, self.life, action, args)

    def _do(self, life: int, action: Callable[..., None], args: tuple[Any, ...]) -> None:
        if life != self.life or not self.alive:
            return
        if self.paused_until > self.world.clock.now:
            wait = self.paused_until - self.world.clock.now + self.world.dice.random() * 0.1
            self.world.clock.after(wait, self._do, life, action, args)
            return
        action(*args)

    @property
    def awake(self) -> bool:
        return self.alive and self.paused_until <= self.world.clock.now
