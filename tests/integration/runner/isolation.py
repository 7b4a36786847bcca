"""A worker with the bad module in processes, and questions about processes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson

from tests.integration.runner.bad_modules import bad, bad_async
from tests.unit.runner.fakes import FakeTransport, a_lease, a_running, eventually
from valkyr.module import ModuleSpec, ProcessLimits, spec_of
from valkyr.modules import builtin_modules
from valkyr.runner.leases import LeasedRun
from valkyr.runner.worker import Worker

BEAT = timedelta(milliseconds=5)


def isolated(**limits: Any) -> dict[str, ModuleSpec]:
    """`Bad`, a `def`, and `BadAsync`, an `async def`."""
    within = ProcessLimits(**limits)
    return {
        **builtin_modules(),
        "Bad": spec_of("Bad", bad, isolation="process", limits=within),
        "BadAsync": spec_of("BadAsync", bad_async, isolation="process", limits=within),
    }


def a_deed(
    run_id: str, do: str, class_name: str = "Bad", *, path: Path | None = None, number: int = 0, **changes: Any
) -> LeasedRun:
    config = {"do": do, "path": "" if path is None else str(path), "number": number}
    return a_lease(run_id, class_name, config=orjson.dumps(config), **changes)


@asynccontextmanager
async def a_runner(
    modules: Mapping[str, ModuleSpec] | None = None, **options: Any
) -> AsyncIterator[tuple[FakeTransport, Worker]]:
    """Within the block; its processes end with it."""
    transport = FakeTransport()
    options.setdefault("concurrency", 2)
    async with a_running(transport, dict(modules or isolated()), **options) as worker:
        yield transport, worker


async def outputs_of(transport: FakeTransport, leased: LeasedRun) -> Any:
    transport.offer(leased)
    await reported(transport, leased.ref.run_id)
    return orjson.loads(transport.outputs_of(leased.ref.run_id))


async def reported(transport: FakeTransport, run_id: str) -> None:
    await eventually(
        lambda: any(result.ref.run_id == run_id for result in transport.results), f"report of {run_id}", 30
    )


async def pid_in(path: Path) -> int:
    """Once the module has written it there."""
    await eventually(lambda: _text(path), f"a pid in {path}", 30)
    return int(_text(path))


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def is_running(pid: int) -> bool:
    """Neither gone nor a zombie whose threads are all gone."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" or len(os.listdir(f"/proc/{pid}/task")) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes_of(pid: int) -> set[int]:
    """The children of a process that are alive."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[1]) == pid and fields[0] != "Z":
                found.add(int(name))
    return found
