"""A runner as a program: a worker for modules, joined to executors over gRPC, from its registration to its drain."""

from __future__ import annotations

import asyncio
import platform
import random
import signal
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from uuid import uuid4

from valkyr.errors import DeadlineExceeded, InvalidRequest, Overloaded, Unavailable, UnknownMethod, ValkyrError
from valkyr.module import ModuleSpec
from valkyr.modules.described import described
from valkyr.retry import backoff_ceiling
from valkyr.rpc.modules import module_to_proto
from valkyr.runner.grpc_transport import GrpcTransport, Registered, Registration
from valkyr.runner.last_resort import end_soon
from valkyr.runner.signals_heard import heard
from valkyr.runner.worker import Worker
from valkyr.telemetry import get_logger

FIRST_WAIT = timedelta(milliseconds=500)
LAST_WAIT = timedelta(seconds=10)
GRACE = timedelta(seconds=30)
TOLD_WITHIN = timedelta(seconds=2)
"""How long a drain waits until the executor has heard of it; what it does not hear it learns from the leases."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)
INTERRUPTED = 130
REPLACED = 5
"""The exit codes of who was told twice, and of whose id another process has."""

SLACK = timedelta(seconds=10)
HURRIED = timedelta(seconds=4)
"""Once it is to drain the process is gone, at the latest, so long after the grace; after a second signal, and once
another process has its id, so long after that."""

_AWAY = (Unavailable, DeadlineExceeded, Overloaded)

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, where and how. `runner_id` is new for every process unless it is given; two live processes must not
    share one. `grace`: how long runs under way may take once the runner is to end. `settings` is what modules see as
    `context.settings`."""

    address: str
    modules: Mapping[str, ModuleSpec]
    namespace: str = "default"
    runner_id: str = ""
    pool: str = "default"
    concurrency: int = 10
    grace: timedelta = GRACE
    unknown_as_noop: bool = False
    principal: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


class RunnerProgram:
    """One life of a runner. Made in a running loop; `run` once."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        self._hurried = asyncio.Event()
        self._was_signalled = self._was_told = False
        self._owns_process = False
        self._has_last_resort = False
        self.runner_id = program.runner_id or f"{platform.node()[:100] or 'runner'}-{uuid4()}"
        self._transport = GrpcTransport(
            program.address,
            Registration(
                namespace=program.namespace,
                runner_id=self.runner_id,
                incarnation=str(uuid4()),
                pool=program.pool,
                modules=[module_to_proto(described(spec)) for spec in program.modules.values() if not spec.control],
                capacity=program.concurrency,
                host=platform.node()[:255],
                version=_version(),
                serves_all=program.unknown_as_noop,
            ),
            on_drain=self._end_soon,
            principal=program.principal,
        )

    def end(self) -> None:
        """Drains: nothing new is taken, and runs under way have the grace. A second time: now; what the executor has
        said does not count."""
        (self._hurried if self._was_told else self._ending).set()
        self._was_told = True

    async def run(self, *, signals: bool = True) -> bool:
        """Until it is drained, by SIGTERM, SIGINT, `end` or the executor; False if it was told a second time and left
        what was running. RunnerReplaced, InvalidRequest. `signals`: the process is its own, and once it is to drain, or
        another has its id, ends whatever its modules do."""
        self._owns_process = signals
        with heard(SIGNALS, self._signalled) if signals else nullcontext():
            try:
                registered = await self._registered()
                if registered is not None:
                    await self._work(registered)
            finally:
                await self._transport.close()
        log.info("runner.ended", runner_id=self.runner_id)
        return not self._hurried.is_set()

    def _signalled(self) -> None:
        """In a thread: a loop that a module blocks hears of it too late, or never."""
        again, self._was_signalled = self._was_signalled, True
        if again:
            end_soon(INTERRUPTED, HURRIED)
        else:
            self._arm_last_resort()
        self._loop.call_soon_threadsafe(self.end)

    async def _registered(self) -> Registered | None:
        """Tried until somebody answers. None if the runner was to end before that."""
        failures = 0
        while not self._ending.is_set():
            try:
                return await self._register_unless_ended()
            except UnknownMethod as error:
                raise InvalidRequest.of_field(
                    "executor",
                    f"what answers at {self._program.address} takes no runners",
                    hint="give the executor's address, by default with port 50052; if it is that, update the executor",
                ) from error
            except _AWAY as error:
                failures += 1
                if failures == 1:
                    log.warning("executor.away", address=self._program.address, error=error.message)
                wait = backoff_ceiling(failures, base=FIRST_WAIT, maximum=LAST_WAIT) * random.uniform(0.5, 1)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), wait.total_seconds())
        return None

    async def _register_unless_ended(self) -> Registered | None:
        """Who is to end does not wait for an executor that does not answer."""
        registering = asyncio.create_task(self._transport.register(), name="valkyr-register")
        ending = asyncio.create_task(self._ending.wait(), name="valkyr-ending")
        try:
            await asyncio.wait({registering, ending}, return_when=asyncio.FIRST_COMPLETED)
            return registering.result() if registering.done() else None
        finally:
            registering.cancel()
            ending.cancel()
            await asyncio.gather(registering, ending, return_exceptions=True)

    async def _work(self, registered: Registered) -> None:
        program = self._program
        worker = Worker(
            self._transport,
            program.modules,
            concurrency=program.concurrency,
            heartbeat_interval=registered.heartbeat_interval,
            unknown_as_noop=program.unknown_as_noop,
            settings=program.settings,
        )
        if self._owns_process:
            worker.on_replaced = partial(end_soon, REPLACED, HURRIED)
        log.info(
            "runner.started",
            runner_id=self.runner_id,
            address=program.address,
            namespace=program.namespace,
            pool=program.pool,
            concurrency=program.concurrency,
            class_names=sorted(name for name, spec in program.modules.items() if not spec.control),
            leases_ended=registered.leases_ended,
        )
        draining = asyncio.create_task(self._drain(worker), name="valkyr-drain")
        try:
            await worker.run()
        finally:
            draining.cancel()
            await asyncio.gather(draining, return_exceptions=True)

    async def _drain(self, worker: Worker) -> None:
        await self._ending.wait()
        log.info("runner.draining", runner_id=self.runner_id, runs=len(worker.live), grace=str(self._program.grace))
        worker.take_no_more()
        with suppress(ValkyrError, TimeoutError):
            await asyncio.wait_for(self._transport.drain(), TOLD_WITHIN.total_seconds())
        drained = asyncio.create_task(worker.drain(self._program.grace), name="valkyr-drained")
        hurried = asyncio.create_task(self._hurried.wait(), name="valkyr-hurried")
        try:
            await asyncio.wait({drained, hurried}, return_when=asyncio.FIRST_COMPLETED)
            if not drained.done():
                log.warning("runner.ends_now", runner_id=self.runner_id, runs=len(worker.live))
                drained.cancel()
                await asyncio.gather(drained, return_exceptions=True)
                await worker.drain(timedelta())
        finally:
            hurried.cancel()

    def _end_soon(self) -> None:
        """From any thread: the executor says so, again and again."""
        if self._owns_process:
            self._arm_last_resort()
        self._loop.call_soon_threadsafe(self._ending.set)

    def _arm_last_resort(self) -> None:
        """Once: the grace counts from the first time that it was told to drain."""
        if not self._has_last_resort:
            self._has_last_resort = True
            end_soon(0, self._program.grace + SLACK)


async def run_program(program: Program) -> bool:
    """The whole of it, as `RunnerProgram.run`. RunnerReplaced, InvalidRequest."""
    return await RunnerProgram(program).run()


def _version() -> str:
    try:
        return f"valkyr {version('valkyr')}"
    except PackageNotFoundError:
        return "valkyr"
