"""Threads for `def` modules: a bounded number, made when needed, that never keep a process from exiting."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable

_numbers = itertools.count(1)


class ModuleThreads:
    """First come, first served. A thread that its module never gives back is not replaced: see Worker.room."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = threading.Semaphore(0)
        self._closed = False

    def submit(self, job: Callable[[], None]) -> None:
        """`job` must not raise. Called from one thread only, the event loop's."""
        if self._closed:
            raise RuntimeError("the threads of this worker have been closed")
        self._jobs.put(job)
        if self._idle.acquire(blocking=False) or len(self._threads) >= self._limit:
            return
        # Daemon: concurrent.futures would wait at exit for a module that never returns.
        thread = threading.Thread(target=self._work, name=f"valkyr-module-{next(_numbers)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Lets the threads end after the job each is at; does not wait for them."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job
            self._idle.release()
