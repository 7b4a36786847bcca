"""Rows of breakers, permits, reports, transitions and episodes, on asyncpg; driver errors translated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import uuid_utils

from services.breaker import queries
from services.breaker.model.calls import Key
from services.breaker.model.history import Change, EpisodeEnd, EpisodeStart, TransitionRow
from services.breaker.model.machine import Circuit, Holder, Permit
from services.breaker.model.states import State
from services.breaker.model.views import BreakerView
from services.chassis.database import Database, translated, with_retries
from services.chassis.example.query import Query, fetch

CHANNEL = "valkyr_breaker"
"""Of notifications that breakers changed which watchers see; without a payload."""
Clock = Callable[[], datetime]
T = TypeVar("T")

# A plan made while the tables were small must not outlive that: every statement is a walk along an index.
PINNED_PLANNER = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
}


def new_id() -> UUID:
    """A fresh UUIDv7."""
    return UUID(int=uuid_utils.uuid7().int)


@dataclass(frozen=True, slots=True)
class Changed:
    """Breakers that changed of late, and when they were looked for."""

    moment: datetime
    views: Sequence[BreakerView]


@dataclass(frozen=True, slots=True)
class Scope:
    """What holds of the breakers of a list beside its example. Empty fields do not restrict."""

    prefix: str = ""
    states: Sequence[State] = ()


class Store:
    """Reads, and transactions for changes. `clock` decides in place of the database's, for tests."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock

    async def read(self, keys: Collection[Key]) -> tuple[dict[Key, BreakerView], datetime]:
        """The breakers that have a row, without a lock, and the time."""
        async with self._connection() as connection:
            views = _by_key(await connection.fetch(queries.READ_BREAKERS, *_key_arrays(keys)))
            return views, self._moment() or await connection.fetchval(queries.NOW)

    async def count(self, namespaces: Collection[str], limit: int) -> dict[str, int]:
        """How many breakers each namespace has, counted up to `limit`."""
        async with self._connection() as connection:
            rows = await connection.fetch(queries.COUNT_BREAKERS, sorted(namespaces), limit)
        return {row["namespace"]: row["breakers"] for row in rows}

    async def find(self, key: Key) -> BreakerView | None:
        async with self._connection() as connection:
            row = await connection.fetchrow(queries.GET_BREAKER, key.namespace, key.target, self._moment())
        return None if row is None else _view(row)

    async def find_breakers(self, namespace: str, query: Query, scope: Scope) -> tuple[list[BreakerView], str]:
        """A page of what the query asks for within the scope, and the next one's token."""
        values = [namespace, self._moment(), scope.prefix, list(scope.states)]
        statement = query.statement(queries.LISTED_COLUMNS, queries.LISTED, queries.LISTED_SCOPE, values)
        async with self._database.listing() as connection:
            rows, next_page_token = query.page(await fetch(connection, statement))
        return [_view(row) for row in rows], next_page_token

    async def snapshot(self, namespace: str | None, *, after: Key | None, limit: int) -> list[BreakerView]:
        """Breakers that ever left CLOSED, of one namespace or of all, by key."""
        place = ("", "") if after is None else (after.namespace, after.target)
        async with self._connection() as connection:
            rows = await connection.fetch(queries.SNAPSHOT, namespace, *place, limit, self._moment())
        return [_view(row) for row in rows]

    async def changed_since(self, since: datetime | None, overlap: timedelta) -> Changed:
        """Breakers that ever left CLOSED and changed later than `overlap` before `since`, or before now if None."""
        async with self._connection() as connection:
            rows = await connection.fetch(queries.CHANGED_SINCE, since, overlap, self._moment())
        return Changed(rows[0]["moment"], [_view(row) for row in rows if row["id"] is not None])

    async def notify(self) -> None:
        """Wakes whoever listens to CHANNEL, this process included."""
        async with self._connection() as connection:
            await connection.execute(queries.NOTIFY, CHANNEL)

    async def prune(self, statement: str, kept: timedelta, limit: int) -> int:
        """Deletes up to `limit` rows older than `kept` by one of the PRUNE statements, or closes them by
        CLOSE_FORGOTTEN; how many there were."""
        async with self._connection() as connection:
            tag: str = await connection.execute(statement, kept, limit)
        return int(tag.rpartition(" ")[2])

    async def in_transaction(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Runs `work` in a transaction, again from its start after a deadlock or a serialisation failure."""

        async def once() -> T:
            async with self._database.acquire() as connection, connection.transaction():
                return await work(Transaction(connection, self._moment))

        with translated():
            return await with_retries(once)

    def _moment(self) -> datetime | None:
        return None if self._clock is None else self._clock()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        with translated():
            async with self._database.acquire() as connection:
                yield connection


class Transaction:
    """The statements of one change. `lock` comes before what depends on the rows, and `now` after it."""

    def __init__(self, connection: Any, moment: Callable[[], datetime | None]) -> None:
        self._connection = connection
        self._moment = moment

    async def now(self) -> datetime:
        """Not when the transaction began: the wait for a lock is over by now."""
        moment: datetime = self._moment() or await self._connection.fetchval(queries.NOW)
        return moment

    async def insert_breakers(self, keys: Collection[Key]) -> None:
        """Rows of targets that were never heard of; those that have one by now keep it. Before any `lock`."""
        if keys:
            await self._connection.execute(queries.INSERT_BREAKERS, [new_id() for _ in keys], *_key_arrays(keys))

    async def lock(self, keys: Collection[Key]) -> dict[Key, BreakerView]:
        """The rows there are, locked until the end."""
        return _by_key(await self._connection.fetch(queries.LOCK_BREAKERS, *_key_arrays(keys)))

    async def permits_of(self, views: Collection[BreakerView]) -> dict[UUID, list[Permit]]:
        """By the breaker's id, those that have expired too: their calls may be answered yet."""
        half_open = [view for view in views if view.circuit.state is State.HALF_OPEN]
        permits: dict[UUID, list[Permit]] = defaultdict(list)
        if half_open:
            for row in await self._connection.fetch(queries.READ_PERMITS, *_id_arrays(half_open)):
                holder = Holder(row["run_id"], row["epoch"])
                permit = Permit(row["id"], row["generation"], holder, row["expires_at"])
                permits[row["breaker_id"]].append(permit)
        return permits

    async def reported(self, reports: Sequence[tuple[str, UUID, str]]) -> dict[UUID, set[str]]:
        """Of (namespace, breaker's id, report's id) those that counted before, by the breaker's id."""
        known: dict[UUID, set[str]] = defaultdict(set)
        if reports:
            for row in await self._connection.fetch(queries.KNOWN_REPORTS, *zip(*reports, strict=True)):
                known[row["breaker_id"]].add(row["report_id"])
        return known

    async def write(self, changes: Sequence[Change], now: datetime) -> None:
        """What became of locked breakers: one statement per table, none where there is nothing to write."""
        await self._each(queries.UPDATE_BREAKERS, [_breaker_row(change) for change in changes if change.is_touched])
        await self._each(
            queries.DELETE_PERMITS, [(c.key.namespace, c.id, permit) for c in changes for permit in c.ended]
        )
        await self._each(queries.INSERT_PERMITS, [_permit_row(c, permit, now) for c in changes for permit in c.granted])
        await self._each(
            queries.INSERT_REPORTS, [(c.key.namespace, c.id, report) for c in changes for report in c.remembered]
        )
        await self._each(queries.INSERT_TRANSITIONS, [_transition_row(row) for c in changes for row in c.transitions])
        await self._each(queries.INSERT_EPISODES, [_episode_row(e) for c in changes for e in c.episodes_started])
        await self._each(queries.END_EPISODES, [_episode_end(e) for c in changes for e in c.episodes_ended])
        if any(change.is_visible for change in changes):
            await self._connection.execute(queries.NOTIFY, CHANNEL)

    async def _each(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            await self._connection.execute(statement, *zip(*rows, strict=True))


def _key_arrays(keys: Collection[Key]) -> tuple[list[str], list[str]]:
    return [key.namespace for key in keys], [key.target for key in keys]


def _id_arrays(views: Collection[BreakerView]) -> tuple[list[str], list[UUID | None]]:
    return [view.key.namespace for view in views], [view.id for view in views]


def _by_key(rows: Sequence[Any]) -> dict[Key, BreakerView]:
    views = [_view(row) for row in rows]
    return {view.key: view for view in views}


def _view(row: Any) -> BreakerView:
    return BreakerView(
        key=Key(row["namespace"], row["target"]),
        circuit=Circuit(
            state=State(row["state"]),
            generation=row["generation"],
            failure_count=row["failure_count"],
            success_count=row["success_count"],
            last_failure_at=row["last_failure_at"],
            opened_at=row["opened_at"],
            next_retry_at=row["next_retry_at"],
            window_start_at=row["window_start_at"],
            episode_id=row["episode_id"],
        ),
        id=row["id"],
        revision=row["revision"],
        permits_in_flight=row["permits"],
        updated_at=row["last_modified_date"],
    )


def _breaker_row(change: Change) -> Sequence[Any]:
    circuit = change.circuit
    return (
        change.key.namespace,
        change.key.target,
        circuit.state,
        circuit.generation,
        circuit.failure_count,
        circuit.success_count,
        circuit.last_failure_at,
        circuit.opened_at,
        circuit.next_retry_at,
        circuit.window_start_at,
        circuit.episode_id,
    )


def _permit_row(change: Change, permit: Permit, now: datetime) -> Sequence[Any]:
    holder = permit.holder
    place = (change.key.namespace, permit.id, change.id, permit.generation)
    return (*place, holder.run_id, holder.epoch, now, permit.expires_at)


def _transition_row(row: TransitionRow) -> Sequence[Any]:
    went = row.transition
    return (
        row.key.namespace,
        new_id(),
        row.breaker_id,
        row.key.target,
        went.before,
        went.after,
        went.generation,
        went.cause,
        row.episode_id,
        row.report_id,
        row.run_id,
        row.trace_id,
        row.principal,
        row.at,
    )


def _episode_row(start: EpisodeStart) -> Sequence[Any]:
    key = start.key
    return (key.namespace, start.id, start.breaker_id, key.target, start.opened_at, start.generation, start.trace_id)


def _episode_end(end: EpisodeEnd) -> Sequence[Any]:
    return (end.key.namespace, end.key.target, end.id, end.recovered_at, end.generation)
