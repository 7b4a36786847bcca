"""WatchWorkflows: every change as it is made, from now on or from where an earlier stream broke off; none is missed,
none is told twice."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from services.graph_store.events import Events
from services.graph_store.feed import Feed, Subscription
from services.graph_store.model_history import Batch, Change, Position, Snapshot, Watched, newest
from valkyr.errors import InvalidRequest

AT_ONCE = 500
MAX_BATCH_CHARS = 2 * 1024 * 1024
"""Of what workflows say of themselves, in one answer: as UTF-8 it fits into a message."""


class Watching:
    """The use case of WatchWorkflows: a stream for each caller."""

    def __init__(self, events: Events, feed: Feed) -> None:
        self._events = events
        self._feed = feed

    def batches(self, watched: Watched) -> AsyncGenerator[Batch, None]:
        """For as long as the caller listens. The first is empty where nothing is to be told from before.

        InvalidRequest for a position that this database has not come to; Unavailable when the service stops.
        """
        return _Stream(self._events, self._feed, watched).batches()


class _Stream:
    def __init__(self, events: Events, feed: Feed, watched: Watched) -> None:
        self._events = events
        self._feed = feed
        self._watched = watched

    async def batches(self) -> AsyncGenerator[Batch, None]:
        watched = self._watched
        async with self._feed.subscription(watched.namespace, watched.workflow_ids) as subscription:
            told = subscription.begin
            if watched.since is None:
                yield Batch((), Position(told))
            else:
                _check_position(watched.since, told)
                async for batch in self._missed(watched.since, told):
                    yield batch
            async for batch in self._told_live(subscription):
                yield batch

    async def _told_live(self, subscription: Subscription) -> AsyncIterator[Batch]:
        told = subscription.begin
        while True:
            news = await subscription.news()
            if news.overrun:
                async for batch in self._between(told, news.seen, (0, 0)):
                    yield batch
            else:
                changes = sorted(news.changes, key=lambda change: change.place)
                for batch in _batches_of(changes, told, news.seen, is_all=True):
                    yield batch
            told = news.seen

    async def _missed(self, since: Position, now: Snapshot) -> AsyncIterator[Batch]:
        """What was not told up to `since`; at least one batch, so that the caller knows that it is listened to."""
        seen = since.seen
        if since.towards is not None:
            async for batch in self._between(seen, since.towards, since.place):
                yield batch
            seen = since.towards
        async for batch in self._between(seen, now, (0, 0)):
            yield batch
        yield Batch((), Position(now))

    async def _between(self, seen: Snapshot, now: Snapshot, after: tuple[int, int]) -> AsyncIterator[Batch]:
        """What `now` has and `seen` had not, from after a place on."""
        watched = self._watched
        while True:
            changes = await self._events.changes_between(
                watched.namespace, watched.workflow_ids, seen=seen, now=now, after=after, limit=AT_ONCE
            )
            is_all = len(changes) < AT_ONCE
            for batch in _batches_of(changes, seen, now, is_all=is_all):
                yield batch
            if is_all:
                return
            after = changes[-1].place


def _batches_of(changes: Sequence[Change], seen: Snapshot, now: Snapshot, *, is_all: bool) -> list[Batch]:
    """`is_all`: what follows them in `now` is nothing. Of each workflow only the last in a batch is told."""
    batches = []
    begin, size = 0, 0
    for end, change in enumerate(changes, start=1):
        size += _size(change)
        if end < len(changes) and end - begin < AT_ONCE and size + _size(changes[end]) <= MAX_BATCH_CHARS:
            continue
        is_last = is_all and end == len(changes)
        position = Position(now) if is_last else Position(seen, now, change.place)
        batches.append(Batch(newest(changes[begin:end]), position))
        begin, size = end, 0
    return batches


def _size(change: Change) -> int:
    workflow = change.workflow
    labels = sum(len(key) + len(value) for key, value in workflow.labels.items())
    return 1_000 + len(workflow.description) + labels


def _check_position(position: Position, now: Snapshot) -> None:
    """A position is older than the look that begins the stream, unless it is of another database."""
    top = (position.towards or position.seen).top
    if top > now.top or position.seen.top > top:
        raise InvalidRequest.of_field(
            "resumeToken",
            "is of a time that this database has not come to: it was restored, or is another one; read the workflows"
            " again, and watch without a token",
        )
