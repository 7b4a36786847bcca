"""How a save is sent: again and again while what keeps it away is transient, telling how far it is."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from valkyr.client.calls import TRANSIENT, Calls
from valkyr.errors import InvalidRequest, ValkyrError
from valkyr.retry import backoff_ceiling

LONGEST_DELAY = timedelta(seconds=30)


class SaveStage(StrEnum):
    """How far a save is. EXPLAINING: it was refused, and all that keeps it from being saved is asked for."""

    VALIDATING = "VALIDATING"
    SENDING = "SENDING"
    WAITING = "WAITING"
    EXPLAINING = "EXPLAINING"
    DONE = "DONE"


@dataclass(frozen=True, slots=True)
class SaveProgress:
    """Told at the beginning of each stage; `attempt` counts from 1, and is 0 while nothing was sent."""

    stage: SaveStage
    attempt: int


@dataclass(frozen=True, slots=True)
class SaveRetry:
    """Told before a save is sent again: the `retry`-th time of at most `max_retries`, `delay` after `error`."""

    retry: int
    max_retries: int
    delay: timedelta
    error: ValkyrError


OnProgress = Callable[[SaveProgress], None]
OnRetry = Callable[[SaveRetry], None]


@dataclass(frozen=True, slots=True)
class SaveRetries:
    """When a save is sent again, and who hears of it. The callbacks are called in the event loop; what they raise ends
    the save.
    """

    max_retries: int
    initial_delay: timedelta
    on_retry: OnRetry | None = None
    on_progress: OnProgress | None = None

    @classmethod
    def of(
        cls, max_retries: int, initial_delay: float, on_retry: OnRetry | None, on_progress: OnProgress | None
    ) -> SaveRetries:
        """`initial_delay` in seconds. InvalidRequest for numbers that are none of these."""
        if max_retries < 0:
            raise InvalidRequest.of_field("max_retries", f"{max_retries} is below 0; give 0 to send it only once")
        if not (math.isfinite(initial_delay) and 0 <= initial_delay <= LONGEST_DELAY.total_seconds()):
            longest = LONGEST_DELAY.total_seconds()
            raise InvalidRequest.of_field("initial_delay", f"{initial_delay} is not from 0 to {longest:g} seconds")
        return cls(max_retries, timedelta(seconds=initial_delay), on_retry, on_progress)

    def tell(self, stage: SaveStage, attempt: int = 0) -> None:
        if self.on_progress is not None:
            self.on_progress(SaveProgress(stage, attempt))

    def delay_after(
        self, error: ValkyrError, failures: int, *, draw: Callable[[], float] = random.random
    ) -> timedelta | None:
        """How long to wait after the n-th failure, None where it is not sent again.

        Doubles each time, up to LONGEST_DELAY, with jitter of half of it; never sooner than the server wished.
        """
        if not isinstance(error, TRANSIENT) or failures > self.max_retries:
            return None
        ceiling = backoff_ceiling(failures, base=self.initial_delay, maximum=LONGEST_DELAY)
        jittered = ceiling * (0.5 + draw() / 2)
        wished = error.details.retry_after
        return jittered if wished is None else max(jittered, wished * (1 + draw() / 2))


async def send(calls: Calls, rpc: str, request: Any, *, retries: SaveRetries, timeout: timedelta | None) -> Any:
    """The answer to the request, each attempt within `timeout`; the error of the last attempt otherwise."""
    began = time.monotonic()
    failures = 0
    while True:
        retries.tell(SaveStage.SENDING, failures + 1)
        try:
            answer = await calls.once(rpc, request, timeout=timeout)
        except ValkyrError as error:
            failures += 1
            delay = retries.delay_after(error, failures)
            if delay is None or not calls.may_repeat(began=began, delay=delay):
                raise
            if retries.on_retry is not None:
                retries.on_retry(SaveRetry(failures, retries.max_retries, delay, error))
            retries.tell(SaveStage.WAITING, failures)
            await asyncio.sleep(delay.total_seconds())
        else:
            retries.tell(SaveStage.DONE, failures + 1)
            return answer
