"""What the command line says and sends when something failed: cancel, run requeue, dlq, breaker, trace."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.unit.cli.conftest import Cli
from valkyr import errors
from valkyr.api.breaker.v1 import breaker_pb2
from valkyr.api.dlq.v1 import dlq_pb2
from valkyr.api.executor.v1 import executor_pb2
from valkyr.api.graph.v1 import graph_pb2
from valkyr.client.json_values import json_of, value_of

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
EXECUTION = "0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80"
WORKFLOW = "0198c5a2-7e1c-7f3a-9d52-000000000002"
LETTER = "0198c5a2-7e1c-7f3a-9d52-000000000001"
TARGET = "http:bank"


def after(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(NOON + timedelta(seconds=seconds))
    return stamp


def a_letter(**more: Any) -> dlq_pb2.DeadLetter:
    letter = dlq_pb2.DeadLetter(
        id=LETTER,
        run_id="r2",
        execution_id=EXECUTION,
        node_id="charge",
        class_name="HttpRequestModule",
        workflow_id="w1",
        version=3,
        quarantine_number=1,
        failure_type=dlq_pb2.DeadLetter.MAX_RETRIES,
        failure_reason="the bank answered 503",
        error_type="TRANSIENT",
        original_inputs=value_of({"trigger": {"cents": 4900}, "nodes": {}}, path=""),
        original_config=value_of({"url": "https://bank.example/charges"}, path=""),
        target=TARGET,
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
        idempotency_key="5e0f",
        quarantined_time=after(7),
        resolution=dlq_pb2.DeadLetter.PENDING,
    )
    letter.attempts.add(
        attempt=1, outcome="TRANSIENT", error="the bank answered 503", start_time=after(1), finish_time=after(1.25)
    )
    letter.attempts.add(
        attempt=2,
        outcome="TRANSIENT",
        error="the bank answered 503",
        start_time=after(3),
        finish_time=after(7),
        stack_trace="Traceback\n  in charge\x1b[2J",
    )
    letter.MergeFrom(dlq_pb2.DeadLetter(**more))
    return letter


def a_run(node: str = "charge", id: str = "r2", state: str = "QUARANTINED", number: int = 1) -> executor_pb2.Run:
    run = executor_pb2.Run(
        id=id, execution_id=EXECUTION, node_id=node, map_index=-1, state=executor_pb2.Run.State.Value(state)
    )
    run.quarantine_number = number
    return run


def runs(*found: executor_pb2.Run) -> executor_pb2.ListRunsResponse:
    return executor_pb2.ListRunsResponse(runs=found)


async def test_a_letter_says_what_why_when_and_what_can_be_done(script: Any, cli: Cli) -> None:
    script.answer("GetDeadLetter", dlq_pb2.GetDeadLetterResponse(dead_letter=a_letter()))
    answer = await cli("dlq", "get", LETTER, "--namespace", "shop")
    assert answer.returncode == 0, answer.stderr
    for said in (
        f"letter    {LETTER}  PENDING",
        "what      charge (HttpRequestModule), failed 2 times, its last attempt included (MAX_RETRIES)",
        "why       TRANSIENT: the bank answered 503",
        "when      2026-03-01 12:00:07, ",
        f"`valkyr breaker get {TARGET}`",
        "trace     4bf92f3577b34da6a3ce929d0e0e4736",
        "    1  2026-03-01 12:00:01    250 ms  TRANSIENT  the bank answered 503",
        "    2  2026-03-01 12:00:03    4.00 s  TRANSIENT  the bank answered 503",
        "         in charge\\x1b[2J",
        '      "cents": 4900',
        '    "url": "https://bank.example/charges"',
        f"    valkyr dlq requeue {LETTER} --namespace shop --reason TEXT",
        f"    valkyr dlq get {LETTER} --namespace shop --inputs > inputs.json",
        f"    valkyr dlq requeue {LETTER} --namespace shop --inputs @inputs.json",
        f"    valkyr dlq fix {LETTER} --namespace shop --outputs JSON --reason TEXT",
        f"    valkyr dlq discard {LETTER} --namespace shop --reason TEXT",
    ):
        assert said in answer.stdout, f"{said!r} is not in\n{answer.stdout}"
    assert "\x1b" not in answer.stdout


async def test_a_letter_that_is_settled_says_who_did_it_and_offers_nothing(script: Any, cli: Cli) -> None:
    letter = a_letter(
        resolution=dlq_pb2.DeadLetter.FIXED, resolved_by="bob", resolved_time=after(60), resolution_reason="by hand"
    )
    script.answer("GetDeadLetter", dlq_pb2.GetDeadLetterResponse(dead_letter=letter))
    answer = await cli("dlq", "get", LETTER)
    assert "FIXED by bob at 2026-03-01 12:01:00: by hand" in answer.stdout
    assert "what you can do" not in answer.stdout


async def test_the_inputs_of_a_letter_can_be_edited_and_sent_back(script: Any, cli: Cli, tmp_path: Path) -> None:
    script.answer("GetDeadLetter", dlq_pb2.GetDeadLetterResponse(dead_letter=a_letter()))
    script.answer("RequeueDeadLetter", dlq_pb2.RequeueDeadLetterResponse(dead_letter=a_letter()))
    inputs = tmp_path / "inputs.json"
    inputs.write_text((await cli("dlq", "get", LETTER, "--inputs")).stdout.replace("4900", "490"))
    answer = await cli("dlq", "requeue", LETTER, "--inputs", f"@{inputs}", "--reason", "a typo", "--deadline", "2h")
    assert answer.returncode == 0, answer.stderr
    (request,) = script.requests("RequeueDeadLetter")
    assert json_of(request.inputs) == {"trigger": {"cents": 490}, "nodes": {}}
    assert (request.dead_letter_id, request.reason, request.new_key, request.force) == (LETTER, "a typo", False, False)
    left = request.deadline.ToDatetime(tzinfo=UTC) - datetime.now(UTC)
    assert timedelta(minutes=118) < left <= timedelta(hours=2)
    (received,) = [received for received in script.received if received.rpc == "RequeueDeadLetter"]
    assert received.metadata["principal"] == "ada"


async def test_a_letter_shows_who_was_refused_what_and_why(script: Any, cli: Cli) -> None:
    letter = a_letter()
    letter.refused.CopyFrom(
        dlq_pb2.DeadLetter.Refused(
            resolution=dlq_pb2.DeadLetter.FIXED,
            requested_by="bob",
            problem="EXECUTION_ENDED: it was cancelled",
            refused_time=after(60),
        )
    )
    script.answer("GetDeadLetter", dlq_pb2.GetDeadLetterResponse(dead_letter=letter))
    shown = await cli("dlq", "get", LETTER)
    document = json.loads((await cli("dlq", "get", LETTER, "--json")).stdout)["deadLetter"]
    said = "refused   FIXED, asked for by bob, at 2026-03-01 12:01:00: EXECUTION_ENDED: it was cancelled"
    assert said in shown.stdout.splitlines()
    assert document["refused"] == {
        "resolution": "FIXED",
        "requestedBy": "bob",
        "problem": "EXECUTION_ENDED: it was cancelled",
        "refusedTime": "2026-03-01T12:01:00Z",
    }


ENDS: dict[str, tuple[dict[str, Any], str]] = {
    "cancelled": ({"state": executor_pb2.Execution.CANCELLED, "cancelled_by": "eve"}, "was cancelled by eve"),
    "being cancelled": ({"state": executor_pb2.Execution.RUNNING, "cancel_requested": True}, "was cancelled"),
    "deadline": (
        {"state": executor_pb2.Execution.FAILED, "deadline": after(9), "finish_time": after(9)},
        "was ended by its deadline, 2026-03-01 12:00:09",
    ),
    "failed fast": ({"state": executor_pb2.Execution.FAILED, "run_counts": {"CANCELLED": 2}}, "failed fast"),
    "failed": ({"state": executor_pb2.Execution.FAILED, "deadline": after(9), "finish_time": after(8)}, ""),
}


@pytest.mark.parametrize(("fields", "why"), ENDS.values(), ids=ENDS.keys())
async def test_only_what_its_execution_allows_is_offered(
    script: Any, cli: Cli, fields: dict[str, Any], why: str
) -> None:
    script.answer("GetDeadLetter", dlq_pb2.GetDeadLetterResponse(dead_letter=a_letter()))
    execution = executor_pb2.Execution(id=EXECUTION, **fields)
    script.answer("GetExecution", executor_pb2.GetExecutionResponse(execution=execution))
    shown = (await cli("dlq", "get", LETTER)).stdout
    assert f"valkyr dlq discard {LETTER}" in shown
    assert ("valkyr dlq requeue" in shown, "valkyr dlq fix" in shown) == (not why, not why)
    assert (f"its execution {why}: it can be neither requeued nor fixed" in shown) is bool(why)


RUN = [EXECUTION, "charge", "--reason", "x"]
HINTS: dict[str, tuple[list[str], str, errors.ValkyrError, str]] = {
    "no such letter": (
        ["dlq", "get", LETTER],
        "GetDeadLetter",
        errors.DeadLetterNotFound("there is none", hint="ListDeadLetters lists what there is"),
        "valkyr dlq list",
    ),
    "no letter's id": (
        ["dlq", "get", "WRONG-ID"],
        "GetDeadLetter",
        errors.InvalidRequest.of_field("deadLetterId", "'WRONG-ID' is no UUID"),
        "valkyr dlq list",
    ),
    "kept": (
        ["dlq", "discard", LETTER, "--reason", "x"],
        "DiscardDeadLetter",
        errors.Unavailable(
            "the executor does not answer",
            hint="repeat the call with the same request_id",
            metadata={"requestedResolution": "DISCARDED"},
            retry_after=timedelta(minutes=1),
        ),
        f"it is kept, and carried out once the executor answers; `valkyr dlq get {LETTER}`",
    ),
    "settled": (
        ["execution", "cancel", EXECUTION],
        "CancelExecution",
        errors.ExecutionSettled("it has ended"),
        f"valkyr execution get {EXECUTION}",
    ),
    "resolved": (
        ["run", "discard", *RUN],
        "DiscardRun",
        errors.QuarantineResolved("bob was first"),
        f"valkyr trace {EXECUTION}",
    ),
    "not quarantined": (
        ["run", "discard", *RUN],
        "DiscardRun",
        errors.NotQuarantined("it is READY"),
        f"valkyr execution get {EXECUTION}",
    ),
    "no run": (["run", "discard", *RUN], "DiscardRun", errors.RunNotFound("none"), f"valkyr execution get {EXECUTION}"),
}


@pytest.mark.parametrize(("words", "rpc", "error", "hint"), HINTS.values(), ids=HINTS.keys())
async def test_an_error_names_the_command_that_helps(
    script: Any, cli: Cli, words: list[str], rpc: str, error: errors.ValkyrError, hint: str
) -> None:
    script.answer("ListRuns", runs(a_run()))
    script.answer(rpc, error)
    answer = await cli(*words)
    (told,) = [line for line in answer.stderr.splitlines() if line.startswith(" hint: ")]
    assert hint in told
    assert "request_id" not in told


async def test_an_error_names_arguments_as_the_command_line_does(script: Any, cli: Cli) -> None:
    script.answer("RequeueDeadLetter", errors.InvalidRequest.of_field("inputs.nodes.a", "3 is no object"))
    answer = await cli("dlq", "requeue", LETTER, "--inputs", '{"trigger": 1, "nodes": {"a": 3}}')
    assert answer.stderr.splitlines()[0] == "error: --inputs, nodes.a: 3 is no object"
    script.answer("GetDeadLetter", errors.InvalidRequest.of_field("deadLetterId", "'x' is no UUID"))
    assert (await cli("dlq", "get", "x")).stderr.splitlines()[0] == "error: LETTER: 'x' is no UUID"


async def test_a_breaker_that_nobody_heard_of_says_so(script: Any, cli: Cli) -> None:
    unknown = breaker_pb2.Breaker(target="http:typo", state=breaker_pb2.Breaker.CLOSED)
    script.answer("GetBreaker", breaker_pb2.GetBreakerResponse(breaker=unknown))
    answer = await cli("breaker", "get", "http:typo")
    assert "http:typo  never heard of" in answer.stdout
    assert "valkyr breaker list" in answer.stderr


async def test_an_answer_that_is_still_awaited_is_said(script: Any, cli: Cli) -> None:
    letter = a_letter(requested_resolution=dlq_pb2.DeadLetter.FIXED)
    script.answer("FixDeadLetter", dlq_pb2.FixDeadLetterResponse(dead_letter=letter))
    answer = await cli("dlq", "fix", LETTER, "--outputs", "null")
    assert answer.returncode == 0
    assert "FIXED is stored and will be done as soon as the executor answers" in answer.stderr
    (request,) = script.requests("FixDeadLetter")
    assert request.outputs.WhichOneof("kind") == "null_value"


async def test_who_comes_second_is_told_and_gets_5(script: Any, cli: Cli) -> None:
    script.answer("DiscardDeadLetter", errors.DeadLetterResolved("bob has FIXED it", metadata={"resolvedBy": "bob"}))
    answer = await cli("dlq", "discard", LETTER, "--reason", "too late", "--json")
    assert answer.returncode == 5
    error = json.loads(answer.stderr)["error"]
    assert (error["reason"], error["metadata"]) == ("DEAD_LETTER_RESOLVED", {"resolvedBy": "bob"})


async def test_letters_are_listed_as_they_wait_unless_told_otherwise(script: Any, cli: Cli) -> None:
    script.answer("ListDeadLetters", dlq_pb2.ListDeadLettersResponse(dead_letters=[a_letter()]))
    plain = await cli("dlq", "list")
    everything = await cli("dlq", "list", "--all", "--execution", EXECUTION, "--json")
    await cli("dlq", "list", "--resolution", "fixed", "--type", "timeout", "--target", TARGET)
    first, second, third = script.requests("ListDeadLetters")
    assert re.search(
        rf"^{LETTER} +PENDING +2026-03-01 12:00:07 +charge +MAX_RETRIES +TRANSIENT: the bank", plain.stdout, re.M
    )
    (letter,) = json.loads(everything.stdout)["deadLetters"]
    assert (letter["quarantinedTime"], letter["resolution"]) == ("2026-03-01T12:00:07Z", "PENDING")
    assert letter["requestedResolution"] is None
    assert list(first.resolutions) == [dlq_pb2.DeadLetter.PENDING]
    assert (list(second.resolutions), second.execution_id) == ([], EXECUTION)
    assert (list(third.resolutions), list(third.failure_types)) == (
        [dlq_pb2.DeadLetter.FIXED],
        [dlq_pb2.DeadLetter.TIMEOUT],
    )


async def test_a_run_is_requeued_by_the_name_of_its_node(script: Any, cli: Cli) -> None:
    script.answer("ListRuns", runs(a_run("price", "r1", "SUCCESS", 0), a_run(number=2)))
    script.answer("RequeueRun", executor_pb2.RequeueRunResponse(run=a_run(state="READY", number=2)))
    answer = await cli("run", "requeue", EXECUTION, "charge", "--new-key", "--force")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == "requeued charge (run r2, quarantine 2): it is READY; its execution goes on\n"
    await cli("run", "requeue", EXECUTION, "r2", "--quarantine", "1")
    first, second = script.requests("RequeueRun")
    assert (first.run_id, first.quarantine_number, first.new_key, first.force) == ("r2", 2, True, True)
    assert (second.run_id, second.quarantine_number, second.new_key) == ("r2", 1, False)


async def test_a_run_is_completed_and_discarded(script: Any, cli: Cli) -> None:
    script.answer("ListRuns", runs(a_run()))
    script.answer("CompleteRunManually", executor_pb2.CompleteRunManuallyResponse(run=a_run(state="SUCCESS")))
    script.answer("DiscardRun", executor_pb2.DiscardRunResponse(run=a_run(state="FAILED")))
    completed = await cli("run", "complete", EXECUTION, "charge", "--outputs", '{"charge": 17}', "--json")
    discarded = await cli("run", "discard", EXECUTION, "charge", "--reason", "cancelled by the customer")
    assert json.loads(completed.stdout)["run"]["state"] == "SUCCESS"
    assert "discarded charge" in discarded.stdout
    (complete,) = script.requests("CompleteRunManually")
    (discard,) = script.requests("DiscardRun")
    assert json_of(complete.outputs) == {"charge": 17}
    assert (discard.run_id, discard.reason) == ("r2", "cancelled by the customer")
    assert (await cli("run", "discard", EXECUTION, "charge")).returncode == 2


@pytest.mark.parametrize(
    ("node", "code", "said"),
    [
        ("chrage", 4, "has no node or run 'chrage'"),
        ("price", 5, "run price is SUCCESS and never failed for good"),
        ("each", 3, "'each' has 2 runs; name one"),
    ],
    ids=["unknown", "never failed", "several"],
)
async def test_a_run_that_cannot_be_meant_is_refused_with_those_that_can(
    node: str, code: int, said: str, script: Any, cli: Cli
) -> None:
    script.answer("ListRuns", runs(a_run("price", "r1", "SUCCESS", 0), a_run("each", "i1"), a_run("each", "i2")))
    answer = await cli("run", "requeue", EXECUTION, node)
    assert answer.returncode == code
    assert said in answer.stderr
    assert "QUARANTINED are each" in answer.stderr
    assert not script.requests("RequeueRun")


async def test_run_still_starts_a_workflow_also_one_called_as_a_command(script: Any, cli: Cli) -> None:
    script.answer(
        "FindWorkflows", graph_pb2.FindWorkflowsResponse(workflows=[graph_pb2.Workflow(id="w1", name="requeue")])
    )
    started = executor_pb2.Execution(id=EXECUTION, state=executor_pb2.Execution.PENDING)
    script.answer("StartExecution", executor_pb2.StartExecutionResponse(execution=started))
    for arguments in (["orders"], ["--priority", "3", "orders"], ["start", "requeue"]):
        answer = await cli("run", *arguments, "--deadline", "2026-03-01T12:00:00+01:00")
        assert (answer.returncode, answer.stdout) == (0, f"{EXECUTION}\n"), answer.stderr
    assert [request.priority for request in script.requests("StartExecution")] == [0, 3, 0]
    assert script.requests("StartExecution")[0].deadline == after(-3600)


async def test_a_cancel_says_whether_it_is_over(script: Any, cli: Cli) -> None:
    running = executor_pb2.Execution(id=EXECUTION, state=executor_pb2.Execution.RUNNING, cancel_requested=True)
    cancelled = executor_pb2.Execution(id=EXECUTION, state=executor_pb2.Execution.CANCELLED, cancel_requested=True)
    script.answer("CancelExecution", executor_pb2.CancelExecutionResponse(execution=running))
    script.answer("WaitExecution", executor_pb2.WaitExecutionResponse(execution=cancelled))
    answer = await cli("execution", "cancel", EXECUTION, "--reason", "wrong order")
    waited = await cli("execution", "cancel", EXECUTION, "--wait", "--json")
    assert (answer.returncode, answer.stdout) == (0, f"{EXECUTION}  RUNNING\n")
    assert "--wait" in answer.stderr
    assert json.loads(waited.stdout)["execution"]["state"] == "CANCELLED"
    assert script.requests("CancelExecution")[0].reason == "wrong order"


async def test_a_breaker_says_what_its_state_means(script: Any, cli: Cli) -> None:
    breaker = breaker_pb2.Breaker(
        target=TARGET,
        state=breaker_pb2.Breaker.OPEN,
        failure_count=5,
        generation=1,
        opened_time=after(0),
        next_retry_time=after(30),
        policy=breaker_pb2.Policy(failure_threshold=5, half_open_permits=2, half_open_success_threshold=2),
    )
    breaker.policy.timeout_duration.FromTimedelta(timedelta(seconds=30))
    script.answer("ListBreakers", breaker_pb2.ListBreakersResponse(breakers=[breaker]))
    script.answer("GetBreaker", breaker_pb2.GetBreakerResponse(breaker=breaker))
    listed = await cli("breaker", "list", "--state", "open")
    shown = await cli("breaker", "get", TARGET)
    document = json.loads((await cli("breaker", "get", TARGET, "--json")).stdout)["breaker"]
    assert re.search(rf"^{TARGET} +OPEN +2026-03-01 12:00:00 +5 +runs wait; the next probe is due", listed.stdout, re.M)
    assert "opens after 5 failures in a row, lets 2 at a time through after 30.00 s" in shown.stdout
    assert (document["openedTime"], document["nextRetryTime"]) == ("2026-03-01T12:00:00Z", "2026-03-01T12:00:30Z")
    assert list(script.requests("ListBreakers")[0].states) == [breaker_pb2.Breaker.OPEN]


def answer_a_trace(script: Any) -> None:
    execution = executor_pb2.Execution(
        id=EXECUTION,
        workflow_id="w1",
        version=3,
        state=executor_pb2.Execution.SUCCESS,
        create_time=after(0),
        start_time=after(0),
        finish_time=after(69),
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    )
    run = a_run(state="SUCCESS")
    run.target, run.episode_id = TARGET, "p1"
    run.start_time.CopyFrom(after(1))
    run.finish_time.CopyFrom(after(69))
    run.parked_time.CopyFrom(after(4))
    run.parked_duration.FromTimedelta(timedelta(seconds=2))
    for number, outcome, began, ended in ((1, "TIMEOUT", 1, 2), (2, "PERMANENT", 6, 7), (3, "SUCCESS", 68, 69)):
        run.attempts.add(
            attempt=number,
            outcome=outcome,
            start_time=after(began),
            finish_time=after(ended),
            error="no" * (ended < 60),
        )
    run.quarantines.add(
        quarantine_number=1,
        failure_type="PERMANENT_ERROR",
        error_type="PERMANENT",
        error="no such card",
        quarantine_time=after(7),
        resolution="REQUEUED",
        resolved_by="bob",
        resolved_time=after(67),
        reason="mended",
        resolution_trace_id="ab" * 16,
    )
    graph = graph_pb2.Graph(workflow=graph_pb2.Workflow(id=WORKFLOW, name="orders", version=3))
    graph.nodes.add(node_id="charge")
    breaker = breaker_pb2.Breaker(
        target=TARGET,
        state=breaker_pb2.Breaker.CLOSED,
        opened_time=after(3),
        update_time=after(6.5),
        episode_id="p1",
        generation=3,
    )
    script.answer("GetExecution", executor_pb2.GetExecutionResponse(execution=execution))
    script.answer("ListRuns", runs(run))
    script.answer("GetGraph", graph_pb2.GetGraphResponse(graph=graph))
    script.answer("ListDeadLetters", dlq_pb2.ListDeadLettersResponse(dead_letters=[a_letter()]))
    script.answer("GetBreaker", breaker_pb2.GetBreakerResponse(breaker=breaker))


async def test_i23_the_trace_shows_what_every_service_did(script: Any, cli: Cli) -> None:
    answer_a_trace(script)
    answer = await cli("trace", EXECUTION)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines() == [
        f"orders {EXECUTION}  SUCCESS  69.00 s  trace 4bf92f3577b34da6a3ce929d0e0e4736  [executor]",
        "├─ graph              +0.000 s         -              [graph_store] version 3, 1 nodes, 0 edges, saved -",
        "└─ charge             +1.000 s   68.00 s  3 attempts  SUCCESS",
        "   ├─ attempt 1       +1.000 s    1.00 s              TIMEOUT  no",
        "   ├─ back-off        +2.000 s    2.00 s              then attempt 2",
        f"   ├─ opened          +3.000 s         -              [breaker] {TARGET} was called no more",
        f"   ├─ parked          +4.000 s    2.00 s              [breaker] waited for {TARGET}, outage p1; "
        + "it is CLOSED now",
        "   ├─ attempt 2       +6.000 s    1.00 s              PERMANENT  no",
        "   ├─ quarantine 1    +7.000 s         -              PERMANENT_ERROR  PERMANENT: no such card",
        f"   ├─ letter          +7.000 s         -              [dlq] {LETTER}, not told of its end yet",
        "   ├─ requeued       +67.000 s         -              by bob after 60.00 s: mended; "
        + f"its own, linked trace is {'ab' * 16}",
        "   └─ attempt 3      +68.000 s    1.00 s              SUCCESS",
    ]


@pytest.mark.parametrize("here", [True, False], ids=["by the letter", "at the executor"])
async def test_i22_the_trace_says_whether_a_requeue_was_made_from_the_letter(script: Any, cli: Cli, here: bool) -> None:
    answer_a_trace(script)
    letter = a_letter(resolution=dlq_pb2.DeadLetter.REQUEUED, resolved_by="bob", resolved_here=here)
    script.answer("ListDeadLetters", dlq_pb2.ListDeadLettersResponse(dead_letters=[letter]))
    (requeued,) = re.findall(r"^.*requeued .*$", (await cli("trace", EXECUTION)).stdout, re.M)
    assert ("[dlq] by bob after" in requeued) is here, requeued


async def test_i24_a_trace_says_who_is_away_and_shows_the_rest(script: Any, cli: Cli, nowhere: str) -> None:
    answer_a_trace(script)
    away = {"VALKYR_BREAKER": nowhere, "VALKYR_DLQ": nowhere, "VALKYR_GRAPH_STORE": nowhere}
    answer = await cli("trace", EXECUTION, **away)
    assert answer.returncode == 0, answer.stderr
    for who in ("graph store", "breaker service", "dead letter queue"):
        assert f"! the {who} at {nowhere} cannot be reached: " in answer.stdout
    for shown in ("attempt 3", "quarantine 1", "requeued", "parked"):
        assert shown in answer.stdout
    document = json.loads((await cli("trace", EXECUTION, "--json", **away)).stdout)
    assert len(document["unavailable"]) == 3
    assert document["runs"][0]["quarantines"][0]["quarantineTime"] == "2026-03-01T12:00:07Z"
    assert document["runs"][0]["parkedTime"] == "2026-03-01T12:00:04Z"


def test_help_of_every_new_command_teaches_with_examples(capfd: pytest.CaptureFixture[str]) -> None:
    from valkyr.cli.main import app

    for words in (
        "run requeue",
        "run complete",
        "run discard",
        "execution cancel",
        "trace",
        "dlq list",
        "dlq get",
        "dlq requeue",
        "dlq fix",
        "dlq discard",
        "breaker list",
        "breaker get",
    ):
        with pytest.raises(SystemExit) as ended:
            app([*words.split(), "--help"], prog_name="valkyr")
        assert ended.value.code == 0
        assert f"Examples:\n    valkyr {words}" in capfd.readouterr().out
