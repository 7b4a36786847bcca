"""What became of calls, on its way to the breaker: kept in memory, sent in batches, best effort."""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import UUID

from services.executor.targets import CallOutcome, CallResult, TargetKey
from valkyr.errors import Conflict, DeadlineExceeded, Overloaded, Unavailable, ValkyrError
from valkyr.flow.effects import AttemptEnded
from valkyr.flow.results import Failure, FailureType, Lost, Omitted, Result, Success
from valkyr.retry import backoff
from valkyr.telemetry import get_logger

BATCH = 1_000
MAX_WAITING = 20_000
MAX_LEASED = 50_000
BACKOFF_BASE = timedelta(milliseconds=200)
BACKOFF_MAXIMUM = timedelta(seconds=5)
WORTH_REPEATING = (Unavailable, Overloaded, DeadlineExceeded, Conflict)
TARGETS_DOING = frozenset({FailureType.TRANSIENT, FailureType.TIMEOUT})

log = get_logger(__name__)


class Reporting(Protocol):
    """Where outcomes go."""

    async def report_outcomes(self, outcomes: Sequence[CallOutcome]) -> None: ...


class Outcomes:
    """`leased` and `ended` cost no call and never wait; `step` sends what has gathered.

    `generation_of` says under which generation a lease is given now. `permits_answered` is told of the targets whose
    probes were reported.
    """

    def __init__(
        self,
        gateway: Reporting,
        generation_of: Callable[[str, str], int],
        *,
        permits_answered: Callable[[TargetKey], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gateway = gateway
        self._generation_of = generation_of
        self._permits_answered = permits_answered
        self._clock = clock
        self._generations: OrderedDict[tuple[UUID, int], int] = OrderedDict()
        self._waiting: deque[CallOutcome] = deque()
        self._dropped = 0
        self._failures = 0
        self._not_before = 0.0
        self.wake = asyncio.Event()

    def leased(self, namespace: str, target: str, run_id: UUID, epoch: int, *, generation: int = 0) -> None:
        """Remembers under which generation a lease was given: the present one, or that of its permit if that is newer
        than what was heard."""
        if not target:
            return
        known = max(self._generation_of(namespace, target), generation, self._generations.get((run_id, epoch), 0))
        if known > 0:
            self._generations[run_id, epoch] = known
            if len(self._generations) > MAX_LEASED:
                self._generations.popitem(last=False)

    def ended(self, call: AttemptEnded) -> None:
        """A lease has ended, and that is committed. What says nothing about the target is sent only with a permit."""
        generation = self._generations.pop((call.run_id, call.epoch), 0)
        result = call_result(call.result)
        if not call.target or (result is CallResult.EXCLUDED and call.permit_id is None):
            return
        self._add(
            CallOutcome(
                namespace=call.namespace,
                target=call.target,
                result=result,
                duration_ms=call.duration_ms,
                permit_id=call.permit_id,
                generation=generation,
                report_id=f"{call.run_id}:{call.epoch}",
                traceparent=call.traceparent,
                ended_at=datetime.now(UTC),
            )
        )

    def not_used(self, namespace: str, target: str, run_id: UUID, epoch: int, permit_id: UUID, generation: int) -> None:
        """Gives a permit back whose lease was not to be had. The run may be leased under this epoch all the same, and
        reports then for itself: this is another report."""
        self._add(
            CallOutcome(
                namespace=namespace,
                target=target,
                result=CallResult.EXCLUDED,
                duration_ms=None,
                permit_id=permit_id,
                generation=generation,
                report_id=f"{run_id}:{epoch}:unused",
                traceparent="",
                ended_at=datetime.now(UTC),
            )
        )

    def _add(self, outcome: CallOutcome) -> None:
        self._waiting.append(outcome)
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self._dropped += 1
        self.wake.set()

    async def step(self) -> timedelta | None:
        """Sends all that waits; how long until it is worth trying again, if the breaker could not be reached."""
        left = self._not_before - self._clock()
        if left > 0:
            return timedelta(seconds=left)
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            try:
                await self._gateway.report_outcomes(batch)
            except WORTH_REPEATING:
                return self._keep(batch)
            except ValkyrError as error:
                # The same again would be refused again.
                log.error("outcomes.refused", outcomes=len(batch), error=str(error))
            except BaseException:
                self._waiting.extendleft(reversed(batch))
                raise
            self._sent(batch)
        return None

    def _keep(self, batch: Sequence[CallOutcome]) -> timedelta:
        self._waiting.extendleft(reversed(batch))
        while len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self._dropped += 1
        self._failures += 1
        pause = backoff(self._failures, base=BACKOFF_BASE, maximum=BACKOFF_MAXIMUM, jitter=random.uniform(0.5, 1))
        self._not_before = self._clock() + pause.total_seconds()
        return pause

    def _sent(self, batch: Sequence[CallOutcome]) -> None:
        if self._dropped:
            log.warning("outcomes.dropped", outcomes=self._dropped)
            self._dropped = 0
        self._failures = 0
        for key in {(outcome.namespace, outcome.target) for outcome in batch if outcome.permit_id}:
            self._permits_answered(key)


def call_result(result: Result | Omitted | Lost) -> CallResult:
    """Whether it was the target's doing: of failures only TRANSIENT and TIMEOUT."""
    match result:
        case Success():
            return CallResult.SUCCESS
        case Failure(type=kind) if kind in TARGETS_DOING:
            return CallResult.FAILURE
        case _:
            return CallResult.EXCLUDED
