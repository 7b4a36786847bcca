"""`valkyr execution pause` and `resume`: what is sent, and what is said about it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.cli.conftest import Cli
from tests.unit.cli.test_failures import EXECUTION, after
from valkyr import errors
from valkyr.api.executor.v1 import executor_pb2 as pb


def paused(**counts: int) -> pb.Execution:
    return pb.Execution(
        id=EXECUTION,
        state=pb.Execution.PAUSED,
        paused_by="ada",
        pause_reason="the warehouse moves",
        pause_time=after(0),
        run_counts=counts,
    )


async def test_a_pause_says_how_to_go_on_and_what_is_under_way(script: Any, cli: Cli) -> None:
    script.answer("PauseExecution", pb.PauseExecutionResponse(execution=paused(LEASED=2, PENDING=5)))
    answer = await cli("execution", "pause", EXECUTION, "--reason", "the warehouse moves")
    who = "paused by ada at 2026-03-01 12:00:00: the warehouse moves"
    assert (answer.returncode, answer.stdout) == (0, f"{EXECUTION}  PAUSED\n{who}\n")
    assert f"`valkyr execution resume {EXECUTION}` lets it go on; 2 of its runs are under way" in answer.stderr
    (request,) = script.requests("PauseExecution")
    assert (request.execution_id, request.reason) == (EXECUTION, "the warehouse moves")
    assert request.request_id


async def test_a_resume_says_that_it_runs(script: Any, cli: Cli) -> None:
    running = pb.Execution(id=EXECUTION, state=pb.Execution.RUNNING)
    script.answer("ResumeExecution", pb.ResumeExecutionResponse(execution=running))
    answer = await cli("execution", "resume", EXECUTION)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, f"{EXECUTION}  RUNNING\n", "")


async def test_as_json_a_pause_is_the_execution(script: Any, cli: Cli) -> None:
    script.answer("PauseExecution", pb.PauseExecutionResponse(execution=paused()))
    answer = await cli("execution", "pause", EXECUTION, "--json")
    execution = json.loads(answer.stdout)["execution"]
    assert (execution["pausedBy"], execution["pauseReason"], execution["pauseTime"]) == (
        "ada",
        "the warehouse moves",
        "2026-03-01T12:00:00Z",
    )
    assert answer.stderr == ""


async def test_a_paused_execution_shows_who_paused_it(script: Any, cli: Cli) -> None:
    script.answer("GetExecution", pb.GetExecutionResponse(execution=paused(PARKED=1)))
    run = pb.Run(id="r1", node_id="charge", map_index=-1, state=pb.Run.PARKED, parked_by="PAUSE")
    script.answer("ListRuns", pb.ListRunsResponse(runs=[run]))
    answer = await cli("execution", "get", EXECUTION)
    assert "paused by ada at 2026-03-01 12:00:00: the warehouse moves" in answer.stdout
    assert "its execution is paused" in answer.stdout


@pytest.mark.parametrize("what", ["pause", "resume"])
async def test_what_has_ended_ends_the_command_with_5(script: Any, cli: Cli, what: str) -> None:
    script.answer(f"{what.capitalize()}Execution", errors.ExecutionSettled("it has ended in SUCCESS already"))
    answer = await cli("execution", what, EXECUTION)
    assert answer.returncode == 5
    assert f"`valkyr execution get {EXECUTION}` says how it ended" in answer.stderr
