"""How long a machine stood still under a test: by so much what has to happen in time may be late."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

TICK = 0.02
NOTED = 0.1


class Standstills:
    """Of this process: others on the machine stood still then, too. `longest` in seconds; it grows."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._over = threading.Event()

    def end(self) -> None:
        self._over.set()

    def note(self) -> None:
        """Until the end."""
        before = time.monotonic()
        while not self._over.wait(TICK):
            now = time.monotonic()
            if now - before > NOTED:
                self.longest = max(self.longest, now - before)
            before = now


@contextmanager
def noted_standstills() -> Iterator[Standstills]:
    """Notes them within the block."""
    standstills = Standstills()
    noting = threading.Thread(target=standstills.note, name="standstills", daemon=True)
    noting.start()
    try:
        yield standstills
    finally:
        standstills.end()
        noting.join()
