"""Runners that call over the network: who they are, what becomes of the leases of those that are gone, and how they
leave. Whoever registers last under an id has it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from services.executor.progress import Progress
from services.executor.runner_rows import RunnerRow, RunnerSaid, holder_of, replaced_by
from services.executor.store import runners as store
from services.executor.store.session import Session
from valkyr.errors import RunnerNotFound, RunnerNotRegistered, RunnerReplaced
from valkyr.telemetry import get_logger

BATCH = 500
KEPT = timedelta(days=1)
"""How long a runner is listed that does not call. Every process may have an id of its own, and they add up."""

LEAST_SILENCE = timedelta(seconds=5)
HEARTBEATS_MISSED = 3
"""After so many, and so long, a runner is given nothing until it is heard of again."""

OWN_POOLS = "*"
"""The namespace under which executors register their own pools: these serve all."""

log = get_logger(__name__)


class Runners:
    """The use cases of RegisterRunner, DrainRunner and ListRunners, and what every other call asks first."""

    def __init__(self, session: Session, progress: Progress, *, lease_duration: timedelta) -> None:
        self._session = session
        self._progress = progress
        self._lease_duration = lease_duration

    async def check_takes_id(self, said: RunnerSaid) -> None:
        """RunnerReplaced for a process that `register` refuses: what it says of its modules is not to count either."""
        async with self._session.reading() as connection:
            _incarnations_replaced(await store.read_runner(connection, said.namespace, said.runner_id), said)

    async def register(self, said: RunnerSaid) -> tuple[RunnerRow, int]:
        """The runner as it is known now, and how many leases of older incarnations have ended. RunnerReplaced."""

        async def work(tx: Any) -> RunnerRow:
            row = await store.lock_runner(tx, said.namespace, said.runner_id)
            await store.put_runner(tx, said, _incarnations_replaced(row, said))
            return _there(await store.read_runner(tx, said.namespace, said.runner_id))

        row = await self._session.repeat(work)
        return row, await self._end_older(row)

    async def seen(self, namespace: str, runner_id: str, incarnation: UUID) -> RunnerRow:
        """Notes that it called. RunnerNotRegistered, RunnerReplaced."""
        async with self._session.reading(reserved=True) as connection:
            seen = await store.see_runner(connection, namespace, runner_id)
        return check(seen, runner_id, incarnation)

    async def drain(self, namespace: str, runner_id: str, incarnation: UUID | None) -> RunnerRow:
        """From now on it is handed nothing. RunnerNotFound; RunnerReplaced for one that drains itself."""

        async def work(tx: Any) -> RunnerRow:
            row = await store.lock_runner(tx, namespace, runner_id)
            if row is None:
                raise RunnerNotFound(
                    f"there is no runner {runner_id!r} in this namespace", hint="ListRunners tells which there are"
                )
            if incarnation not in (None, row.said.incarnation):
                raise _replaced(runner_id)
            await store.drain_runner(tx, namespace, runner_id)
            return _there(await store.read_runner(tx, namespace, runner_id))

        return await self._session.repeat(work)

    async def list(self, namespace: str, pool: str, *, after: tuple[str, str, str], limit: int) -> Sequence[RunnerRow]:
        """By pool, id and namespace, the executors' own pools among them."""
        async with self._session.reading() as connection:
            return await store.list_runners(connection, [namespace, OWN_POOLS], pool, after=after, limit=limit)

    async def look_after(self, own: str) -> None:
        """A step for a loop: the own pool is there, as it makes no calls; runners long gone are forgotten."""
        async with self._session.reading() as connection:
            await store.see_runner(connection, OWN_POOLS, own)
            forgotten = await store.forget_runners(connection, KEPT)
        if forgotten:
            log.info("runners.forgotten", count=forgotten)

    def is_lost(self, row: RunnerRow) -> bool:
        return row.is_lost(self._lease_duration)

    async def _end_older(self, row: RunnerRow) -> int:
        """What replaced incarnations hold is lost at once: they are gone, or will be told so. An executor's own pool
        may have the same id, and keeps what it holds."""
        said, ended = row.said, 0
        replaced = [holder_of(said.runner_id, incarnation) for incarnation in row.replaced]
        while True:
            async with self._session.reading() as connection:
                older = await store.leases_of_holders(connection, said.namespace, replaced, BATCH)
            if older:
                await self._progress.apply(older)
                ended += len(older)
            if len(older) < BATCH:
                if ended:
                    log.warning("leases.of_older_incarnation_ended", count=ended, runner_id=said.runner_id)
                return ended


def silent_after(heartbeat_interval: timedelta) -> timedelta:
    """How long one that is there is silent at most."""
    return max(LEAST_SILENCE, HEARTBEATS_MISSED * heartbeat_interval)


def check(row: RunnerRow | None, runner_id: str, incarnation: UUID) -> RunnerRow:
    """The row, if it is still this incarnation's. RunnerNotRegistered, RunnerReplaced."""
    if row is None:
        raise RunnerNotRegistered(f"no runner {runner_id!r} has registered", hint="call RegisterRunner first")
    if row.said.incarnation != incarnation:
        raise _replaced(runner_id)
    return row


def _there(row: RunnerRow | None) -> RunnerRow:
    if row is None:
        raise AssertionError("a runner that was locked is gone")
    return row


def _incarnations_replaced(row: RunnerRow | None, said: RunnerSaid) -> tuple[UUID, ...]:
    """Those that may never come back once this one has registered. RunnerReplaced."""
    replaced = replaced_by(row, said.incarnation)
    if replaced is None:
        raise _replaced(said.runner_id)
    return replaced


def _replaced(runner_id: str) -> RunnerReplaced:
    return RunnerReplaced(
        f"another process has registered as runner {runner_id!r}",
        hint="exit; give each process an id of its own (RUNNER_ID), or none",
    )
