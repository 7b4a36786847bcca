"""A small process that outlives a runner that is killed, and then kills what isolated modules have started."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress

from valkyr.telemetry import get_logger

log = get_logger(__name__)

_PROGRAM = """\
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
groups = set()
for line in sys.stdin.buffer:
    (groups.add if line[:1] == b"+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""
"""Told which process groups there are, by a pipe whose other end only the runner has: that closes with the runner."""

_PATIENCE = 1.0


class Guard:
    """Started when it is first needed, and anew if it is gone. May be used from any thread."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def watch(self, group: int) -> None:
        """From now on its processes are killed when this one ends."""
        with self._lock:
            self._groups.add(group)
            self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """It has ended, and its number may be somebody else's."""
        with self._lock:
            self._groups.discard(group)
            if self._process is not None:
                self._tell(f"-{group}\n")

    def close(self) -> None:
        """Kills what it still watches."""
        with self._lock:
            self._groups.clear()
            self._end()

    def _tell(self, line: str) -> None:
        process = self._process
        if process is not None:
            try:
                self._say(process, line)
                return
            except OSError:  # it has been killed, or reads no more
                log.warning("guard.gone")
                process.kill()  # before its pipe closes, which would tell it that the runner is gone
                self._end()
        try:
            self._process = _started()
            self._say(self._process, "".join(f"+{group}\n" for group in self._groups))
        except OSError as error:
            log.warning("guard.not_started", error=str(error))

    def _say(self, process: subprocess.Popen[bytes], lines: str) -> None:
        if process.stdin is None:
            raise AssertionError("its input is a pipe")
        os.write(process.stdin.fileno(), lines.encode())

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
        process.kill()
        process.wait()


def _started() -> subprocess.Popen[bytes]:
    process = subprocess.Popen(  # noqa: S603 - this interpreter, and a program of ours
        [sys.executable, "-I", "-S", "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
        bufsize=0,
    )
    if process.stdin is not None:
        os.set_blocking(process.stdin.fileno(), False)
    return process
