"""Heartbeats in a thread of their own: one call per interval for all leases, whatever the event loop is doing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from valkyr.errors import ValkyrError
from valkyr.runner.attempt import Attempt
from valkyr.runner.leases import HeartbeatAnswer, Transport
from valkyr.telemetry import get_logger

log = get_logger(__name__)

Answered = Callable[[Sequence[tuple[Attempt, HeartbeatAnswer]]], None]


class Heartbeats:
    """`held` gives the attempts whose leases to keep; `stop` is told, in this thread, which are not to go on."""

    def __init__(
        self,
        transport: Transport,
        held: Callable[[], Sequence[Attempt]],
        stop: Answered,
        *,
        interval: float,
        clock: Callable[[], float],
    ) -> None:
        self._transport = transport
        self._held = held
        self._stop = stop
        self._interval = interval
        self._clock = clock
        self._closing = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._beat_until_closed, name="valkyr-heartbeats", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Sends nothing more. Does not wait: the thread may hang in its last call."""
        self._closing.set()

    def beat(self) -> None:
        """One call for all leases held now. Trust counts from before the call was sent: an answer may be slow."""
        attempts = self._held()
        if not attempts:
            return
        sent_at = self._clock()
        try:
            answers = self._transport.heartbeat_runs([attempt.leased.ref for attempt in attempts])
        except ValkyrError as error:
            self._note_failure(error)
            return
        if self._failing:
            self._failing = False
            log.info("heartbeats.resumed", leases=len(attempts))
        to_stop = []
        for attempt, answer in zip(attempts, answers, strict=True):
            if answer is HeartbeatAnswer.CONTINUE:
                attempt.renew(sent_at)
            else:  # the lease of a cancelled run is not extended for long
                to_stop.append((attempt, answer))
        if to_stop:
            self._stop(to_stop)

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
