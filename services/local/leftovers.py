"""Ends the services of a stack that was killed. On Linux the kernel has done it already; elsewhere nobody has."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal

from services.local.home import Home
from services.local.process_table import command_line


async def end_leftovers(home: Home) -> None:
    """Reads the state that a killed stack left behind; kills, within 10 s, what of its services still lives."""
    try:
        state = json.loads(home.state.read_text())
        pids = [int(service["pid"]) for service in state["services"].values()]
    except (OSError, ValueError, KeyError, TypeError):  # none, or torn by a full disk: nothing to learn from it
        return
    left = [pid for pid in pids if _is_service(pid)]
    for pid in left:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    for _ in range(200):
        left = [pid for pid in left if _is_service(pid)]
        if not left:
            break
        await asyncio.sleep(0.05)
    home.state.unlink(missing_ok=True)


def _is_service(pid: int) -> bool:
    """Whether the process of that number is still a Python that runs a module of ours: numbers are used again."""
    return " -m services." in command_line(pid)
