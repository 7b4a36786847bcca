"""Tells Ctrl-C, which ends the process, from a KeyboardInterrupt that a module has raised itself."""

from __future__ import annotations

import signal
import threading
import traceback
from typing import Any


def is_ctrl_c(error: BaseException) -> bool:
    """Whether the person at the terminal may have meant it: raised in the main thread by SIGINT's handler.

    Python's own handler leaves no frame, so that under it every KeyboardInterrupt of the main thread counts.
    """
    if not isinstance(error, KeyboardInterrupt) or threading.current_thread() is not threading.main_thread():
        return False
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        return True
    code = _code_of(handler)
    return code is not None and any(frame.f_code is code for frame, _ in traceback.walk_tb(error.__traceback__))


def _code_of(handler: Any) -> Any:
    """Of a function, a method, or a partial of either, as asyncio's runner sets."""
    function = getattr(handler, "func", handler)
    return getattr(getattr(function, "__func__", function), "__code__", None)
