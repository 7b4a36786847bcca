"""The end of a process whose modules do not end: what has no lease any more must not go on."""

from __future__ import annotations

import os
import threading
from datetime import timedelta

PATIENCE = timedelta(seconds=2)
"""For what ends with a process that has done all else."""


def end_soon(code: int, patience: timedelta = PATIENCE) -> None:
    """The process ends by itself, or with this exit code when the patience is over: an `async def` that ignores its
    cancel or blocks the loop, or a thread that a module has left behind, would keep it for ever."""
    timer = threading.Timer(patience.total_seconds(), os._exit, (code,))
    timer.daemon = True
    timer.start()
