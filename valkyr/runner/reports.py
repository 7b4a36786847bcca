"""Reports in natural batches: results that gather while calls are in flight form the next."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Protocol

from valkyr.errors import DeadlineExceeded, Internal, Overloaded, Unavailable, ValkyrError
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
_WORTH_REPEATING = (Unavailable, DeadlineExceeded, Overloaded, Internal)


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
        self._wake = asyncio.Event()

    def put(self, attempt: Attempt) -> None:
        """Queues an attempt that has its `result`."""
        self._waiting.append(attempt)
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled; raises what a transport raises beside ValkyrError."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                for call in [call for call in self._calls if call.done()]:
                    self._calls.remove(call)
                    call.result()
                while self._worth_a_call():
                    call = asyncio.create_task(self._deliver(self._next_batch()), name="valkyr-report")
                    call.add_done_callback(lambda _: self._wake.set())
                    self._calls.add(call)
        finally:
            for call in self._calls:
                call.cancel()
            await asyncio.gather(*self._calls, return_exceptions=True)

    def _worth_a_call(self) -> bool:
        """The first for whatever there is, a second for enough; never a third."""
        under_way = len(self._calls)
        return len(self._waiting) >= (1 if under_way == 0 else ENOUGH) and under_way < 2

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
        """Reports until answered, as long as the leases are valid."""
        failures = 0
        while batch:
            try:
                answers = await self._transport.report_runs([_result(attempt) for attempt in batch])
            except _WORTH_REPEATING as error:
                failures += 1
                await _back_off(error, failures)
                batch = self._still_held(batch)
            except ValkyrError as error:
                await self._after_refusal(batch, error)
                return
            else:
                self._settle(batch, answers)
                return

    def _settle(self, batch: Sequence[Attempt], answers: Sequence[ReportAnswer]) -> None:
        for attempt, answer in zip(batch, answers, strict=True):
            if answer is ReportAnswer.LEASE_LOST:
                log.info("report.lease_lost", run_id=attempt.leased.ref.run_id, epoch=attempt.leased.ref.epoch)
            self._settled(attempt, accepted=answer is ReportAnswer.ACCEPTED)

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

    async def _after_refusal(self, batch: list[Attempt], error: ValkyrError) -> None:
        """Repeating cannot help, but one bad result must not cost the others: each goes alone, then as a failure."""
        if len(batch) > 1:
            for attempt in batch:
                await self._deliver([attempt])
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
    if failures == 1:
        log.warning("report.failed", error=str(error), reason=error.reason)
    delay = backoff_ceiling(failures, base=_FIRST_BACKOFF, maximum=_LAST_BACKOFF) * random.uniform(0.5, 1)
    wished = error.details.retry_after
    await asyncio.sleep(max(delay, min(wished, _LAST_BACKOFF) if wished else delay).total_seconds())


def _result(attempt: Attempt) -> RunResult:
    if attempt.result is None:
        raise AssertionError(f"attempt {attempt.key} was queued for a report without a result")
    return attempt.result


def _size(attempt: Attempt) -> int:
    match _result(attempt).result:
        case Success(outputs=outputs):
            return len(outputs) + 200
        case Failure(message=message, stack_trace=stack_trace):
            return len(message) + len(stack_trace) + 200
        case _:
            return 200
