"""What wakes whom in this process. Hints only: every loop also looks by itself from time to time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from services.executor.model import Heard

Listener = Callable[[Sequence[Heard]], None]

LOWEST_RANK = -32_768
"""Before every rank there is."""


class Signals:
    """Events between the loops of one executor."""

    def __init__(self) -> None:
        self.runs_ready = asyncio.Event()
        # Whether READY runs may be waiting for room: then newcomers queue up behind them.
        self.backlog = True
        # The most urgent rank that became ready since the dispatcher looked.
        self.urgent: int | None = None
        self.control_ready = asyncio.Event()
        self.timers_changed = asyncio.Event()
        self.deadlines_changed = asyncio.Event()
        self.outbox_filled = asyncio.Event()
        # What other replicas may have room for, or want to know.
        self.ready_for_others = asyncio.Event()
        self._listeners: set[Listener] = set()

    def left_ready(self, rank: int) -> None:
        """Committed: a run of this rank waits to be leased."""
        self.backlog = True
        self.urgent = rank if self.urgent is None else min(rank, self.urgent)
        self.runs_ready.set()
        self.ready_for_others.set()

    def ready_elsewhere(self) -> None:
        """Another replica has more runs than room. Who is behind with runs as well finds them from where it is; who is
        idle looks from the beginning: they may be of any rank."""
        if not self.backlog:
            self.backlog = True
            self.urgent = LOWEST_RANK
        self.runs_ready.set()

    def anything(self) -> None:
        """Nobody knows whether a transaction was committed: whatever it would have set going is looked for."""
        self.left_ready(LOWEST_RANK)
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
