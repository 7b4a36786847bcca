"""Runners as processes, each killed, frozen and told to end by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from services.local.home import PROJECT
from services.local.identity import Identity
from tests.effect_modules import LEDGER
from tests.executor_stack import until_true

MODULES = "tests.effect_modules"
STARTS_WITHIN = 90.0


class RunnerProcess:
    """`valkyr runner`, its log lines in `said`. Leave its block, and it is gone."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self, event: str) -> list[Mapping[str, Any]]:
        """Log lines of that event."""
        return [line for line in self._lines() if line.get("event") == event]

    def text(self) -> str:
        return self._log.read_text()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def started(self) -> None:
        """Returns when the executor knows it."""
        await until_true(
            lambda: self.said("runner.started") or self.process.returncode is not None, "a runner starts", STARTS_WITHIN
        )
        assert self.process.returncode is None, self.text()

    async def ended(self, timeout: float = 60) -> int:
        """Its exit code."""
        return await asyncio.wait_for(self.process.wait(), timeout)

    async def kill(self) -> None:
        """kill -9; returns when it is gone."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    def _lines(self) -> list[Mapping[str, Any]]:
        found = []
        for line in self._log.read_bytes().splitlines():
            with suppress(orjson.JSONDecodeError):
                found.append(orjson.loads(line))
        return found


@asynccontextmanager
async def a_runner(
    folder: Path, executor: str, *arguments: str, name: str = "runner", **environment: str
) -> AsyncIterator[RunnerProcess]:
    """Started, and known to the executor. `folder` gets the ledger and its log, of this `name`."""
    runner = await launched(folder, executor, *arguments, name=name, **environment)
    try:
        await runner.started()
        yield runner
    finally:
        await runner.kill()


async def launched(
    folder: Path, executor: str, *arguments: str, name: str = "runner", **environment: str
) -> RunnerProcess:
    """Does not wait. Whoever calls this kills it. `environment` is added to what it has anyway."""
    log = folder / f"{name}.log"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VALKYR_", "RUNNER_"))}
    command = [sys.executable, "-m", "valkyr.runner", MODULES, "--executor", executor, *arguments]
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *Identity().command(*command, death_signal=signal.SIGKILL),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=PROJECT,
            env={**kept, LEDGER: str(folder / "ledger"), "LEASH_PARENT": str(os.getpid()), **environment},
            start_new_session=True,
        )
    return RunnerProcess(process, log)
