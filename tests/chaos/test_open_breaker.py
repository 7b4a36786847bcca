"""A real target is down, its breaker trips: leases by the database's clock, and parked runs over kills of everyone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from examples.target_server import TargetServer
from services.breaker.model.policy import Policy
from tests import run_history
from tests.builders import a_graph
from tests.chaos import ledger
from tests.chaos.load import PATH, SHOP
from tests.chaos.rooms import Rooms, open_rooms, until_answered
from tests.executor_stack import eventually
from tests.standstills import noted_standstills
from valkyr.client import Client
from valkyr.client.executions import Start
from valkyr.graph.model import Graph, Module, Retry

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

POLICY = Policy(timeout_duration=timedelta(seconds=1))
EXECUTIONS, FIRST, LATE, WAVE = 300, 100, 30, 10
"""`LATE` of them come when it has been open for long."""
IN_FLIGHT = 50
"""At most so many are called or wait for their retry when all others are parked."""
PATIENCE = 60.0
DONE = "SELECT count(*) FROM executor.workflow_execution WHERE state = 'SUCCESS'"
PARKED = "SELECT count(*) FROM executor.run WHERE state = 'PARKED' AND parked_by = 'BREAKER'"
PARKED_LATE = """
SELECT count(*) FROM history.event e WHERE e.state = 'PARKED' AND e.at > $1 + (
    SELECT min(t.created_date) FROM breaker.transition t WHERE t.to_state = 'OPEN')
"""
PROBES = "SELECT count(*) FROM history.event WHERE state = 'LEASED' AND permit_id IS NOT NULL"
TRANSITIONS = "SELECT count(*) FROM breaker.transition WHERE target = $1 AND cause = $2"


@pytest.fixture
def database(migrated_database_url: Callable[..., str]) -> str:
    return migrated_database_url("graph_store", "executor", "breaker", "dlq")


def a_call(shop: TargetServer) -> Graph:
    config = {"method": "POST", "url": f"{shop.url}{PATH}", "body": {"order": "${trigger.order}"}}
    retry = Retry(1000, timedelta(milliseconds=20), timedelta(milliseconds=200))
    return a_graph(
        "call -> after",
        modules={"call": Module("call", "HttpRequestModule", config=config, target=SHOP)},
        nodes={"call": {"retry": retry, "timeout": timedelta(seconds=5)}},
    )


class SlowServer(TargetServer):
    """Takes its time, so that calls overlap."""

    def answer(self, path: str, key: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        threading.Event().wait(0.1)
        return super().answer(path, key, request)


async def started(client: Client, workflow_id: str, orders: range) -> None:
    starts = [Start(workflow_id, payload={"order": n}, request_id=f"order {n}") for n in orders]
    await until_answered(lambda: client.executions.start_many(starts))


async def saved(client: Client, graph: Graph) -> str:
    return (await client.graphs.save(graph)).workflow.id


async def at_least(sql: asyncpg.Connection, number: int, query: str, *arguments: object) -> None:
    async def enough() -> bool:
        found = await sql.fetchval(query, *arguments)
        return isinstance(found, int) and found >= number

    await eventually(enough, f"{number} of: {query}", PATIENCE)


async def watched(sql: asyncpg.Connection) -> None:
    await run_history.install(sql)
    await ledger.install(sql)


async def test_i17_no_lease_is_given_later_than_a_second_after_the_trip_but_to_a_few_probes(
    database: str, tmp_path: Path
) -> None:
    everybody = ("graph_store", "breaker", "dlq", "executor", "executor_two")
    with SlowServer() as shop, noted_standstills() as standstills:
        async with open_rooms(tmp_path, database, *everybody) as (rooms, sql), rooms.client() as client:
            await watched(sql)
            shop.down = {PATH}
            workflow_id = await saved(client, a_call(shop))
            await started(client, workflow_id, range(FIRST))
            await at_least(sql, FIRST - WAVE, PARKED)
            calls_until_open = len(shop.calls)
            for order in range(FIRST, EXECUTIONS, WAVE):
                if order == EXECUTIONS - LATE:
                    await at_least(sql, 4, TRANSITIONS, SHOP, "PROBE_FAILED")
                await started(client, workflow_id, range(order, order + WAVE))
                await at_least(sql, order + WAVE - IN_FLIGHT, PARKED)
            calls_while_open = len(shop.calls) - calls_until_open
            probes = await sql.fetchval(PROBES)
            shop.down = set()
            await at_least(sql, EXECUTIONS, DONE)
            late = timedelta(seconds=1 + standstills.longest)
            assert await ledger.lease_problems(sql, SHOP, POLICY, known_within=late) == []
            assert await ledger.breaker_problems(sql, POLICY) == []
            assert probes, "no probe was leased: the test proves nothing"
            assert await sql.fetchval(PARKED_LATE, late) > WAVE, "nothing came later: the test proves nothing"
            assert calls_while_open <= probes + 2 * WAVE, "but for those that were called as it tripped"
            await _closes(client, sql, workflow_id)


async def _closes(client: Client, sql: asyncpg.Connection, workflow_id: str) -> None:
    """The target works again: whatever the last calls left the breaker as, a few more close it."""
    await started(client, workflow_id, range(EXECUTIONS, EXECUTIONS + WAVE))
    await at_least(sql, EXECUTIONS + WAVE, DONE)

    async def closed() -> bool:
        state = await sql.fetchval("SELECT state FROM breaker.circuit_breaker_state WHERE target = $1", SHOP)
        return bool(state == "CLOSED")

    try:
        await eventually(closed, "the breaker closes", PATIENCE)
    except TimeoutError as error:
        log = await sql.fetch(
            "SELECT created_date::text, from_state, to_state, cause FROM breaker.transition ORDER BY 1"
        )
        raise AssertionError("\n".join(["the breaker stays open:", *(" ".join(row) for row in log)])) from error


@pytest.mark.parametrize("victims", [("executor",), ("executor", "breaker")], ids=["executor", "both"])
async def test_i17_no_parked_run_is_forgotten_over_kills(
    database: str, tmp_path: Path, victims: tuple[str, ...]
) -> None:
    with TargetServer() as shop:
        async with open_rooms(tmp_path, database) as (rooms, sql), rooms.client() as client:
            await watched(sql)
            shop.down = {PATH}
            workflow_id = await saved(client, a_call(shop))
            await started(client, workflow_id, range(EXECUTIONS))
            await at_least(sql, 200, PARKED)
            await rooms.kill(*victims)
            await _bring_back(rooms, victims)
            await at_least(sql, 1, TRANSITIONS, SHOP, "PROBE_FAILED")
            shop.down = set()
            await at_least(sql, EXECUTIONS, DONE)
            assert await ledger.breaker_problems(sql, POLICY) == []
            left = "SELECT count(*) FROM executor.run WHERE state <> 'SUCCESS' OR parked_by IS NOT NULL"
            assert await sql.fetchval(left) == 0
            await _closes(client, sql, workflow_id)
            assert await sql.fetchval("SELECT count(*) FROM breaker.episode WHERE recovered_at IS NULL") == 0


async def _bring_back(rooms: Rooms, victims: tuple[str, ...]) -> None:
    """One after the other: the executor finds no breaker when it comes up."""
    for name in victims:
        await rooms.start(name)
