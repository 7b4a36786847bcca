"""Leases runs, runs a module for each, keeps the leases alive, reports what became of them, and lets go in time.

Everything but heartbeats and `def` modules happens on one event loop.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from valkyr.errors import RunnerReplaced, ValkyrError
from valkyr.module import ModuleSpec
from valkyr.retry import backoff_ceiling
from valkyr.runner.attempt import Attempt, AttemptKey, Stop
from valkyr.runner.heartbeats import Heartbeats
from valkyr.runner.leases import Granted, HeartbeatAnswer, LeasedRun, Transport
from valkyr.runner.loop_turns import LoopTurns
from valkyr.runner.reports import Reporter
from valkyr.runner.slots import Slots
from valkyr.telemetry import get_logger

log = get_logger(__name__)

_FIRST_BACKOFF = timedelta(milliseconds=100)
_LAST_BACKOFF = timedelta(seconds=5)
_CLEAN_UP = timedelta(seconds=1)
_EMPTY_ANSWER_PAUSE = 0.05
_NEVER = float("inf")

LONGEST_GATHERING = 0.05
"""Seconds at most until a worker that has some room asks for runs, where more stand in line than it can take: each call
brings many then. It waits no longer than its last call took: an executor that is quick is asked soon."""


class Worker:
    """`settings` is what modules see as `context.settings`. `clock` is monotonic, in seconds.

    `run` pulls from the transport until `drain`; a transport in the same process may also push, by `accept`, and may
    set `on_room`: called on the loop whenever a slot frees otherwise than by a report that it has accepted.
    `on_replaced` is called in the heartbeats' thread once another process has this runner's id: a module that blocks
    the loop keeps `run` from saying so.
    """

    def __init__(
        self,
        transport: Transport,
        modules: Mapping[str, ModuleSpec],
        *,
        concurrency: int = 10,
        heartbeat_interval: timedelta = timedelta(seconds=2),
        unknown_as_noop: bool = False,
        settings: Mapping[str, Any] = MappingProxyType({}),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.on_room: Callable[[], None] | None = None
        self.on_replaced: Callable[[], None] | None = None
        self._transport = transport
        self._concurrency = concurrency
        self._clock = clock
        self._slots = Slots(
            modules,
            self._report,
            self._room_made,
            concurrency=concurrency,
            unknown_as_noop=unknown_as_noop,
            settings=settings,
            clock=clock,
        )
        self._reporter = Reporter(transport, self._slots.settled, at_once=concurrency // 2, clock=clock)
        self._turns = LoopTurns()
        self._heartbeats = Heartbeats(
            transport,
            self._slots.held,
            self._stop_soon,
            self._replaced_soon,
            interval=heartbeat_interval.total_seconds(),
            clock=clock,
            turns=self._turns,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pulling: asyncio.Task[None] | None = None
        self._replaced: asyncio.Future[Any] | None = None
        self._draining = False
        self._drained = asyncio.Event()
        self._has_let_go = False

    @property
    def has_left_running(self) -> bool:
        """Whether there are modules that go on though they were told to stop, or cannot be told."""
        return bool(self._slots.abandoned)

    @property
    def live(self) -> Mapping[AttemptKey, Attempt]:
        """The leases held, by (run id, epoch), started or not, until their end has been acknowledged."""
        return MappingProxyType(self._slots.live)

    def room(self) -> int:
        """How many more runs may be leased now: 0 while draining (I12), and derived from the leases held (I13).

        A module that has not stopped though its lease is gone still takes its slot. A transport that hands new runs
        over while it handles a report may count the reported leases as free.
        """
        if self._draining:
            return 0
        return max(0, self._concurrency - len(self._slots.live) - len(self._slots.abandoned))

    def accept(
        self, runs: Sequence[LeasedRun], *, granted_at: float | None = None, start_by: float | None = None
    ) -> None:
        """Starts runs that were leased to this worker. To be called on the worker's loop.

        `granted_at` is the worker's clock from before the leases were asked for; absent: now. `start_by`, by the same
        clock, is when whoever granted them may think them lost on the way. A lease held already is ignored; while
        draining, or if the lease is too old to start under, it is released.
        """
        now = self._clock()
        granted_at = now if granted_at is None else granted_at
        live = self._slots.live
        for leased in runs:
            attempt = Attempt(leased, granted_at=granted_at)
            if attempt.key in live:
                continue
            live[attempt.key] = attempt
            if self._draining or now >= min(attempt.trusted_until, _NEVER if start_by is None else start_by):
                self._slots.release(attempt)
            else:
                self._slots.start(attempt, now)

    def sweep(self) -> None:
        """Stops what is over its time now. It happens by itself when due; whoever moves the clock calls it."""
        self._slots.sweep()

    async def run(self) -> None:
        """Leases and runs until `drain` is done. Call it once. RunnerReplaced once another process has this runner's
        id: every module has been stopped then, and nothing is reported. Raises what a transport raises beside
        ValkyrError."""
        self._loop = asyncio.get_running_loop()
        self._turns.watch(self._loop)
        self._heartbeats.start()
        reporting = asyncio.create_task(self._reporter.run(), name="valkyr-reports")
        self._pulling = asyncio.create_task(self._pull_until_draining(), name="valkyr-leases")
        drained = asyncio.create_task(self._drained.wait(), name="valkyr-drained")
        self._replaced = self._loop.create_future()
        tasks: set[asyncio.Future[Any]] = {reporting, self._pulling, drained, self._replaced}
        try:
            while not drained.done():
                waiting = {task for task in tasks if not task.done()}
                for task in (await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED))[0]:
                    if not task.cancelled():
                        task.result()
        finally:
            self._draining = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._let_go()

    def take_no_more(self) -> None:
        """What comes from now on is released; a call for runs that is under way may still be answered."""
        self._draining = True

    async def drain(self, grace: timedelta) -> None:
        """Takes nothing new and releases what has not started; started runs finish within `grace` or are cancelled.

        What is cancelled here is not reported: its lease runs out, and another runner takes the run.
        """
        self.take_no_more()
        if self._pulling is not None:
            self._pulling.cancel()
        for attempt in self._slots.held():
            self._slots.release(attempt)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace.total_seconds()):
                await self._until_empty()
        await self._let_go()
        self._drained.set()

    async def _pull_until_draining(self) -> None:
        failures, gather = 0, 0.0
        while not self._draining:
            await self._until_room(gather)
            room = self.room()
            if not room:  # it was filled, or is to take no more, while it gathered
                continue
            asked_at = self._clock()
            try:
                granted = await self._transport.lease_runs(max_runs=room)
            except RunnerReplaced:
                raise
            except ValkyrError as error:
                failures += 1
                await self._back_off(failures, error)
                continue
            if failures:
                log.info("leases.available", failures=failures)
            failures = 0
            crowded = len(granted.runs) >= room
            gather = min(self._clock() - asked_at, LONGEST_GATHERING) if crowded else 0.0
            self._take(granted, asked_at if granted.asked_at is None else granted.asked_at)
            if not granted.runs and self._clock() - asked_at < _EMPTY_ANSWER_PAUSE:
                await asyncio.sleep(_EMPTY_ANSWER_PAUSE)

    async def _until_room(self, gather: float) -> None:
        """For one run; then for up to `gather` seconds for as many as there are slots."""
        await self._until_room_for(1)
        with suppress(TimeoutError):
            async with asyncio.timeout(gather):
                await self._until_room_for(self._concurrency)

    async def _until_room_for(self, runs: int) -> None:
        while self.room() < runs:
            self._slots.changed.clear()
            await self._slots.changed.wait()

    def _take(self, granted: Granted, asked_at: float) -> None:
        """Others may have been pushed while we asked: what no longer fits goes back."""
        room = self.room()
        self.accept(granted.runs[:room], granted_at=asked_at, start_by=granted.start_by)
        for leased in granted.runs[room:]:
            attempt = Attempt(leased, granted_at=asked_at)
            if self._slots.live.setdefault(attempt.key, attempt) is attempt:
                self._slots.release(attempt)

    async def _back_off(self, failures: int, error: ValkyrError) -> None:
        if failures == 1:
            log.warning("leases.unavailable", error=str(error), reason=error.reason)
        delay = backoff_ceiling(failures, base=_FIRST_BACKOFF, maximum=_LAST_BACKOFF) * random.uniform(0.5, 1)
        await asyncio.sleep(max(delay, error.details.retry_after or delay).total_seconds())

    async def _until_empty(self) -> None:
        while self._slots.live:
            self._slots.changed.clear()
            await self._slots.changed.wait()

    async def _let_go(self) -> None:
        """Once, whoever comes first to the end of it."""
        self._heartbeats.close()
        if not self._has_let_go:
            await self._slots.abandon_all(_CLEAN_UP)
            self._has_let_go = True

    def _report(self, attempt: Attempt) -> None:
        self._reporter.put(attempt)

    def _room_made(self) -> None:
        if self.on_room is not None and not self._draining:
            self.on_room()

    def _replaced_soon(self, error: RunnerReplaced) -> None:
        """From the heartbeat thread to the loop."""
        if self.on_replaced is not None:
            self.on_replaced()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._note_replaced, error)

    def _note_replaced(self, error: RunnerReplaced) -> None:
        if self._replaced is not None and not self._replaced.done():
            self._replaced.set_exception(error)

    def _stop_soon(self, answers: Sequence[tuple[Attempt, HeartbeatAnswer]]) -> None:
        """From the heartbeat thread to the loop."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop_answered, answers)

    def _stop_answered(self, answers: Sequence[tuple[Attempt, HeartbeatAnswer]]) -> None:
        for attempt, answer in answers:
            self._slots.stop(attempt, Stop.CANCEL if answer is HeartbeatAnswer.CANCEL else Stop.LEASE_LOST)
