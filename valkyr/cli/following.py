"""Follows an execution to its end: the watch says when it moved, the runs say what moved."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from valkyr.client import Client, Execution, Run

SHORTEST_TICK = 0.5
LONGEST_TICK = 2.0
"""How many seconds there are between two looks at the runs while nothing is heard; longer and longer."""

PATIENCE = timedelta(minutes=1)
"""How long the executor may be away meanwhile, where nothing says how long all may take."""
SHOWN_RUNS = 1000
"""Beyond so many, runs are shown as counts only."""


class View(Protocol):
    """Shows progress: moving on a terminal, as lines, or as JSON."""

    def show(self, execution: Execution, runs: Sequence[Run] | None) -> None:
        """The present state; `runs` is None where there are too many to list."""
        ...


async def follow(client: Client, execution: Execution, view: View, *, timeout: timedelta | None) -> Execution:
    """Shows the execution until it is settled or `timeout` passed; answers with it as it then is, outputs included.

    That a run is leased is no change of its execution, so that the runs are also looked at from time to time.
    """
    expires = None if timeout is None else time.monotonic() + timeout.total_seconds()
    patience = PATIENCE if timeout is None else None
    latest = _Latest(execution)
    watching = asyncio.create_task(latest.keep(client))
    too_many, tick = False, SHORTEST_TICK
    try:
        while True:
            if watching.done():
                watching.result()
            # Before the runs, so that those of a settled execution are the last there will be.
            execution = latest.execution
            runs = None if too_many else await _runs(client, execution.id, patience)
            too_many = runs is None
            view.show(execution, runs)
            if execution.settled or (expires is not None and time.monotonic() >= expires):
                return await client.executions.get(execution.id, timeout=patience)
            has_moved = await latest.moved_within(tick, expires)
            tick = SHORTEST_TICK if has_moved else min(LONGEST_TICK, 2 * tick)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


class _Latest:
    """The execution as the watch told it last."""

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self._moved = asyncio.Event()

    async def keep(self, client: Client) -> None:
        """Up to date, until it is settled."""
        try:
            async for execution in client.executions.watch_one(self.execution.id, patience=PATIENCE):
                self.execution = execution
                self._moved.set()
        finally:
            self._moved.set()

    async def moved_within(self, tick: float, expires: float | None) -> bool:
        """Whether it did, before the tick or the end of all patience."""
        longest = tick if expires is None else max(0.0, min(tick, expires - time.monotonic()))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._moved.wait(), longest)
        has_moved = self._moved.is_set()
        self._moved.clear()
        return has_moved


async def _runs(client: Client, execution_id: str, patience: timedelta | None) -> Sequence[Run] | None:
    page = await client.executions.list_runs(execution_id, page_size=SHOWN_RUNS, timeout=patience).page()
    return None if page.next_page_token else page.items
