"""Modules for tests of the executor: they block until the test lets go, fail as told, and count who runs when.

In the test's own process a test steers them through `GATES`, by the node id of the run.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from valkyr.module import Context, PermanentError, module


@dataclass
class Gates:
    """Shared by the test and the modules of one event loop; `reset` before each test."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    started: Counter[str] = field(default_factory=Counter)
    order: list[str] = field(default_factory=list)
    contexts: list[Context] = field(default_factory=list)
    running: int = 0
    most: int = 0

    def reset(self) -> None:
        self.__init__()  # type: ignore[misc]

    def enter(self, context: Context) -> None:
        self.started[context.node_id] += 1
        self.order.append(context.node_id)
        self.contexts.append(context)
        self.running += 1
        self.most = max(self.most, self.running)


GATES = Gates()


@module("HeldModule")
async def held(context: Context) -> dict[str, Any]:
    """Runs until the test opens the gate."""
    GATES.enter(context)
    try:
        await GATES.open.wait()
    finally:
        GATES.running -= 1
    return {"node": context.node_id, "attempt": context.attempt}


@module("BriefModule")
async def brief(context: Context) -> dict[str, Any]:
    """Notes that it ran, and gives the loop a turn, so that modules could overlap if they were let."""
    GATES.enter(context)
    await asyncio.sleep(0)
    GATES.running -= 1
    return {"node": context.node_id}


class BrokenConfig(BaseModel):
    """`permanent` chooses the failure type."""

    message: str = "it broke"
    permanent: bool = True


@module("BrokenModule")
async def broken(context: Context, config: BrokenConfig) -> None:
    """Fails, always."""
    GATES.enter(context)
    GATES.running -= 1
    raise PermanentError(config.message) if config.permanent else RuntimeError(config.message)


class DedupedConfig(BaseModel):
    """What makes one run another than its equals; `broken` fails for good, `flaky` at the first attempt."""

    order: Any = None
    broken: bool = False
    flaky: bool = False


@module("DedupedModule", dedupe="workflow")
async def deduped(context: Context, config: DedupedConfig) -> dict[str, Any]:
    """Notes that it ran, and costs something."""
    GATES.enter(context)
    GATES.running -= 1
    context.cost_tokens = 7
    if config.broken:
        raise PermanentError("it broke")
    if config.flaky and context.attempt == 1:
        raise RuntimeError("once more")
    return {"order": config.order, "run": len(GATES.order)}


@module("DedupedEverywhereModule", dedupe="global", dedupe_ttl=timedelta(hours=1))
async def deduped_everywhere(context: Context, config: DedupedConfig) -> dict[str, Any]:
    """As DedupedModule, over all workflows."""
    return await deduped(context, config)


class CostConfig(BaseModel):
    """What the module says it cost."""

    tokens: Any = 1.5


@module("CostModule")
async def costly(context: Context, config: CostConfig) -> dict[str, Any]:
    """Reports a cost."""
    context.cost_tokens = config.tokens
    return {}


class SizeConfig(BaseModel):
    """How many bytes of text to return."""

    size: int = 10


@module("SizeModule")
async def sized(_context: Context, config: SizeConfig) -> dict[str, Any]:
    """Returns a text of that size."""
    return {"text": "x" * config.size}


@module("InputsModule")
async def echoes(context: Context, config: BrokenConfig) -> dict[str, Any]:
    """Returns what it was given."""
    return {"inputs": context.inputs, "message": config.message, "key": context.idempotency_key}


class WorkConfig(BaseModel):
    """How long it takes."""

    milliseconds: int = 10


@module("WorkModule")
async def work(context: Context, config: WorkConfig) -> dict[str, Any]:
    """Takes a while, as real work does."""
    await asyncio.sleep(config.milliseconds / 1000)
    return {"attempt": context.attempt}


class FileConfig(BaseModel):
    """What to wait for."""

    file: Path


@module("FileModule")
async def until_there(context: Context, config: FileConfig) -> dict[str, Any]:
    """Runs until the file is there: the gate for modules in another process than the test's."""
    while not config.file.exists():
        await asyncio.sleep(0.02)
    return {"attempt": context.attempt}


@module("StubbornModule")
async def stubborn(context: Context) -> dict[str, Any]:
    """Runs until the test opens the gate, whoever cancels it."""
    GATES.enter(context)
    waiting = asyncio.ensure_future(GATES.open.wait())
    while not waiting.done():
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError:
            continue
    GATES.running -= 1
    return {"node": context.node_id}


@module("ProgressModule")
async def progressing(context: Context) -> dict[str, Any]:
    """Says how far it is and breaks, twice for a while and once for good; then returns what it was handed."""
    GATES.enter(context)
    GATES.running -= 1
    found = context.progress
    context.heartbeat({"attempt": context.attempt})
    if context.attempt < 3:
        raise RuntimeError("once more")
    if context.attempt == 3:
        raise PermanentError("ask somebody")
    return {"found": found}
