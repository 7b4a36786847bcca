"""The list commands: what their options ask for, and what they print."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from tests.unit.cli.conftest import Cli
from valkyr.api.breaker.v1 import breaker_pb2
from valkyr.api.dlq.v1 import dlq_pb2
from valkyr.api.executor.v1 import executor_pb2
from valkyr.api.graph.v1 import graph_pb2
from valkyr.errors import InvalidRequest, Violation

LISTS = {
    ("graph", "list"): ("FindWorkflows", graph_pb2.FindWorkflowsResponse(), "createTime"),
    ("graph", "find"): ("FindWorkflows", graph_pb2.FindWorkflowsResponse(), "createTime"),
    ("execution", "list"): ("ListExecutions", executor_pb2.ListExecutionsResponse(), "createTime"),
    ("run", "list"): ("ListRuns", executor_pb2.ListRunsResponse(), "startTime"),
    ("dlq", "list"): ("ListDeadLetters", dlq_pb2.ListDeadLettersResponse(), "quarantinedTime"),
    ("breaker", "list"): ("ListBreakers", breaker_pb2.ListBreakersResponse(), "updateTime"),
}
EVERY_LIST = pytest.mark.parametrize("command", LISTS, ids=" ".join)


def asked(script: Any, rpc: str) -> dict[str, Any]:
    """The last request, without what has nothing to do with examples."""
    message: dict[str, Any] = json_format.MessageToDict(script.requests(rpc)[-1])
    return {name: message[name] for name in ("example", "matcher", "orderBy", "timeRanges") if name in message}


@EVERY_LIST
async def test_every_list_asks_by_example(command: tuple[str, str], script: Any, cli: Cli) -> None:
    rpc, answer, time = LISTS[command]
    script.answer(rpc, answer)
    options = (
        *("--example", '{"a": {"b": [5]}}', "--match", "starts-with", "--ignore-case", "--any"),
        *("--ignore", "a.b", "--ignore", "c", "--order-by", "name desc", "--since", "2026-03-01"),
        *("--until", "2026-03-02T01:00:00+01:00", "--limit", "7", "--json"),
    )
    done = await cli(*command, *options)
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout).values()) == [[]]
    assert asked(script, rpc) == {
        "example": {"a": {"b": [5]}},
        "matcher": {
            "stringMode": "STARTS_WITH",
            "ignoreCase": True,
            "matchAny": True,
            "ignoredPaths": ["a.b", "c"],
        },
        "orderBy": "name desc",
        "timeRanges": [{"field": time, "startTime": "2026-03-01T00:00:00Z", "endTime": "2026-03-02T00:00:00Z"}],
    }
    assert script.requests(rpc)[-1].page_size == 7


@EVERY_LIST
async def test_since_means_how_long_ago_and_time_says_of_what(command: tuple[str, str], script: Any, cli: Cli) -> None:
    rpc, answer, _ = LISTS[command]
    script.answer(rpc, answer)
    done = await cli(*command, "--since", "2d", "--time", "someTime")
    assert done.returncode == 0, done.stderr
    (one,) = script.requests(rpc)[-1].time_ranges
    assert one.field == "someTime"
    assert abs(datetime.now(UTC) - timedelta(days=2) - one.start_time.ToDatetime(UTC)) < timedelta(minutes=5)
    assert not one.HasField("end_time")
    assert done.stdout == ""
    assert "no" in done.stderr


async def test_an_example_may_come_from_a_file_or_from_standard_input(script: Any, cli: Cli, tmp_path: Any) -> None:
    script.answer("FindWorkflows", graph_pb2.FindWorkflowsResponse())
    (tmp_path / "example.json").write_text('{"name": "x"}')
    for argument, stdin in ((f"@{tmp_path / 'example.json'}", ""), ("-", '{"name": "x"}')):
        done = await cli("graph", "find", "--example", argument, stdin=stdin)
        assert done.returncode == 0, done.stderr
        assert asked(script, "FindWorkflows")["example"] == {"name": "x"}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--example", "{"], 3, "--example: '{' is not JSON"),
        (["--example", "[1]"], 3, "--example: '[1]' is not a JSON object"),
        (["--match", "like"], 2, "contains"),
        (["--since", "yesterday"], 2, "say how long ago"),
    ],
    ids=["no JSON", "no object", "match", "since"],
)
async def test_what_cannot_be_asked_is_said_before_any_call(
    arguments: list[str], code: int, said: str, script: Any, cli: Cli
) -> None:
    done = await cli("graph", "find", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert not script.received


async def test_what_the_server_refuses_is_told_by_the_option(script: Any, cli: Cli) -> None:
    for field, option in (
        ("example.modules[0].classname", "--example, modules[0].classname"),
        ("orderBy", "--order-by"),
        ("timeRanges[0].field", "--time"),
    ):
        violation = Violation(field, "there is no such field")
        script.answer("FindWorkflows", InvalidRequest(f"{field}: there is no such field", violations=[violation]))
        done = await cli("graph", "find", "--order-by", "x")
        assert (done.returncode, done.stdout) == (3, "")
        assert option in done.stderr


async def test_a_workflow_named_beside_an_example_is_looked_for_in_it(script: Any, cli: Cli) -> None:
    script.answer("FindWorkflows", graph_pb2.FindWorkflowsResponse())
    await cli("graph", "list", "orders", "--example", '{"archived": true}')
    assert asked(script, "FindWorkflows")["example"] == {"name": "orders", "archived": True}
    done = await cli("graph", "list", "orders", "--example", '{"name": "other"}')
    assert done.returncode == 3
    assert "say it once" in done.stderr


async def test_letters_that_are_settled_are_listed_where_the_example_names_a_resolution(script: Any, cli: Cli) -> None:
    script.answer("ListDeadLetters", dlq_pb2.ListDeadLettersResponse())
    for example, resolutions in (('{"nodeId": "a"}', ["PENDING"]), ('{"resolution": "FIXED"}', [])):
        await cli("dlq", "list", "--example", example)
        sent = json_format.MessageToDict(script.requests("ListDeadLetters")[-1])
        assert sent.get("resolutions", []) == resolutions


async def test_archived_workflows_are_told_from_others(script: Any, cli: Cli) -> None:
    workflows = [
        graph_pb2.Workflow(id="w1", name="old", version=3, archived=True, description="All orders"),
        graph_pb2.Workflow(id="w2", name="new", version=1),
    ]
    script.answer("FindWorkflows", graph_pb2.FindWorkflowsResponse(workflows=workflows))
    lines = (await cli("graph", "find", "--match", "exact")).stdout.splitlines()
    assert [line.split()[:1] for line in lines] == [["ID"], ["w1"], ["w2"]]
    assert lines[1].endswith("(archived) All orders")


async def test_runs_are_listed_with_their_executions(script: Any, cli: Cli) -> None:
    states = executor_pb2.Run.State
    runs = [
        executor_pb2.Run(
            execution_id="e1",
            node_id="charge_card",
            map_index=-1,
            state=states.QUARANTINED,
            attempt=3,
            start_time=Timestamp(seconds=1_900_000_000),
            finish_time=Timestamp(seconds=1_900_000_002),
            duration_ms=1500,
            error="it broke",
        ),
        executor_pb2.Run(execution_id="e2", node_id="each", map_index=4, state=states.READY, attempt=0),
    ]
    script.answer("ListRuns", executor_pb2.ListRunsResponse(runs=runs))
    done = await cli("run", "list", "--execution", "e1", "--state", "quarantined", "--state", "READY")
    head, first, second = done.stdout.splitlines()
    assert head.split() == ["EXECUTION", "NODE", "STATE", "ATTEMPT", "STARTED", "TOOK", "ERROR"]
    assert first.split()[:4] == ["e1", "charge_card", "QUARANTINED", "3"]
    assert first.endswith("it broke")
    assert "1.50 s" in first
    assert second.split() == ["e2", "each[4]", "READY", "0", "-", "-"]
    (request,) = script.requests("ListRuns")
    assert (request.execution_id, list(request.states)) == ("e1", [states.QUARANTINED, states.READY])


@EVERY_LIST
async def test_the_help_of_a_list_shows_an_example(command: tuple[str, str], cli: Cli) -> None:
    said = (await cli(*command, "--help")).stdout
    assert "--example JSON|@FILE|-" in said
    assert "Examples:" in said
    assert f"valkyr {' '.join(command)}" in said
