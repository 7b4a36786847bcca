"""Forgets what no decision needs any more: a little at a time, oldest first, any number of replicas."""

from __future__ import annotations

from datetime import timedelta

from services.breaker import queries
from services.breaker.settings import RetentionSettings
from services.breaker.store import Store

LIMIT = 1_000
EXPIRED_PERMITS_KEPT = timedelta(minutes=1)


class Pruner:
    """`step` is its loop's: at once again while there is more to do."""

    def __init__(self, store: Store, settings: RetentionSettings, *, limit: int = LIMIT) -> None:
        self._store = store
        self._limit = limit
        self._kept = {
            queries.CLOSE_FORGOTTEN: settings.recovered,
            queries.PRUNE_PERMITS: EXPIRED_PERMITS_KEPT,
            queries.PRUNE_UNANSWERED_PERMITS: settings.recovered,
            queries.PRUNE_REPORTS: settings.reports,
            queries.PRUNE_QUIET: settings.quiet,
            queries.PRUNE_RECOVERED: settings.recovered,
            queries.PRUNE_TRANSITIONS: settings.history,
            queries.PRUNE_EPISODES: settings.history,
        }

    async def step(self) -> timedelta | None:
        more = False
        for statement, kept in self._kept.items():
            more |= await self._store.prune(statement, kept, self._limit) == self._limit
        return timedelta() if more else None
