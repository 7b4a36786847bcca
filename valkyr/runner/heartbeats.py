"""Heartbeats in a thread of their own: one call per interval for all leases, whatever the event loop is doing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from valkyr.errors import RunnerReplaced, ValkyrError
from valkyr.runner.attempt import Attempt
from valkyr.runner.leases import HeartbeatAnswer, LeaseRef, Transport
from valkyr.runner.loop_turns import LoopTurns
from valkyr.telemetry import get_logger

log = get_logger(__name__)

MAX_PROGRESS_OF_BEAT = 1024 * 1024
"""Bytes of progress that go with one heartbeat; the rest goes with the next ones."""

Answered = Callable[[Sequence[tuple[Attempt, HeartbeatAnswer]]], None]


class Heartbeats:
    """`held` gives the attempts whose leases to keep; `stop` is told, in this thread, which are not to go on,
    `replaced` that another process has this runner's id: then nothing more is sent."""

    def __init__(
        self,
        transport: Transport,
        held: Callable[[], Sequence[Attempt]],
        stop: Answered,
        replaced: Callable[[RunnerReplaced], None],
        *,
        interval: float,
        clock: Callable[[], float],
        turns: LoopTurns | None = None,
    ) -> None:
        self._transport = transport
        self._held = held
        self._stop = stop
        self._replaced = replaced
        self._interval = interval
        self._clock = clock
        self._turns = turns
        self._closing = threading.Event()
        self._failing = False
        self._turn = 0
        self._thread = threading.Thread(target=self._beat_until_closed, name="valkyr-heartbeats", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Sends nothing more. Does not wait: the thread may hang in its last call."""
        self._closing.set()

    def beat(self) -> None:
        """One call for all leases held now; none while the loop stands still, so that others get what is stuck here.

        Trust counts from before the call was sent: an answer may be slow."""
        if self._turns is not None and self._turns.stands_still():
            return
        as_of = self._transport.told()  # before the list: what came since then is not missing from it
        attempts = self._held()
        progress = self._progress_of(attempts)
        sent_at = self._clock()
        try:
            answers = self._transport.heartbeat_runs(
                [attempt.leased.ref for attempt in attempts], progress=progress, as_of=as_of
            )
        except RunnerReplaced as error:
            self._closing.set()
            for attempt in self._held():  # first: what comes of them is to be reported no more
                attempt.lose()
            self._replaced(error)
            return
        except ValkyrError as error:
            self._note_failure(error)
            return
        if self._failing:
            self._failing = False
            log.info("heartbeats.resumed", leases=len(attempts))
        to_stop = []
        for attempt, answer in zip(attempts, answers, strict=True):
            if answer is not HeartbeatAnswer.LEASE_LOST and attempt.leased.ref in progress:
                attempt.sent_progress = progress[attempt.leased.ref]
            if answer is HeartbeatAnswer.CONTINUE:
                attempt.renew(sent_at)
            else:  # the lease of a cancelled run is not extended for long
                to_stop.append((attempt, answer))
        if to_stop:
            self._stop(to_stop)
        for attempt, answer in to_stop:
            if answer is HeartbeatAnswer.LEASE_LOST:
                attempt.lose()

    def _progress_of(self, attempts: Sequence[Attempt]) -> dict[LeaseRef, bytes]:
        """What is new, as much as one heartbeat takes; each time from another attempt on, so that each has its turn."""
        said: dict[LeaseRef, bytes] = {}
        left = MAX_PROGRESS_OF_BEAT
        start = self._turn % len(attempts) if attempts else 0
        for place, attempt in enumerate([*attempts[start:], *attempts[:start]]):
            progress = attempt.unsent_progress()
            if progress is None:
                continue
            if len(progress) > left:
                self._turn = start + place
                break
            left -= len(progress)
            said[attempt.leased.ref] = progress
        return said

    def _note_failure(self, error: Exception) -> None:
        if not self._failing:
            log.warning("heartbeats.failed", error=str(error))
        self._failing = True

    def _beat_until_closed(self) -> None:
        while not self._closing.wait(self._interval):
            try:
                self.beat()
            except Exception as error:
                if not self._failing:
                    log.exception("heartbeats.failed", error=str(error))
                self._failing = True
