"""Probes and the dispatcher share one pool: room that a due probe waits for is left to it, or a long queue of runs of
other targets would keep it waiting for ever."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass(slots=True)
class ProbeTurn:
    """`waiting` is how many slots are left free for probes; `wake` makes them look."""

    waiting: int = 0
    wake: asyncio.Event = field(default_factory=asyncio.Event)
