"""I16: with graph store, breaker, DLQ and collector down, each alone and all at once, what was started is finished."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from examples.target_server import TargetServer
from services.executor.app import open_app as open_executor
from tests import run_history
from tests.builders import a_graph
from tests.chaos import ledger
from tests.chaos.load import ALWAYS, PATH
from tests.chaos.rooms import Rooms, open_rooms
from tests.executor_stack import eventually, executor_settings, until_true
from tests.otlp import OtlpReceiver
from valkyr.client import Client
from valkyr.client.executions import Start
from valkyr.graph.model import Graph, Module

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

EXECUTIONS = 8
PATIENCE = timedelta(seconds=60)
NEIGHBOURS = ("graph_store", "breaker", "dlq")
PHASES = (("graph_store",), ("breaker",), ("dlq",), ("collector",), (*NEIGHBOURS, "collector"))
OUTBOX = "SELECT count(*) FROM executor.outbox"
TELLERS = {"executor", "dlq", "breaker"}


class GatedServer(TargetServer):
    """Answers nobody until the gate is open; `waiting` calls stand before it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.waiting = 0

    def answer(self, path: str, key: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.waiting += 1
        self.gate.wait()
        self.waiting -= 1
        return super().answer(path, key, request)


def a_graph_behind_a_gate(shop: TargetServer) -> Graph:
    """Everything that fails comes after the call that waits for the gate."""
    config = {"method": "POST", "url": f"{shop.url}{PATH}", "body": {}}
    return a_graph(
        "call -> flaky -> end, call -> hopeless, call -> tried -> rescue",
        modules={
            "call": Module("call", "HttpRequestModule", config=config, target="shop"),
            "flaky": ("FailModule", {"times": 1}),
            "hopeless": ("FailModule", {"type": "PERMANENT", "times": ALWAYS}),
            "tried": ("FailModule", {"type": "PERMANENT"}),
        },
        edges={"tried->rescue": {"kind": "FAILURE"}},
    )


@asynccontextmanager
async def always_serving(rooms: Rooms) -> AsyncIterator[None]:
    """Asks for the executor's health all the time; every answer has to be SERVING."""
    answers: list[bool] = []

    async def ask() -> None:
        while True:
            answers.append(await rooms.serving("executor"))
            await asyncio.sleep(0.1)

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        asking.cancel()
    assert answers
    assert all(answers), f"{answers.count(False)} of {len(answers)} times the executor was not healthy"


async def finish_without(down: tuple[str, ...], rooms: Rooms, client: Client, shop: GatedServer, graph: Graph) -> None:
    """Starts executions, takes the neighbours away, lets the executions go on, and waits for their end."""
    shop.gate.clear()
    workflow = (await client.graphs.save(graph)).workflow
    first = await client.executions.start_many([Start(workflow.id, version=1) for _ in range(EXECUTIONS)])
    await until_true(lambda: shop.waiting == EXECUTIONS, "all of them wait for their answer")
    await rooms.kill(*(name for name in down if name in NEIGHBOURS))
    later = await client.executions.start(workflow.id, version=1)
    shop.gate.set()
    for execution in (*first, later):
        settled = await client.executions.wait(execution.id, timeout=PATIENCE)
        assert settled.state == "FAILED", f"without {down}: {settled}"
        assert settled.run_counts == {"SUCCESS": 4, "FAILED": 1, "QUARANTINED": 1}, f"without {down}: {settled}"


async def letters_arrive(sql: asyncpg.Connection) -> None:
    async def all_told() -> bool:
        return bool(await sql.fetchval(OUTBOX) == 0)

    await eventually(all_told, "the outbox is empty", 60)


async def test_i16_what_was_started_is_finished_with_all_neighbours_down(
    migrated_database_url: Callable[..., str], tmp_path: Path
) -> None:
    url = migrated_database_url("graph_store", "executor", "breaker", "dlq")
    with OtlpReceiver() as collector, GatedServer() as shop:
        environment = {"VALKYR_TELEMETRY__OTLP_ENDPOINT": collector.endpoint}
        async with open_rooms(tmp_path, url, **environment) as (rooms, sql), rooms.client() as client:
            await run_history.install(sql)
            await ledger.install(sql)
            graph = a_graph_behind_a_gate(shop)
            for number, down in enumerate(PHASES, 1):
                if "collector" in down:
                    await until_true(lambda: set(collector.services.values()) >= TELLERS, "all have told of spans")
                    await asyncio.to_thread(collector.__exit__, None, None, None)
                async with always_serving(rooms):
                    await finish_without(down, rooms, client, shop, graph)
                kept = await sql.fetchval(OUTBOX)
                assert kept == (EXECUTIONS + 1 if "dlq" in down else kept)
                await rooms.start(*(name for name in down if name in NEIGHBOURS))
                await letters_arrive(sql)
                assert await ledger.letter_problems(sql) == [], f"after {down}"
                letters = await sql.fetchval("SELECT count(*) FROM dlq.dead_letter_queue")
                assert letters == number * (EXECUTIONS + 1)


async def test_i16_no_neighbour_is_a_condition_of_the_executors_health(
    migrated_database_url: Callable[..., str], tmp_path: Path
) -> None:
    """A loop is missed only after half a minute: what the health goes by is looked at, rather than waited for."""
    nowhere = {"breaker": "127.0.0.1:1", "dlq": "127.0.0.1:1"}
    settings = executor_settings(migrated_database_url("executor"), tmp_path, "127.0.0.1:1", **nowhere)
    async with open_executor(settings) as app:
        await until_true(lambda: app.parts.health.serving, "it is healthy without anybody")
        assert app.parts.health.loops.isdisjoint({"outbox", "mirror", "outcomes"})
        assert {"dispatcher", "reaper", "probes", "timers"} <= app.parts.health.loops
