"""`valkyr run get`: what a run does, what happened to it, what it gave; and what is asked of the executor for it."""

from __future__ import annotations

import io
import json
import re
from typing import Any
from uuid import uuid4

import pytest
from rich.console import Console

from tests.unit.cli.conftest import Cli
from tests.unit.cli.test_failures import EXECUTION, after
from tests.unit.cli.test_trace_history import a_quarantine, an_attempt
from tests.unit.cli.test_trace_history import a_run as plain_run
from tests.unit.cli.test_views import after as moment
from valkyr import errors
from valkyr.api.executor.v1 import executor_pb2
from valkyr.cli.printing import Printer
from valkyr.cli.run_view import print_run
from valkyr.client import ReusedRun, Run
from valkyr.client.json_values import value_of


def said_of(state: str, **more: Any) -> list[str]:
    run: Run = plain_run(state, **more)
    printer = Printer(as_json=False)
    screen = io.StringIO()
    printer.screen = Console(file=screen, width=80, soft_wrap=True, highlight=False)  # type: ignore[assignment]
    print_run(printer, run)
    return screen.getvalue().splitlines()


def now(state: str, **more: Any) -> str:
    (line,) = [line for line in said_of(state, **more) if line.startswith("now ")]
    return line.removeprefix("now").strip()


@pytest.mark.parametrize(
    ("state", "more", "says"),
    [
        ("PENDING", {}, "waits for the nodes before it"),
        ("READY", {}, "waits for a runner"),
        ("READY", {"retry_after": moment(seconds=9)}, "waits for a runner, not before 2026-03-01"),
        ("LEASED", {"leased_by": "r1/x", "lease_until": moment(seconds=9)}, "runs on r1/x, leased until 2026-03-01"),
        ("WAITING", {"retry_after": moment(seconds=9)}, "waits until 2026-03-01"),
        ("WAITING", {}, "waits"),
        ("PARKED", {"parked_by": "PAUSE"}, "its execution is paused; `valkyr execution resume e1` lets it go on"),
        ("PARKED", {"parked_by": "BREAKER"}, "held back while http:bank is down; looked at again"),
        ("QUARANTINED", {}, "failed for good; `valkyr dlq list --execution e1` shows"),
        ("SKIPPED", {}, "ended"),
        ("SUCCESS", {"started_at": moment(), "finished_at": moment(seconds=2)}, ", 2.00 s after it began"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value) if isinstance(value, dict) else "",
)
def test_each_state_says_what_it_means(state: str, more: dict[str, Any], says: str) -> None:
    assert says in now(state, **more)


def test_the_timeline_tells_all_in_the_order_of_time_with_who_ran_it() -> None:
    lines = said_of(
        "SUCCESS",
        attempts=(an_attempt(1, 1, 2), an_attempt(2, 9, 10, "SUCCESS")),
        quarantines=(a_quarantine(1, 2, resolved=8),),
    )
    timeline = lines[lines.index("timeline") + 1 :]
    assert [re.split(r"  +", line.strip())[2] for line in timeline] == [
        "attempt 1",
        "quarantine 1",
        "requeued",
        "attempt 2",
    ]
    assert timeline[0].endswith(":01.000    1.00 s  attempt 1     TRANSIENT  on r1")
    assert timeline[2].endswith("requeued      by bob after 6.00 s")


@pytest.mark.parametrize(("state", "says"), [("PENDING", "nothing yet"), ("SKIPPED", "no runner had it")])
def test_a_run_without_a_past_says_so(state: str, says: str) -> None:
    assert f"timeline  {says}" in said_of(state)


def test_a_run_that_went_through_at_once_still_shows_its_attempt() -> None:
    assert any("attempt 1  SUCCESS" in line for line in said_of("SUCCESS", attempts=(an_attempt(1, 1, 2, "SUCCESS"),)))


def test_a_run_that_was_not_run_says_whose_outputs_it_has() -> None:
    lines = said_of("SUCCESS", reused_from=ReusedRun("e0", "r0"), finished_at=moment(seconds=2))
    assert any("the outputs of an equal run; `valkyr run get e0 r0` shows it" in line for line in lines)
    assert "reused  the success of run r0 of execution e0" in lines[-1]


def a_message(node: str = "charge") -> executor_pb2.Run:
    run = executor_pb2.Run(
        id="r2", execution_id=EXECUTION, node_id=node, map_index=-1, state=executor_pb2.Run.SUCCESS, class_name="Charge"
    )
    run.outputs.CopyFrom(value_of({"charge": "C-17\x1b[2J"}, path=""))
    run.attempts.add(
        attempt=1, outcome="TRANSIENT", runner_id="r1", start_time=after(1), stack_trace="Traceback\n  in charge\x1b[2J"
    )
    return run


async def test_a_node_is_asked_for_by_its_id(script: Any, cli: Cli) -> None:
    script.answer("GetRun", executor_pb2.GetRunResponse(run=a_message()))
    answer = await cli("run", "get", EXECUTION, "charge")
    assert answer.returncode == 0, answer.stderr
    (request,) = script.requests("GetRun")
    assert (request.execution_id, request.node_id, request.run_id) == (EXECUTION, "charge", "")
    for said in ("charge (Charge)", "stack trace of attempt 1", "in charge\\x1b[2J", "outputs", "C-17"):
        assert said in answer.stdout
    assert "\x1b" not in answer.stdout


async def test_a_uuid_is_a_run_s_or_else_a_node_s(script: Any, cli: Cli) -> None:
    name = str(uuid4())
    script.answer("GetRun", errors.RunNotFound("no such run"), executor_pb2.GetRunResponse(run=a_message(name)))
    answer = await cli("run", "get", EXECUTION, name, "--json")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["run"]["nodeId"] == name
    assert [(request.run_id, request.node_id) for request in script.requests("GetRun")] == [(name, ""), ("", name)]


async def test_a_node_that_is_not_there_says_which_command_lists_them(script: Any, cli: Cli) -> None:
    script.answer("GetRun", errors.RunNotFound("execution e1 has no node 'x'", hint="ListRuns shows those there are"))
    answer = await cli("run", "get", EXECUTION, "x")
    assert answer.returncode == 4
    assert f"`valkyr execution get {EXECUTION}`" in answer.stderr
