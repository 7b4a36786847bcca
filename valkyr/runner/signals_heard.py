"""Signals, heard in a thread of their own: a module that blocks the main thread must not keep them from being heard."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager


@contextmanager
def heard(numbers: Collection[int], told: Callable[[], None]) -> Iterator[None]:
    """Within the block, which the main thread enters, `told` is called for each such signal, in another thread."""
    listening, noting = socket.socketpair()
    noting.setblocking(False)
    descriptor = signal.set_wakeup_fd(noting.fileno(), warn_on_full_buffer=False)
    handlers = {number: signal.signal(number, _noted) for number in numbers}
    threading.Thread(target=_listen, args=(listening, numbers, told), name="valkyr-signals", daemon=True).start()
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(descriptor)
        noting.close()


def _noted(_number: int, _frame: object) -> None:
    """Python writes its number to the descriptor, at once; this is called when the main thread comes to it."""


def _listen(listening: socket.socket, numbers: Collection[int], told: Callable[[], None]) -> None:
    with listening:
        while received := listening.recv(64):
            for number in received:
                if number in numbers:
                    told()
