"""Runners as processes of their own, killed, frozen, replaced and drained; each test has a pool to itself.

The ledger of effects tells what modules did, whoever recorded what of it. How fast it goes the campaign asks, in
tests/chaos/remote: here a bound is what only a defect exceeds.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from time import monotonic
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from tests import run_history
from tests.builders import a_graph
from tests.chaos.runner_lab import MAX_LOST_LEASES, Lab, lease_settings, open_lab, works
from tests.chaos.runner_processes import launched
from tests.effect_modules import of
from tests.executor_stack import eventually, until_true
from tests.postgres import PostgresForTests
from valkyr.api.executor.v1 import runner_pb2, runner_pb2_grpc
from valkyr.cli.exits import ExitCode
from valkyr.rpc.channel import open_channel

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

ROOMS = ("graph_store", "breaker", "dlq", "executor")
LEASE = timedelta(seconds=4)
HEARTBEAT = timedelta(seconds=0.5)
SETTINGS = lease_settings(LEASE, HEARTBEAT)
NOTE_BACK_OFFS = """
CREATE TABLE history.back_off (run_id uuid, epoch int, retry_after timestamptz, at timestamptz DEFAULT now());
CREATE FUNCTION history.note_back_off() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO history.back_off (run_id, epoch, retry_after) VALUES (NEW.id, NEW.epoch, NEW.retry_after);
    RETURN NULL;
END $$;
CREATE TRIGGER back_off_noted AFTER UPDATE ON executor.run FOR EACH ROW
    WHEN (OLD.state = 'LEASED' AND NEW.state = 'READY') EXECUTE FUNCTION history.note_back_off();
"""
TOO_SOON = """
SELECT count(*) FILTER (WHERE b.retry_after > b.at) AS waits, count(*) FILTER (WHERE e.at < b.retry_after) AS too_soon
FROM history.back_off b
JOIN history.event e ON e.run_id = b.run_id AND e.state = 'LEASED' AND e.epoch = b.epoch + 1
WHERE e.execution_id = $1
"""
WITHIN = LEASE.total_seconds() + 5
"""Less than after a start, when the reaper keeps still for ten seconds."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(postgres: PostgresForTests, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    async with open_lab(postgres, tmp_path_factory.mktemp("runners"), *ROOMS, **SETTINGS) as lab:
        await lab.sql.execute(NOTE_BACK_OFFS)
        yield lab


async def test_a_runner_that_is_idle_drains_at_once(lab: Lab) -> None:
    async with lab.runner("idle") as runner:
        told = monotonic()
        runner.signal(signal.SIGTERM)
        assert await runner.ended() == ExitCode.OK
        assert monotonic() - told < 5, runner.text()


async def test_a_drain_finishes_what_has_begun_and_leaves_the_rest_burning_nothing(lab: Lab) -> None:
    names = [f"drained{number}" for number in range(12)]
    graph = works("drained", *names, milliseconds=700)
    async with lab.runner("drained", "--concurrency", "2") as first:
        execution_id = await lab.start(graph)
        await until_true(lambda: len([e for e in lab.effects if e.pid == first.pid]) >= 2, "two have begun")
        first.signal(signal.SIGTERM)
        assert await first.ended() == ExitCode.OK
        done = [effect for effect in lab.effects if effect.pid == first.pid and effect.what == "DONE"]
        begun = [effect for effect in lab.effects if effect.pid == first.pid and effect.what == "BEGUN"]
        assert len(done) == len(begun) < len(names), "it ended what it began, and left the rest"
    async with lab.runner("drained", name="second"):
        await lab.all_is_well(execution_id, graph)
    rows = await lab.rows(execution_id)
    assert {(row["lost_leases"], row["failures"]) for row in rows} == {(0, 0)}
    assert [len(of(lab.effects, "BEGUN", name)) for name in names] == [1] * len(names)


async def test_a_second_signal_ends_a_runner_now(lab: Lab) -> None:
    async with lab.runner("hurried") as runner:
        execution_id = await lab.start(works("hurried", "hurried", milliseconds=60_000))
        await lab.begun("hurried")
        runner.signal(signal.SIGTERM)
        await until_true(lambda: runner.said("runner.draining"), "it drains")
        assert runner.process.returncode is None, "it waits for what it runs"
        runner.signal(signal.SIGTERM)
        assert await runner.ended() == ExitCode.INTERRUPTED
        assert runner.said("runner.ends_now")
    assert of(lab.effects, "STOPPED", "hurried"), "the module was told"
    await lab.client.executions.cancel(execution_id)


async def test_a_runner_whose_name_is_none_ends_at_once(lab: Lab) -> None:
    runner = await launched(lab.folder, lab.executor, "--id", "a b", name="no name")
    try:
        assert await runner.ended(timeout=60) == ExitCode.BAD_INPUT
        assert "'a b' is no runner id" in runner.text()
    finally:
        await runner.kill()


async def test_i12_an_operator_drains_a_runner(lab: Lab) -> None:
    channel = open_channel(lab.executor, principal="operator")
    try:
        async with lab.runner("told", "--id", "told-1") as runner:
            stub = runner_pb2_grpc.RunnerServiceStub(channel)
            await stub.DrainRunner(runner_pb2.DrainRunnerRequest(runner_id="told-1"))
            assert await runner.ended() == ExitCode.OK
    finally:
        await channel.close()


async def test_i10_what_a_killed_runner_held_is_taken_over_when_its_lease_has_run_out(lab: Lab) -> None:
    graph = works("killed", "taken1", "taken2", milliseconds=60_000, later=100)
    async with lab.runner("killed") as runner, lab.runner("other pool"):
        await lab.past_the_quiet_period()
        execution_id = await lab.start(graph)
        for name in ("taken1", "taken2"):
            await lab.begun(name)
        async with lab.runner("killed", name="survivor"):
            await runner.kill()
            killed = monotonic()
            for name in ("taken1", "taken2"):
                assert (await lab.begun(name, 2)).at - killed < WITHIN
            await lab.all_is_well(execution_id, graph)
    assert [row["lost_leases"] for row in await lab.rows(execution_id)] == [1, 1]


async def test_i06_what_a_frozen_runner_says_when_it_wakes_changes_nothing(lab: Lab) -> None:
    graph = works("frozen", "thawed", milliseconds=3_000, later=100)
    async with lab.runner("frozen", "--concurrency", "1") as frozen:
        await lab.past_the_quiet_period()
        execution_id = await lab.start(graph)
        await lab.begun("thawed")
        frozen.signal(signal.SIGSTOP)
        try:
            async with lab.runner("frozen", name="awake"):
                await lab.begun("thawed", 2)
                await lab.all_is_well(execution_id, graph)
        finally:
            frozen.signal(signal.SIGCONT)
        # It works on, as if nothing had been: a frozen runner is no dead one.
        later = works("frozen", "after", milliseconds=10)
        await lab.all_is_well(await lab.start(later), later)
    assert [row["lost_leases"] for row in await lab.rows(execution_id)] == [1]
    assert (
        await lab.sql.fetchval(
            "SELECT count(*) FROM history.event WHERE execution_id = $1 AND state = 'SUCCESS'", UUID(execution_id)
        )
        == 1
    )


async def test_i10_a_module_that_kills_its_process_every_time_ends_as_a_letter(lab: Lab) -> None:
    graph = a_graph("deadly", modules={"deadly": "DeadlyModule"}, nodes={"deadly": {"pool": "deadly"}})
    execution_id = await lab.start(graph)
    for life in range(MAX_LOST_LEASES):
        # As under a supervisor: each starts under the id of the one that died, which ends the leases of that.
        runner = await launched(lab.folder, lab.executor, "--pool", "deadly", "--id", "deadly", name=f"life{life}")
        assert await runner.ended() == -signal.SIGKILL
    async with lab.runner("deadly", "--id", "deadly", name="last life"):

        async def letter() -> asyncpg.Record | None:
            return await lab.sql.fetchrow(
                "SELECT failure_type FROM dlq.dead_letter_queue WHERE execution_id = $1", UUID(execution_id)
            )

        assert (await eventually(letter, "there is a letter"))["failure_type"] == "RUNNER_LOST"
    assert len(of(lab.effects, "BEGUN", "deadly")) == MAX_LOST_LEASES
    back_offs = await lab.sql.fetchrow(TOO_SOON, UUID(execution_id))
    assert tuple(back_offs) == (MAX_LOST_LEASES - 1, 0), "it waits between its attempts"
    history = await run_history.read(lab.sql, execution_id)
    assert run_history.violations(history, execution_id, graph, max_lost_leases=MAX_LOST_LEASES) == []


async def test_a_module_that_holds_the_gil_costs_its_runner_and_others_take_over(lab: Lab) -> None:
    """Nothing in that process can go on: silence, until its leases run out."""
    graph = a_graph("hog", modules={"hog": "HogModule"}, nodes={"hog": {"pool": "hog"}})
    async with lab.runner("hog") as stuck:
        await lab.past_the_quiet_period()
        execution_id = await lab.start(graph)
        assert (await lab.begun("hog")).pid == stuck.pid
        async with lab.runner("hog", name="another hog"):
            others = works("hog", "beside1", "beside2", milliseconds=10)
            await lab.all_is_well(await lab.start(others), others)
            await lab.all_is_well(execution_id, graph)
        assert stuck.process.returncode is None
    assert [(row["lost_leases"], row["failures"]) for row in await lab.rows(execution_id)] == [(1, 0)]


async def test_isolated_it_costs_an_attempt_and_its_runner_goes_on(lab: Lab) -> None:
    names = {"hogged": "IsolatedHogModule", "crashed": "CrashModule"}
    graph = a_graph(", ".join(names), modules=names, nodes={name: {"pool": "isolated"} for name in names})
    others = works("isolated", "calm1", "calm2", milliseconds=2_000)
    async with lab.runner("isolated") as runner:
        beside, execution_id = await lab.start(others), await lab.start(graph)
        await lab.all_is_well(execution_id, graph)
        await lab.all_is_well(beside, others)
    runs = {run.node_id: run async for run in lab.client.executions.list_runs(execution_id)}
    first = {name: run.attempts[0].error for name, run in runs.items()}
    assert first == {
        "hogged": "the attempt took longer than its timeout of 1 s; its process was killed",
        "crashed": "CrashModule: its process was killed by SIGSEGV, before it had returned",
    }
    assert {effect.pid for effect in lab.effects if effect.node_id in ("calm1", "calm2")} == {runner.pid}
    rows = await lab.rows(execution_id)
    assert [row["lost_leases"] for row in rows] == [0, 0]
    # Where the machine stands still for a second, the one that is timed costs more than one.
    failures = {row["node_id"]: row["failures"] for row in rows}
    assert failures["crashed"] == 1
    assert failures["hogged"] >= 1
