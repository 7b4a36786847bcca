"""What a module prints or logs in its child process, as lines of its runner's log: so many, and so long, at most."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

import orjson

from valkyr.runner.leases import LeasedRun
from valkyr.telemetry import get_logger

log = get_logger(__name__)

MAX_LINES = 200
MAX_LOGGED = 1000
MAX_LINE = 1000
MAX_PRINTED = 256 * 1024
"""Bytes that are read in haste, be they one line."""

TAIL = 50

_TAKEN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "event", "time", "level", "logger"}
"""Names that the runner's own log gives to what it adds."""

_LEVELS = frozenset({"debug", "info", "warning", "error", "critical"})


class Prints:
    """Of one run. The end of what was printed is kept: after a death it may tell why."""

    def __init__(self, leased: LeasedRun) -> None:
        self._leased = leased
        self._part = b""
        self._cut = False
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._lines = 0
        self._bytes = 0
        self._logged = 0

    @property
    def is_too_much(self) -> bool:
        """It has printed all that will be shown: no haste with the rest."""
        return self._lines > MAX_LINES or self._bytes > MAX_PRINTED

    def feed(self, data: bytes) -> None:
        self._bytes += len(data)
        *lines, self._part = (self._part + data).split(b"\n")
        for line in lines:
            if not self._cut:
                self._print(line)
            self._cut = False
        if len(self._part) >= MAX_LINE:  # of such a line the rest is left out, however long it becomes
            if not self._cut:
                self._print(self._part)
            self._part, self._cut = b"", True

    def end(self) -> None:
        if self._part and not self._cut:
            self._print(self._part)
        self._part = b""

    def tail(self) -> str:
        return "\n".join(self._tail)

    def log(self, body: bytes) -> None:
        """A line of the child's log, as JSON: an event with its fields. What is none is left out."""
        self._logged += 1
        if self._logged > MAX_LOGGED:
            if self._logged == MAX_LOGGED + 1:
                self._say("module.log_cut", lines=MAX_LOGGED)
            return
        try:
            fields: dict[str, Any] = orjson.loads(body)
            event, level, name = str(fields["event"]), str(fields["level"]), str(fields.get("logger", "valkyr.module"))
        except (ValueError, KeyError, TypeError):
            return
        told = {key: value for key, value in fields.items() if key not in _TAKEN}
        getattr(get_logger(name), level if level in _LEVELS else "info")(event, **told)

    def _print(self, line: bytes) -> None:
        text = line[:MAX_LINE].decode("utf-8", "backslashreplace")
        self._tail.append(text)
        self._lines += 1
        if self._lines <= MAX_LINES:
            log.info("module.printed", line=text, **self._ids())
        elif self._lines == MAX_LINES + 1:
            self._say("module.prints_cut", lines=MAX_LINES)

    def _say(self, event: str, *, lines: int) -> None:
        log.warning(event, lines=lines, **self._ids())

    def _ids(self) -> dict[str, Any]:
        leased = self._leased
        return {"run_id": leased.ref.run_id, "node_id": leased.node_id, "attempt": leased.attempt}
