"""A graph store and executors in this process, on one database, with a client: what tests of the executor stand on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from services.executor.app import App
from services.executor.app import open_app as open_executor
from services.executor.settings import ExecutorSettings
from services.graph_store.app import App as GraphStoreApp
from services.graph_store.app import open_app as open_graph_store
from services.graph_store.settings import GraphStoreSettings
from tests.postgres import patient
from valkyr.client import Client, Execution, Run
from valkyr.graph.model import Graph

MODULES = ("tests.executor_modules",)
PATIENCE = 30.0


@dataclass
class Stack:
    """One graph store, one or more executors, a client of the first of them, and SQL at the side."""

    database_url: str
    home: Path
    graph_store: GraphStoreApp
    sql: asyncpg.Connection
    executors: list[App] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)

    @property
    def app(self) -> App:
        return self.executors[0]

    @property
    def client(self) -> Client:
        return self.clients[0]

    async def save(self, graph: Graph) -> str:
        """The id of a new workflow."""
        return (await self.client.graphs.save(graph)).workflow.id

    async def start(self, graph: Graph, **options: Any) -> str:
        """The id of an execution of a new workflow."""
        return (await self.client.executions.start(await self.save(graph), **options)).id

    async def run(self, graph: Graph, **options: Any) -> Execution:
        """Starts a graph and waits until it is settled."""
        return await self.wait(await self.start(graph, **options))

    async def wait(self, execution_id: str, timeout: float = PATIENCE) -> Execution:
        """The settled execution; fails the test if it does not settle."""
        execution = await self.client.executions.wait(execution_id, timeout=timedelta(seconds=timeout))
        if not execution.settled:
            raise TimeoutError(f"not settled within {timeout:.0f} s: {execution}\n{await self.states(execution_id)}")
        return execution

    async def runs(self, execution_id: str) -> dict[str, Run]:
        """Runs by node id, with outputs."""
        pages = self.client.executions.list_runs(execution_id, include_outputs=True, page_size=1000)
        return {run.node_id: run async for run in pages}

    async def states(self, execution_id: str) -> dict[str, str]:
        """The states of runs, by node id, from the table."""
        rows = await self.sql.fetch(
            "SELECT node_id, state FROM executor.run WHERE execution_id = $1 ORDER BY id", UUID(execution_id)
        )
        return {row[0]: row[1] for row in rows}

    async def row(self, execution_id: str, node_id: str) -> asyncpg.Record:
        """One row of `executor.run`."""
        return await self.sql.fetchrow(
            "SELECT * FROM executor.run WHERE execution_id = $1 AND node_id = $2", UUID(execution_id), node_id
        )

    async def at_rest(self) -> None:
        """Waits until the dispatcher has nothing to lease: what is started then is leased by its start."""
        await until_true(lambda: not self.app.parts.handoff.ready.backlog, "the dispatcher has nothing to lease")

    async def pass_deadlines(self, table: str = "run") -> None:
        """Those that there are, in the table of runs or of executions, are over now."""
        await self.sql.execute(f"UPDATE executor.{table} SET deadline = now() WHERE deadline IS NOT NULL")
        self.app.parts.signals.deadlines_changed.set()

    async def until_locked_out(self, what: str, number: int = 1) -> None:
        """Waits until so many of this database's sessions wait for a lock."""
        await self.until(
            """SELECT count(*) >= $1 FROM pg_stat_activity
               WHERE datname = current_database() AND wait_event_type = 'Lock'""",
            number,
            what=what,
        )

    async def until(self, query: str, *arguments: object, what: str = "", timeout: float = PATIENCE) -> Any:
        """Waits until the first column of a query is true; answers with it."""
        return await eventually(lambda: self.sql.fetchval(query, *arguments), what or query, timeout)


async def eventually(condition: Callable[[], Awaitable[Any]], what: str, timeout: float = PATIENCE) -> Any:
    """Asks until the answer is truthy, and gives it; TimeoutError saying what did not happen."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not (answer := await condition()):
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"not within {timeout:.0f} s: {what}")
        await asyncio.sleep(0.01)
    return answer


async def until_true(condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
    """As `eventually`, for what needs no await."""

    async def ask() -> object:
        return condition()

    await eventually(ask, what, timeout)


def executor_settings(
    database_url: str, home: Path, graph_store: str, *, name: str = "one", **executor: Any
) -> ExecutorSettings:
    """Settings for tests; `executor` is merged into the section: `runner={"concurrency": 2}`."""
    section = merged(
        {
            "home": home / name,
            "graph_store": graph_store,
            "runner": {
                "id": f"runner-{name}",
                "modules": MODULES,
                "lease": {"duration": timedelta(seconds=60), "heartbeat_interval": timedelta(milliseconds=200)},
            },
        },
        executor,
    )
    database = patient(database_url, **section.pop("database", {}))
    return ExecutorSettings(database=database, **section)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, folder by folder."""
    result = dict(base)
    for key, value in changes.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return result


@asynccontextmanager
async def open_stack(
    database_url: str, home: Path, *, names: Sequence[str] = ("one",), **executor: Any
) -> AsyncIterator[Stack]:
    """A stack with an executor for each of `names`, all with the same settings but for id and home."""
    async with AsyncExitStack() as stack:
        graph_store = await stack.enter_async_context(
            open_graph_store(GraphStoreSettings(database=patient(database_url)))
        )
        sql = await asyncpg.connect(database_url)
        stack.push_async_callback(sql.close)
        made = Stack(database_url, home, graph_store, sql)
        for name in names:
            await stack.enter_async_context(add_executor(made, name=name, **executor))
        yield made


@asynccontextmanager
async def add_executor(stack: Stack, *, name: str, **executor: Any) -> AsyncIterator[App]:
    """One more executor on the stack's database, for the length of the block."""
    address = stack.graph_store.server.address
    settings = executor_settings(stack.database_url, stack.home, address, name=name, **executor)
    async with open_executor(settings) as app:
        client = Client(
            graph_store=address, executor=app.server.address, principal="tester", timeout=timedelta(seconds=PATIENCE)
        )
        stack.executors.append(app)
        stack.clients.append(client)
        try:
            yield app
        finally:
            stack.executors.remove(app)
            stack.clients.remove(client)
            await client.close()
