"""Runners that the executor does not hear, or that do not hear it: their modules stop before others have their runs,
what they say too late changes nothing, and they come back.

Each takes as long as a lease, or as it takes to notice a dead connection: they happen side by side.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from tests.chaos.call_proxy import LOST, PASS, UNANSWERED, CallProxy, Fate, in_turn, outcomes
from tests.chaos.proxy import Proxy
from tests.chaos.runner_lab import HEARTBEAT, SHORT, Lab, lease_settings, open_lab, overlaps, works
from tests.effect_modules import of
from tests.executor_stack import until_true
from tests.postgres import PostgresForTests
from valkyr.cli.exits import ExitCode
from valkyr.rpc.channel import KEEPALIVE_TIME, KEEPALIVE_TIMEOUT

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

MINUTE = 60_000
NOTICED = (KEEPALIVE_TIME + KEEPALIVE_TIMEOUT).total_seconds()
"""How long a connection may be dead until its runner knows."""
PATIENCE = 2 * NOTICED


def overlaps_of(lab: Lab, node_id: str) -> list[float]:
    found = overlaps([effect for effect in lab.effects if effect.node_id == node_id]).values()
    return [seconds for seconds in found if seconds > lab.standstills.longest]


async def both_connected(proxy: Proxy) -> None:
    """Heartbeats have a connection of their own, made with the first of them."""
    await until_true(lambda: proxy.connected == 2, "it has sent a heartbeat")


async def heartbeats_that_do_not_arrive(lab: Lab) -> None:
    graph = works("unheard", "unheard", milliseconds=MINUTE, later=50)
    cut_off = asyncio.Event()

    def judge(method: str, _request: Any) -> Fate:
        return LOST if cut_off.is_set() and method == "HeartbeatRuns" else PASS

    async with CallProxy(lab.executor, judge) as proxy, lab.runner("unheard", executor=proxy.address) as runner:
        execution_id = await lab.start(graph)
        await lab.begun("unheard")
        async with lab.runner("unheard", name="heard"):
            cut_off.set()
            assert (await lab.stopped("unheard")).pid == runner.pid
            await lab.all_is_well(execution_id, graph)
        assert runner.process.returncode is None
    assert overlaps_of(lab, "unheard") == []
    assert await lab.budgets(execution_id) == {(1, 0)}


async def heartbeats_whose_answers_are_lost(lab: Lab) -> None:
    """The executor has extended the lease: nobody else has the run before that is over."""
    graph = works("unanswered", "unanswered", milliseconds=MINUTE, later=50)
    cut_off = asyncio.Event()

    def judge(method: str, _request: Any) -> Fate:
        return UNANSWERED if cut_off.is_set() and method == "HeartbeatRuns" else PASS

    async with CallProxy(lab.executor, judge) as proxy, lab.runner("unanswered", executor=proxy.address):
        execution_id = await lab.start(graph)
        await lab.begun("unanswered")
        cut_off.set()
        stopped = await lab.stopped("unanswered")
        assert len(of(lab.effects, "BEGUN", "unanswered")) == 1, "it stopped while the lease was its own"
        cut_off.clear()
        await lab.all_is_well(execution_id, graph)
        assert of(lab.effects, "BEGUN", "unanswered")[1].at > stopped.at
    assert overlaps_of(lab, "unanswered") == []


async def a_late_report(lab: Lab, pool: str, *, later: int) -> None:
    """Held on the way while its runner is frozen, until another has the run, or has ended it."""
    graph = works(pool, pool, milliseconds=100, later=later)
    held = asyncio.Event()
    judge = in_turn("ReportRuns", Fate(held=held))
    async with CallProxy(lab.executor, judge) as proxy, lab.runner(pool, executor=proxy.address) as frozen:
        execution_id = await lab.start(graph)
        await until_true(lambda: proxy.of("ReportRuns"), "it reports")
        frozen.signal(signal.SIGSTOP)
        try:
            async with lab.runner(pool, name=f"{pool} newer"):
                await lab.begun(pool, 2)
                if later < MINUTE / 100:
                    await lab.all_is_well(execution_id, graph)
                held.set()
                await until_true(lambda: proxy.of("ReportRuns")[0].answers, "the late report is answered")
                await lab.all_is_well(execution_id, graph)
        finally:
            frozen.signal(signal.SIGCONT)
    assert outcomes(proxy.of("ReportRuns")[0]) == [["LEASE_LOST"]]
    assert [(row["attempt"], row["lost_leases"]) for row in await lab.rows(execution_id)] == [(2, 1)]


async def a_report_after_the_newer_attempt_has_ended(lab: Lab) -> None:
    await a_late_report(lab, "late", later=10)


async def a_report_while_the_newer_attempt_runs(lab: Lab) -> None:
    await a_late_report(lab, "too_late", later=1_500)


async def a_connection_that_is_dead_and_does_not_say_so(lab: Lab) -> None:
    graph = works("stranded", "stranded", milliseconds=MINUTE, later=50)
    async with Proxy(lab.executor) as proxy, lab.runner("stranded", executor=proxy.address) as runner:
        execution_id = await lab.start(graph)
        await lab.begun("stranded")
        async with lab.runner("stranded", name="beside"):
            await both_connected(proxy)
            assert proxy.strand() == 2
            assert (await lab.stopped("stranded")).pid == runner.pid
            await lab.all_is_well(execution_id, graph)
        before = proxy.connections
        after = works("stranded", "found again", milliseconds=10)
        begun = await lab.start(after)
        assert (await lab.begun("found again", timeout=PATIENCE)).pid == runner.pid
        assert proxy.connections > before, "over another connection"
        await lab.all_is_well(begun, after)
    assert overlaps_of(lab, "stranded") == []
    assert await lab.budgets(execution_id) == {(1, 0)}


async def a_dead_connection_beside_the_one_of_heartbeats(lab: Lab) -> None:
    """Longer than a lease it can neither ask for runs nor report: it is alive, and keeps what it holds."""
    graph = works("halved", "halved", milliseconds=int(SHORT.total_seconds() * 1500))
    async with Proxy(lab.executor) as proxy, lab.runner("halved", executor=proxy.address):
        execution_id = await lab.start(graph)
        await lab.begun("halved")
        await both_connected(proxy)
        assert proxy.strand(oldest=1) == 1
        await lab.all_ended([execution_id], PATIENCE)
        assert await lab.problems([execution_id], graph) == []
    assert len(of(lab.effects, "BEGUN", "halved")) == 1
    assert await lab.budgets(execution_id) == {(0, 0)}


async def a_process_that_is_cut_off_while_another_starts_under_its_id(lab: Lab) -> None:
    """It cannot be told. Its own clock stops its modules, no later than the lease that was taken from it would have
    ended, and it exits when it hears."""
    graph = works("doubled", "doubled", milliseconds=MINUTE, later=50)
    under_one_id = ("doubled", "--id", "double")
    async with Proxy(lab.executor) as proxy, lab.runner(*under_one_id, name="older", executor=proxy.address) as older:
        execution_id = await lab.start(graph)
        await lab.begun("doubled")
        await both_connected(proxy)
        assert proxy.strand() == 2
        async with lab.runner(*under_one_id, name="newer") as newer:
            await lab.all_is_well(execution_id, graph)
            assert await older.ended(PATIENCE) == ExitCode.CONFLICT, older.text()
            assert newer.process.returncode is None
    first, again = of(lab.effects, "BEGUN", "doubled")
    [stopped] = of(lab.effects, "STOPPED", "doubled")
    assert first.pid == stopped.pid != again.pid
    assert stopped.at - again.at < SHORT.total_seconds() + lab.standstills.longest
    assert await lab.budgets(execution_id) == {(1, 0)}


SILENCES: Mapping[str, Callable[[Lab], Awaitable[None]]] = {
    "i12 heartbeats that do not arrive": heartbeats_that_do_not_arrive,
    "i12 heartbeats whose answers are lost": heartbeats_whose_answers_are_lost,
    "i06 a report after the newer attempt has ended": a_report_after_the_newer_attempt_has_ended,
    "i06 a report while the newer attempt runs": a_report_while_the_newer_attempt_runs,
    "i12 a connection that is dead and does not say so": a_connection_that_is_dead_and_does_not_say_so,
    "a dead connection beside the one of heartbeats": a_dead_connection_beside_the_one_of_heartbeats,
    "i06 a process that is cut off while another starts under its id": (
        a_process_that_is_cut_off_while_another_starts_under_its_id
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def under_way(
    postgres: PostgresForTests, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Mapping[str, asyncio.Future[None]]]:
    folder = tmp_path_factory.mktemp("silent")
    async with open_lab(postgres, folder, "graph_store", "executor", **lease_settings(SHORT, HEARTBEAT)) as lab:
        tasks = {name: asyncio.create_task(by_itself(lab, silence)) for name, silence in SILENCES.items()}
        yield tasks
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


async def by_itself(lab: Lab, silence: Callable[[Lab], Awaitable[None]]) -> None:
    """With a connection to the database that no other asks at the same time."""
    sql = await asyncpg.connect(lab.rooms.database_url)
    try:
        await silence(replace(lab, sql=sql))
    finally:
        sql.terminate()


@pytest.mark.parametrize("silence", SILENCES)
async def test_silent_runners(under_way: Mapping[str, asyncio.Future[None]], silence: str) -> None:
    await under_way[silence]
