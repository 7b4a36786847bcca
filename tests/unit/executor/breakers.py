"""Breakers as their service would tell of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

from services.executor.breakers.mirror import Mirror
from services.executor.model import new_id
from services.executor.targets import BreakerNews, BreakerState, BreakerStatus

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HALF_A_MINUTE = timedelta(seconds=30)


class Clock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Silent:
    """A service that the test speaks for, by `Mirror.hear`."""

    async def watch(self) -> AsyncIterator[BreakerNews]:
        return
        yield


def a_status(target: str = "t", state: str = "OPEN", **changes: Any) -> BreakerStatus:
    """A breaker of the default namespace, open for half a minute."""
    told: dict[str, Any] = {
        "namespace": "default",
        "target": target,
        "state": BreakerState(state),
        "generation": 1,
        "wait": HALF_A_MINUTE if state in ("OPEN", "FORCED_OPEN") else timedelta(),
        "next_retry_at": NOON if state == "OPEN" else None,
        "permits": 2,
        "denies": False,
        "episode_id": None,
    }
    return BreakerStatus(**{**told, **changes})


def snapshot(*statuses: BreakerStatus, complete: bool = True, denies: bool | None = None) -> BreakerNews:
    return BreakerNews(statuses, snapshot=True, snapshot_complete=complete, denies_by_default=denies)


def change(*statuses: BreakerStatus) -> BreakerNews:
    return BreakerNews(statuses, snapshot=False, snapshot_complete=False, denies_by_default=None)


def a_mirror(*statuses: BreakerStatus, denies: bool = False) -> tuple[Mirror, Clock]:
    """A mirror that has heard a snapshot."""
    clock = Clock()
    mirror = Mirror(Silent(), clock)
    mirror.hear(snapshot(*statuses, denies=denies))
    return mirror, clock


AN_EPISODE = new_id()
