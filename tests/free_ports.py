"""Ports for servers that tests start: free now, and not handed to two tests that run side by side."""

from __future__ import annotations

import itertools
import os

from services.local.ports import is_free

FIRST, LAST, STEP = 21000, 29000, 10
"""Below the range from which the system takes ports for outgoing connections."""
_bases = (FIRST + offset % (LAST - FIRST) for offset in itertools.count(os.getpid() % 1000 * 200, STEP))


def a_port_base() -> int:
    """The first of ten ports, all free; another answer at each call, and for each process."""
    return next(base for base in _bases if all(is_free(base + offset) for offset in range(STEP)))
