"""One lease that the worker holds, and what is known about the attempt under it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache

from valkyr.module import Context
from valkyr.runner.leases import LeasedRun, RunResult

MAX_FENCE_MARGIN = timedelta(seconds=5)

MAX_WAIT = timedelta(seconds=30)

AttemptKey = tuple[str, int]


class Stop(StrEnum):
    """Why an attempt was told to stop."""

    CANCEL = "CANCEL"
    TIMEOUT = "TIMEOUT"
    LEASE_LOST = "LEASE_LOST"
    FENCED = "FENCED"
    DRAINED = "DRAINED"


LEASE_GONE = frozenset({Stop.LEASE_LOST, Stop.FENCED, Stop.DRAINED})
"""After these nobody reports: the lease is no longer ours, or is left to run out."""


def fence_margin(lease_duration: timedelta) -> timedelta:
    """How long before the end of its lease a module is stopped: a sixth of the lease, at most 5 s."""
    return min(MAX_FENCE_MARGIN, lease_duration / 6)


@lru_cache
def trust_in(lease_duration: timedelta) -> float:
    """For how many seconds a lease may be trusted from when it was asked for."""
    return (lease_duration - fence_margin(lease_duration)).total_seconds()


def longest_wait(lease_duration: timedelta) -> timedelta:
    """How long a run may wait for a thread: half its lease, at most 30 s. Then another runner may have it."""
    return min(MAX_WAIT, lease_duration / 2)


class Attempt:
    """Mutable, owned by the event loop; the heartbeat thread renews it or notes that it is lost, a thread of a
    module claims and starts it.

    Times are seconds of the worker's monotonic clock. `interrupt` is set where somebody waits to be told of a `stop`;
    `killed` once the module's process had to be killed for it; `lost` once the executor has said so, be it that the
    loop has not heard of it yet. `progress_in_child`: what a module has said that is in another process.
    """

    __slots__ = (
        "_ticket",
        "context",
        "interrupt",
        "key",
        "killed",
        "leased",
        "lost",
        "overdue_at",
        "progress_in_child",
        "result",
        "running",
        "sent_progress",
        "start_by",
        "started",
        "started_at",
        "stop",
        "task",
        "timeout_at",
        "trusted_until",
    )

    def __init__(self, leased: LeasedRun, *, granted_at: float) -> None:
        self.leased = leased
        self.key: AttemptKey = (leased.ref.run_id, leased.ref.epoch)
        self.trusted_until = granted_at + self.trust()
        self.context: Context | None = None
        self.task: asyncio.Task[None] | None = None
        self.start_by: float | None = None
        self.started: float | None = None
        self.started_at: datetime | None = None
        self.timeout_at: float | None = None
        self.overdue_at: float | None = None
        self.stop: Stop | None = None
        self.interrupt: Callable[[], None] | None = None
        self.killed = False
        self.lost = False
        self.result: RunResult | None = None
        self.running = False
        self.progress_in_child: bytes | None = None
        self.sent_progress: bytes | None = None
        self._ticket = threading.Lock()

    def trust(self) -> float:
        """For how many seconds an acknowledged heartbeat makes the lease ours, the margin taken off."""
        return trust_in(self.leased.lease_duration)

    @property
    def lease_end(self) -> float:
        """When the lease runs out by this process's clock."""
        return self.trusted_until + fence_margin(self.leased.lease_duration).total_seconds()

    def renew(self, sent_at: float) -> None:
        """A heartbeat sent at `sent_at` was acknowledged."""
        self.trusted_until = max(self.trusted_until, sent_at + self.trust())

    def lose(self) -> None:
        """The executor has said that it is somebody else's. A process is killed now, whatever the loop is doing."""
        self.lost = True
        if (interrupt := self.interrupt) is not None:
            interrupt()

    @property
    def said_progress(self) -> bytes | None:
        """What the module has said last, wherever it runs. From any thread."""
        return self.context.said_progress if self.context is not None else self.progress_in_child

    def unsent_progress(self) -> bytes | None:
        """That, unless it has arrived already."""
        said = self.said_progress
        return None if said is self.sent_progress else said

    def claim(self) -> bool:
        """True for the first caller only: whoever starts the attempt, or releases it unstarted."""
        return self._ticket.acquire(blocking=False)

    def start(self, now: float) -> None:
        self.running = True
        self.started = now
        self.started_at = datetime.now(UTC)
        if self.leased.timeout is not None:
            self.timeout_at = now + self.leased.timeout.total_seconds()

    def deadline(self) -> datetime | None:
        """When the attempt is stopped, by the wall clock: for the module to plan with."""
        leased = self.leased
        if leased.timeout is None or self.started_at is None:
            return leased.deadline
        by_timeout = self.started_at + leased.timeout
        return by_timeout if leased.deadline is None else min(by_timeout, leased.deadline)
