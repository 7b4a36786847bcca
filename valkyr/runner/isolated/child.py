"""The program of a child process: sets itself up as told, then runs one run after another, until the channel closes."""

from __future__ import annotations

import asyncio
import faulthandler
import importlib
import io
import os
import pickle
import queue
import runpy
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import reduce
from typing import Any

from valkyr.module import Context, ModuleSpec, registered_modules, spec_of
from valkyr.runner.attempt import Attempt, Stop
from valkyr.runner.attempt_span import attempt_span
from valkyr.runner.execute import config_of, context_for
from valkyr.runner.isolated.frames import MAX_ORDER, Frame, FrameReader, Kind
from valkyr.runner.isolated.limits import allow_cpu, end_group, end_with, has_children, limit
from valkyr.runner.isolated.orders import Outcome, answer, logged, ordered, progress_of
from valkyr.runner.leases import Failure, LeasedRun
from valkyr.runner.outcomes import failure_of, message_without_values, success_of
from valkyr.telemetry.logs import configure_logs

Ended = tuple[Outcome, BaseException | None]


class Channel:
    """To the runner. Frames are sent whole, by any thread of this process, but by no process forked from it."""

    is_terminal = False

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)
        self._sending = threading.Lock()
        self._reader = FrameReader(MAX_ORDER)
        self._owner = os.getpid()

    @property
    def is_ours(self) -> bool:
        """False in a process that the module has forked."""
        return os.getpid() == self._owner

    def send(self, frame: Frame) -> None:
        if self.is_ours:
            with self._sending:
                self._socket.sendall(frame.encoded())

    def put(self, line: str) -> None:
        """A line of the log: the runner writes it."""
        self.send(logged(line))

    def says_something(self, until: float | None) -> bool:
        """Waits for it; False if there has been nothing when the machine's clock says `until`."""
        wait = None if until is None else max(0.0, until - time.monotonic()) * 1000
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(wait))

    def receive(self) -> Sequence[Frame]:
        """Waits for one or more. Empty: closed."""
        while data := self._socket.recv(1 << 20):
            if frames := list(self._reader.feed(data)):
                return frames
        return ()


class Child:
    """Runs are run in the main thread, as by a program of their own; another thread listens to the runner meanwhile."""

    def __init__(self, channel: Channel, spec: ModuleSpec, settings: Mapping[str, Any], orders: Frame) -> None:
        self._channel = channel
        self._spec = spec
        self._settings = settings
        self._cpu: float | None = orders.fields["cpu"]
        self._memory: int | None = orders.fields["memory"]
        self._runs: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._attempt: Attempt | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._trusted_until: float | None = None
        self._heard = 0
        self._ended = 0

    def serve(self) -> None:
        """Does not return."""
        threading.Thread(target=self._listen, name="valkyr-channel", daemon=True).start()
        self._channel.send(Frame(Kind.READY, {}))
        while True:
            leased = ordered(self._runs.get(), self._spec.class_name)
            if self._cpu is not None:
                allow_cpu(self._cpu)
            outcome, error = self._run(leased)
            self._ended += 1
            if isinstance(error, MemoryError) and self._memory is not None and isinstance(outcome, Failure):
                text = f"{outcome.message}: its process may write to {self._memory >> 20} MiB"
                outcome = replace(outcome, message=text)
            if not self._channel.is_ours:  # the module forked, and both sides have come back here
                os._exit(0)
            worn_out = not _flushed() or isinstance(error, MemoryError) or has_children()
            said = "" if error is None else message_without_values(error)
            self._channel.send(answer(outcome, without_values=said, worn_out=worn_out))

    def _listen(self) -> None:
        """Until the runner is gone, or stands still for so long that another may have the run. Who does not listen any
        more, for whatever reason, ends."""
        try:
            while True:
                if self._channel.says_something(self._trust()):  # before the clock: it may have come long ago
                    frames = self._channel.receive()
                    if not frames:
                        break
                    for frame in frames:
                        self._hear(frame)
                elif self._is_on_its_own():
                    break
        finally:
            end_group()

    def _is_on_its_own(self) -> bool:
        until = self._trust()
        return until is not None and time.monotonic() >= until

    def _trust(self) -> float | None:
        """None while no run is under way: what has come of the lease of one that has ended says nothing. Before each
        run comes the first word of its own lease."""
        return self._trusted_until if self._heard > self._ended else None

    def _hear(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.TRUST:
                self._trusted_until = frame.fields["until"]
            case Kind.RUN:
                self._heard += 1  # before the other thread can have ended it
                self._runs.put(frame)
            case _:
                self._cancel((frame.fields["run_id"], frame.fields["epoch"]))

    def _cancel(self, key: tuple[str, int]) -> None:
        """The module may return meanwhile: then there is no task any more, or its loop has been closed."""
        attempt = self._attempt
        if attempt is None or attempt.key != key:
            return
        attempt.stop = Stop.CANCEL
        if attempt.context is not None:
            attempt.context.cancelled = True
        task = attempt.task
        loop = self._loop  # after the task, as it is set before that
        if task is not None and loop is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)

    def _run(self, leased: LeasedRun) -> Ended:
        self._attempt = attempt = Attempt(leased, granted_at=0)
        context = context_for(
            attempt, self._settings, on_progress=lambda said: self._channel.send(progress_of(leased, said))
        )
        with attempt_span(leased, calls_out=True):
            if self._spec.is_async:
                return asyncio.run(self._awaited(context, attempt))
            return self._called(context, leased)

    def _called(self, context: Context, leased: LeasedRun) -> Ended:
        try:
            value = self._spec.function(context, *config_of(self._spec, leased))
            return success_of(value, context.cost_tokens), None
        except BaseException as error:  # noqa: BLE001 - SystemExit too: it has failed, and its process serves on
            return failure_of(error), error

    async def _awaited(self, context: Context, attempt: Attempt) -> Ended:
        self._loop, attempt.task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            if attempt.stop is not None:  # told before there was a task to cancel
                raise asyncio.CancelledError
            value = await self._spec.function(context, *config_of(self._spec, attempt.leased))
            return success_of(value, context.cost_tokens), None
        except BaseException as error:  # noqa: BLE001 - as above
            return failure_of(error), error
        finally:
            attempt.task = None


def _flushed() -> bool:
    """False if the module has closed or replaced what it prints to: nothing more is to be run in here."""
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except (AttributeError, ValueError, OSError):
        return False
    return True


def found(orders: Mapping[str, Any]) -> ModuleSpec:
    """The module whose function it is to run, imported. Raises whatever importing it raises."""
    if orders["module"]:
        names = vars(importlib.import_module(orders["module"]))
    else:
        names = runpy.run_path(orders["file"], run_name="__valkyr_module__")
    known = registered_modules().get(orders["class_name"])
    if known is not None and known.function.__qualname__ == orders["qualname"]:
        return known
    first, *rest = orders["qualname"].split(".")
    return spec_of(orders["class_name"], reduce(getattr, rest, names[first]))


def main(descriptor: int, parent: int) -> None:
    """`descriptor`: its end of the channel. `parent`: who started it, and with whom it ends."""
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable(all_threads=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    channel = Channel(descriptor)
    frames = channel.receive()
    if not frames:
        return
    orders = frames[0]
    configure_logs(channel, level="INFO", console=False)
    try:
        limit(memory=orders.fields["memory"], open_files=orders.fields["open_files"])
        spec = found(orders.fields)
        settings = pickle.loads(orders.body)  # noqa: S301 - the runner's own words
    except BaseException as error:  # noqa: BLE001 - importing runs code of others, which may raise anything
        channel.send(
            answer(failure_of(error), without_values=message_without_values(error), worn_out=True, kind=Kind.UNFIT)
        )
        return
    Child(channel, spec, settings, orders).serve()
