"""A child process as its runner has it: started, spoken to, killed with all that it has started; and how it died."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from valkyr.module import ModuleSpec, ProcessLimits
from valkyr.runner.isolated.frames import MAX_ANSWER, FrameReader
from valkyr.runner.isolated.orders import set_up

_PROGRAM = """\
import sys
sys.path[:] = sys.argv[3:]
from valkyr.runner.isolated.child import main
main(int(sys.argv[1]), int(sys.argv[2]))
"""

_CHUNK = 64 * 1024


class ChildProcess:
    """A fresh interpreter in a session of its own. Open in it are its end of the channel, /dev/null and `output`.

    Used by one thread at a time, but for `wake`. To be made by a thread that outlives it, as it ends with that thread.
    """

    def __init__(self, spec: ModuleSpec, settings: Mapping[str, Any]) -> None:
        """OSError if the system has no room for another. What `set_up` raises."""
        self.class_name = spec.class_name
        self.limits = spec.limits or ProcessLimits()
        self.ready = False
        self.runs = 0
        self._worn_out = False
        self.frames = FrameReader(MAX_ANSWER)
        self._unsent = bytearray(set_up(spec, settings).encoded())
        self.channel, theirs = socket.socketpair()
        self.woken, self._waker = socket.socketpair()
        for end in (self.channel, self.woken, self._waker):
            end.setblocking(False)
        try:
            self._process = _started(theirs)
        except BaseException:
            self._close_sockets()
            raise
        finally:
            theirs.close()
        self.output = _output_of(self._process)
        self.death = _death_of(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_usable(self) -> bool:
        """Alive, and not worn out by its runs."""
        return not self._worn_out and self.runs < self.limits.runs and not self.has_died()

    def wear_out(self) -> None:
        """It is not to run another."""
        self._worn_out = True

    def has_died(self) -> bool:
        if self._process.returncode is not None:
            return True
        if hasattr(os, "waitid"):
            # Without reaping it: as long as it is there to be waited for, nobody else gets its number.
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return self._process.poll() is not None

    def wake(self) -> None:
        """From any thread: whoever watches it is to look again."""
        with suppress(OSError):
            self._waker.send(b"!")

    def put(self, data: bytes) -> None:
        """Queues a frame; `send` sends."""
        self._unsent += data

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def send(self) -> None:
        """As much as it takes now. OSError if it takes nothing any more."""
        with suppress(BlockingIOError):
            while self._unsent:
                del self._unsent[: self.channel.send(self._unsent[:_CHUNK])]

    def receive(self) -> bytes | None:
        """What it has said, at most 64 KiB; empty once it can say no more; None: nothing yet."""
        try:
            return self.channel.recv(_CHUNK)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def printed(self) -> bytes | None:
        """As `receive`, of what it has written to its stdout and stderr."""
        try:
            return os.read(self.output, _CHUNK)
        except BlockingIOError:
            return None

    def end(self) -> int:
        """Kills it and what it has started, unless they have left its session; its return code, negative: a signal."""
        if self._process.returncode is None:  # else its number may be somebody else's by now
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()

    def close(self) -> None:
        """Ends it, and lets go of what it took here. Once."""
        self.end()
        self._close_sockets()
        if self._process.stdout is not None:
            self._process.stdout.close()
        if self.death is not None:
            os.close(self.death)

    def _close_sockets(self) -> None:
        for end in (self.channel, self.woken, self._waker):
            end.close()


def _started(channel: socket.socket) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", _PROGRAM, str(channel.fileno()), str(os.getpid()), *sys.path]
    return subprocess.Popen(  # noqa: S603 - this interpreter, and a program of ours
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(channel.fileno(),),
        start_new_session=True,
        bufsize=0,
    )


def _death_of(pid: int) -> int | None:
    """Readable once it has died. None where the system has no such thing, or refuses it, as sandboxes do."""
    try:
        return os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    except OSError:
        return None


def _output_of(process: subprocess.Popen[bytes]) -> int:
    if process.stdout is None:
        raise AssertionError("its output is a pipe")
    os.set_blocking(process.stdout.fileno(), False)
    return process.stdout.fileno()


def how_it_ended(code: int, limits: ProcessLimits) -> str:
    """In words, of a return code: the signal by its name, and what it may mean."""
    if code >= 0:
        return f"its process ended by itself, with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    text = f"its process was killed by {name}"
    if name == "SIGXCPU" and limits.cpu is not None:
        return f"{text}: it took more than its {limits.cpu.total_seconds():g} s of processor time"
    if name == "SIGKILL":
        return f"{text}, and not by its runner: by the system for want of memory, or by somebody"
    return text
