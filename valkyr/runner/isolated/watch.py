"""One run in its child process, watched by the thread that waits for it: until it has ended, died or been killed."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from valkyr.runner.attempt import Attempt, Stop
from valkyr.runner.execute import stopped
from valkyr.runner.isolated.frames import BrokenFrame, Frame, Kind
from valkyr.runner.isolated.orders import Outcome, answered, is_of, run_order, told_progress
from valkyr.runner.isolated.prints import MAX_LOGGED, Prints
from valkyr.runner.isolated.process import ChildProcess, how_it_ended
from valkyr.runner.leases import Failure, FailureType
from valkyr.runner.outcomes import storable

PATIENCE = timedelta(seconds=2)
"""How long a module that was cancelled may go on. After a timeout, and without a lease, it may not at all."""

START_WITHIN = timedelta(seconds=30)
"""How long a new process may take until it is ready; the attempt's own timeout counts from then."""

_PAUSE = 0.05
_DYING = 1.0
_LOOK_AGAIN = 0.2
_LAST_WORDS = 16
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Watch:
    """`clock` is the worker's. `expire` tells the worker what this thread has found to be over its time by itself."""

    def __init__(
        self, child: ChildProcess, attempt: Attempt, *, clock: Callable[[], float], expire: Callable[[Stop], None]
    ) -> None:
        self.without_values = ""
        self._child = child
        self._attempt = attempt
        self._clock = clock
        self._expire = expire
        self._prints = Prints(attempt.leased)
        self._start_until = clock() + START_WITHIN.total_seconds()
        self._kill_at: float | None = None
        self._trust_told = 0.0
        self._tell_at: float | None = None
        self._deaf_until: float | None = None
        self._said = 0
        self._away_until: float | None = None
        self._dead_by: float | None = None
        self._outcome: Outcome | None = None

    def outcome(self) -> Outcome:
        """Waits for it. The child is worn out after it, unless it may run another."""
        self._attempt.interrupt = self._child.wake
        self._discard_old_prints()
        with selectors.DefaultSelector() as selector:
            self._register(selector)
            if self._child.ready:
                self._start()
            while self._outcome is None:
                self._obey()
                if self._outcome is None:
                    self._wait(selector)
        self._attempt.interrupt = None
        self._read_prints(_LAST_WORDS)
        self._prints.end()
        return self._outcome

    def _register(self, selector: selectors.BaseSelector) -> None:
        child = self._child
        selector.register(child.channel, _READ, lambda: self._on_channel(selector))
        selector.register(child.woken, _READ, self._on_wake)
        selector.register(child.output, _READ, lambda: self._on_output(selector))
        if child.death is not None:
            selector.register(child.death, _READ, self._on_death)

    def _start(self) -> None:
        self._child.ready = True
        self._child.runs += 1
        self._attempt.start(self._clock())
        self._tell_trust()
        self._child.put(run_order(self._attempt).encoded())

    def _obey(self) -> None:
        """What the worker has said, and what the clock says should the worker's loop be busy."""
        attempt, now = self._attempt, self._clock()
        reason = attempt.stop
        if attempt.lost:
            self._kill(reason or Stop.LEASE_LOST, expired=reason is None)
        elif now >= attempt.trusted_until:
            self._kill(reason or Stop.FENCED, expired=reason is None)
        elif reason is None:
            if attempt.timeout_at is not None and now >= attempt.timeout_at:
                self._kill(Stop.TIMEOUT, expired=True)
            elif attempt.started is None and now >= self._start_until:
                self._fail(f"its process was not ready within {START_WITHIN.total_seconds():g} s, and was killed")
        elif (
            reason is not Stop.CANCEL or attempt.started is None or (self._kill_at is not None and now >= self._kill_at)
        ):
            self._kill(reason, expired=False)
        elif self._kill_at is None:
            self._kill_at = now + PATIENCE.total_seconds()
            run_id, epoch = attempt.key
            self._child.put(Frame(Kind.CANCEL, {"run_id": run_id, "epoch": epoch}).encoded())
        if self._outcome is None and self._tell_at is not None and now >= self._tell_at:
            self._tell_trust()

    def _tell_trust(self) -> None:
        """Until when the lease may be trusted: should this process stand still, the child ends by itself in time. Told
        when half of it is over, in the clock of the machine, which both have."""
        until, now = self._attempt.trusted_until, self._clock()
        self._tell_at = now + max((until - now) / 2, _PAUSE)
        if until > self._trust_told:
            self._trust_told = until
            self._child.put(Frame(Kind.TRUST, {"until": time.monotonic() + until - now}).encoded())

    def _wait(self, selector: selectors.BaseSelector) -> None:
        child, now = self._child, time.monotonic()
        if self._dead_by is not None and now >= self._dead_by:
            self._broken("it was closed")
            return
        if self._deaf_until is not None and now >= self._deaf_until:
            self._deaf_until = None
            selector.register(child.output, _READ, lambda: self._on_output(selector))
        if self._away_until is not None and now >= self._away_until:
            self._away_until = None
            selector.register(child.channel, _READ, lambda: self._on_channel(selector))
        if self._dead_by is None and self._away_until is None:
            events = _READ | _WRITE if child.has_unsent else _READ
            selector.modify(child.channel, events, lambda: self._on_channel(selector))
        for key, _ in selector.select(self._longest_wait()):
            key.data()
            if self._outcome is not None:
                return
        if child.death is None and child.has_died():
            self._on_death()

    def _longest_wait(self) -> float:
        attempt = self._attempt
        own = self._start_until if attempt.started is None else None
        timeout_at = attempt.timeout_at if attempt.stop is None else None  # who was told to stop has no other
        due = min(at for at in (attempt.trusted_until, timeout_at, self._kill_at, self._tell_at, own) if at is not None)
        wait = due - self._clock()
        for at in (self._deaf_until, self._away_until, self._dead_by):
            if at is not None:
                wait = min(wait, at - time.monotonic())
        return max(0.0, min(wait, _LOOK_AGAIN) if self._child.death is None else wait)

    def _on_wake(self) -> None:
        with suppress(BlockingIOError):
            self._child.woken.recv(1024)

    def _on_output(self, selector: selectors.BaseSelector) -> None:
        """Of what prints without end only so much is read that it neither stands still nor keeps its runner busy."""
        open_still = self._read_prints(1)
        if not open_still:
            selector.unregister(self._child.output)
        elif self._prints.is_too_much:
            selector.unregister(self._child.output)
            self._deaf_until = time.monotonic() + _PAUSE

    def _on_channel(self, selector: selectors.BaseSelector) -> None:
        """Its end closes a moment before it has died, if that is why."""
        with suppress(OSError):  # it takes nothing any more: what it says, or its death, tells why
            self._child.send()
        began = time.monotonic()
        data = self._child.receive()
        if data:
            self._hear(data)
            if self._said > MAX_LOGGED:  # it may have the runner's ear for a tenth of the time
                selector.unregister(self._child.channel)
                now = time.monotonic()
                self._away_until = now + min(_PAUSE, 10 * (now - began))
        elif data == b"":
            selector.unregister(self._child.channel)
            self._dead_by = time.monotonic() + _DYING

    def _hear(self, data: bytes) -> None:
        progress: Frame | None = None  # of all that has come at once only the last counts
        try:
            for frame in self._child.frames.feed(data):
                if frame.kind is not Kind.PROGRESS:
                    self._take(frame)
                    continue
                self._said += 1
                if is_of(frame, self._attempt):
                    progress = frame
        except BrokenFrame as error:
            self._broken(str(error))
        if progress is not None:
            self._note_progress(progress)

    def _note_progress(self, frame: Frame) -> None:
        try:
            self._attempt.progress_in_child = told_progress(frame)
        except BrokenFrame as error:
            self._broken(str(error))

    def _take(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.LOG:
                self._said += 1
                self._prints.log(frame.body)
            case Kind.READY if not self._child.ready:
                self._start()
            case Kind.ENDED if self._attempt.started is not None:
                self._outcome = answered(frame)
                self.without_values = str(frame.fields.get("without_values", ""))
                if frame.fields.get("worn_out"):
                    self._child.wear_out()
            case Kind.UNFIT:
                self._outcome = answered(frame)
                self.without_values = str(frame.fields.get("without_values", ""))
                self._child.wear_out()
            case _:
                raise BrokenFrame(f"{frame.kind} came out of turn")

    def _on_death(self) -> None:
        """It may have answered before it died."""
        while self._outcome is None and (data := self._child.receive()):
            self._hear(data)
        self._child.wear_out()
        if self._outcome is None:
            when = "while it was being started" if self._attempt.started is None else "before it had returned"
            self._fail(f"{how_it_ended(self._child.end(), self._child.limits)}, {when}")

    def _broken(self, how: str) -> None:
        """What it has answered before that is its answer all the same."""
        if self._outcome is not None:
            self._child.wear_out()
            return
        self._fail(f"what its process and its runner talk by is of no use any more ({how}); the process was killed")

    def _fail(self, how: str) -> None:
        self._child.wear_out()
        self._child.end()
        self._read_prints(_LAST_WORDS)
        self._prints.end()
        tail = self._prints.tail()
        self.without_values = f"{self._attempt.leased.class_name}: {how}"
        trace = storable(f"what it printed last:\n{tail}") if tail else ""
        self._outcome = Failure(FailureType.TRANSIENT, self.without_values, trace)

    def _kill(self, reason: Stop, *, expired: bool) -> None:
        """Before anybody else may start the run. `expired`: the worker does not know yet."""
        self._child.wear_out()
        self._child.end()
        self._attempt.killed = True
        if expired:
            self._expire(reason)
        self._outcome = stopped(self._attempt, reason)

    def _discard_old_prints(self) -> None:
        for _ in range(_LAST_WORDS):
            if not self._child.printed():
                return

    def _read_prints(self, times: int) -> bool:
        """Up to so many times what there is; False at the end of all that it may print."""
        for _ in range(times):
            data = self._child.printed()
            if not data:
                return data is None
            self._prints.feed(data)
        return True
