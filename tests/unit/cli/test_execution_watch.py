"""`valkyr execution watch`: shows an execution that somebody else started, until it ends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.cli.conftest import Cli
from tests.unit.cli.test_failures import EXECUTION, after
from valkyr import errors
from valkyr.api.executor.v1 import executor_pb2 as pb


def an_execution(state: str, revision: int) -> pb.Execution:
    return pb.Execution(
        id=EXECUTION,
        state=pb.Execution.State.Value(state),
        revision=revision,
        start_time=after(0),
        run_counts={state: 1},
    )


def a_run(state: str, **more: Any) -> pb.Run:
    return pb.Run(
        id="r1", execution_id=EXECUTION, node_id="charge", map_index=-1, state=pb.Run.State.Value(state), **more
    )


def script_of(script: Any, ended: str, run: pb.Run) -> None:
    """It runs when it is first looked at, and has ended when the watch says so."""
    running, last = an_execution("RUNNING", 1), an_execution(ended, 2)
    last.finish_time.CopyFrom(after(3))
    script.answer("WatchExecution", [pb.WatchExecutionResponse(execution=it) for it in (running, last)])
    script.answer("GetExecution", *(pb.GetExecutionResponse(execution=it) for it in (running, last)))
    script.answer("ListRuns", pb.ListRunsResponse(runs=[a_run("LEASED")]), pb.ListRunsResponse(runs=[run]))


@pytest.mark.parametrize(("ended", "code"), [("SUCCESS", 0), ("FAILED", 1), ("CANCELLED", 1)])
async def test_it_ends_with_the_execution_and_as_it_ended(script: Any, cli: Cli, ended: str, code: int) -> None:
    state = "SUCCESS" if ended == "SUCCESS" else "QUARANTINED"
    script_of(script, ended, a_run(state, start_time=after(1), finish_time=after(3), error="no card", error_type="X"))
    answer = await cli("execution", "watch", EXECUTION)
    assert answer.returncode == code, answer.stderr
    lines = answer.stdout.splitlines()
    assert lines[0].startswith(f"  +3.00 s  {state}  charge  2.00 s")
    assert f"{EXECUTION}  {ended}  in 3.00 s" in lines
    (request,) = script.requests("WatchExecution")
    assert request.execution_id == EXECUTION


async def test_as_json_it_is_a_line_for_each_change_and_the_execution_last(script: Any, cli: Cli) -> None:
    script_of(script, "SUCCESS", a_run("SUCCESS"))
    answer = await cli("execution", "watch", EXECUTION, "--json")
    documents = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [next(iter(document)) for document in documents] == ["run", "run", "execution"]
    assert [document["run"]["state"] for document in documents[:2]] == ["LEASED", "SUCCESS"]
    assert documents[2]["execution"]["state"] == "SUCCESS"


async def test_when_its_time_is_over_the_execution_goes_on(script: Any, cli: Cli) -> None:
    running = an_execution("RUNNING", 1)
    script.answer("WatchExecution", pb.WatchExecutionResponse(execution=running))
    script.answer("GetExecution", pb.GetExecutionResponse(execution=running))
    script.answer("ListRuns", pb.ListRunsResponse(runs=[a_run("LEASED")]))
    answer = await cli("execution", "watch", EXECUTION, "--timeout", "0.2s")
    assert answer.returncode == 6
    assert f"{EXECUTION} is still RUNNING" in answer.stderr


async def test_an_executor_that_restarts_meanwhile_is_waited_for_by_all_that_asks_it(script: Any, cli: Cli) -> None:
    script_of(script, "SUCCESS", a_run("SUCCESS"))
    assert (await cli("execution", "watch", EXECUTION)).returncode == 0
    asked = [received for received in script.received if received.rpc in ("GetExecution", "ListRuns")]
    assert len(asked) >= 3
    assert all(received.time_left > 30 for received in asked[1:]), "the first is asked before anything is followed"


async def test_one_that_is_not_there_says_which_command_lists_them(script: Any, cli: Cli) -> None:
    script.answer("GetExecution", errors.ExecutionNotFound(f"there is no execution {EXECUTION}"))
    answer = await cli("execution", "watch", EXECUTION)
    assert answer.returncode == 4
    assert "`valkyr execution list`" in answer.stderr
