"""Ports for servers that tests start: free now, and handed to no other test, whatever runs beside it."""

from __future__ import annotations

import itertools
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.local.home import FileLock
from services.local.ports import is_free

FIRST, LAST, STEP = 21000, 29000, 10
"""Below the range from which the system takes ports for outgoing connections."""
_bases = (FIRST + offset % (LAST - FIRST) for offset in itertools.count(os.getpid() % 1000 * 200, STEP))
_taken: list[FileLock] = []
"""Held until this process ends."""


def a_port_base() -> int:
    """The first of ten ports, all free; another answer at each call, and for each process."""
    return next(base for base in _bases if _take(base) and all(is_free(base + offset) for offset in range(STEP)))


@contextmanager
def a_silent_port() -> Iterator[int]:
    """Of this machine: within the block nobody listens there, and nobody else comes to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def _take(base: int) -> bool:
    folder = Path(tempfile.gettempdir()) / f"valkyr-tests-ports-{os.geteuid()}"
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / str(base))
    if not lock.try_acquire():
        return False
    _taken.append(lock)
    return True
