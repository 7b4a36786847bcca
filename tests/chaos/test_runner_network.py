"""The way between runners and executors: connections that are cut, slow in both directions, or hardly read from;
executors that are started anew, frozen, and several behind one name; two processes with one id. Leases are long: none
of it may cost one, but where a process takes another's place."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from uuid import UUID

import pytest
import pytest_asyncio

from services.executor.lanes import MAX_BATCH_BYTES
from tests.chaos.names import Names
from tests.chaos.proxy import Proxy, Way
from tests.chaos.runner_lab import HEARTBEAT, LONG, Lab, lease_settings, open_lab, works
from tests.effect_modules import of
from tests.executor_stack import eventually, until_true
from tests.free_ports import a_port_base
from tests.postgres import PostgresForTests
from valkyr.cli.exits import ExitCode
from valkyr.client import ExecutionState
from valkyr.client.executions import Start
from valkyr.graph.model import Graph
from valkyr.runner.attempt import Stop

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

SEED = 7
EXECUTORS = ("executor", "executor_two")
RUNS, CUTS = 200, 20
ENDS_WITHIN = 60.0
PATIENCE = 60.0
LEASED_OF = "SELECT count(*) FROM executor.run WHERE state = 'LEASED' AND pool = $1"
HEARD = "SELECT bool_and(heartbeat_at IS NOT NULL) FROM executor.run WHERE execution_id = $1"
HEARD_AFTER = (
    "SELECT bool_and(heartbeat_at > $2::timestamptz + interval '3 seconds') FROM executor.run WHERE execution_id = $1"
)
HEARD_WITHIN = 18.0
"""Seconds. Without an answer a connection is found dead after twenty."""
FOUND_WITHIN = 20.0
"""Seconds. gRPC by itself asks for a name again after thirty."""
HOSTS = ("127.0.0.2", "127.0.0.3")
LARGE = 800_000
IN_AN_ANSWER, ANSWERS = MAX_BATCH_BYTES // LARGE, 6
"""Bytes of a payload, how many of these go into one answer to a runner, and how many answers' worth waits for it."""
ENOUGH_TO_REGISTER = 2_000
"""Bytes a second, and an hour and more for an answer of large runs."""
GRANTED = 2 * IN_AN_ANSWER
"""At most, to a runner that does not read: an answer, and another where on a slow machine it has given the first up."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(postgres: PostgresForTests, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    folder = tmp_path_factory.mktemp("network")
    async with open_lab(postgres, folder, "graph_store", *EXECUTORS, **lease_settings(LONG, HEARTBEAT)) as lab:
        yield lab


async def done_once(lab: Lab, execution_ids: Sequence[str], graph: Graph) -> None:
    """All of them, and nothing of it cost anything."""
    await lab.all_ended(execution_ids)
    assert await lab.problems(execution_ids, graph) == []
    assert await lab.budgets(*execution_ids) == {(0, 0)}
    done = [len(of(lab.effects, "DONE", node.node_id)) for node in graph.nodes]
    assert done == [len(execution_ids)] * len(done)


async def test_hundreds_of_runs_are_done_once_while_connections_are_cut_again_and_again(lab: Lab) -> None:
    graph, chance = works("cut", "cut", milliseconds=100), random.Random(SEED)
    async with Proxy(lab.executor) as proxy, AsyncExitStack() as runners:
        for number in range(3):
            await runners.enter_async_context(lab.runner("cut", name=f"cut{number}", executor=proxy.address))
        execution_ids = await lab.start_many(graph, RUNS)
        done = asyncio.create_task(done_once(lab, execution_ids, graph))
        broken = 0
        while not done.done():
            await asyncio.wait([done], timeout=chance.uniform(0.02, 0.3))
            broken += await proxy.cut()
        await done
    assert broken >= CUTS


async def test_a_way_of_a_second_in_each_direction_costs_time_and_nothing_else(lab: Lab) -> None:
    graph = works("far", "far", milliseconds=100)
    async with Proxy(lab.executor) as proxy, lab.runner("far", executor=proxy.address):
        proxy.latency = 1.0
        await done_once(lab, await lab.start_many(graph, 10), graph)


async def test_a_runner_that_hardly_reads_is_granted_an_answer_at_a_time_and_costs_others_nothing(lab: Lab) -> None:
    slow, quick = works("slow", "slow", milliseconds=10), works("quick", "quick", milliseconds=10)
    large = Start((await lab.client.graphs.save(slow)).workflow.id, payload={"text": "x" * LARGE})
    waiting: list[str] = []
    for _ in range(ANSWERS):
        waiting += [started.id for started in await lab.client.executions.start_many([large] * IN_AN_ANSWER)]
    async with Proxy(lab.executor) as proxy, lab.runner("quick"), AsyncExitStack() as runners:
        proxy.answers_per_second = ENOUGH_TO_REGISTER
        concurrency = str(len(waiting))
        await runners.enter_async_context(lab.runner("slow", "--concurrency", concurrency, executor=proxy.address))
        proxy.answers_per_second = 1
        await eventually(lambda: lab.sql.fetchval(LEASED_OF, "slow"), "they are on their way")
        await done_once(lab, await lab.start_many(quick, RUNS), quick)
        assert of(lab.effects, "BEGUN", "slow") == [], "what it was granted has not arrived"
        assert await lab.sql.fetchval(LEASED_OF, "slow") <= GRANTED
        proxy.answers_per_second = None
        await done_once(lab, waiting, slow)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
async def test_runners_work_on_while_their_executor_is_started_anew(lab: Lab, number: signal.Signals) -> None:
    pool = f"anew {number.name}"
    graph = works(pool, pool, milliseconds=1_500)
    async with lab.runner(pool, name=f"{pool} one") as one, lab.runner(pool, name=f"{pool} two") as two:
        execution_ids = await lab.start_many(graph, 50)
        await lab.begun(pool, 20)
        if number is signal.SIGTERM:
            assert await lab.rooms.services["executor"].stop(ENDS_WITHIN), "by itself"
        else:
            await lab.rooms.kill("executor")
        await lab.rooms.start("executor")
        await done_once(lab, execution_ids, graph)
        assert one.process.returncode is two.process.returncode is None


async def test_of_several_executors_behind_one_name_any_may_go_and_come_back(lab: Lab) -> None:
    several = "ipv4:" + ",".join(lab.rooms.addresses[name] for name in EXECUTORS)
    graph = works("several", "several", milliseconds=500)
    async with lab.runner("several", executor=several) as runner:
        for gone in EXECUTORS:
            async with lab.rooms.client(executor=next(name for name in EXECUTORS if name != gone)) as client:
                workflow_id = (await client.graphs.save(graph)).workflow.id
                started = await client.executions.start_many([Start(workflow_id)] * 30)
                begun = len(of(lab.effects, "BEGUN", "several"))
                await lab.begun("several", begun + 1)
                await lab.rooms.kill(gone)
                await lab.all_ended([execution.id for execution in started])
            await lab.rooms.start(gone)
            assert await lab.budgets(*[execution.id for execution in started]) == {(0, 0)}
        assert runner.process.returncode is None
    assert len(of(lab.effects, "DONE", "several")) == 30 * len(EXECUTORS)


async def test_calls_go_round_all_addresses_of_a_name_and_leave_out_who_is_gone(lab: Lab) -> None:
    port = a_port_base()
    async with (
        Proxy(lab.rooms.addresses["executor"], host=HOSTS[0], port=port) as one,
        Proxy(lab.rooms.addresses["executor_two"], host=HOSTS[1], port=port) as two,
        Names(*HOSTS) as names,
        lab.runner("named", executor=names.target(port)),
    ):
        for gone in (one, two):
            await until_true(lambda: one.connected and two.connected, "it is connected with both", PATIENCE)
            graph = works("named", f"without {gone.address}", milliseconds=100)
            execution_ids = await lab.start_many(graph, 100)
            await gone.set(Way.DOWN)
            await done_once(lab, execution_ids, graph)
            await gone.set(Way.PASS)


async def test_executors_that_move_are_found_at_their_new_addresses(lab: Lab) -> None:
    """As pods do behind a headless service."""
    port = a_port_base()
    graph = works("moving", "moving", milliseconds=1_000)
    async with (
        Proxy(lab.executor, host=HOSTS[0], port=port) as old,
        Proxy(lab.executor, host=HOSTS[1], port=port),
        Names(HOSTS[0]) as names,
        lab.runner("moving", executor=names.target(port)),
    ):
        execution_id = await lab.start(graph)
        await lab.begun("moving")
        names.addresses = HOSTS[1:]
        await old.set(Way.DOWN)
        await lab.all_ended([execution_id], FOUND_WITHIN)
        await done_once(lab, [execution_id], graph)


async def test_a_runner_keeps_its_leases_while_one_of_several_executors_is_frozen(lab: Lab) -> None:
    """It takes calls, and answers none."""
    graph, after = works("frozen", "frozen", milliseconds=60_000), works("frozen", "after frost", milliseconds=10)
    frozen = lab.rooms.services["executor_two"].process
    assert frozen is not None
    async with (
        Proxy(lab.executor) as one,
        Proxy(lab.rooms.addresses["executor_two"]) as two,
        lab.runner("frozen", executor=f"ipv4:{one.address},{two.address}"),
    ):
        execution_id = await lab.start(graph)
        await lab.begun("frozen")
        await until_true(lambda: one.connected == two.connected == 2, "heartbeats have found both", PATIENCE)
        await eventually(lambda: lab.sql.fetchval(HEARD, UUID(execution_id)), "it is heard", PATIENCE)
        frozen.send_signal(signal.SIGSTOP)
        try:
            at = await lab.sql.fetchval("SELECT clock_timestamp()")
            await eventually(lambda: lab.sql.fetchval(HEARD_AFTER, UUID(execution_id), at), "it is heard", HEARD_WITHIN)
        finally:
            frozen.send_signal(signal.SIGCONT)
        assert await lab.budgets(execution_id) == {(0, 0)}
        await lab.client.executions.cancel(execution_id)
        assert (await lab.ended(execution_id)).state is ExecutionState.CANCELLED
        await done_once(lab, [await lab.start(after)], after)
    assert len(of(lab.effects, "BEGUN", "frozen")) == 1


async def test_of_two_processes_with_one_id_the_later_goes_on_and_the_other_exits(lab: Lab) -> None:
    graph = works("twins", "twin", milliseconds=60_000, later=100)
    async with lab.runner("twins", "--id", "twin", name="older") as older:
        execution_id = await lab.start(graph)
        await lab.begun("twin")
        async with lab.runner("twins", "--id", "twin", name="newer") as newer:
            assert newer.said("runner.started")[0]["leases_ended"] == 1, "at once, not when they run out"
            assert await older.ended() == ExitCode.CONFLICT, older.text()
            assert "another process has registered as runner 'twin'" in older.text()
            await lab.all_is_well(execution_id, graph)
    (stopped,) = of(lab.effects, "STOPPED", "twin")
    first, again = of(lab.effects, "BEGUN", "twin")
    assert first.pid == stopped.pid == older.pid != again.pid
    assert stopped.at - again.at < LONG.total_seconds() / 2
    (let_go,) = older.said("lease.let_go")
    assert let_go["reason"] != Stop.FENCED, "it hears of it with its next call, before its own clock stops it"
    assert [row["lost_leases"] for row in await lab.rows(execution_id)] == [1]
