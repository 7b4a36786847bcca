"""Follows an execution to its end: the watch says when it moved, the runs say what moved."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from valkyr.client import Client, Execution, Run

TICK = 0.5
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

    A lease does not change the execution's revision, so that the runs are looked at twice a second as well.
    """
    expires = None if timeout is None else time.monotonic() + timeout.total_seconds()
    moved = asyncio.Event()
    patience = PATIENCE if timeout is None else None
    watching = asyncio.create_task(_watch(client, execution.id, moved))
    too_many = False
    try:
        while True:
            settled = watching.done()
            if settled:
                watching.result()
            execution = await client.executions.get(execution.id, timeout=patience)
            runs = None if too_many else await _runs(client, execution.id, patience)
            too_many = runs is None
            view.show(execution, runs)
            if execution.settled or settled or (expires is not None and time.monotonic() >= expires):
                return execution
            await _moved_or_tick(moved, expires)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def _watch(client: Client, execution_id: str, moved: asyncio.Event) -> None:
    try:
        async for _ in client.executions.watch_one(execution_id, patience=PATIENCE):
            moved.set()
    finally:
        moved.set()


async def _moved_or_tick(moved: asyncio.Event, expires: float | None) -> None:
    longest = TICK if expires is None else max(0.0, min(TICK, expires - time.monotonic()))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(moved.wait(), longest)
    moved.clear()


async def _runs(client: Client, execution_id: str, patience: timedelta | None) -> Sequence[Run] | None:
    page = await client.executions.list_runs(execution_id, page_size=SHOWN_RUNS, timeout=patience).page()
    return None if page.next_page_token else page.items
