"""When the SDK repeats a call: how long it waits, and how many repeats one server is spared in an outage.

The only layer of retries there is: the channel's own are off for what goes through here.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from valkyr.errors import Overloaded, Unavailable, ValkyrError
from valkyr.retry import backoff_ceiling

BACKOFF_BASE = timedelta(milliseconds=100)
BACKOFF_MAX = timedelta(seconds=2)


@dataclass(slots=True)
class RetryBudget:
    """Keeps a crowd of failing calls from multiplying itself: gRPC's retry throttling, per server.

    Each failure costs a token, each success gives back a tenth; below half of them nothing is repeated.
    """

    capacity: float = 100.0
    refund: float = 0.1
    tokens: float = 100.0

    def succeeded(self) -> None:
        self.tokens = min(self.capacity, self.tokens + self.refund)

    def failed(self) -> bool:
        """Whether the failed call may be repeated."""
        self.tokens = max(0.0, self.tokens - 1.0)
        return self.tokens > self.capacity / 2


def delay_before_repeat(
    error: ValkyrError, failures: int, *, draw: Callable[[], float] = random.random
) -> timedelta | None:
    """How long to wait after the n-th failure of a call that is safe to repeat; None if repeating cannot help.

    UNAVAILABLE is repeated after a jittered back-off, never sooner than its RetryInfo; an overload only where the
    server said when to come back. A wished delay grows by up to half, so that those turned away together do not return
    together.
    """
    wished = error.details.retry_after
    if isinstance(error, Unavailable):
        jittered = backoff_ceiling(failures, base=BACKOFF_BASE, maximum=BACKOFF_MAX) * (0.5 + draw() / 2)
        return jittered if wished is None else max(jittered, wished * (1 + draw() / 2))
    if isinstance(error, Overloaded) and wished is not None:
        return wished * (1 + draw() / 2)
    return None
