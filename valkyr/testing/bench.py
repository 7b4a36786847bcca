"""The runner's own worker on a bench: what runs a module in a test is what runs it elsewhere, but for the network."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from valkyr.module import ModuleSpec
from valkyr.runner.leases import Granted, HeartbeatAnswer, LeasedRun, LeaseRef, ReportAnswer, RunResult
from valkyr.runner.worker import Worker

LEASE = timedelta(hours=1)
"""Nothing here comes late, so that no lease is ever lost unless a script says so."""

PATIENCE = timedelta(seconds=1)
"""For what a module has left behind to stop when it is told to."""

_BEAT = timedelta(milliseconds=20)
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Ended:
    """How one attempt ended, and what it had said last of how far it was."""

    result: RunResult
    progress: bytes | None


class Bench:
    """Runs leases one at a time. Made by `a_bench`."""

    def __init__(
        self, modules: Mapping[str, ModuleSpec], settings: Mapping[str, Any], *, unknown_as_noop: bool
    ) -> None:
        self._transport = _Transport(self._reported, self._has_begun)
        self.worker = Worker(
            self._transport,
            modules,
            concurrency=1,
            heartbeat_interval=_BEAT,
            settings=settings,
            unknown_as_noop=unknown_as_noop,
        )
        self._ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()

    async def run(self, leased: LeasedRun, *, cancel_after: timedelta | None = None) -> Ended:
        """Until its end is reported. `cancel_after`: how long until the module is told to stop, once it has begun."""
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        self._transport.cancelled.clear()
        telling = None
        if cancel_after is not None:
            telling = loop.call_later(cancel_after.total_seconds(), self._transport.cancelled.set)
        try:
            self.worker.accept([leased])
            return await self._ended
        finally:
            if telling is not None:
                telling.cancel()

    def _has_begun(self, lease: LeaseRef) -> bool:
        """From the heartbeats' thread."""
        attempt = self.worker.live.get((lease.run_id, lease.epoch))
        return attempt is not None and attempt.started is not None

    def _reported(self, result: RunResult) -> None:
        attempt = self.worker.live[result.ref.run_id, result.ref.epoch]
        self._ended.set_result(Ended(result, attempt.said_progress))


class _Transport:
    """An executor that grants nothing by itself and believes whatever is reported."""

    def __init__(self, reported: Callable[[RunResult], None], has_begun: Callable[[LeaseRef], bool]) -> None:
        self._reported = reported
        self._has_begun = has_begun
        self.cancelled = threading.Event()

    async def lease_runs(self, *, max_runs: int) -> Granted:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    async def report_runs(self, results: Sequence[RunResult]) -> Sequence[ReportAnswer]:
        for result in results:
            self._reported(result)
        return [ReportAnswer.ACCEPTED] * len(results)

    def told(self) -> datetime | None:
        return None

    def heartbeat_runs(
        self, leases: Sequence[LeaseRef], *, progress: Mapping[LeaseRef, bytes], as_of: datetime | None
    ) -> Sequence[HeartbeatAnswer]:
        return [
            HeartbeatAnswer.CANCEL if self.cancelled.is_set() and self._has_begun(lease) else HeartbeatAnswer.CONTINUE
            for lease in leases
        ]


@asynccontextmanager
async def a_bench(
    modules: Mapping[str, ModuleSpec], settings: Mapping[str, Any], *, unknown_as_noop: bool = False
) -> AsyncIterator[Bench]:
    """A worker that runs within the block."""
    bench = Bench(modules, settings, unknown_as_noop=unknown_as_noop)
    running = asyncio.create_task(bench.worker.run())
    try:
        yield bench
    finally:
        await bench.worker.drain(timedelta())
        await running


def run_apart(work: Coroutine[Any, Any, Value]) -> Value:
    """On an event loop of its own; where one runs in this thread already, in another thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run(work)
    ended: list[Value] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            ended.append(_run(work))
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that asked
            failed.append(error)

    thread = threading.Thread(target=run, name="valkyr-testing")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return ended[0]


def _run(work: Coroutine[Any, Any, Value]) -> Value:
    """As asyncio.run, but that nobody waits for what ignores its cancel: that stands still from then on."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=PATIENCE.total_seconds()))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
