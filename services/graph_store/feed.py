"""What changes, looked at once however many watch: at once after a change here or a hint of another replica, else every
second. Transaction ids tell what a look may not have seen, as no clock can (docs/decisions)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass
from datetime import timedelta

from services.chassis.loops import run_every
from services.graph_store.events import Events
from services.graph_store.model_history import Change, Snapshot
from valkyr.errors import Internal, Unavailable, ValkyrError
from valkyr.telemetry import get_logger

LOOK_INTERVAL = timedelta(seconds=1)
"""How soon a change made by another replica is seen where its hint is lost."""
LEAST_PAUSE = timedelta(milliseconds=20)
"""Between two looks, however much is heard of."""
PATIENCE = timedelta(seconds=3)
"""How long looks may fail before those who watch are told."""
RELISTEN = timedelta(seconds=5)
LEAVING = timedelta(seconds=1)
"""In which streams end when the service does."""
AT_ONCE = 1_000
"""Changes that one look takes, and that a stream may leave untaken; beyond that the stream reads them itself."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class News:
    """What a stream has not been told yet, up to a snapshot; where `overrun`, it is to be read instead."""

    changes: Sequence[Change]
    seen: Snapshot
    overrun: bool = False


class Subscription:
    """One stream's share of the changes. `begin` is the snapshot from which on it has all of them."""

    def __init__(self, namespace: str, workflow_ids: frozenset[str]) -> None:
        self.namespace = namespace
        self.begin = Snapshot(0)
        self._only = workflow_ids
        self._changes: list[Change] = []
        self._seen = self.begin
        self._overrun = False
        self._error: ValkyrError | None = None
        self._wake = asyncio.Event()

    def start(self, seen: Snapshot) -> None:
        """For the feed: every change that `seen` does not have will be offered."""
        self.begin = self._seen = seen

    def offer(self, changes: Sequence[Change], seen: Snapshot, *, overrun: bool) -> None:
        """For the feed: all that `seen` has beyond the offer before; where `overrun`, more than that."""
        self._seen = seen
        wanted = [change for change in changes if self._wants(change)]
        self._changes += wanted
        if overrun or len(self._changes) > AT_ONCE:
            self._overrun = True
            self._changes.clear()
        if wanted or overrun:
            self._wake.set()

    def fail(self, error: ValkyrError) -> None:
        """For the feed: nothing more will be offered."""
        self._error = error
        self._wake.set()

    async def news(self) -> News:
        """Waits for changes and takes them. Unavailable and the like where there will be none."""
        await self._wake.wait()
        self._wake.clear()
        if self._error is not None:
            raise self._error
        taken = News(self._changes, self._seen, self._overrun)
        self._changes, self._overrun = [], False
        return taken

    def _wants(self, change: Change) -> bool:
        workflow = change.workflow
        return workflow.namespace == self.namespace and (not self._only or workflow.id in self._only)


class Feed:
    """One for the process. It looks, and listens, while somebody watches."""

    def __init__(self, events: Events, listen: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        self._events = events
        self._listen = listen
        self._seen: Snapshot | None = None
        self._subscriptions: set[Subscription] = set()
        self._looking = asyncio.Lock()
        self._wake = asyncio.Event()
        self._failing_since: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._left = asyncio.Event()

    @property
    def watched(self) -> int:
        """How many streams there are."""
        return len(self._subscriptions)

    def look_now(self) -> None:
        """Something has changed, here or at another replica."""
        self._wake.set()

    @asynccontextmanager
    async def subscription(self, namespace: str, workflow_ids: Sequence[str]) -> AsyncIterator[Subscription]:
        """What changes from now on, in a namespace or of some of its workflows. Unavailable while the service stops,
        and where the database cannot be asked."""
        subscription = Subscription(namespace, frozenset(workflow_ids))
        async with self._looking:
            self._require_open()
            subscription.start(await self._look())
            self._require_open()
            self._subscriptions.add(subscription)
            self._start()
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            if not self._subscriptions:
                self._stop()
                self._left.set()

    async def close(self) -> None:
        """Ends every stream, so that its reader turns to another replica before this one is gone."""
        self._closed = True
        self._fail(_stopping())
        self._stop()
        if self._subscriptions:
            self._left.clear()
            await _wait_for(self._left, LEAVING)

    def _require_open(self) -> None:
        if self._closed:
            raise _stopping()

    def _start(self) -> None:
        if not self._tasks:
            loops = {"workflow feed": self._run(), "workflow hints": self._hear()}
            self._tasks = {asyncio.create_task(run, name=name, context=Context()) for name, run in loops.items()}

    def _stop(self) -> None:
        """Nobody watches: the next look begins anew."""
        for task in self._tasks:
            task.cancel()
        self._tasks = set()
        self._seen = None

    async def _hear(self) -> None:
        await run_every(RELISTEN, lambda: self._listen(self.look_now), name="listen for changes of workflows")

    async def _run(self) -> None:
        while True:
            await _wait_for(self._wake, LOOK_INTERVAL)
            self._wake.clear()
            try:
                async with self._looking:
                    await self._look()
                self._failing_since = None
            except ValkyrError as error:
                self._after_failure(error)
            except Exception as error:
                log.error("feed.failed", error=str(error), exc_info=error)
                self._fail(Internal("what changed cannot be read; see the log"))
            await asyncio.sleep(LEAST_PAUSE.total_seconds())

    async def _look(self) -> Snapshot:
        """Offers everybody what the look before could not see; what this one saw. Only ever one at a time."""
        namespaces = sorted({subscription.namespace for subscription in self._subscriptions})
        since = self._seen if namespaces else None
        changes, seen = await self._events.changes_since(since, namespaces, limit=AT_ONCE + 1)
        self._seen = seen
        overrun = len(changes) > AT_ONCE
        for subscription in tuple(self._subscriptions):
            subscription.offer(changes, seen, overrun=overrun)
        return seen

    def _after_failure(self, error: ValkyrError) -> None:
        """A moment of overload is no reason to break every stream: nothing is lost, the next look finds it."""
        now = asyncio.get_running_loop().time()
        if self._failing_since is None:
            log.warning("feed.failed", error=str(error), reason=error.reason)
            self._failing_since = now
        elif now - self._failing_since >= PATIENCE.total_seconds():
            self._fail(error)

    def _fail(self, error: ValkyrError) -> None:
        """Everybody who watches is told, and comes again with where it was."""
        self._failing_since = None
        for subscription in tuple(self._subscriptions):
            subscription.fail(error)


def _stopping() -> Unavailable:
    return Unavailable("the service is stopping", retry_after=timedelta(milliseconds=100))


async def _wait_for(event: asyncio.Event, timeout: timedelta) -> None:
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            await event.wait()
    except TimeoutError:
        return
