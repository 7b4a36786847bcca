"""Lines on their way to stdout: a bounded queue and a thread, so that a pipe nobody reads never blocks the loop."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from datetime import timedelta
from typing import TextIO

CAPACITY = 10_000
_STOP = None


class LogQueue:
    """Takes lines without waiting. When it is full the line is dropped, and counted in a later line."""

    def __init__(self, stream: TextIO, *, capacity: int = CAPACITY) -> None:
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(capacity)
        self._dropped = 0
        self._lock = threading.Lock()
        self._writer = threading.Thread(target=self._write, name="log-writer", daemon=True)
        self._writer.start()

    @property
    def is_terminal(self) -> bool:
        return self._stream.isatty()

    @property
    def dropped(self) -> int:
        """Lines dropped since the last one that said so."""
        return self._dropped

    def put(self, line: str) -> None:
        """Never waits, never raises."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            with self._lock:
                self._dropped += 1

    def close(self, timeout: timedelta) -> None:
        """Writes what is left, within `timeout`."""
        with suppress(queue.Full):
            self._lines.put(_STOP, timeout=timeout.total_seconds())
            self._writer.join(timeout.total_seconds())

    def _write(self) -> None:
        stopping = False
        while not stopping:
            batch = [self._lines.get()]
            with suppress(queue.Empty):
                while len(batch) < 500:
                    batch.append(self._lines.get_nowait())
            stopping = _STOP in batch
            lines = [line for line in batch if line is not None]
            with self._lock:
                dropped, self._dropped = self._dropped, 0
            if dropped:
                lines.append(f'{{"event":"log.dropped","level":"warning","lines":{dropped}}}')
            # A closed pipe leaves nowhere to say so.
            with suppress(OSError, ValueError):
                self._stream.write("".join(f"{line}\n" for line in lines))
                self._stream.flush()
