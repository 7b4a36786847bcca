"""The children of one worker: kept warm for the next run of their class, and never more of them than slots."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from valkyr.module import ModuleSpec
from valkyr.runner.isolated.guard import Guard
from valkyr.runner.isolated.process import ChildProcess


class ChildProcesses:
    """At most `limit` callers have a child at a time; those and the idle ones are no more than `limit` together."""

    def __init__(self, limit: int, settings: Mapping[str, Any]) -> None:
        self._limit = limit
        self._settings = settings
        self._idle: list[ChildProcess] = []
        self._taken = 0
        self._closed = False
        self._guard = Guard()
        self._lock = threading.Lock()

    def take(self, spec: ModuleSpec) -> ChildProcess:
        """The child of this class that ran last, or a new one. To be given back. What ChildProcess raises."""
        with self._lock:
            self._taken += 1
            child, ended = self._warm(spec), self._surplus()
        for other in ended:
            self._end(other)
        if child is not None and child.is_usable:
            return child
        if child is not None:  # it has died while it was idle
            self._end(child)
        try:
            child = ChildProcess(spec, self._settings)
            self._guard.watch(child.pid)
            return child
        except BaseException:
            with self._lock:
                self._taken -= 1
            raise

    def give_back(self, child: ChildProcess) -> None:
        """Ends it if it is worn out, or nobody wants it any more."""
        usable = child.is_usable
        if not usable:
            self._end(child)
        with self._lock:
            self._taken -= 1
            keep = usable and not self._closed
            if keep:
                self._idle.append(child)
            was_last = self._closed and not self._taken
        if usable and not keep:
            self._end(child)
        if was_last:
            self._guard.close()

    def close(self) -> None:
        """Ends the idle ones now, those in use when they are given back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            taken = self._taken
        for child in idle:
            self._end(child)
        if not taken:
            self._guard.close()

    def _end(self, child: ChildProcess) -> None:
        child.close()
        self._guard.forget(child.pid)

    def _warm(self, spec: ModuleSpec) -> ChildProcess | None:
        for index in range(len(self._idle) - 1, -1, -1):
            if self._idle[index].class_name == spec.class_name:
                return self._idle.pop(index)
        return None

    def _surplus(self) -> list[ChildProcess]:
        """The longest idle, for which there is no place beside those in use."""
        count = max(0, len(self._idle) + self._taken - self._limit)
        surplus, self._idle = self._idle[:count], self._idle[count:]
        return surplus
