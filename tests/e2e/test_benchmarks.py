"""`python -m benchmarks`: measures on a stack of its own, checks every output, and leaves nothing behind. How fast is
asserted nowhere."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.client import Job
from benchmarks.errors import BenchError
from benchmarks.figures import FIGURES
from benchmarks.graphs import single
from benchmarks.stack import open_stack, work
from services.local.home import PROJECT
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e


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


@pytest.mark.timeout(300)
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
    assert "INSERT INTO executor.run" in done.stdout
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
                await asyncio.wait_for(work(stack, job), 60)
