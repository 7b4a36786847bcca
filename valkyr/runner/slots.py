"""The attempts of one worker: started, timed out, cancelled, fenced, finished. One dict holds the leases (I13)."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from valkyr.module import ModuleSpec
from valkyr.runner.attempt import LEASE_GONE, Attempt, AttemptKey, Stop, longest_wait
from valkyr.runner.execute import (
    NOOP_OUTCOME,
    Outcome,
    call,
    call_now,
    context_for,
    not_called,
    stopped,
    unknown_class,
)
from valkyr.runner.isolated.calling import call_isolated
from valkyr.runner.isolated.pool import ChildProcesses
from valkyr.runner.leases import Failure, FailureType, Release, RunResult, Success
from valkyr.runner.threads import ModuleThreads
from valkyr.telemetry import get_logger

log = get_logger(__name__)

STOP_GRACE = timedelta(seconds=10)
"""How long a module that timed out or was cancelled may take to stop before its attempt is reported without it."""

_INLINE_TURN = 128
_LEAST_SWEEP = 0.005
_NEVER = float("inf")


class Slots:
    """Lives on one event loop. `finished` gets each attempt that has its `result`; `changed` is set when a slot frees,
    and `room_made` called if the executor did not free it by accepting a report.

    `live` holds the leases, `abandoned` what still runs though its lease is gone: together they are the slots in use.
    """

    def __init__(
        self,
        modules: Mapping[str, ModuleSpec],
        finished: Callable[[Attempt], None],
        room_made: Callable[[], None],
        *,
        concurrency: int,
        unknown_as_noop: bool,
        settings: Mapping[str, Any],
        clock: Callable[[], float],
    ) -> None:
        self.live: dict[AttemptKey, Attempt] = {}
        self.abandoned: dict[AttemptKey, Attempt] = {}
        self.changed = asyncio.Event()
        self._modules = modules
        self._finished = finished
        self._room_made = room_made
        self._unknown_as_noop = unknown_as_noop
        self._settings = settings
        self._clock = clock
        self._concurrency = concurrency
        self._stuck_at = _NEVER
        self._is_stuck = False
        self._threads = ModuleThreads(concurrency)
        self._children = ChildProcesses(concurrency, settings)
        self._inline: deque[tuple[Attempt, ModuleSpec]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._sweep_at = _NEVER

    def held(self) -> Sequence[Attempt]:
        """The leases to keep alive. May be called from any thread."""
        return list(self.live.values())

    def start(self, attempt: Attempt, now: float) -> None:
        """Starts the module of an attempt that is in `live`: at once on the loop, or as soon as a thread is free."""
        leased = attempt.leased
        spec = self._modules.get(leased.class_name)
        if spec is None or spec.control:
            self._without_module(attempt, spec)
            return
        if spec.is_async and spec.limits is None:
            attempt.task = asyncio.get_running_loop().create_task(self._run_async(attempt, spec))
        elif spec.inline:
            if not self._inline:
                self._run_inline_soon()
            self._inline.append((attempt, spec))
        else:
            attempt.start_by = now + longest_wait(leased.lease_duration).total_seconds()
            run = self._run_in_thread if spec.limits is None else self._run_isolated
            job = partial(run, asyncio.get_running_loop(), attempt, spec)
            # A copy each: what a module sets must not be seen by the next one in its thread.
            self._threads.submit(partial(contextvars.copy_context().run, job))
        due = attempt.trusted_until
        if leased.timeout is not None:
            due = min(due, now + leased.timeout.total_seconds())
        if attempt.start_by is not None:
            due = min(due, attempt.start_by)
        self._sweep_at_latest(due)

    def release(self, attempt: Attempt) -> bool:
        """Gives an attempt back unstarted; False if it has started."""
        if attempt.result is not None or not attempt.claim():
            return False
        attempt.result = RunResult(attempt.leased.ref, Release())
        self._finished(attempt)
        return True

    def stop(self, attempt: Attempt, reason: Stop) -> None:
        """Cancels the module. If the lease is gone there is no report; otherwise there is one when it has ended."""
        if attempt.result is not None or self.live.get(attempt.key) is not attempt:
            return
        unstarted = attempt.claim()
        if reason in LEASE_GONE:
            self._let_go(attempt, reason, running=not unstarted)
        elif attempt.stop is not None:
            return
        attempt.stop = reason
        if unstarted:
            if reason not in LEASE_GONE:
                self._finish(attempt, not_called(attempt, stopped(attempt)))
            return
        if reason not in LEASE_GONE:
            attempt.overdue_at = self._clock() + STOP_GRACE.total_seconds()
            self._sweep_at_latest(attempt.overdue_at)
        if attempt.context is not None:
            attempt.context.cancelled = True
        if attempt.task is not None:
            attempt.task.cancel()
        if (interrupt := attempt.interrupt) is not None:
            interrupt()

    def settled(self, attempt: Attempt, *, accepted: bool) -> None:
        """The executor knows how the attempt ended, or will not learn it from us: its lease is no longer ours."""
        self.live.pop(attempt.key, None)
        if attempt.running:
            self._abandon(attempt)
        elif not accepted or attempt.result is None or not attempt.result.frees_slot:
            self._room_made()
        self.changed.set()

    def sweep(self) -> None:
        """Stops what is over its timeout, or whose lease can no longer be trusted. Sets its own next time."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._sweep_at = None, _NEVER
        now = self._clock()
        due = self._note_stuck(now)
        for attempt in self.held():
            if attempt.result is None:
                due = min(due, self._swept(attempt, now))
        if due < _NEVER:
            self._sweep_by(due)

    async def abandon_all(self, patience: timedelta) -> None:
        """Stops everything without reports, and gives cancelled tasks `patience` to clean up. Processes are killed."""
        for attempt in self.held():
            self.stop(attempt, Stop.DRAINED)
        if self._timer is not None:
            self._timer.cancel()
        self._threads.close()
        tasks = [attempt.task for attempt in self.abandoned.values() if attempt.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=patience.total_seconds())
        with suppress(TimeoutError):
            async with asyncio.timeout(patience.total_seconds()):
                while any(attempt.interrupt is not None for attempt in self.abandoned.values()):
                    self.changed.clear()
                    await self.changed.wait()
        self._children.close()
        if self.abandoned:
            log.warning("worker.modules_left_running", run_ids=[run_id for run_id, _ in list(self.abandoned)[:20]])

    def _without_module(self, attempt: Attempt, spec: ModuleSpec | None) -> None:
        attempt.claim()
        attempt.start(self._clock())
        attempt.running = False
        class_name = attempt.leased.class_name
        outcome: Outcome = NOOP_OUTCOME
        if spec is not None:
            message = f"{class_name} is a control node: the executor decides it, and no runner runs it"
            outcome = Failure(FailureType.PERMANENT, message)
        elif not self._unknown_as_noop:
            outcome = unknown_class(class_name, self._modules)
        self._finish(attempt, not_called(attempt, outcome))

    def _run_inline(self) -> None:
        """A bounded number a turn, so that a large batch does not hold up the loop."""
        for _ in range(min(_INLINE_TURN, len(self._inline))):
            attempt, spec = self._inline.popleft()
            if attempt.claim():
                attempt.start(self._clock())
                self._ended(attempt, call_now(spec, context_for(attempt, self._settings), attempt))
        if self._inline:
            self._run_inline_soon()

    def _run_inline_soon(self) -> None:
        """In a context of its own: the span of whoever brought the runs is none of theirs."""
        asyncio.get_running_loop().call_soon(self._run_inline, context=contextvars.Context())

    async def _run_async(self, attempt: Attempt, spec: ModuleSpec) -> None:
        if not attempt.claim():
            return
        attempt.start(self._clock())
        try:
            outcome = await call(spec, context_for(attempt, self._settings), attempt)
        except BaseException:  # Ctrl-C: not the attempt's end, and nobody will hear of it
            attempt.running = False
            self.abandoned.pop(attempt.key, None)
            raise
        self._ended(attempt, outcome)

    def _run_in_thread(self, loop: asyncio.AbstractEventLoop, attempt: Attempt, spec: ModuleSpec) -> None:
        if not attempt.claim():
            return
        attempt.start(self._clock())
        outcome = call_now(spec, context_for(attempt, self._settings), attempt)
        with suppress(RuntimeError):  # the loop has been closed: nobody waits for this any more
            loop.call_soon_threadsafe(self._ended, attempt, outcome)

    def _run_isolated(self, loop: asyncio.AbstractEventLoop, attempt: Attempt, spec: ModuleSpec) -> None:
        """The thread of its slot starts the process, watches it, and kills it in time whatever the loop is doing."""
        if not attempt.claim():
            return
        attempt.running = True  # from here on there is something to stop, though its time does not count yet

        def expire(reason: Stop) -> None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self.stop, attempt, reason)

        outcome = call_isolated(self._children, spec, attempt, clock=self._clock, expire=expire)
        with suppress(RuntimeError):  # as above
            loop.call_soon_threadsafe(self._ended, attempt, outcome)

    def _ended(self, attempt: Attempt, outcome: Outcome) -> None:
        """The module has returned or raised."""
        attempt.running = False
        if self.abandoned.pop(attempt.key, None) is not None:
            self._note_recovery()
            self._room_made()
            self.changed.set()
        elif attempt.result is None and attempt.lost:
            self._let_go(attempt, Stop.LEASE_LOST, running=False)
        elif attempt.result is None:
            if attempt.stop is not None and isinstance(outcome, Failure):
                outcome = stopped(attempt)
            self._finish(attempt, outcome)

    def _finish(self, attempt: Attempt, outcome: Outcome) -> None:
        now = self._clock()
        attempt.result = RunResult(
            attempt.leased.ref,
            outcome,
            attempt.started_at,
            datetime.now(UTC),
            None if attempt.started is None else int((now - attempt.started) * 1000),
            frees_slot=not attempt.running,
            # Of a success nobody comes after.
            progress=None if isinstance(outcome, Success) else attempt.unsent_progress(),
        )
        self._finished(attempt)

    def _let_go(self, attempt: Attempt, reason: Stop, *, running: bool) -> None:
        del self.live[attempt.key]
        if running:
            self._abandon(attempt)
        else:
            self._room_made()
        self.changed.set()
        ref = attempt.leased.ref
        log.warning(
            "lease.let_go",
            run_id=ref.run_id,
            epoch=ref.epoch,
            class_name=attempt.leased.class_name,
            reason=reason.value,
            started=running,
        )

    def _abandon(self, attempt: Attempt) -> None:
        self.abandoned[attempt.key] = attempt
        if len(self.abandoned) >= self._concurrency and self._stuck_at == _NEVER:
            self._stuck_at = self._clock() + STOP_GRACE.total_seconds()
            self._sweep_at_latest(self._stuck_at)

    def _note_stuck(self, now: float) -> float:
        """Says it once where all slots are held by what has not stopped for a while; until then, when to look again."""
        if now < self._stuck_at or self._is_stuck:
            return _NEVER if self._is_stuck else self._stuck_at
        self._is_stuck = True
        class_names = sorted({attempt.leased.class_name for attempt in self.abandoned.values()})
        log.error("slots.all_held", slots=self._concurrency, slots_left=0, class_names=class_names[:20])
        return _NEVER

    def _note_recovery(self) -> None:
        left = self._concurrency - len(self.abandoned)
        if left <= 0:
            return
        if self._is_stuck:
            log.warning("slots.some_left", slots=self._concurrency, slots_left=left)
        self._stuck_at, self._is_stuck = _NEVER, False

    def _swept(self, attempt: Attempt, now: float) -> float:
        """Does what is due for one attempt; answers with when it has to be looked at again."""
        if now >= attempt.trusted_until:
            self.stop(attempt, Stop.FENCED)
            return _NEVER
        if attempt.overdue_at is not None:
            if now < attempt.overdue_at:
                return min(attempt.overdue_at, attempt.trusted_until)
            log.error("module.did_not_stop", run_id=attempt.leased.ref.run_id, class_name=attempt.leased.class_name)
            self._finish(attempt, stopped(attempt, still_running=True))
            return _NEVER
        if attempt.timeout_at is None:
            return self._swept_without_timeout(attempt, now)
        if now >= attempt.timeout_at:
            self.stop(attempt, Stop.TIMEOUT)
            return min(attempt.overdue_at or _NEVER, attempt.trusted_until)
        return min(attempt.timeout_at, attempt.trusted_until)

    def _swept_without_timeout(self, attempt: Attempt, now: float) -> float:
        """As `_swept`, for an attempt that has none, or has not started so that its time does not count yet."""
        due = attempt.trusted_until
        if attempt.leased.timeout is not None:
            due = min(due, now + attempt.leased.timeout.total_seconds())
        if attempt.start_by is None or attempt.started is not None:
            return due
        if now < attempt.start_by:
            return min(due, attempt.start_by)
        if not self.release(attempt):  # a thread is starting it just now
            return due
        log.warning("run.released_unstarted", run_id=attempt.leased.ref.run_id, reason="no thread was free in time")
        return _NEVER

    def _sweep_at_latest(self, due: float) -> None:
        if due < self._sweep_at:
            self._sweep_by(due)

    def _sweep_by(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._sweep_at = due
        delay = max(due - self._clock(), _LEAST_SWEEP)
        self._timer = asyncio.get_running_loop().call_later(delay, self.sweep)
