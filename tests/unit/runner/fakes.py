"""An executor that is a list, a clock that is moved, and modules that wait to be told."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from valkyr.errors import ValkyrError
from valkyr.module import ModuleSpec, spec_of
from valkyr.modules import builtin_modules
from valkyr.runner.leases import (
    Failure,
    Granted,
    HeartbeatAnswer,
    LeasedRun,
    LeaseRef,
    ReportAnswer,
    RunResult,
    Success,
)
from valkyr.runner.worker import Worker

LEASE = timedelta(minutes=2)


class Clock:
    """Monotonic seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


class FakeTransport:
    """Hands out `ready`, remembers everything. `report_errors` and `lease_errors` are raised first, one a call."""

    def __init__(self, *runs: LeasedRun) -> None:
        self.ready: deque[LeasedRun] = deque(runs)
        self.asked: list[int] = []
        self.batches: list[list[RunResult]] = []
        self.refused: list[list[RunResult]] = []
        self.beats: list[list[LeaseRef]] = []
        self.progress: list[Mapping[LeaseRef, bytes]] = []
        self.answers: dict[str, HeartbeatAnswer] = {}
        self.report_answers: dict[str, ReportAnswer] = {}
        self.lease_errors: deque[ValkyrError] = deque()
        self.report_errors: deque[ValkyrError] = deque()
        self.refuse: Callable[[Sequence[RunResult]], ValkyrError | None] = lambda _: None
        self.reports_may_pass = asyncio.Event()
        self.reports_may_pass.set()
        self.beats_may_pass = threading.Event()
        self.beats_may_pass.set()
        self.beat_error: ValkyrError | None = None
        self.more = asyncio.Event()

    def offer(self, *runs: LeasedRun) -> None:
        self.ready.extend(runs)
        self.more.set()

    async def lease_runs(self, *, max_runs: int) -> Granted:
        self.asked.append(max_runs)
        if self.lease_errors:
            raise self.lease_errors.popleft()
        while not self.ready:
            self.more.clear()
            await self.more.wait()
        return Granted([self.ready.popleft() for _ in range(min(max_runs, len(self.ready)))])

    async def report_runs(self, results: Sequence[RunResult]) -> Sequence[ReportAnswer]:
        await self.reports_may_pass.wait()
        error = self.report_errors.popleft() if self.report_errors else self.refuse(results)
        if error is not None:
            self.refused.append(list(results))
            raise error
        self.batches.append(list(results))
        return [self.report_answers.get(result.ref.run_id, ReportAnswer.ACCEPTED) for result in results]

    def told(self) -> datetime | None:
        return None

    def heartbeat_runs(
        self, leases: Sequence[LeaseRef], *, progress: Mapping[LeaseRef, bytes], as_of: datetime | None
    ) -> Sequence[HeartbeatAnswer]:
        self.beats.append(list(leases))
        self.progress.append(progress)
        self.beats_may_pass.wait(60)
        if self.beat_error is not None:
            raise self.beat_error
        return [self.answers.get(lease.run_id, HeartbeatAnswer.CONTINUE) for lease in leases]

    @property
    def results(self) -> list[RunResult]:
        return [result for batch in self.batches for result in batch]

    def result_of(self, run_id: str) -> RunResult:
        [result] = [result for result in self.results if result.ref.run_id == run_id]
        return result

    def failure_of(self, run_id: str) -> Failure:
        failure = self.result_of(run_id).result
        assert isinstance(failure, Failure), failure
        return failure

    def outputs_of(self, run_id: str) -> bytes:
        success = self.result_of(run_id).result
        assert isinstance(success, Success), success
        return success.outputs


def a_lease(run_id: str = "r1", class_name: str = "NoopModule", **changes: Any) -> LeasedRun:
    """A run, leased for two minutes under epoch 1."""
    epoch = changes.pop("epoch", 1)
    fields: dict[str, Any] = {
        "ref": LeaseRef("e1", run_id, epoch),
        "attempt": 1,
        "node_id": f"node of {run_id}",
        "class_name": class_name,
        "config": b"{}",
        "inputs": b'{"trigger":{"n":1},"nodes":{"before":{"outputs":{"x":2}}}}',
        "idempotency_key": "key",
        "lease_duration": LEASE,
    }
    return LeasedRun(**(fields | changes))


class Gate:
    """A module, async or not, that says when it has started and goes on when told."""

    def __init__(self, value: Any = "done") -> None:
        self.value = value
        self.running = 0
        self.started = 0
        self.cancelled = 0
        self.open = asyncio.Event()
        self.open_thread = threading.Event()
        self.stubborn = False
        self.contexts: list[Any] = []

    async def run(self, context: Any) -> Any:
        self.contexts.append(context)
        self.started += 1
        self.running += 1
        try:
            while True:
                try:
                    await self.open.wait()
                    return self.value
                except asyncio.CancelledError:
                    self.cancelled += 1
                    if not self.stubborn:
                        raise
        finally:
            self.running -= 1

    def run_in_thread(self, context: Any) -> Any:
        self.contexts.append(context)
        self.started += 1
        self.running += 1
        try:
            self.open_thread.wait(60)
            return self.value
        finally:
            self.running -= 1


def modules_with(**functions: Callable[..., Any]) -> dict[str, ModuleSpec]:
    """The built-in modules and these."""
    return {**builtin_modules(), **{name: spec_of(name, function) for name, function in functions.items()}}


@asynccontextmanager
async def a_running(
    transport: FakeTransport, modules: dict[str, ModuleSpec] | None = None, **options: Any
) -> AsyncIterator[Worker]:
    """A worker that runs within the block, and is drained without patience after it."""
    options.setdefault("heartbeat_interval", timedelta(hours=1))
    worker = Worker(transport, modules or modules_with(), **options)
    running = asyncio.create_task(worker.run())
    try:
        yield worker
        if running.done():
            running.result()
    finally:
        transport.reports_may_pass.set()
        transport.beats_may_pass.set()
        await worker.drain(timedelta(0))
        await asyncio.wait_for(running, 60)


async def eventually(condition: Callable[[], object], what: str = "", timeout: float = 30) -> None:
    """Lets the loop turn until `condition()` is truthy."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"not within {timeout} s: {what}")
        await asyncio.sleep(0.001)


async def turns(count: int = 50) -> None:
    """Lets the loop turn: for showing that something does not happen."""
    for _ in range(count):
        await asyncio.sleep(0)
