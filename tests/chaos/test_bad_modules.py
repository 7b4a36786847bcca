"""Modules that behave badly in runners of their own processes: each ends where it should and says why, and what runs
beside it goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from tests.builders import a_graph
from tests.chaos.runner_lab import HEARTBEAT, LONG, Lab, lease_settings, open_lab, works
from tests.chaos.runner_processes import RunnerProcess, launched
from tests.effect_modules import of
from tests.executor_stack import eventually
from tests.integration.runner.isolation import is_running, pid_in
from tests.postgres import PostgresForTests
from valkyr.cli.exits import ExitCode
from valkyr.client import Execution, ExecutionState, Run, RunState
from valkyr.graph.model import Graph, Retry
from valkyr.runner.isolated.prints import MAX_LINES

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

UNUSABLE = {
    "too_large": "the outputs have 2097154 bytes, and 1048576 are allowed: store them elsewhere, and say where",
    "not_a_number": "the outputs contain nan, which JSON cannot hold",
    "cyclic": "the outputs nest deeper than 64 levels, or contain themselves",
    "no_json": "the outputs contain a object, which JSON cannot hold",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(postgres: PostgresForTests, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    folder = tmp_path_factory.mktemp("bad")
    async with open_lab(postgres, folder, "graph_store", "executor", **lease_settings(LONG, HEARTBEAT)) as lab:
        yield lab


def once(pool: str, modules: dict[str, Any], **node: Any) -> Graph:
    """Nodes side by side, each with one attempt."""
    return a_graph(
        ", ".join(modules),
        modules=modules,
        nodes={name: {"pool": pool, "retry": Retry(max_attempts=1), **node} for name in modules},
    )


async def runs_of(lab: Lab, execution: Execution) -> dict[str, Run]:
    """By node, each as GetRun answers."""
    names = [row["node_id"] for row in await lab.rows(execution.id)]
    return {name: await lab.client.runs.get(execution.id, node_id=name) for name in names}


async def goes_on(lab: Lab, pool: str, runner: RunnerProcess) -> None:
    """That very runner runs others of its pool."""
    name = f"after {pool}"
    graph = works(pool, name, milliseconds=10)
    await lab.all_is_well(await lab.start(graph), graph)
    assert {effect.pid for effect in of(lab.effects, "DONE", name)} == {runner.pid}


async def test_i10_a_runner_that_a_module_ended_as_if_all_were_well_has_lost_what_it_held(lab: Lab) -> None:
    slow = {"milliseconds": 60_000, "later_milliseconds": 10}
    modules: dict[str, Any] = {"quits": "QuitModule", "beside": ("EffectModule", slow)}
    graph = a_graph("quits, beside", modules=modules, nodes={name: {"pool": "quits"} for name in modules})
    execution_id = await lab.start(graph)
    first = await launched(lab.folder, lab.executor, "--pool", "quits", "--id", "quits", name="quits")
    try:
        assert await first.ended() == ExitCode.OK, first.text()
    finally:
        await first.kill()
    async with lab.runner("quits", "--id", "quits", name="quits again"):
        await lab.all_is_well(execution_id, graph)
    runs = await runs_of(lab, await lab.ended(execution_id))
    assert [attempt.outcome for attempt in runs["quits"].attempts] == ["RUNNER_LOST", "SUCCESS"]
    assert await lab.budgets(execution_id) == {(1, 0)}


async def test_what_cannot_be_stored_fails_for_good_and_says_why(lab: Lab) -> None:
    kinds = {"": "BadModule", "isolated ": "IsolatedBadModule"}
    bad = {f"{where}{do}": (name, {"do": do}) for where, name in kinds.items() for do in UNUSABLE}
    beside = works("unusable", "beside1", "beside2", milliseconds=300)
    async with lab.runner("unusable", "--concurrency", "20") as runner:
        well, ill = await lab.start(beside), await lab.start(once("unusable", bad))
        execution = await lab.ended(ill)
        await lab.all_is_well(well, beside)
        await goes_on(lab, "unusable", runner)
    assert execution.state is ExecutionState.FAILED
    runs = await runs_of(lab, execution)
    assert {(run.state, run.error_type) for run in runs.values()} == {(RunState.QUARANTINED, "PERMANENT")}
    assert {name: run.error for name, run in runs.items()} == {
        f"{where}{do}": text for where in kinds for do, text in UNUSABLE.items()
    }


async def test_what_never_ends_is_ended_or_left_behind_and_is_bounded(lab: Lab) -> None:
    """All at a time: who does not stop is waited for."""
    timed: dict[str, Any] = {
        "prints": ("IsolatedBadModule", {"do": "print_for_ever"}),
        "holds on": ("IsolatedBadModule", {"do": "hold_on"}),
    }
    pid = lab.folder / "told.pid"
    told = {"killed": ("IsolatedBadModule", {"do": "hold_on", "path": str(pid)}), "told": "DeafModule"}
    async with lab.runner("endless", "--concurrency", "6") as runner:
        cancelled = await lab.start(once("endless", told))
        ill = await lab.start(once("endless", timed, timeout=timedelta(seconds=3)))
        deaf = await lab.start(once("endless", {"deaf": "DeafModule"}, timeout=timedelta(seconds=1)))
        held = await pid_in(pid)
        for name in ("told", "deaf"):
            await lab.begun(name)
        await lab.client.executions.cancel(cancelled)
        await goes_on(lab, "endless", runner)
        execution, left, ended = await lab.ended(ill), await lab.ended(deaf), await lab.ended(cancelled)
        assert not is_running(held)
        await goes_on(lab, "endless", runner)
        printed = runner.text().count("and on and on")
    failed = {**await runs_of(lab, execution), **await runs_of(lab, left)}
    timeout = "the attempt took longer than its timeout of"
    assert {name: (run.error_type, run.error) for name, run in failed.items()} == {
        "prints": ("TIMEOUT", f"{timeout} 3 s; its process was killed"),
        "holds on": ("TIMEOUT", f"{timeout} 3 s; its process was killed"),
        "deaf": ("TIMEOUT", f"{timeout} 1 s; the module did not stop when told to, and is still running"),
    }
    assert 0 < printed <= MAX_LINES + 1
    assert execution.state is left.state is ExecutionState.FAILED
    assert ended.state is ExecutionState.CANCELLED
    runs = await runs_of(lab, ended)
    assert {run.state for run in runs.values()} == {RunState.CANCELLED}
    [attempt] = runs["killed"].attempts
    assert attempt.error == "the run was cancelled while the module was running; its process was killed"


async def test_progress_is_handed_on_when_an_attempt_fails_and_when_its_process_is_killed(lab: Lab) -> None:
    modules = {name: ("TellingModule", {"fails": name == "fails"}) for name in ("fails", "killed")}
    graph = a_graph("fails, killed", modules=modules, nodes={name: {"pool": "telling"} for name in modules})
    execution_id = await lab.start(graph)

    async def told() -> bool:
        rows = {row["node_id"]: row for row in await lab.rows(execution_id)}
        return rows["fails"]["state"] == "SUCCESS" and bool(rows["killed"]["progress"])

    async with lab.runner("telling", "--id", "telling") as first:
        await eventually(told, "the one has ended, the other has told")
        await first.kill()
    async with lab.runner("telling", "--id", "telling", name="telling again"):
        execution = await lab.ended(execution_id)
    assert execution.state is ExecutionState.SUCCESS
    runs = await runs_of(lab, execution)
    assert {name: (run.outputs, run.cost_tokens) for name, run in runs.items()} == {
        name: ({"attempt": 2, "before": {"done": [name, 3]}}, 2.5) for name in modules
    }
    outcomes = {name: [attempt.outcome for attempt in run.attempts] for name, run in runs.items()}
    assert outcomes == {"fails": ["TRANSIENT", "SUCCESS"], "killed": ["RUNNER_LOST", "SUCCESS"]}
