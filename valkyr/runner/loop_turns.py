"""Whether the event loop still turns: asked from the heartbeats' thread, which goes on while a module blocks it."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from contextlib import suppress
from datetime import timedelta

from valkyr.telemetry import get_logger

log = get_logger(__name__)

MAX_STANDSTILL = timedelta(seconds=30)
"""For so long a blocked loop is taken for a busy one. Then nobody vouches for its leases any more."""

_FRAMES = 8


class LoopTurns:
    """Times are the process's own, whatever clock the worker goes by. Before `watch` nothing stands still."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._asked_at: float | None = None
        self._told = False

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """To be called on the loop."""
        self._thread = threading.get_ident()
        self._loop = loop

    def stands_still(self) -> bool:
        """From one other thread, again and again: each time asks the loop to answer until the next."""
        if self._loop is None:
            return False
        now, asked_at = time.monotonic(), self._asked_at
        if asked_at is None:
            self._asked_at = now
            with suppress(RuntimeError):  # closed: then nothing of it is left to be stuck
                self._loop.call_soon_threadsafe(self._answer)
            return False
        if now - asked_at < MAX_STANDSTILL.total_seconds():
            return False
        if not self._told:
            self._told = True
            log.error("loop.stands_still", seconds=round(now - asked_at, 1), where=self._where())
        return True

    def _answer(self) -> None:
        self._asked_at = None
        if self._told:
            self._told = False
            log.warning("loop.turns_again")

    def _where(self) -> str:
        frame = sys._current_frames().get(self._thread)
        return "" if frame is None else "".join(traceback.format_stack(frame)[-_FRAMES:])
