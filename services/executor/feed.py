"""What changed, read once however many watch: changes made in this process at once, those of others at the next look.

A look asks for what transactions wrote that the look before could not see: their ids order commits as no clock can.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import Context
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from services.executor.model import ExecutionView, Heard
from services.executor.signals import Signals
from services.executor.store import reads as store
from services.executor.store.reads import Snapshot
from services.executor.store.session import Session
from valkyr.errors import Internal, ValkyrError
from valkyr.flow.states import SETTLED_EXECUTION_STATES
from valkyr.telemetry import get_logger

log = get_logger(__name__)
Item = TypeVar("Item")

LOOK_INTERVAL = timedelta(seconds=1)
"""How soon a change made by another replica is seen; changes made here are seen at once."""

PATIENCE = timedelta(seconds=3)
"""How long looks may fail before those who watch are told."""

PAUSE = 0.02
"""Seconds that the news of an execution which goes on may wait, for its end or for others'; an end is told at once."""

AT_ONCE = 1_000
REMEMBERED = 50_000
GOING_ON = 10_000
UNTAKEN = 20_000


class Subscription:
    """What one stream has not taken yet: of each execution the newest state."""

    def __init__(self, namespace: str, ids: frozenset[UUID], workflow_id: UUID | None) -> None:
        self.ids = ids
        self.overrun = False
        self._namespace = namespace
        self._workflow_id = workflow_id
        self._views: dict[UUID, ExecutionView] = {}
        self._wake = asyncio.Event()
        self._soon = False
        self._error: ValkyrError | None = None

    async def changed(self) -> list[ExecutionView]:
        """Waits for changes and takes them. `overrun` says that there were too many to keep: read them instead.

        Unavailable and the like where the database cannot be asked.
        """
        await self._wake.wait()
        return self._taken()

    async def changed_within(self, timeout: timedelta) -> list[ExecutionView]:
        """As `changed`, or nothing after `timeout`."""
        await wait_for(self._wake, timeout)
        return self._taken()

    def check(self) -> None:
        """Raises what went wrong."""
        if self._error is not None:
            raise self._error

    def _taken(self) -> list[ExecutionView]:
        self._wake.clear()
        self._soon = False
        self.check()
        views, self._views = self._views, {}
        return list(views.values())

    def offer(self, view: ExecutionView) -> None:
        """For the feed: an execution as it is now."""
        if view.namespace != self._namespace or self._workflow_id not in (None, view.workflow_id):
            return
        known = self._views.get(view.id)
        if known is not None and known.revision > view.revision:
            return
        self._views[view.id] = view
        if len(self._views) > max(UNTAKEN, len(self.ids)):
            self._views.clear()
            self.overrun = True
        if view.state in SETTLED_EXECUTION_STATES or self.overrun:
            self._wake.set()
        elif not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_later(PAUSE, self._wake.set)

    def fail(self, error: ValkyrError) -> None:
        """For the feed: the database cannot be asked."""
        self._error = error
        self._wake.set()


class Feed:
    """One for the process; it reads while somebody watches or waits."""

    def __init__(self, session: Session, signals: Signals) -> None:
        self._session = session
        self._seen: Snapshot | None = None
        self._failing_since: float | None = None
        self._named: dict[UUID, set[Subscription]] = {}
        self._general: set[Subscription] = set()
        self._waiting: dict[UUID, set[asyncio.Event]] = {}
        self._unread: dict[UUID, None] = {}
        self._told: OrderedDict[UUID, int] = OrderedDict()
        # The namespaces of those that began here and whose end nobody has told here.
        self._going_on: OrderedDict[UUID, str] = OrderedDict()
        self._wake = asyncio.Event()
        self._look_at = 0.0
        self._looked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        signals.subscribe(self._hear)

    @property
    def mark(self) -> int:
        """What committed before it has been told: where a stream that breaks off now is to be resumed."""
        return self._seen.oldest_open if self._seen is not None else 0

    @property
    def watched(self) -> int:
        """How many streams there are."""
        return len(self._subscriptions())

    @asynccontextmanager
    async def subscription(
        self, namespace: str, *, ids: Sequence[UUID] = (), workflow_id: UUID | None = None
    ) -> AsyncIterator[Subscription]:
        """What changes from now on: of the executions named, or of a whole namespace or workflow."""
        subscription = Subscription(namespace, frozenset(ids), workflow_id)
        for execution_id in subscription.ids:
            self._named.setdefault(execution_id, set()).add(subscription)
        if not ids:
            self._general.add(subscription)
        try:
            await self._started()
            subscription.check()
            yield subscription
        finally:
            self._general.discard(subscription)
            for execution_id in subscription.ids:
                _discard(self._named, execution_id, subscription)

    @contextmanager
    def settling(self, execution_id: UUID) -> Iterator[asyncio.Event]:
        """An event that is set when it is worth asking whether the execution is settled."""
        event = asyncio.Event()
        self._waiting.setdefault(execution_id, set()).add(event)
        self._start(look_in=LOOK_INTERVAL)
        try:
            yield event
        finally:
            _discard(self._waiting, execution_id, event)

    def goes_on(self, namespace: str, execution_id: UUID) -> bool:
        """Whether it began in this process, and as far as is known here has not ended: others may have ended it."""
        return self._going_on.get(execution_id) == namespace

    def look_now(self) -> None:
        """Another replica says that something has changed."""
        self._look_at = 0.0
        self._wake.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _hear(self, changes: Sequence[Heard]) -> None:
        for change in changes:
            if change.settled:
                self._going_on.pop(change.id, None)
                for event in self._waiting.get(change.id, ()):
                    event.set()
            elif change.view is not None:
                self._going_on[change.id] = change.view.namespace
            if not self._general and change.id not in self._named:
                continue
            self._told[change.id] = change.revision
            if change.view is None:
                self._unread[change.id] = None
            else:
                self._offer(change.view)
        while len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        while len(self._going_on) > GOING_ON:
            self._going_on.popitem(last=False)
        if self._unread:
            self._wake.set()

    def _offer(self, view: ExecutionView) -> None:
        for subscription in (*self._named.get(view.id, ()), *self._general):
            subscription.offer(view)

    def _start(self, *, look_in: timedelta = timedelta()) -> None:
        """Who watches is told from a look on, at once; who waits asks for itself, and has time."""
        look_at = asyncio.get_running_loop().time() + look_in.total_seconds()
        if self._task is None:
            self._forget()
            self._look_at = look_at
            self._task = asyncio.create_task(self._run(), name="executor-feed", context=Context())
        elif self._seen is None and look_at < self._look_at:
            self._look_at = look_at
            self._wake.set()

    async def _started(self) -> None:
        """Once a look was taken, nothing that commits afterwards is missed."""
        self._start()
        await self._looked.wait()

    def _forget(self) -> None:
        """Nobody has watched for a while, or could: the next look begins anew."""
        self._seen = None
        self._looked.clear()

    async def _run(self) -> None:
        try:
            while self._named or self._general or self._waiting:
                left = self._look_at - asyncio.get_running_loop().time()
                await wait_for(self._wake, timedelta(seconds=max(0.0, left)))
                self._wake.clear()
                try:
                    await self._read()
                    self._failing_since = None
                except ValkyrError as error:
                    self._after_failure(error)
                except Exception as error:
                    log.error("feed.failed", error=str(error), exc_info=error)
                    self._fail(Internal("what changed cannot be read; see the log"))
        finally:
            self._task = None
            self._looked.set()

    async def _read(self) -> None:
        now = asyncio.get_running_loop().time()
        seen = None
        if now >= self._look_at:
            self._look_at = now + LOOK_INTERVAL.total_seconds()  # a hint that comes meanwhile makes it sooner again
            seen = await self._look()
        while self._unread:
            await self._read_some(list(self._unread)[:AT_ONCE])
        if seen is not None:
            first, self._seen = self._seen is None, seen
            self._looked.set()
            if first:
                self._tell_waiting()  # what others did between a waiter's question and this look is in no later one

    async def _read_some(self, ids: Sequence[UUID]) -> None:
        for execution_id in ids:
            del self._unread[execution_id]
        try:
            async with self._session.reading() as connection:
                found = await store.read_executions(connection, ids)
        except BaseException:
            self._unread |= dict.fromkeys(ids)
            raise
        for view in found:
            self._offer(view)

    async def _look(self) -> Snapshot:
        """What others have changed; what is to be remembered as seen once that was told."""
        async with self._session.reading() as connection:
            heard, seen = await store.changes_since(connection, self._seen)
        self._hear([change for change in heard if self._told.get(change.id, -1) < change.revision])
        return seen

    def _after_failure(self, error: ValkyrError) -> None:
        """A moment of overload is no reason to break every stream: nothing is lost, the next look finds it."""
        now = asyncio.get_running_loop().time()
        if self._failing_since is None:
            log.warning("feed.failed", error=str(error), reason=error.reason)
            self._failing_since = now
        if self._seen is None or now - self._failing_since >= PATIENCE.total_seconds():
            self._failing_since = None
            self._fail(error)
        else:
            self._look_at = now + LOOK_INTERVAL.total_seconds()
        self._tell_waiting()

    def _tell_waiting(self) -> None:
        """Whoever waits asks, and is told there."""
        for events in self._waiting.values():
            for event in events:
                event.set()

    def _subscriptions(self) -> set[Subscription]:
        return {*self._general, *(one for many in self._named.values() for one in many)}

    def _fail(self, error: ValkyrError) -> None:
        """Everybody who watches is told, and comes again with where it was."""
        self._unread.clear()
        self._looked.set()
        self._forget()
        for subscription in self._subscriptions():
            subscription.fail(error)
        self._tell_waiting()


async def wait_for(event: asyncio.Event, timeout: timedelta) -> None:
    """Until the event, or the timeout."""
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            await event.wait()
    except TimeoutError:
        return


def _discard(registry: dict[UUID, set[Item]], key: UUID, item: Item) -> None:
    found = registry[key]
    found.discard(item)
    if not found:
        del registry[key]
