"""Composition root of the executor: settings -> database -> store -> use cases and loops -> servicer -> server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from services.chassis.database import Database
from services.chassis.process import EXIT_FAILED
from services.chassis.schema import bring_up_to_date
from services.chassis.serve import Server, Servicer, serve
from services.executor.loops import loops_of
from services.executor.parts import Parts
from services.executor.runner_servicer import RunnerServicer
from services.executor.servicer import ExecutorServicer
from services.executor.settings import ExecutorSettings
from services.executor.store.session import PINNED_PLANNER
from valkyr.api.executor.v1 import executor_pb2, executor_pb2_grpc, runner_pb2, runner_pb2_grpc
from valkyr.errors import Internal
from valkyr.runner.last_resort import end_soon

ROOM = "executor"
SERVICE_NAME: str = executor_pb2.DESCRIPTOR.services_by_name["ExecutorService"].full_name
RUNNER_SERVICE_NAME: str = runner_pb2.DESCRIPTOR.services_by_name["RunnerService"].full_name


@dataclass(frozen=True, slots=True)
class App:
    """A running executor."""

    server: Server
    database: Database
    parts: Parts

    @property
    def port(self) -> int:
        return self.server.port


@asynccontextmanager
async def open_app(settings: ExecutorSettings) -> AsyncIterator[App]:
    """Migrates, starts, and answers calls within the block; at its end stops at once. For tests and for embedding."""
    async with (
        _running(settings) as parts,
        Server(settings.server, _servicers(parts), health=parts.health) as server,
    ):
        yield App(server, parts.database, parts)


async def run(settings: ExecutorSettings) -> None:
    """Migrates, then serves until SIGTERM or SIGINT; the runs of its own pool finish within the grace."""
    async with _running(settings) as parts:
        serving = asyncio.create_task(
            serve(settings=settings.server, servicers=_servicers(parts), health=parts.health, on_stop=[parts.drain])
        )
        died = asyncio.create_task(parts.died.wait())
        try:
            await asyncio.wait([serving, died], return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                raise Internal("the worker of the own pool died; see the log")
            await serving
        finally:
            for task in (serving, died):
                task.cancel()
            await asyncio.gather(serving, died, return_exceptions=True)
            if parts.worker.has_left_running:
                end_soon(EXIT_FAILED if parts.died.is_set() else 0)


@asynccontextmanager
async def _running(settings: ExecutorSettings) -> AsyncIterator[Parts]:
    async with AsyncExitStack() as stack:
        database = await Database.open(
            settings.database, schema=ROOM, application_name="valkyr executor", hot_settings=PINNED_PLANNER
        )
        stack.push_async_callback(database.close)
        await bring_up_to_date(database, ROOM)
        parts = Parts(settings, database)
        stack.push_async_callback(parts.close)
        await parts.start(loops_of)
        yield parts


def _servicers(parts: Parts) -> list[Servicer]:
    servicer = ExecutorServicer(parts.starts, parts.executions, parts.interventions, parts.feed, parts.settings)
    runners = RunnerServicer(
        parts.runners,
        parts.lending,
        parts.holding,
        parts.reporting,
        parts.catalogue,
        parts.settings.runner.lease,
    )
    return [
        (SERVICE_NAME, executor_pb2_grpc.add_ExecutorServiceServicer_to_server, servicer),
        (RUNNER_SERVICE_NAME, runner_pb2_grpc.add_RunnerServiceServicer_to_server, runners),
    ]
