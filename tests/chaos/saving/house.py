"""A PostgreSQL to kill, two graph stores behind proxies to kill, and one that lives."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from services.local.errors import StackError
from services.local.home import Home
from services.local.postgres import Cluster
from services.local.process import ServiceProcess
from services.local.rooms import Room
from tests.chaos.rooms import HEALTHY, RESTARTS
from tests.chaos.saving.proxy import StatementProxy
from tests.executor_stack import eventually
from tests.free_ports import a_port_base
from tests.postgres import SETTINGS
from valkyr.api.graph.v1.graph_pb2_grpc import GraphStoreServiceStub
from valkyr.rpc.channel import open_channel

SESSION = b"postgres: valkyr: valkyr"
"""How the processes of sessions are titled: the cluster's name, then the role's."""
SOCKET = ".s.PGSQL.5432"
FIRST, AGAIN = "first", "again"
"""The principals of a save's first try, and of all other calls: what was stored says which it was."""
GONE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What a connection to a PostgreSQL that was killed says; the last when it was cut in the midst of an answer."""
NO_REPEATS = [("grpc.enable_retries", 0)]
"""What is answered is to be seen as it is."""


@dataclass(slots=True)
class Replica:
    """One graph store, called as FIRST or as AGAIN. `proxy` is None for the one that is not killed."""

    service: ServiceProcess
    proxy: StatementProxy | None
    first: GraphStoreServiceStub
    again: GraphStoreServiceStub
    starting: asyncio.Task[None] | None = field(default=None)

    def kill(self) -> None:
        """kill -9, now; the process is buried by `revive`."""
        assert self.service.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.service.pid, signal.SIGKILL)

    def revive(self) -> None:
        """Starts it again, in the background."""
        self.starting = asyncio.create_task(self._revived())

    async def healthy(self) -> None:
        """Returns when it is. One that ended by itself, as it does where its database goes away while it starts, is
        started again, as whoever supervises it would."""
        if self.starting is not None:
            await self.starting
            self.starting = None
        for _ in range(RESTARTS):
            try:
                await self.service.wait_healthy(HEALTHY)
            except StackError:
                if self.service.process is None or self.service.process.returncode is None:
                    raise
                await self.service.start()
            else:
                return
        await self.service.wait_healthy(HEALTHY)

    async def _revived(self) -> None:
        assert self.service.process is not None
        await self.service.process.wait()
        await self.service.start()


class House:
    """Made by `open_house`."""

    def __init__(self, cluster: Cluster, victims: list[Replica], survivor: Replica) -> None:
        self.cluster = cluster
        self.victims = victims
        self.survivor = survivor

    @property
    def url(self) -> str:
        return self.cluster.url

    @property
    def replicas(self) -> list[Replica]:
        return [*self.victims, self.survivor]

    def kill_postgres(self) -> None:
        """kill -9 of the postmaster and of all its children, now."""
        for pid in self._postgres():  # the postmaster first: it would start others
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_backend(self) -> None:
        """kill -9 of one session's process, now: the postmaster ends all the others, and recovers by itself."""
        for pid in self._postgres()[1:]:
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(SESSION):
                    os.kill(pid, signal.SIGKILL)
                    return

    async def restart_postgres(self) -> None:
        """Recovers what was committed; returns when it takes connections."""
        await asyncio.to_thread(self.cluster.stop)
        await asyncio.to_thread(self.cluster.start)

    async def postgres_recovered(self) -> None:
        """Returns when it takes connections."""
        await eventually(self._is_up, "PostgreSQL recovers", HEALTHY)

    async def _is_up(self) -> bool:
        try:
            async with connected(self.url):
                return True
        except GONE:
            return False

    def _postgres(self) -> list[int]:
        """The postmaster, and its children."""
        postmaster = self.cluster.server_pid
        assert postmaster is not None
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        return [postmaster, *map(int, children)]


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of its own, given up at the end whatever has become of it."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        yield connection
    finally:
        connection.terminate()


@asynccontextmanager
async def open_house(folder: Path, *, victims: int = 2, **environment: str) -> AsyncIterator[House]:
    """All healthy within the block; at its end all are killed. `environment` as graph stores take it."""
    cluster = Cluster(Home(folder / "database"), settings=SETTINGS, durable_setup=False)
    (folder / "logs").mkdir()
    base = a_port_base()
    async with AsyncExitStack() as stack:
        await asyncio.to_thread(cluster.start)
        stack.push_async_callback(asyncio.to_thread, cluster.stop)
        killed = [
            await _replica(stack, cluster, folder, f"victim{number}", base + number, environment)
            for number in range(victims)
        ]
        survivor = await _replica(stack, cluster, folder, "survivor", base + victims, environment, proxied=False)
        house = House(cluster, killed, survivor)
        # One after the other: the first of them makes the schema.
        for replica in house.replicas:
            await replica.service.start()
            await replica.healthy()
        yield house


async def _replica(
    stack: AsyncExitStack,
    cluster: Cluster,
    folder: Path,
    name: str,
    port: int,
    environment: Mapping[str, str],
    *,
    proxied: bool = True,
) -> Replica:
    url, proxy = cluster.url, None
    if proxied:
        real, sockets = cluster.home.socket_folder(), folder / f"{name}-sockets"
        sockets.mkdir()
        url = url.replace(str(real), str(sockets))
        proxy = await stack.enter_async_context(StatementProxy(real / SOCKET, sockets / SOCKET))
    room = Room(name, "services.graph_store", 0, "valkyr.api.graph.v1.GraphStoreService")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("VALKYR_")}
    own = {"VALKYR_DATABASE_URL": url, "VALKYR_HOME": str(folder / name), "VALKYR_GRAPH_STORE__SERVER__PORT": str(port)}
    service = ServiceProcess(room, room.address(port), folder / "logs" / f"{name}.log", {**kept, **own, **environment})
    stack.push_async_callback(service.kill)
    first, again = [
        open_channel(service.address, principal=principal, options=NO_REPEATS) for principal in (FIRST, AGAIN)
    ]
    stack.push_async_callback(first.close)
    stack.push_async_callback(again.close)
    return Replica(service, proxy, GraphStoreServiceStub(first), GraphStoreServiceStub(again))
