"""What wakes whom in this process. Hints only: every loop also looks by itself from time to time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from services.executor.model import Heard

Listener = Callable[[Sequence[Heard]], None]

LOWEST_RANK = -32_768
"""Before every rank there is."""


class Readiness:
    """What is known of the READY runs of a pool where these are handed out. `wake` wakes whoever leases there."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        # Whether READY runs may be waiting for room: then newcomers queue up behind them.
        self.backlog = True
        # The most urgent rank that became ready since whoever leases looked.
        self.urgent: int | None = None

    def left(self, rank: int) -> None:
        """A run of this rank waits to be leased."""
        self.backlog = True
        self.urgent = rank if self.urgent is None else min(rank, self.urgent)
        self.wake.set()

    def perhaps(self) -> None:
        """Some may wait. Who is behind with runs as well finds them from where it is; who is idle looks from the
        beginning: they may be of any rank."""
        if not self.backlog:
            self.backlog = True
            self.urgent = LOWEST_RANK
        self.wake.set()


class Signals:
    """Events between the loops of one executor."""

    def __init__(self) -> None:
        self._doors: dict[Readiness, str] = {}
        self.control_ready = asyncio.Event()
        self.timers_changed = asyncio.Event()
        self.deadlines_changed = asyncio.Event()
        self.outbox_filled = asyncio.Event()
        # What other replicas may have room for, or want to know.
        self.ready_for_others = asyncio.Event()
        self._listeners: set[Listener] = set()

    @property
    def backlog(self) -> bool:
        """Whether READY runs may be waiting for room, of whatever pool."""
        return any(door.backlog for door in self._doors)

    def open_door(self, pool: str) -> Readiness:
        """For whoever hands out runs of a pool, until `close_door`."""
        door = Readiness()
        self._doors[door] = pool
        return door

    def close_door(self, door: Readiness) -> None:
        self._doors.pop(door, None)

    def left_ready(self, ranks: Mapping[str, int]) -> None:
        """Committed: runs wait to be leased, the most urgent of each pool of this rank."""
        for door, pool in self._doors.items():
            if pool in ranks:
                door.left(ranks[pool])
        self.ready_for_others.set()

    def left_ready_somewhere(self, rank: int = LOWEST_RANK) -> None:
        """As `left_ready`, of pools that nobody has asked for."""
        for door in self._doors:
            door.left(rank)
        self.ready_for_others.set()

    def ready_elsewhere(self) -> None:
        """Another replica has more runs than room."""
        for door in self._doors:
            door.perhaps()

    def anything(self) -> None:
        """Nobody knows whether a transaction was committed: whatever it would have set going is looked for."""
        self.left_ready_somewhere()
        for event in (self.control_ready, self.timers_changed, self.deadlines_changed, self.outbox_filled):
            event.set()

    def executions_changed(self, changes: Sequence[Heard]) -> None:
        """Committed: tells whoever watches."""
        if changes:
            for listener in tuple(self._listeners):
                listener(changes)

    def subscribe(self, listener: Listener) -> None:
        self._listeners.add(listener)

    def unsubscribe(self, listener: Listener) -> None:
        self._listeners.discard(listener)
