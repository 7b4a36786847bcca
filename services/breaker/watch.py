"""WatchBreakers: a snapshot, then changes. One look at the database serves every watcher of this process: at once when
a change was heard of, here or from another replica, else twice a second. Newest state only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.breaker.model.calls import Key
from services.breaker.model.views import BreakerView
from services.breaker.store import Store
from valkyr.errors import Unavailable

LOOK_INTERVAL = timedelta(milliseconds=500)
LOOK_INTERVAL_HEARING = timedelta(seconds=5)
"""While notifications arrive, which is proved more often than that: in case that one did not all the same."""
LEAST_PAUSE = timedelta(milliseconds=50)
"""Between two looks, however many changes are heard of."""
PAUSE_PER_BREAKER = timedelta(microseconds=100)
"""More than that after a look that found many: the next one reads most of them again. Never over LOOK_INTERVAL."""
OVERLAP = timedelta(seconds=10)
"""A row is stamped when it is updated; its transaction may commit later than others that began after it, by less."""
SILENCE = timedelta(seconds=4)
"""A response at least that often: callers count on one every five seconds."""
BLIND_AFTER = timedelta(seconds=10)
"""A stream whose source has said nothing for so long ends, so that nobody takes silence for peace."""
PAGE = 1_000
REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class Batch:
    """One response. `is_last`: the snapshot is complete with it."""

    views: Sequence[BreakerView]
    in_snapshot: bool = False
    is_last: bool = False


class Changes:
    """What changes, for every watcher of this process. `step` is its loop's; `wake` calls it at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.wake = asyncio.Event()
        self._looking = asyncio.Lock()
        self._watches: set[Watch] = set()
        self._since: datetime | None = None
        self._looked_at = 0.0
        self._pause = LEAST_PAUSE
        self._revisions: dict[Key, int] = {}
        self._is_news = False
        self._hearing = False
        self._closing = asyncio.Event()

    @property
    def is_watched(self) -> bool:
        return bool(self._watches)

    def changed(self) -> None:
        """Committed, in this process or in another."""
        self._is_news = True
        self.wake.set()

    def hearing(self, hearing: bool) -> None:
        """Whether changes of other processes are heard of from now on; those since the last look are not."""
        self._hearing = hearing
        self.changed()

    async def step(self) -> timedelta | None:
        """Looks, if anybody watches and it is time to; how long it is until the next look."""
        if not self._watches:
            self._since = None
            return None
        ago = timedelta(seconds=asyncio.get_running_loop().time() - self._looked_at)
        if self._hearing and not self._is_news and ago < LOOK_INTERVAL_HEARING:
            return LOOK_INTERVAL_HEARING - ago
        await asyncio.sleep(max(timedelta(), self._pause - ago).total_seconds())
        await self.look()
        return LOOK_INTERVAL_HEARING if self._hearing else LOOK_INTERVAL

    async def look(self) -> None:
        """Tells every watcher what changed since the last look."""
        async with self._looking:
            self._is_news = False
            try:
                changed = await self._store.changed_since(self._since, OVERLAP)
            except BaseException:
                self._is_news = True
                raise
            known, self._revisions = self._revisions, {view.key: view.revision for view in changed.views}
            self._since = changed.moment
            self._looked_at = asyncio.get_running_loop().time()
            self._pause = min(max(LEAST_PAUSE, PAUSE_PER_BREAKER * len(changed.views)), LOOK_INTERVAL)
        news = [view for view in changed.views if known.get(view.key) != view.revision]
        for watch in tuple(self._watches):
            watch.hear(news)

    async def subscribe(self, watch: Watch) -> None:
        """From now on it hears of every change. Unavailable while the service stops."""
        if self._closing.is_set():
            raise _stopping()
        self._watches.add(watch)
        self.wake.set()  # the loop may have gone to rest: nobody watched
        if self._since is None:
            await self.look()

    def unsubscribe(self, watch: Watch) -> None:
        self._watches.discard(watch)

    async def close(self) -> None:
        """Ends every stream, so that its reader turns to another replica before this one is gone."""
        self._closing.set()
        for watch in tuple(self._watches):
            watch.stir()

    async def watch_nothing(self, _namespace: str | None) -> AsyncGenerator[Batch, None]:
        """A stream for as long as the setting `breaker.enabled` is false: no breaker has left CLOSED."""
        yield Batch((), in_snapshot=True, is_last=True)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(SILENCE.total_seconds()):
                    await self._closing.wait()
                raise _stopping()
            yield Batch(())

    def require_sight(self) -> None:
        """Unavailable if nobody has been able to look for long, and when the service stops."""
        if self._closing.is_set():
            raise _stopping()
        if asyncio.get_running_loop().time() - self._looked_at > BLIND_AFTER.total_seconds():
            raise Unavailable("the database does not say what changed", retry_after=timedelta(seconds=1))


class Watch:
    """One stream, of a namespace or of all. Holds at most one state of each breaker, however slow its reader is."""

    def __init__(self, store: Store, changes: Changes, namespace: str | None) -> None:
        self._store = store
        self._changes = changes
        self._namespace = namespace
        self._pending: dict[Key, BreakerView] = {}
        self._overrun = False
        self._wake = asyncio.Event()

    def hear(self, views: Sequence[BreakerView]) -> None:
        """Called with what changed."""
        for view in views:
            if self._namespace in (None, view.key.namespace):
                self._pending.pop(view.key, None)
                self._pending[view.key] = view
        if len(self._pending) > REMEMBERED:
            self._pending.clear()
            self._overrun = True
        if self._pending or self._overrun:
            self.stir()

    def stir(self) -> None:
        """Has it look at what there is."""
        self._wake.set()

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """For as long as the caller listens. Unavailable when the database is away for long."""
        try:
            await self._changes.subscribe(self)
            async for batch in self._snapshot():
                yield batch
            while True:
                await self._heard_something()
                if self._overrun:
                    self._overrun = False
                    async for batch in self._snapshot():
                        yield Batch(batch.views)
                    continue
                yield Batch(self._take())
        finally:
            self._changes.unsubscribe(self)

    async def _snapshot(self) -> AsyncGenerator[Batch, None]:
        after: Key | None = None
        while True:
            page = await self._store.snapshot(self._namespace, after=after, limit=PAGE)
            self._forget_older(page)
            is_last = len(page) < PAGE
            yield Batch(page, in_snapshot=True, is_last=is_last)
            if is_last:
                return
            after = page[-1].key

    def _forget_older(self, page: Sequence[BreakerView]) -> None:
        for view in page:
            heard = self._pending.get(view.key)
            if heard is not None and heard.revision <= view.revision:
                del self._pending[view.key]

    async def _heard_something(self) -> None:
        if not self._pending and not self._overrun:
            with suppress(TimeoutError):
                async with asyncio.timeout(SILENCE.total_seconds()):
                    await self._wake.wait()
        self._wake.clear()
        if not self._pending and not self._overrun:
            self._changes.require_sight()

    def _take(self) -> list[BreakerView]:
        keys = list(self._pending)[:PAGE]
        return [self._pending.pop(key) for key in keys]


def _stopping() -> Unavailable:
    return Unavailable("this breaker is stopping; another one goes on", retry_after=timedelta(milliseconds=200))
