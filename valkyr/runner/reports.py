"""Reports in natural batches: results that gather while calls are in flight form the next; a slow call holds up its
own, and others only where there are many."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Protocol

from valkyr.errors import (
    DeadlineExceeded,
    Internal,
    InvalidRequest,
    Overloaded,
    RunnerReplaced,
    Unavailable,
    ValkyrError,
)
from valkyr.retry import backoff_ceiling
from valkyr.runner.attempt import Attempt
from valkyr.runner.leases import Failure, FailureType, ReportAnswer, RunResult, Success, Transport
from valkyr.telemetry import get_logger

log = get_logger(__name__)

MAX_BATCH = 1000
MAX_BATCH_BYTES = 8 * 1024 * 1024

ENOUGH = 50
"""Results for which a second call goes out beside the first: while one is with the executor, the next is on its way."""

_FIRST_BACKOFF = timedelta(milliseconds=50)
_LAST_BACKOFF = timedelta(seconds=2)
_FAILS_TOGETHER = 2
_FAILS_ALONE = 10
"""How often an executor that is there may fail at a batch until each of its results goes alone, and how often by a bug
at one until that is given up."""
_SAID_EVERY = 30
"""Failures of one call, after the first."""

_AWAY = (Unavailable, DeadlineExceeded, Overloaded)

SLOW = 2.0
"""Seconds after which a call keeps no other from going out."""
MOST_CALLS = 4
"""Under way at once, the slow ones among them."""


class Settled(Protocol):
    """`accepted`: the executor counts the end of the lease as the report says it."""

    def __call__(self, attempt: Attempt, /, *, accepted: bool) -> None: ...


class Reporter:
    """`settled` is called on the loop for every attempt whose report was answered, or was given up.

    At most `at_once` results go in one call where there are more, so that half of what a busy worker holds is reported
    while the other half runs.
    """

    def __init__(
        self, transport: Transport, settled: Settled, *, at_once: int = MAX_BATCH, clock: Callable[[], float]
    ) -> None:
        self._transport = transport
        self._settled = settled
        self._at_once = min(max(at_once, ENOUGH), MAX_BATCH)
        self._clock = clock
        self._waiting: deque[Attempt] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._slow: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()

    def put(self, attempt: Attempt) -> None:
        """Queues an attempt that has its `result`."""
        self._waiting.append(attempt)
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled. RunnerReplaced, and what a transport raises beside ValkyrError."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                for call in [call for call in self._calls if call.done()]:
                    self._calls.remove(call)
                    self._slow.discard(call)
                    call.result()
                while self._worth_a_call():
                    self._begin_call()
        finally:
            for call in self._calls:
                call.cancel()
            await asyncio.gather(*self._calls, return_exceptions=True)

    def _worth_a_call(self) -> bool:
        """The first for whatever there is, a second for enough, and never a third; beside those that are slow."""
        under_way = len(self._calls - self._slow)
        enough = len(self._waiting) >= (1 if under_way == 0 else ENOUGH)
        return enough and under_way < 2 and len(self._calls) < MOST_CALLS

    def _begin_call(self) -> None:
        call = asyncio.create_task(self._deliver(self._next_batch()), name="valkyr-report")
        slow = asyncio.get_running_loop().call_later(SLOW, self._note_slow, call)

        def ended(_call: asyncio.Task[None]) -> None:
            slow.cancel()
            self._wake.set()

        call.add_done_callback(ended)
        self._calls.add(call)

    def _note_slow(self, call: asyncio.Task[None]) -> None:
        if not call.done():
            self._slow.add(call)
            self._wake.set()

    def _next_batch(self) -> list[Attempt]:
        batch: list[Attempt] = []
        size = 0
        while self._waiting and len(batch) < self._at_once:
            size += _size(self._waiting[0])
            if batch and size > MAX_BATCH_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _deliver(self, batch: list[Attempt]) -> None:
        """Reports until answered, as long as the leases are valid. Only InvalidRequest says something about results:
        whatever else a call fails with is repeated. What the executor fails at holds up nobody else."""
        failures = odd = bugs = 0
        while batch:
            try:
                answers = await self._transport.report_runs([_result(attempt) for attempt in batch])
            except RunnerReplaced:
                raise
            except InvalidRequest as error:
                await self._after_refusal(batch, error)
                return
            except ValkyrError as error:
                failures += 1
                odd += not isinstance(error, _AWAY)
                bugs += isinstance(error, Internal)
                if len(batch) > 1 and odd >= _FAILS_TOGETHER:
                    await self._each_alone(batch)
                    return
                if len(batch) == 1 and bugs >= _FAILS_ALONE:
                    self._give_up(batch[0], error)
                    return
                await _back_off(error, failures)
                batch = self._still_held(batch)
            else:
                await self._settle(batch, answers)
                return

    async def _settle(self, batch: Sequence[Attempt], answers: Sequence[ReportAnswer | InvalidRequest]) -> None:
        refused = []
        for attempt, answer in zip(batch, answers, strict=True):
            if isinstance(answer, InvalidRequest):
                refused.append((attempt, answer))
                continue
            if answer is ReportAnswer.LEASE_LOST:
                log.info("report.lease_lost", run_id=attempt.leased.ref.run_id, epoch=attempt.leased.ref.epoch)
            self._settled(attempt, accepted=answer is ReportAnswer.ACCEPTED)
        for attempt, refusal in refused:
            await self._after_refusal([attempt], refusal)

    def _still_held(self, batch: list[Attempt]) -> list[Attempt]:
        now = self._clock()
        held = []
        for attempt in batch:
            if attempt.lease_end > now:
                held.append(attempt)
                continue
            log.warning("report.dropped", run_id=attempt.leased.ref.run_id, reason="the lease ran out unreported")
            self._settled(attempt, accepted=False)
        return held

    async def _each_alone(self, batch: list[Attempt]) -> None:
        for attempt in batch:
            await self._deliver([attempt])

    def _give_up(self, attempt: Attempt, error: ValkyrError) -> None:
        """Its run is taken over once heartbeats leave the lease out."""
        log.error(
            "report.dropped", run_id=attempt.leased.ref.run_id, reason="the executor fails at it", error=str(error)
        )
        self._settled(attempt, accepted=False)

    async def _after_refusal(self, batch: list[Attempt], error: InvalidRequest) -> None:
        """Repeating cannot help, but one bad result must not cost the others: each goes alone, then as a failure."""
        if len(batch) > 1:
            await self._each_alone(batch)
            return
        [attempt] = batch
        result = _result(attempt)
        log.error("report.refused", run_id=result.ref.run_id, error=str(error), reason=error.reason)
        if isinstance(result.result, Success):
            refused = Failure(FailureType.PERMANENT, f"the report of its success was refused: {error}"[:2000])
            attempt.result = replace(result, result=refused)
            await self._deliver([attempt])
        else:
            self._settled(attempt, accepted=False)


async def _back_off(error: ValkyrError, failures: int) -> None:
    if failures % _SAID_EVERY == 1:
        log.warning("report.failed", error=str(error), reason=error.reason, failures=failures)
    delay = backoff_ceiling(failures, base=_FIRST_BACKOFF, maximum=_LAST_BACKOFF) * random.uniform(0.5, 1)
    wished = error.details.retry_after
    await asyncio.sleep(max(delay, min(wished, _LAST_BACKOFF) if wished else delay).total_seconds())


def _result(attempt: Attempt) -> RunResult:
    if attempt.result is None:
        raise AssertionError(f"attempt {attempt.key} was queued for a report without a result")
    return attempt.result


def _size(attempt: Attempt) -> int:
    result = _result(attempt)
    around = 200 + len(result.progress or b"")
    match result.result:
        case Success(outputs=outputs):
            return len(outputs) + around
        case Failure(message=message, stack_trace=stack_trace):
            return len(message) + len(stack_trace) + around
        case _:
            return around
