"""The executor's transactions, driven by hand: leases by SQL, events by value, a pool that only notes its runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

import asyncpg

from services.executor.handoff import Handoff
from services.executor.model import LeasePolicy
from services.executor.modules import Modules
from services.executor.progress import Progress
from services.executor.reaper import QuietPeriod, Reaper
from services.executor.reusing import Reusing
from services.executor.store.session import Session
from services.executor.timers import Timers
from services.executor.transaction import Rules
from tests.executor_stack import Stack
from valkyr.flow.attempts import RetryPolicy
from valkyr.flow.events import LeaseEnded
from valkyr.flow.ids import run_id
from valkyr.flow.results import Failure, FailureType, Lost, Omitted, Result, Success
from valkyr.runner.leases import LeasedRun

T = TypeVar("T")
TABLES = ("workflow_execution", "run", "run_attempt", "run_quarantine", "outbox")
DONE = Success(b"{}")
BROKEN = Failure(FailureType.PERMANENT, "it broke")
CANCEL_GRACE = timedelta(seconds=10)


async def end_loop(name: str) -> None:
    """Of the only executor in this process: what that loop does is done by the test alone."""
    [loop] = [task for task in asyncio.all_tasks() if task.get_name() == name]
    loop.cancel()
    await asyncio.wait([loop])


class NotingPool:
    """A pool that has room for what it is told, and runs nothing."""

    def __init__(self, room: int) -> None:
        self.free = room
        self.given: list[LeasedRun] = []

    def room(self) -> int:
        return self.free

    def accept(
        self, runs: Sequence[LeasedRun], *, granted_at: float | None = None, start_by: float | None = None
    ) -> None:
        self.given.extend(runs)


class Lab:
    """For a stack whose executor runs nothing itself (`concurrency: 0`)."""

    def __init__(
        self, stack: Stack, *, room: int = 0, session: Any = None, holder: str = "lab", max_bytes: int | None = None
    ) -> None:
        parts = stack.app.parts
        self.stack = stack
        self.pool = NotingPool(room)
        self.lease_policy = LeasePolicy(holder, uuid4(), timedelta(minutes=1))
        self.retry = RetryPolicy(
            max_attempts=3, max_lost_leases=5, backoff_base=timedelta(seconds=1), backoff_max=timedelta(seconds=30)
        )
        self.session: Session = session or parts.session
        self.handoff = Handoff(
            self.pool,
            parts.signals.open_door("default"),
            parts.breakers.mirror,
            pool="default",
            class_names=parts.handoff.serving.class_names,
            serves_all=False,
            max_bytes=max_bytes,
        )
        self.progress = Progress(
            self.session,
            parts.cache,
            self.handoff,
            parts.signals,
            modules=Modules(parts.modules, self.retry),
            calls=parts.breakers.outcomes,
            lease=self.lease_policy,
            rules=Rules({}, CANCEL_GRACE, max_requeues=5),
        )

    async def lease(
        self, execution_id: str, *nodes: str, runner: str = "other", seconds: float = 3600, since: float = 0
    ) -> None:
        """Makes runs LEASED, as a runner elsewhere would. Negative `seconds` make a lease that ran out."""
        await self.stack.sql.execute(
            """UPDATE executor.run SET state = 'LEASED', epoch = epoch + 1, attempt = attempt + 1, leased_by = $3::text,
                runner_id = split_part($3::text, '/', 1), lease_until = now() + $4::interval,
                started_at = now() - $5::interval, ready_at = coalesce(ready_at, now()), retry_after = NULL
               WHERE execution_id = $1 AND node_id = ANY($2)""",
            UUID(execution_id),
            list(nodes),
            runner,
            timedelta(seconds=seconds),
            timedelta(seconds=since),
        )

    async def event(
        self, execution_id: str, node: str, result: Result | Lost | Omitted, *, epoch: int | None = None, **more: Any
    ) -> LeaseEnded:
        """The end of a lease; by default of the present one."""
        row = await self.stack.row(execution_id, node)
        return LeaseEnded(
            UUID(execution_id),
            run_id(UUID(execution_id), row["node_index"]),
            row["epoch"] if epoch is None else epoch,
            result,
            **more,
        )

    async def report(self, execution_id: str, node: str, result: Result | Lost | Omitted, **more: Any) -> str:
        """Applies one end of a lease; the answer."""
        [answer] = await self.progress.apply([await self.event(execution_id, node, result, **more)])
        return str(answer)

    async def everything(self) -> list[str]:
        """Every row of every table that a transaction of progress may write."""
        rows = []
        for table in TABLES:
            rows += await self.stack.sql.fetch(f"SELECT t::text FROM executor.{table} t")
        return sorted(row[0] for row in rows)

    def timers(self, **options: Any) -> Timers:
        """What decides about READY runs before anybody may lease them, and wakes those that wait for a time."""
        parts = self.stack.app.parts
        reusing = Reusing(self.session, self.progress, parts.signals)
        return Timers(self.session, parts.cache, self.progress, reusing, **options)

    def reaper(self, *, quiet: timedelta = timedelta(), clock: Callable[[], float] = lambda: 0.0) -> Reaper:
        """A reaper of this lab's own; by default it is never quiet."""
        return Reaper(
            self.session,
            self.progress,
            lease=self.lease_policy,
            quiet=QuietPeriod(quiet, clock=clock),
            held=lambda: {(run.ref.run_id, run.ref.epoch) for run in self.pool.given},
        )


class Sabotage:
    """A session whose connection is killed before statement number `at`, or, as the last, before COMMIT."""

    def __init__(self, session: Session, killer: asyncpg.Connection, at: int) -> None:
        self._session = session
        self._killer = killer
        self._left = at
        self.hit = False

    def reading(self, **options: Any) -> Any:
        return self._session.reading(**options)

    def transaction(self) -> Any:
        return self._session.transaction()

    async def repeat(self, work: Callable[[Any], Awaitable[T]], **options: Any) -> T:
        async def sabotaged(tx: Any) -> T:
            result = await work(_Counted(tx, self))
            await self.count(tx)
            return result

        return await self._session.repeat(sabotaged, **options)

    async def count(self, tx: Any) -> None:
        self._left -= 1
        if self._left == 0:
            self.hit = True
            await self._killer.execute("SELECT pg_terminate_backend($1, 30000)", tx.get_server_pid())


class _Counted:
    """A connection that tells of each statement before it is sent."""

    def __init__(self, tx: Any, sabotage: Sabotage) -> None:
        self._tx = tx
        self._sabotage = sabotage

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._tx, name)
        if name not in ("fetch", "fetchrow", "fetchval", "execute", "executemany"):
            return method

        async def counted(*arguments: Any, **options: Any) -> Any:
            await self._sabotage.count(self._tx)
            return await method(*arguments, **options)

        return counted
