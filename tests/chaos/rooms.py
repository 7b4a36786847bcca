"""The services as processes on one database, each killed and started again by itself; and a PostgreSQL to kill."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import asyncpg
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.local.errors import StackError
from services.local.home import Home
from services.local.postgres import Cluster
from services.local.process import ServiceProcess
from services.local.rooms import ROOMS, Room
from tests.free_ports import a_port_base
from tests.postgres import SETTINGS
from valkyr.client import Client
from valkyr.errors import Conflict, DeadlineExceeded, Overloaded, Unavailable

T = TypeVar("T")
HEALTHY = 60.0
RESTARTS = 3
SECOND_EXECUTOR = Room("executor_two", "services.executor", 5, "valkyr.api.executor.v1.ExecutorService")
AWAY = (Unavailable, DeadlineExceeded, Overloaded, Conflict)
"""Answers after which the same call is made again."""

QUICK = {
    "VALKYR_EXECUTOR__RUNNER__CONCURRENCY": "20",
    "VALKYR_EXECUTOR__RUNNER__RETRY__BACKOFF_BASE_MS": "100",
    "VALKYR_EXECUTOR__RUNNER__RETRY__BACKOFF_MAX_MS": "1000",
    "VALKYR_EXECUTOR__RUNNER__RETRY__MAX_LOST_LEASES": "100",
    "VALKYR_EXECUTOR__RUNNER__ZOMBIE_REAPER__SCAN_INTERVAL": "PT1S",
    "VALKYR_EXECUTOR__RUNNER__HTTP__ALLOW_HOSTS": "127.0.0.1",
    "VALKYR_BREAKER__TIMEOUT_DURATION": "PT1S",
    "VALKYR_DLQ__INTENTS__POLL_INTERVAL": "PT1S",
    "VALKYR_DLQ__INTENTS__BACKOFF_BASE": "PT0.2S",
    "VALKYR_DLQ__INTENTS__BACKOFF_MAX": "PT1S",
}
"""Small waits, and a budget of lost leases that no number of kills uses up."""


class Rooms:
    """`await rooms.start("executor")`, `kill`, and `start` again, at the same address. Logs are in `folder`/logs."""

    def __init__(self, folder: Path, database_url: str, **environment: str) -> None:
        self.folder = folder
        self.database_url = database_url
        base = a_port_base()
        self._base = base
        self.addresses = {room.name: room.address(base) for room in (*ROOMS, SECOND_EXECUTOR)}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("VALKYR_")}
        neighbours = {
            f"VALKYR_EXECUTOR__{name.upper()}": self.addresses[name] for name in ("graph_store", "breaker", "dlq")
        }
        dlq = {"VALKYR_DLQ__EXECUTOR": self.addresses["executor"]}
        self._environment = {**kept, "VALKYR_DATABASE_URL": database_url, **QUICK, **neighbours, **dlq, **environment}
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        self.services = {room.name: self._service(room) for room in (*ROOMS, SECOND_EXECUTOR)}

    def _service(self, room: Room) -> ServiceProcess:
        section = room.module.rpartition(".")[2].upper()
        own = {
            "VALKYR_HOME": str(self.folder / room.name),
            f"VALKYR_{section}__SERVER__PORT": str(room.port(self._base)),
        }
        log = self.folder / "logs" / f"{room.name}.log"
        return ServiceProcess(room, self.addresses[room.name], log, {**self._environment, **own})

    def set(self, name: str, **environment: str) -> None:
        """From the next start of this service on."""
        service = self.services[name]
        self.services[name] = ServiceProcess(
            service.room, service.address, service.log, {**service.environment, **environment}
        )

    async def start(self, *names: str) -> None:
        """Returns when all of them are healthy."""
        for name in names:
            await self.services[name].start()
        await asyncio.gather(*(self.services[name].wait_healthy(HEALTHY) for name in names))

    async def launch(self, name: str) -> None:
        """Does not wait for its health."""
        await self.services[name].start()

    async def healthy(self, *names: str) -> None:
        """Returns when all of them are. One that ended by itself, as it does where its database goes away while it
        migrates, is started again, as whoever supervises it would."""
        await asyncio.gather(*(self._supervised(self.services[name]) for name in names))

    async def _supervised(self, service: ServiceProcess) -> None:
        for _ in range(RESTARTS):
            try:
                await service.wait_healthy(HEALTHY)
            except StackError:
                if service.process is None or service.process.returncode is None:
                    raise
                await service.start()
            else:
                return
        await service.wait_healthy(HEALTHY)

    async def kill(self, *names: str) -> None:
        """kill -9, all at once; returns when they are gone."""
        await asyncio.gather(*(self.services[name].kill() for name in names))

    async def stop_all(self) -> None:
        """At once: there is nothing left to be drained."""
        await self.kill(*self.services)

    def client(self, principal: str = "tester", *, executor: str = "executor") -> Client:
        """A client of all four."""
        return Client(
            self.addresses["graph_store"],
            self.addresses[executor],
            breaker=self.addresses["breaker"],
            dlq=self.addresses["dlq"],
            principal=principal,
        )

    async def serving(self, name: str) -> bool:
        """What the service's health says now; no answer is a no."""
        service = self.services[name]
        async with grpc.aio.insecure_channel(service.address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            request = health_pb2.HealthCheckRequest(service=service.room.service)
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=20)
            except grpc.aio.AioRpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@asynccontextmanager
async def running(rooms: Rooms, *names: str) -> AsyncIterator[asyncpg.Connection]:
    """All four, or those named, within the block, and SQL at the side."""
    try:
        await rooms.start(*(names or [room.name for room in ROOMS]))
        sql = await asyncpg.connect(rooms.database_url)
        try:
            yield sql
        finally:
            sql.terminate()
    finally:
        await rooms.stop_all()


@asynccontextmanager
async def open_rooms(
    folder: Path, database_url: str, *names: str, **environment: str
) -> AsyncIterator[tuple[Rooms, asyncpg.Connection]]:
    """As `running`, made here. `environment` as the services take it."""
    rooms = Rooms(folder, database_url, **environment)
    async with running(rooms, *names) as sql:
        yield rooms, sql


class Postgres:
    """A server of the test's own, since it is killed."""

    def __init__(self, folder: Path) -> None:
        self._cluster = Cluster(Home(folder), settings=SETTINGS, durable_setup=False)
        self.url = self._cluster.url

    async def kill(self) -> None:
        """kill -9 of the postmaster; its children follow by themselves."""
        pid = self._cluster.server_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    async def start_again(self) -> None:
        """Recovers what was committed; returns when it takes connections."""
        await asyncio.to_thread(self._cluster.stop)
        await asyncio.to_thread(self._cluster.start)

    async def __aenter__(self) -> Postgres:
        await asyncio.to_thread(self._cluster.start)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await asyncio.to_thread(self._cluster.stop)


class Patient:
    """SQL that outlives a PostgreSQL that is killed: None while it is away."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: asyncpg.Connection | None = None

    async def value(self, query: str, *arguments: object) -> object:
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncpg.connect(self._url, timeout=5)
            return await self._connection.fetchval(query, *arguments, timeout=5)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self.close()
            return None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


async def until_answered(call: Callable[[], Awaitable[T]], *, patience: float = 90.0) -> T:
    """Repeats a call that is safe to repeat until its server is there; the last error after `patience` seconds."""
    deadline = asyncio.get_running_loop().time() + patience
    while True:
        try:
            return await call()
        except AWAY as error:
            if asyncio.get_running_loop().time() > deadline:
                raise
            pause = error.details.retry_after
            await asyncio.sleep(min(pause.total_seconds() if pause else 0.2, 0.5))
