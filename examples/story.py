"""How the demo tells its story: headlines, lines, checks that end it, and waiting with an end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from valkyr.cli.printing import Printer
from valkyr.client import Execution, ExecutionState

LIMIT = timedelta(seconds=60)
STEPS = 10
LOOK = 0.05

_Seen = TypeVar("_Seen")


class DemoFailed(Exception):
    """Something did not go as it should; the text says what."""


def step(printer: Printer, number: int, title: str) -> None:
    """A headline."""
    printer.line(f"[{number}/{STEPS}] {title}")


def say(printer: Printer, text: str) -> None:
    """A line of the story."""
    printer.line(f"       {text}")


def expect(holds: bool, otherwise: str) -> None:
    """DemoFailed, saying `otherwise`, where it does not hold."""
    if not holds:
        raise DemoFailed(otherwise)


def expect_success(execution: Execution) -> None:
    """DemoFailed for any other end."""
    why = f"{execution.error_type}: {execution.error_message}" if execution.error_message else "no more is known"
    message = f"execution {execution.id} is {execution.state}, not SUCCESS: {why}"
    expect(execution.state is ExecutionState.SUCCESS, message)


async def until(look: Callable[[], Awaitable[_Seen | None]], what: str, *, limit: timedelta = LIMIT) -> _Seen:
    """What `look` has found as soon as it is not None. DemoFailed naming `what` after `limit`."""
    expires = time.monotonic() + limit.total_seconds()
    while (found := await look()) is None:
        expect(time.monotonic() < expires, f"{what}: not within {limit.total_seconds():g} s")
        await asyncio.sleep(LOOK)
    return found
