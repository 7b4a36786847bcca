"""The mirror of the breakers: which targets are held back, as far as this executor knows. Asked before every lease,
without any call; kept by one stream. While that is down, what was known stays until its time, then policies decide."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from services.executor.targets import HOLDING, BreakerNews, BreakerStatus, TargetKey
from valkyr.errors import Unavailable, ValkyrError
from valkyr.retry import backoff
from valkyr.telemetry import get_logger

FIRST_NEWS = timedelta(seconds=3)
"""A stream that says nothing at all within this is broken."""

SILENCE = timedelta(seconds=12)
"""So is one that says nothing for this long: something every 5 s is promised."""

LASTING = timedelta(seconds=1)
"""A stream that ends sooner than this is come back to with growing pauses."""

AWAY_LOOK = timedelta(seconds=5)
"""How often a target is looked at that a policy holds back while the breaker is away."""

BACKOFF_BASE = timedelta(milliseconds=100)
BACKOFF_MAXIMUM = timedelta(seconds=5)

Listener = Callable[[frozenset[TargetKey]], None]

log = get_logger(__name__)


class Watching(Protocol):
    """Where the news come from."""

    def watch(self) -> AsyncIterator[BreakerNews]: ...


@dataclass(slots=True)
class _Held:
    """A target that is not closed; `due_at` is when it is worth asking, by this process's monotonic clock."""

    status: BreakerStatus
    due_at: float


class Mirror:
    """Breakers by (namespace, target). `known` is set once there was a snapshot, or none was to be had."""

    def __init__(self, source: Watching, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._clock = clock
        self._statuses: dict[TargetKey, BreakerStatus] = {}
        self._held: dict[TargetKey, _Held] = {}
        self._snapshot: dict[TargetKey, BreakerStatus] | None = None
        self._denies_by_default = False
        self._away = False
        self._listeners: list[Listener] = []
        self.known = asyncio.Event()

    @property
    def away(self) -> bool:
        """Whether the breaker service cannot be reached."""
        return self._away

    def closed(self, namespace: str, target: str) -> bool:
        """Whether runs may go to the target without asking. Always, where there is no target."""
        if not self._away:
            return (namespace, target) not in self._held
        return not target or self._closed_while_away((namespace, target))

    def generation(self, namespace: str, target: str) -> int:
        """What outcomes of runs leased now are reported with; 0 for a target never heard of."""
        status = self._statuses.get((namespace, target))
        return status.generation if status else 0

    def episode(self, namespace: str, target: str) -> UUID | None:
        """The outage that holds the target back."""
        held = self._held.get((namespace, target))
        return held.status.episode_id if held else None

    def permits(self, namespace: str, target: str) -> int:
        """How many probes may be under way at once."""
        held = self._held.get((namespace, target))
        return held.status.permits if held else 1

    def wait(self, namespace: str, target: str) -> timedelta:
        """How long it is not worth asking; nothing for a target that is closed or due."""
        held = self._held.get((namespace, target))
        left = held.due_at - self._clock() if held else 0.0
        if left > 0:
            return timedelta(seconds=left)
        return AWAY_LOOK if self._away and not self.closed(namespace, target) else timedelta()

    def hold(self, key: TargetKey, wait: timedelta) -> None:
        """Asked, and refused for so long; any change of the breaker ends that."""
        held = self._held.get(key)
        if held is not None:
            held.due_at = self._clock() + wait.total_seconds()

    def look_again(self, key: TargetKey) -> None:
        """A probe has ended and was told of: there may be leave for the next."""
        held = self._held.get(key)
        if held is not None and held.status.wait <= timedelta():
            held.due_at = self._clock()
            self._tell([key])

    def subscribe(self, listener: Listener) -> None:
        """`listener` is told of the targets that closed or changed, and of all that are held back when the service
        went away or came back."""
        self._listeners.append(listener)

    def unsubscribe(self, listener: Listener) -> None:
        self._listeners.remove(listener)

    async def run(self) -> None:
        """Until cancelled. Nothing that goes wrong here takes the executor out of service."""
        failures = 0
        while True:
            began = self._clock()
            problem = await self._watch()
            if problem is not None:
                self._gone(problem)
            failures = 1 if self._clock() - began >= LASTING.total_seconds() else failures + 1
            pause = backoff(failures, base=BACKOFF_BASE, maximum=BACKOFF_MAXIMUM, jitter=random.random())
            await asyncio.sleep(pause.total_seconds())

    async def _watch(self) -> str | None:
        """One stream to its end; what was wrong, if it did not even bring a snapshot."""
        self._snapshot = None
        complete = False
        news = self._source.watch()
        try:
            while True:
                async with asyncio.timeout((SILENCE if complete else FIRST_NEWS).total_seconds()):
                    message = await anext(news)
                complete = self.hear(message) or complete
        except StopAsyncIteration:
            problem = "the stream ended"
        except TimeoutError:
            problem = "the stream is silent"
        except ValkyrError as error:
            problem = error.message
        except Exception as error:
            # What nobody foresaw must not end the mirror.
            log.error("breaker.watch_failed", error=str(error), exc_info=error)
            problem = str(error)
        finally:
            await _close(news)
        return None if complete else problem

    def hear(self, news: BreakerNews) -> bool:
        """Takes in one message; whether it completed a snapshot."""
        if news.denies_by_default is not None:
            self._denies_by_default = news.denies_by_default
        if not (news.snapshot or news.snapshot_complete):
            self._take(news.breakers)
            return False
        if self._snapshot is None:
            self._snapshot = {}
        self._snapshot.update((status.key, status) for status in news.breakers)
        if not news.snapshot_complete:
            return False
        snapshot, self._snapshot = self._snapshot, None
        # What is not in it is closed, and has never been anything else.
        forgotten = self._statuses.keys() - snapshot.keys()
        for key in forgotten:
            del self._statuses[key]
            self._held.pop(key, None)
        self._take(snapshot.values(), forgotten)
        self._back()
        return True

    def _take(self, statuses: Iterable[BreakerStatus], forgotten: Iterable[TargetKey] = ()) -> None:
        changed = set(forgotten)
        for status in statuses:
            before = self._statuses.get(status.key)
            self._statuses[status.key] = status
            if before is not None and _same(before, status):
                if status.key in self._held:
                    self._held[status.key].status = status
                continue
            changed.add(status.key)
            if status.state in HOLDING:
                self._held[status.key] = _Held(status, self._clock() + status.wait.total_seconds())
            else:
                self._held.pop(status.key, None)
        if changed:
            self._tell(changed)

    def _gone(self, problem: str) -> None:
        if not self._away:
            self._away = True
            log.warning("breaker.away", problem=problem, held=len(self._held))
            self._tell(self._held)
        self.known.set()

    def _back(self) -> None:
        if self._away:
            self._away = False
            log.info("breaker.back", held=len(self._held))
            self._tell(self._held)
        self.known.set()

    def _closed_while_away(self, key: TargetKey) -> bool:
        held = self._held.get(key)
        if held is not None:
            return self._clock() >= held.due_at and not held.status.denies
        status = self._statuses.get(key)
        return not (self._denies_by_default if status is None else status.denies)

    def _tell(self, keys: Iterable[TargetKey]) -> None:
        changed = frozenset(keys)
        for listener in tuple(self._listeners):
            listener(changed)


def _same(one: BreakerStatus, other: BreakerStatus) -> bool:
    """Whether nothing changed that matters here: counters do not."""
    return (one.state, one.generation, one.next_retry_at, one.episode_id) == (
        other.state,
        other.generation,
        other.next_retry_at,
        other.episode_id,
    )


async def _close(news: AsyncIterator[BreakerNews]) -> None:
    close = getattr(news, "aclose", None)
    if close is not None:
        try:
            await close()
        except Unavailable:
            return  # a broken stream is closed already
