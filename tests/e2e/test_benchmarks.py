"""`python -m benchmarks`: measures on a stack of its own, checks every output, and leaves nothing behind. How fast is
asserted nowhere."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from benchmarks.client import Job
from benchmarks.copies import copy_execution
from benchmarks.database import Database
from benchmarks.errors import BenchError
from benchmarks.figures import FIGURES
from benchmarks.graph_store.figures import FIGURES as GRAPH_FIGURES
from benchmarks.graphs import chain, single
from benchmarks.machine import postgres_settings
from benchmarks.sizes import QUICK
from benchmarks.stack import open_stack, work
from benchmarks.workloads import w00_machine, w12_breaker
from services.local.home import PROJECT
from tests.postgres import PostgresForTests
from tests.waiting import wait_until
from valkyr.flow.ids import run_id

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def processes_in(folder: Path) -> list[str]:
    """Command lines of processes that name the folder, or that were started with it for temporary files."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            said = (process / "cmdline").read_bytes() + b"\0" + (process / "environ").read_bytes()
        except OSError:
            continue
        if process.name != str(os.getpid()) and str(folder).encode() in said:
            found.append(f"{process.name} {said.decode(errors='replace')[:200]}")
    return found


def test_two_workloads_run_through_at_small_sizes(tmp_path: Path) -> None:
    temporary, record = tmp_path / "tmp", tmp_path / "record.json"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "W1", "W2", "--quick", "--rounds", "1", "--json", record, "--statements"],
        cwd=PROJECT,
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "single-node executions, sustained, 1 client" in done.stdout
    assert "UPDATE executor.run" in done.stdout
    written = json.loads(record.read_text())
    [round_] = written["rounds"]
    measured = {**round_["W1"]["figures"], **round_["W2"]["figures"]}
    assert set(measured) == {key for key, figure in FIGURES.items() if figure.workload in ("W1", "W2")}
    assert all(value > 0 for value in measured.values())
    assert sum(round_["W1"]["detail"]["per_second"].values()) == written["settings"]["sizes"]["sustained"]
    assert len(round_["W2"]["detail"]["latencies_ms"]) == written["settings"]["sizes"]["calls"]
    assert written["settings"]["postgres"]["fsync"] == written["settings"]["postgres"]["synchronous_commit"] == "on"
    wait_until(lambda: not processes_in(temporary), f"nothing is left running: {processes_in(temporary)}")
    assert list(temporary.iterdir()) == []


def test_the_smallest_graphs_are_measured(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.graph_store", "G1", "--quick", "--rounds", "1", "--json", record],
        cwd=PROJECT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1,200 ms, " in done.stdout
    [round_] = json.loads(record.read_text())["rounds"]
    assert set(round_["G1"]["figures"]) == {key for key, figure in GRAPH_FIGURES.items() if figure.workload == "G1"}
    assert all(value > 0 for value in round_["G1"]["figures"].values())


async def test_an_answer_that_is_wrong_or_a_workflow_that_is_not_there_ends_the_measurement(database_url: str) -> None:
    shape = single()
    async with open_stack(database_url) as stack:
        right = Job("many", stack.addresses, await stack.save(shape), asdict(shape.answer()), count=200, warm=100)
        [done], used = await work(stack, right)
        assert done.count == 200
        assert used.cpu["executor"] > 0
        wrong = {**right.answer, "depth": 2}
        for job in (
            replace(right, answer=wrong),
            replace(right, answer=wrong, kind="one_by_one", warm=0),
            replace(right, workflow_id="00000000-0000-0000-0000-000000000000"),
        ):
            with pytest.raises(BenchError, match="WrongAnswer|WorkflowNotFound"):
                await asyncio.wait_for(work(stack, job), 120)


async def test_copies_of_an_execution_are_executions_like_those_that_the_engine_makes(
    database_url: str, postgres: PostgresForTests
) -> None:
    async with open_stack(database_url) as stack:
        workflow_id = await stack.save(chain(3))
        async with stack.client() as client:
            execution = await client.executions.start(workflow_id, payload={"n": 7})
            execution = await client.executions.wait(execution.id)
            await copy_execution(Database(database_url, admin_url=postgres.admin_url), execution.id, 40)
            executions = [each async for each in client.executions.list(workflow_id=workflow_id)]
            copy = await client.executions.get(next(each.id for each in executions if each.id != execution.id))
            runs = [run async for run in client.executions.list_runs(copy.id)]
        assert len({each.id for each in executions}) == 41
        assert (copy.state, copy.outputs, copy.run_counts) == (execution.state, execution.outputs, {"SUCCESS": 3})
        assert [run.id for run in runs] == [str(run_id(UUID(copy.id), node)) for node in range(3)]
        assert execution.finished_at is not None
        assert copy.finished_at is not None
        assert copy.finished_at < execution.finished_at - timedelta(minutes=59)


async def test_every_target_that_is_tripped_is_heard_of_and_a_closed_one_is_asked_about(database_url: str) -> None:
    measured = await w12_breaker.measure(Database(database_url), QUICK)
    assert set(measured.figures) == {key for key, figure in FIGURES.items() if figure.workload == "W12"}
    assert len(measured.detail["known_ms"]) == QUICK.trips
    assert measured.figures["W12.closed"] > 0


async def test_the_machine_is_measured_without_any_service(database_url: str) -> None:
    measured = await w00_machine.measure(Database(database_url), QUICK)
    assert set(measured.figures) == {key for key, figure in FIGURES.items() if figure.workload == "W0"}
    assert all(value > 0 for value in measured.figures.values())


async def test_a_postgres_that_may_lose_commits_is_not_measured(database_url: str) -> None:
    assert (await postgres_settings(database_url))["synchronous_commit"] == "on"
    with pytest.raises(BenchError, match="synchronous_commit off"):
        await postgres_settings(f"{database_url}&synchronous_commit=off")
