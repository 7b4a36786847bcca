"""Every documented error of ExecutorService, and bad input of every kind: named, explained, never INTERNAL (I25)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Value

from services.executor import feed
from services.executor.app import open_app
from tests.builders import a_graph
from tests.contract.executor.conftest import on_a_shared_stack
from tests.executor_stack import Stack, executor_settings
from valkyr.api.executor.v1 import executor_pb2 as pb
from valkyr.api.executor.v1.executor_pb2_grpc import ExecutorServiceStub
from valkyr.errors import (
    ExecutionNotFound,
    ExecutionsDisabled,
    InvalidRequest,
    LimitExceeded,
    RequestIdReused,
    RunNotFound,
    Unavailable,
    ValkyrError,
    VersionNotFound,
    WorkflowNotFound,
)
from valkyr.rpc.channel import open_channel
from valkyr.rpc.status import rpc_errors

ID = "01920000-0000-7000-8000-000000000000"
STREAMS = {"WatchExecution", "WatchExecutions"}


async def call(stub: ExecutorServiceStub, rpc: str, request: Any) -> Any:
    """The answer; of a stream the first."""
    with rpc_errors():
        if rpc in STREAMS:
            stream = getattr(stub, rpc)(request, timeout=20)
            try:
                return await anext(aiter(stream))
            finally:
                stream.cancel()
        return await getattr(stub, rpc)(request, timeout=20)


def number(value: float) -> Value:
    return Value(number_value=value)


def nested(depth: int) -> bytes:
    """A StartExecutionRequest whose payload is that many lists, each in the other, as bytes."""
    value = b"\x08\x00"
    for _ in range(depth):
        value = _field(6, _field(1, value))
    return start().SerializeToString() + _field(5, value)


def _field(field: int, content: bytes) -> bytes:
    length = len(content)
    size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return bytes([field << 3 | 2]) + size + content


def start(**fields: Any) -> pb.StartExecutionRequest:
    return pb.StartExecutionRequest(**{"workflow_id": ID, **fields})


def _numbers(*numbers: int) -> Any:
    """Numbers where enum values are expected, as any client may send them."""
    return numbers


@dataclass(frozen=True)
class Bad:
    """A request, the field that is to be named, and words that are to be in the message: the value, the fix."""

    rpc: str
    request: Any
    field: str
    says: tuple[str, ...]
    kind: type[ValkyrError] = InvalidRequest


BAD = {
    "no workflow id": Bad("StartExecution", start(workflow_id=""), "workflowId", ("required", "01920000")),
    "workflow id is no uuid": Bad("StartExecution", start(workflow_id="blue"), "workflowId", ("'blue'", "01920000")),
    "a workflow id of hyphens": Bad(
        "StartExecution", start(workflow_id="-" * 100 + "0" * 32), "workflowId", ("no UUID",)
    ),
    "nul in the workflow id": Bad("StartExecution", start(workflow_id="a\0b"), "workflowId", ("no UUID",)),
    "version 0": Bad("StartExecution", start(version=0), "version", ("0", "1")),
    "negative version": Bad("StartExecution", start(version=-3), "version", ("-3",)),
    "priority over 100": Bad("StartExecution", start(priority=101), "priority", ("101", "-100 to 100")),
    "priority under -100": Bad("StartExecution", start(priority=-101), "priority", ("-101", "-100 to 100")),
    "unknown trigger type": Bad("StartExecution", start(trigger_type=77), "triggerType", ("77", "MANUAL")),
    "negative trigger type": Bad("StartExecution", start(trigger_type=-1), "triggerType", ("-1", "MANUAL")),
    "namespace": Bad("StartExecution", start(namespace="a b"), "namespace", ("'a b'", "letters")),
    "request id too long": Bad("StartExecution", start(request_id="x" * 256), "requestId", ("255", "xxx")),
    "request id unprintable": Bad("StartExecution", start(request_id="a\nb"), "requestId", ("printable",)),
    "request id with nul": Bad("StartExecution", start(request_id="a\0b"), "requestId", ("printable",)),
    "payload nan": Bad("StartExecution", start(payload=number(float("nan"))), "payload", ("nan", "null")),
    "payload inf": Bad("StartExecution", start(payload=number(float("-inf"))), "payload", ("inf",)),
    "payload 2^53": Bad("StartExecution", start(payload=number(2.0**53)), "payload", ("9007199254740992", "string")),
    "payload nul": Bad("StartExecution", start(payload=Value(string_value="a\0b")), "payload", ("NUL", "remove")),
    "payload large": Bad(
        "StartExecution", start(payload=Value(string_value="x" * 10_001)), "payload", ("10003", "10000"), LimitExceeded
    ),
    "one of many": Bad(
        "StartExecutions",
        pb.StartExecutionsRequest(executions=[start(), start(priority=500)]),
        "executions[1].priority",
        ("500",),
    ),
    "payload of one of many": Bad(
        "StartExecutions",
        pb.StartExecutionsRequest(executions=[start(payload=number(float("inf")))]),
        "executions[0].payload",
        ("inf",),
    ),
    "other namespace in a batch": Bad(
        "StartExecutions",
        pb.StartExecutionsRequest(namespace="mine", executions=[start(namespace="yours")]),
        "executions[0].namespace",
        ("'yours'", "'mine'"),
    ),
    "too many starts": Bad(
        "StartExecutions",
        pb.StartExecutionsRequest(executions=[start()] * 51),
        "executions",
        ("51", "50"),
        LimitExceeded,
    ),
    "get without id": Bad("GetExecution", pb.GetExecutionRequest(), "executionId", ("required",)),
    "get by no uuid": Bad("GetExecution", pb.GetExecutionRequest(execution_id="7"), "executionId", ("'7'",)),
    "wait by no uuid": Bad("WaitExecution", pb.WaitExecutionRequest(execution_id="{}"), "executionId", ("'{}'",)),
    "negative timeout": Bad(
        "WaitExecution", pb.WaitExecutionRequest(execution_id=ID, timeout=Duration(seconds=-2)), "timeout", ("-2",)
    ),
    "timeout without end": Bad(
        "WaitExecution",
        pb.WaitExecutionRequest(execution_id=ID, timeout=Duration(seconds=2**62)),
        "timeout",
        ("duration",),
    ),
    "watch by no uuid": Bad(
        "WatchExecutions", pb.WatchExecutionsRequest(execution_ids=[ID, "x"]), "executionIds[1]", ("'x'",)
    ),
    "watch too many": Bad(
        "WatchExecutions",
        pb.WatchExecutionsRequest(execution_ids=[ID] * 10_001),
        "executionIds",
        ("10001", "10000"),
        LimitExceeded,
    ),
    "until settled of nothing": Bad(
        "WatchExecutions", pb.WatchExecutionsRequest(until_settled=True), "untilSettled", ("executionIds",)
    ),
    "watch of no workflow": Bad("WatchExecutions", pb.WatchExecutionsRequest(workflow_id="w"), "workflowId", ("'w'",)),
    "list of unknown state": Bad(
        "ListExecutions", pb.ListExecutionsRequest(states=_numbers(4, 99)), "states[1]", ("99", "SUCCESS")
    ),
    "list of unspecified state": Bad(
        "ListExecutions",
        pb.ListExecutionsRequest(states=_numbers(0)),
        "states[0]",
        ("STATE_UNSPECIFIED", "leave it out"),
    ),
    "list of negative size": Bad("ListExecutions", pb.ListExecutionsRequest(page_size=-1), "pageSize", ("-1", "1000")),
    "list of too large a page": Bad(
        "ListExecutions", pb.ListExecutionsRequest(page_size=1001), "pageSize", ("1001", "1000")
    ),
    "list by no uuid": Bad(
        "ListExecutions", pb.ListExecutionsRequest(execution_ids=["x"]), "executionIds[0]", ("'x'",)
    ),
    "list of no workflow": Bad("ListExecutions", pb.ListExecutionsRequest(workflow_id="x"), "workflowId", ("'x'",)),
    "list with a token of nobody": Bad(
        "ListExecutions", pb.ListExecutionsRequest(page_token="AAAA"), "pageToken", ("'AAAA'", "nextPageToken")
    ),
    "runs of unknown state": Bad(
        "ListRuns", pb.ListRunsRequest(states=_numbers(11)), "states[0]", ("11", "QUARANTINED")
    ),
    "runs of negative size": Bad("ListRuns", pb.ListRunsRequest(page_size=-7), "pageSize", ("-7",)),
    "runs by no uuid": Bad("ListRuns", pb.ListRunsRequest(execution_id="x"), "executionId", ("'x'",)),
    "runs of no workflow": Bad("ListRuns", pb.ListRunsRequest(workflow_id="x"), "workflowId", ("'x'",)),
    "runs with a token of nobody": Bad("ListRuns", pb.ListRunsRequest(page_token="!!"), "pageToken", ("'!!'",)),
    "watch one without id": Bad("WatchExecution", pb.WatchExecutionRequest(), "executionId", ("required", "01920000")),
    "watch one by no uuid": Bad("WatchExecution", pb.WatchExecutionRequest(execution_id="x"), "executionId", ("'x'",)),
    "watch one after no revision": Bad(
        "WatchExecution",
        pb.WatchExecutionRequest(execution_id=ID, after_revision=-1),
        "afterRevision",
        ("-1", "leave it out"),
    ),
    "run without execution": Bad("GetRun", pb.GetRunRequest(node_id="a"), "executionId", ("required",)),
    "run of no uuid": Bad("GetRun", pb.GetRunRequest(execution_id="x", node_id="a"), "executionId", ("'x'",)),
    "run without a name": Bad("GetRun", pb.GetRunRequest(execution_id=ID), "runId", ("nodeId", "ListRuns")),
    "run by no uuid": Bad("GetRun", pb.GetRunRequest(execution_id=ID, run_id="a"), "runId", ("'a'", "01920000")),
    "run by two names": Bad(
        "GetRun", pb.GetRunRequest(execution_id=ID, run_id=ID, node_id="a"), "nodeId", ("'a'", "one of them")
    ),
    "run by too long a node id": Bad(
        "GetRun", pb.GetRunRequest(execution_id=ID, node_id="n" * 513), "nodeId", ("nnn", "512")
    ),
    "run by a node id with nul": Bad("GetRun", pb.GetRunRequest(execution_id=ID, node_id="a\0"), "nodeId", ("NUL",)),
    **{
        f"resume token {token[:12]}": Bad(
            "WatchExecutions", pb.WatchExecutionsRequest(resume_token=token), "resumeToken", ("WatchExecutions",)
        )
        for token in ("yesterday", "nan", "inf", "-62135596800", "1e300", "-1", "253402300799.000000", "1_0", "é", " 1")
    },
}


@on_a_shared_stack
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_i25_bad_input_is_named_with_its_value_and_the_fix(
    shared_stack: Stack, shared_stub: ExecutorServiceStub, bad: Bad
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await call(shared_stub, bad.rpc, bad.request)

    assert type(caught.value) is bad.kind
    assert [violation.field for violation in caught.value.details.violations] == [bad.field]
    assert all(word in caught.value.message for word in (bad.field, *bad.says)), caught.value.message
    assert "Traceback" not in caught.value.message
    assert await shared_stack.sql.fetchval("SELECT count(*) FROM executor.workflow_execution") == 0


RPCS: dict[str, Any] = {
    "StartExecution": pb.StartExecutionRequest,
    "StartExecutions": pb.StartExecutionsRequest,
    "GetExecution": pb.GetExecutionRequest,
    "WaitExecution": pb.WaitExecutionRequest,
    "WatchExecution": pb.WatchExecutionRequest,
    "WatchExecutions": pb.WatchExecutionsRequest,
    "ListExecutions": pb.ListExecutionsRequest,
    "ListRuns": pb.ListRunsRequest,
    "GetRun": pb.GetRunRequest,
    "PauseExecution": pb.PauseExecutionRequest,
    "ResumeExecution": pb.ResumeExecutionRequest,
    "CancelExecution": pb.CancelExecutionRequest,
    "RequeueRun": pb.RequeueRunRequest,
    "CompleteRunManually": pb.CompleteRunManuallyRequest,
    "DiscardRun": pb.DiscardRunRequest,
}


@on_a_shared_stack
@pytest.mark.parametrize("rpc", RPCS)
async def test_i25_a_namespace_that_is_none_is_refused_by_every_rpc(shared_stub: ExecutorServiceStub, rpc: str) -> None:
    full = {
        "execution_id": ID,
        "workflow_id": ID,
        "run_id": ID,
        "quarantine_number": 1,
        "reason": "because",
        "outputs": number(1),
    }
    known = {name: value for name, value in full.items() if name in RPCS[rpc].DESCRIPTOR.fields_by_name}
    with pytest.raises(InvalidRequest, match="namespace"):
        await call(shared_stub, rpc, RPCS[rpc](namespace="no/slashes", **known))


@on_a_shared_stack
@pytest.mark.parametrize("rpc", RPCS)
async def test_i25_bytes_that_are_no_message_are_refused_by_every_rpc(shared_stack: Stack, rpc: str) -> None:
    async with open_channel(shared_stack.app.server.address) as channel:
        path = f"/valkyr.api.executor.v1.ExecutorService/{rpc}"
        make = channel.unary_stream if rpc in STREAMS else channel.unary_unary
        raw = make(path, request_serializer=lambda data: data, response_deserializer=lambda data: data)
        with pytest.raises(InvalidRequest), rpc_errors():
            answer = raw(b"\xff\xff\xff\xff", timeout=10)
            await (anext(aiter(answer)) if rpc in STREAMS else answer)


@on_a_shared_stack
@pytest.mark.parametrize("depth", [55, 100, 1000])
async def test_i25_a_payload_nested_too_deep_is_refused(shared_stack: Stack, depth: int) -> None:
    async with open_channel(shared_stack.app.server.address) as channel:
        raw = channel.unary_unary("/valkyr.api.executor.v1.ExecutorService/StartExecution")
        with pytest.raises(InvalidRequest, match="deep|nested|message"), rpc_errors():
            await raw(nested(depth), timeout=10)


@on_a_shared_stack
@pytest.mark.parametrize(
    ("rpc", "request_"),
    [
        ("GetExecution", pb.GetExecutionRequest(execution_id=ID)),
        ("WaitExecution", pb.WaitExecutionRequest(execution_id=ID)),
        ("WatchExecution", pb.WatchExecutionRequest(execution_id=ID)),
        ("WatchExecution", pb.WatchExecutionRequest(execution_id=ID, after_revision=7)),
        ("WatchExecutions", pb.WatchExecutionsRequest(execution_ids=[ID])),
        ("ListRuns", pb.ListRunsRequest(execution_id=ID)),
        ("GetRun", pb.GetRunRequest(execution_id=ID, run_id=ID)),
        ("GetRun", pb.GetRunRequest(execution_id=ID, node_id="a")),
    ],
)
async def test_an_execution_that_does_not_exist_is_not_found(
    shared_stub: ExecutorServiceStub, rpc: str, request_: Any
) -> None:
    with pytest.raises(ExecutionNotFound, match=ID) as caught:
        await call(shared_stub, rpc, request_)
    assert caught.value.hint


async def test_a_run_that_does_not_exist_is_not_found(stack: Stack, stub: ExecutorServiceStub) -> None:
    one, other = (await stack.run(a_graph("a"))).id, (await stack.run(a_graph("b"))).id
    theirs = (await stack.runs(other))["b"].id
    for named in ({"run_id": ID}, {"run_id": theirs}, {"node_id": "b"}, {"node_id": "A"}):
        with pytest.raises(RunNotFound, match=one) as caught:
            await call(stub, "GetRun", pb.GetRunRequest(execution_id=one, **named))
        assert next(iter(named.values())) in caught.value.message
        assert "ListRuns" in caught.value.hint


async def test_what_belongs_to_another_namespace_is_not_found(stack: Stack, stub: ExecutorServiceStub) -> None:
    execution_id = (await stack.run(a_graph("a"))).id
    for rpc, request in (
        ("GetExecution", pb.GetExecutionRequest(execution_id=execution_id)),
        ("WaitExecution", pb.WaitExecutionRequest(execution_id=execution_id)),
        ("WatchExecution", pb.WatchExecutionRequest(execution_id=execution_id)),
        ("WatchExecutions", pb.WatchExecutionsRequest(execution_ids=[execution_id])),
        ("ListRuns", pb.ListRunsRequest(execution_id=execution_id)),
        ("GetRun", pb.GetRunRequest(execution_id=execution_id, node_id="a")),
    ):
        await call(stub, rpc, request)
        request.namespace = "other"
        with pytest.raises(ExecutionNotFound):
            await call(stub, rpc, request)
    for rpc, other in (
        ("ListExecutions", pb.ListExecutionsRequest(namespace="other")),
        ("ListRuns", pb.ListRunsRequest(namespace="other")),
    ):
        answer = await call(stub, rpc, other)
        assert answer.ByteSize() == 0


async def test_starting_what_is_not_there_is_not_found(stack: Stack, stub: ExecutorServiceStub) -> None:
    workflow_id = await stack.save(a_graph("a"))
    with pytest.raises(WorkflowNotFound, match=ID):
        await call(stub, "StartExecution", start())
    with pytest.raises(WorkflowNotFound, match=ID):
        await call(stub, "StartExecution", start(version=1))
    with pytest.raises(VersionNotFound, match="9"):
        await call(stub, "StartExecution", start(workflow_id=workflow_id, version=9))
    with pytest.raises(WorkflowNotFound):
        await call(stub, "StartExecution", start(workflow_id=workflow_id, namespace="other"))


async def test_a_request_id_with_another_request_is_already_exists(stack: Stack, stub: ExecutorServiceStub) -> None:
    workflow_id = await stack.save(a_graph("a"))
    first = await call(stub, "StartExecution", start(workflow_id=workflow_id, request_id="mine"))
    with pytest.raises(RequestIdReused, match="'mine'") as caught:
        await call(stub, "StartExecution", start(workflow_id=workflow_id, request_id="mine", priority=3))
    assert caught.value.details.metadata["executionId"] == first.execution.id
    again = await call(stub, "StartExecution", start(workflow_id=workflow_id, request_id="mine"))
    assert again.execution.id == first.execution.id


async def test_i24_with_the_database_away_every_rpc_is_unavailable_with_a_delay(
    stack: Stack, stub: ExecutorServiceStub
) -> None:
    execution_id = (await stack.run(a_graph("a"))).id
    await stack.app.database.pool.close()
    for rpc, request in (
        ("GetExecution", pb.GetExecutionRequest(execution_id=execution_id)),
        ("WaitExecution", pb.WaitExecutionRequest(execution_id=execution_id)),
        ("WatchExecution", pb.WatchExecutionRequest(execution_id=execution_id)),
        ("ListExecutions", pb.ListExecutionsRequest()),
        ("ListRuns", pb.ListRunsRequest()),
        ("GetRun", pb.GetRunRequest(execution_id=execution_id, node_id="a")),
    ):
        with pytest.raises(Unavailable) as caught:
            await call(stub, rpc, request)
        assert caught.value.details.retry_after is not None


async def test_i24_with_the_database_away_who_watches_all_is_told_as_soon_as_looks_have_failed_for_a_while(
    stack: Stack, stub: ExecutorServiceStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "PATIENCE", timedelta())
    await stack.app.database.pool.close()
    with pytest.raises(Unavailable) as caught, rpc_errors():
        async for _ in stub.WatchExecutions(pb.WatchExecutionsRequest(), timeout=20):
            pass
    assert caught.value.details.retry_after is not None


@pytest.fixture
async def disabled(
    stack: Stack, tmp_path: Path, migrated_database_url: Callable[..., str]
) -> AsyncIterator[ExecutorServiceStub]:
    settings = executor_settings(
        stack.database_url, tmp_path, stack.graph_store.server.address, name="off", execution={"enabled": False}
    )
    async with open_app(settings) as app, open_channel(app.server.address) as channel:
        yield ExecutorServiceStub(channel)


async def test_where_executions_are_disabled_starts_are_refused_and_reads_answer(
    stack: Stack, disabled: ExecutorServiceStub
) -> None:
    execution_id = (await stack.run(a_graph("a"))).id
    for rpc, request in (
        ("StartExecution", start()),
        ("StartExecutions", pb.StartExecutionsRequest(executions=[start()])),
    ):
        with pytest.raises(ExecutionsDisabled) as caught:
            await call(disabled, rpc, request)
        assert "executor.execution.enabled" in caught.value.hint
    answer = await call(disabled, "GetExecution", pb.GetExecutionRequest(execution_id=execution_id))
    assert answer.execution.id == execution_id


async def test_a_page_token_belongs_to_its_query(stack: Stack, stub: ExecutorServiceStub) -> None:
    workflow_id = await stack.save(a_graph("a -> b"))
    for _ in range(3):
        await call(stub, "StartExecution", start(workflow_id=workflow_id))
    executions = await call(stub, "ListExecutions", pb.ListExecutionsRequest(page_size=1))
    runs = await call(stub, "ListRuns", pb.ListRunsRequest(page_size=1))
    for rpc, request in (
        ("ListExecutions", pb.ListExecutionsRequest(workflow_id=workflow_id, page_token=executions.next_page_token)),
        ("ListExecutions", pb.ListExecutionsRequest(page_token=runs.next_page_token)),
        ("ListRuns", pb.ListRunsRequest(page_token=executions.next_page_token)),
        ("ListRuns", pb.ListRunsRequest(include_outputs=True, page_token=runs.next_page_token)),
    ):
        with pytest.raises(InvalidRequest, match="pageToken"):
            await call(stub, rpc, request)
