"""Modules with effects in the world outside: a line in a ledger when an attempt begins, and one when it ends."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel

from tests.integration.runner.bad_modules import bad
from valkyr.module import Context, module

LEDGER = "VALKYR_TEST_LEDGER"
"""The environment variable that names the file."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One line. `what` is BEGUN, DONE or STOPPED; `at` is the machine's monotonic clock, the same in every process."""

    what: str
    key: str
    node_id: str
    attempt: int
    pid: int
    at: float


def effects(ledger: Path) -> list[Effect]:
    """In the order written."""
    lines = ledger.read_bytes().splitlines() if ledger.exists() else []
    return [Effect(**orjson.loads(line)) for line in lines]


def of(effects: Sequence[Effect], what: str, node_id: str) -> list[Effect]:
    return [effect for effect in effects if effect.what == what and effect.node_id == node_id]


def note(context: Context, what: str) -> None:
    """Is on the disk of the machine, not in this process, when it returns."""
    line = Effect(what, context.idempotency_key, context.node_id, context.attempt, os.getpid(), time.monotonic())
    with open(os.environ[LEDGER], "ab", buffering=0) as ledger:
        ledger.write(orjson.dumps(asdict(line)) + b"\n")


class EffectConfig(BaseModel):
    """How long it takes; every attempt, unless `later_milliseconds` says another time for those after the first."""

    milliseconds: int = 10
    later_milliseconds: int | None = None


@module("EffectModule")
async def effect(context: Context, config: EffectConfig) -> dict[str, Any]:
    """Has its effect, and takes a while."""
    note(context, "BEGUN")
    later = config.later_milliseconds
    milliseconds = config.milliseconds if later is None or context.attempt == 1 else later
    try:
        await asyncio.sleep(milliseconds / 1000)
    except asyncio.CancelledError:
        note(context, "STOPPED")
        raise
    note(context, "DONE")
    return {"attempt": context.attempt, "pid": os.getpid()}


@module("DeadlyModule")
async def deadly(context: Context) -> None:
    """Takes its process along, every time."""
    note(context, "BEGUN")
    os.kill(os.getpid(), signal.SIGKILL)


@module("QuitModule")
def quits(context: Context) -> dict[str, Any]:
    """At its first attempt it ends its process, without a word and as if all were well."""
    note(context, "BEGUN")
    if context.attempt == 1:
        os._exit(0)
    note(context, "DONE")
    return {"attempt": context.attempt, "pid": os.getpid()}


class TellingConfig(BaseModel):
    """What comes of the first attempt once it has told: it fails, or goes on for ever."""

    fails: bool


@module("TellingModule")
async def telling(context: Context, config: TellingConfig) -> dict[str, Any]:
    """Tells of its progress at its first attempt; what it finds at the next it returns, and costs something."""
    note(context, "BEGUN")
    if context.attempt == 1:
        context.heartbeat({"done": [context.node_id, 3]})
        if config.fails:
            raise RuntimeError("once more")
        await asyncio.sleep(1_000)
    context.cost_tokens = 2.5
    note(context, "DONE")
    return {"attempt": context.attempt, "before": context.progress}


@module("HogModule")
def hog(context: Context) -> dict[str, Any]:
    """At its first attempt it holds the GIL, for ever: nothing else of its process runs, its heartbeats neither."""
    note(context, "BEGUN")
    if context.attempt == 1:
        sum(iter(int, 1))
    note(context, "DONE")
    return {"attempt": context.attempt, "pid": os.getpid()}


@module("IsolatedHogModule", timeout=timedelta(seconds=1), isolation="process")
def isolated_hog(context: Context) -> dict[str, Any]:
    """As HogModule, where it hurts nobody."""
    return hog(context)


@module("CrashModule", isolation="process")
def crash(context: Context) -> dict[str, Any]:
    """At its first attempt it reads where there is no memory."""
    note(context, "BEGUN")
    if context.attempt == 1:
        ctypes.string_at(0)
    note(context, "DONE")
    return {"attempt": context.attempt, "pid": os.getpid()}


module("BadModule")(bad)
module("IsolatedBadModule", isolation="process")(bad)


@module("DeafModule")
async def deaf(context: Context) -> None:
    """Does not mind being told to stop, for ever."""
    note(context, "BEGUN")
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)


@module("LingeringModule")
async def lingering(context: Context) -> None:
    """Stops when it is told to, but leaves a thread behind that does not."""
    note(context, "BEGUN")
    await asyncio.to_thread(time.sleep, 1_000)


@module("BlockingModule")
async def blocking(context: Context) -> None:
    """Lets nothing else happen on the loop, for ever."""
    note(context, "BEGUN")
    time.sleep(1_000)  # noqa: ASYNC251 - that is what is wrong with it
