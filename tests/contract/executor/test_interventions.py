"""Pause, resume, cancel, requeue, complete and discard over a real channel: answers, and every documented error."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Value

from tests.bad_resolutions import BAD_INPUTS, BAD_REASONS
from tests.builders import a_graph
from tests.contract.executor.conftest import on_a_shared_stack
from tests.contract.executor.test_errors import ID, call
from tests.executor_stack import Stack
from valkyr.api.executor.v1 import executor_pb2 as pb
from valkyr.api.executor.v1.executor_pb2_grpc import ExecutorServiceStub
from valkyr.errors import (
    DeadlinePassed,
    ExecutionEnded,
    ExecutionNotFound,
    ExecutionSettled,
    InvalidRequest,
    NotQuarantined,
    QuarantineResolved,
    RequestIdReused,
    RunNotFound,
    TooManyRequeues,
    Unavailable,
    ValkyrError,
)
from valkyr.graph.model import Graph
from valkyr.rpc.values import plain_to_value

REQUESTS: dict[str, Any] = {
    "PauseExecution": pb.PauseExecutionRequest,
    "ResumeExecution": pb.ResumeExecutionRequest,
    "CancelExecution": pb.CancelExecutionRequest,
    "RequeueRun": pb.RequeueRunRequest,
    "CompleteRunManually": pb.CompleteRunManuallyRequest,
    "DiscardRun": pb.DiscardRunRequest,
}
RESOLUTIONS = ["RequeueRun", "CompleteRunManually", "DiscardRun"]
EACH = pytest.mark.parametrize("rpc", RESOLUTIONS)
RESOLVED_AS = {"RequeueRun": "REQUEUED", "CompleteRunManually": "FIXED", "DiscardRun": "DISCARDED"}


def ask(rpc: str, execution_id: str = ID, run_id: str = ID, **fields: Any) -> Any:
    """A request that is complete; `fields` replace."""
    full: dict[str, Any] = {"execution_id": execution_id}
    if rpc in RESOLUTIONS:
        full |= {"run_id": run_id, "quarantine_number": 1, "reason": "because"}
    if rpc == "CompleteRunManually":
        full["outputs"] = Value(number_value=1)
    return REQUESTS[rpc](**{**full, **fields})


async def quarantined(stack: Stack, graph: Graph | None = None) -> tuple[str, str]:
    """An execution whose run `a` is quarantined, and that run."""
    failing = graph or a_graph("a -> b", modules={"a": ("FailModule", {"type": "PERMANENT"})})
    execution = await stack.run(failing)
    return execution.id, (await stack.runs(execution.id))["a"].id


async def refused(stub: ExecutorServiceStub, kind: type[ValkyrError], rpc: str, request: Any) -> ValkyrError:
    with pytest.raises(kind) as caught:
        await call(stub, rpc, request)
    return caught.value


@on_a_shared_stack
@pytest.mark.parametrize(
    ("rpc", "fields", "named"),
    [
        *((rpc, {"execution_id": "blue"}, "executionId") for rpc in REQUESTS),
        *((rpc, {"request_id": "a\nb"}, "requestId") for rpc in REQUESTS),
        *((rpc, {"reason": reason}, "reason") for rpc in REQUESTS for reason, _ in BAD_REASONS.values()),
        *((rpc, {"run_id": ""}, "runId") for rpc in RESOLUTIONS),
        *((rpc, {"quarantine_number": number}, "quarantineNumber") for rpc in RESOLUTIONS for number in (0, -1)),
        ("CompleteRunManually", {"outputs": None}, "outputs"),
        ("CompleteRunManually", {"outputs": Value(number_value=float("nan"))}, "outputs"),
        ("CompleteRunManually", {"outputs": Value(string_value="a\0b")}, "outputs"),
        ("CompleteRunManually", {"outputs": Value(string_value="x" * (1 << 20))}, "outputs"),
        ("DiscardRun", {"reason": " "}, "reason"),
    ],
)
async def test_i25_bad_input_is_named(
    shared_stub: ExecutorServiceStub, rpc: str, fields: dict[str, Any], named: str
) -> None:
    error = await refused(shared_stub, InvalidRequest, rpc, ask(rpc, **fields))
    assert [violation.field for violation in error.details.violations] == [named]


@on_a_shared_stack
@pytest.mark.parametrize(("inputs", "named", "says"), BAD_INPUTS.values(), ids=BAD_INPUTS.keys())
async def test_i25_bad_inputs_of_a_requeue_are_named(
    shared_stub: ExecutorServiceStub, inputs: Any, named: str, says: str
) -> None:
    error = await refused(shared_stub, InvalidRequest, "RequeueRun", ask("RequeueRun", inputs=plain_to_value(inputs)))
    (violation,) = error.details.violations
    assert (violation.field, says in violation.description) == (named, True), violation


@pytest.mark.parametrize("rpc", REQUESTS)
async def test_what_does_not_exist_or_is_of_another_namespace_is_not_found(
    stack: Stack, stub: ExecutorServiceStub, rpc: str
) -> None:
    execution_id, run_id = await quarantined(stack)
    assert ID in (await refused(stub, ExecutionNotFound, rpc, ask(rpc))).message
    await refused(stub, ExecutionNotFound, rpc, ask(rpc, execution_id, run_id, namespace="other"))
    if rpc in RESOLUTIONS:
        assert ID in (await refused(stub, RunNotFound, rpc, ask(rpc, execution_id))).message
        outside = str(UUID(int=UUID(execution_id).int | (1 << 28) - 1))
        await refused(stub, RunNotFound, rpc, ask(rpc, execution_id, outside))
    assert (await stack.row(execution_id, "a"))["state"] == "QUARANTINED"


@EACH
async def test_a_resolution_answers_with_the_run_and_who_did_it(
    stack: Stack, stub: ExecutorServiceStub, rpc: str
) -> None:
    execution_id, run_id = await quarantined(stack)
    run = (await call(stub, rpc, ask(rpc, execution_id, run_id))).run
    quarantine, *_ = MessageToDict(run)["quarantines"]  # one that was requeued may have failed again since
    assert (run.id, quarantine["quarantineNumber"]) == (run_id, 1)
    assert quarantine["resolution"] == RESOLVED_AS[rpc]
    assert (quarantine["resolvedBy"], quarantine["reason"]) == ("tester", "because")


@EACH
async def test_i22_whoever_comes_second_is_told_who_won(stack: Stack, stub: ExecutorServiceStub, rpc: str) -> None:
    execution_id, run_id = await quarantined(stack)
    await call(stub, rpc, ask(rpc, execution_id, run_id, request_id="first"))
    await call(stub, rpc, ask(rpc, execution_id, run_id, request_id="first"))
    for other in RESOLUTIONS:
        error = await refused(stub, QuarantineResolved, other, ask(other, execution_id, run_id, request_id="second"))
        told = error.details.metadata
        assert (told["resolution"], told["resolvedBy"]) == (RESOLVED_AS[rpc], "tester")
        assert datetime.fromisoformat(told["resolvedTime"]).tzinfo is not None
    changed = ask(rpc, execution_id, run_id, request_id="first", reason="another")
    assert "'first'" in (await refused(stub, RequestIdReused, rpc, changed)).message


@EACH
async def test_a_run_that_is_not_quarantined_says_what_it_is(stack: Stack, stub: ExecutorServiceStub, rpc: str) -> None:
    execution = await stack.run(a_graph("a"))
    run_id = (await stack.runs(execution.id))["a"].id
    error = await refused(stub, NotQuarantined, rpc, ask(rpc, execution.id, run_id))
    assert error.details.metadata["state"] == "SUCCESS"


@EACH
async def test_in_an_execution_that_failed_fast_only_a_discard_works(
    stack: Stack, stub: ExecutorServiceStub, rpc: str
) -> None:
    execution_id, run_id = await quarantined(stack)
    await stack.sql.execute("UPDATE executor.workflow_execution SET ending = 'FAIL_FAST'")
    if rpc == "DiscardRun":
        await call(stub, rpc, ask(rpc, execution_id, run_id))
        return
    assert "start a new execution" in (await refused(stub, ExecutionEnded, rpc, ask(rpc, execution_id, run_id))).hint


async def test_a_requeue_too_many_or_past_the_deadline_says_what_it_takes(
    stack: Stack, stub: ExecutorServiceStub
) -> None:
    execution_id, run_id = await quarantined(stack)
    await stack.sql.execute("UPDATE executor.workflow_execution SET deadline = now() - interval '1 s'")
    error = await refused(stub, DeadlinePassed, "RequeueRun", ask("RequeueRun", execution_id, run_id))
    assert "deadline" in error.hint
    past = ask("RequeueRun", execution_id, run_id, deadline=datetime(2020, 1, 1, tzinfo=UTC))
    told = (await refused(stub, InvalidRequest, "RequeueRun", past)).details.violations
    assert [violation.field for violation in told] == ["deadline"]
    await stack.sql.execute("UPDATE executor.workflow_execution SET deadline = NULL")
    await stack.sql.execute("UPDATE executor.run SET quarantine_number = 6 WHERE state = 'QUARANTINED'")
    await stack.sql.execute("UPDATE executor.run_quarantine SET quarantine_number = 6")
    sixth = ask("RequeueRun", execution_id, run_id, quarantine_number=6)
    assert "force" in (await refused(stub, TooManyRequeues, "RequeueRun", sixth)).hint
    sixth.force = True
    assert (await call(stub, "RequeueRun", sixth)).run.id == run_id


async def test_a_cancel_answers_with_the_execution_and_refuses_one_that_ended(
    stack: Stack, stub: ExecutorServiceStub
) -> None:
    waiting = await stack.start(a_graph("w -> x", modules={"w": ("DelayModule", {"duration": "PT1H"})}))
    for _ in range(2):
        answer = (await call(stub, "CancelExecution", ask("CancelExecution", waiting, request_id="once"))).execution
        assert (answer.state, answer.cancel_requested) == (pb.Execution.CANCELLED, True)
    assert await stack.states(waiting) == {"w": "CANCELLED", "x": "CANCELLED"}
    done = (await stack.run(a_graph("a"))).id
    error = await refused(stub, ExecutionSettled, "CancelExecution", ask("CancelExecution", done))
    assert error.details.metadata == {"state": "SUCCESS"}
    await refused(stub, RequestIdReused, "CancelExecution", ask("CancelExecution", done, request_id="once"))


async def test_i24_with_the_database_away_each_is_unavailable_with_a_delay(
    stack: Stack, stub: ExecutorServiceStub
) -> None:
    execution_id, run_id = await quarantined(stack)
    await stack.app.database.pool.close()
    for rpc in REQUESTS:
        error = await refused(stub, Unavailable, rpc, ask(rpc, execution_id, run_id))
        assert error.details.retry_after is not None
