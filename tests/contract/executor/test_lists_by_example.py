"""Executions and runs by example, over a real channel: what was answered is what can be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import grpc
import pytest
from google.protobuf import json_format

from services.chassis.example.resource import columns_of
from services.executor.examples import EXECUTIONS, RUNS
from tests.builders import a_graph
from tests.example_lab import every_way_of_asking, to_be_asked, undescribed
from tests.executor_modules import GATES
from tests.executor_stack import Stack
from valkyr.api.executor.v1 import executor_pb2 as pb
from valkyr.api.executor.v1.executor_pb2_grpc import ExecutorServiceStub
from valkyr.client import ExecutionState, Matcher, RunState, StringMode, TimeRange
from valkyr.errors import ExecutionNotFound, InvalidRequest
from valkyr.rpc.status import from_rpc_error

HELD = a_graph("a", modules={"a": "HeldModule"})
BROKEN = a_graph("a -> b -> c", modules={"a": "BriefModule", "b": "BrokenModule", "c": "BriefModule"})


async def executions(stub: ExecutorServiceStub, example: Mapping[str, Any] | None = None, **fields: Any) -> list[str]:
    request = json_format.ParseDict({"example": dict(example or {}), **fields}, pb.ListExecutionsRequest())
    return [execution.id for execution in (await stub.ListExecutions(request)).executions]


async def runs(stub: ExecutorServiceStub, example: Mapping[str, Any] | None = None, **fields: Any) -> list[str]:
    """Node ids."""
    request = json_format.ParseDict({"example": dict(example or {}), **fields}, pb.ListRunsRequest())
    return [run.node_id for run in (await stub.ListRuns(request)).runs]


def test_every_field_that_is_answered_is_described() -> None:
    assert undescribed(EXECUTIONS, pb.Execution.DESCRIPTOR) == set()
    assert undescribed(RUNS, pb.Run.DESCRIPTOR) == set()


def test_every_name_of_an_enum_can_be_asked_for() -> None:
    columns = {**dict(columns_of(EXECUTIONS.fields)), "run": dict(columns_of(RUNS.fields))["state"]}
    known = {"state": pb.Execution.State, "triggerType": pb.Execution.TriggerType, "run": pb.Run.State}
    for name, names in known.items():
        assert set(columns[name].names) == set(names.keys()[1:]), name


async def test_every_column_can_be_asked_for_and_ordered_by(stack: Stack, stub: ExecutorServiceStub) -> None:
    await stack.run(BROKEN)
    for way in every_way_of_asking(EXECUTIONS):
        assert len(await executions(stub, **way)) == ("example" not in way or "matcher" in way), way
    for way in every_way_of_asking(RUNS):
        assert len(await runs(stub, **way)) == (3 if "example" not in way or "matcher" in way else 0), way


async def test_what_was_answered_is_its_own_example(stack: Stack, stub: ExecutorServiceStub) -> None:
    failed = await stack.run(BROKEN, payload={"order": 17, "customer": {"name": "Ünïcode"}})
    workflow_id = await stack.save(a_graph("d", modules={"d": "DedupedModule"}))
    twice = [await stack.wait((await stack.client.executions.start(workflow_id)).id) for _ in range(2)]
    held = await stack.start(HELD, payload=[1, "two"], priority=5, deadline=datetime.now(UTC) + timedelta(hours=1))
    await stack.until("SELECT count(*) = 1 FROM executor.run WHERE state = 'LEASED'")
    await stack.client.executions.pause(held, reason="the warehouse moves")
    for execution_id in (failed.id, held):
        read = (await stub.GetExecution(pb.GetExecutionRequest(execution_id=execution_id))).execution
        assert await executions(stub, to_be_asked(read, EXECUTIONS)) == [execution_id]
    listed = (await stub.ListRuns(pb.ListRunsRequest(include_outputs=True))).runs
    assert [run.node_id for run in listed] == ["a", "d", "d", "a", "b", "c"]
    assert [run.reused_from.execution_id for run in listed[1:3]] == [twice[0].id, ""]
    beating = {"ignoredPaths": ["leaseUntil", "heartbeatTime"]}
    for run in listed:
        assert await runs(stub, to_be_asked(run, RUNS), matcher=beating) == [run.node_id]
    GATES.open.set()


async def test_the_state_that_is_shown_is_the_state_that_is_matched(stack: Stack, stub: ExecutorServiceStub) -> None:
    waiting = await stack.start(a_graph("a", modules={"a": "NobodyKnowsModule"}))
    running = await stack.start(HELD)
    await stack.until("SELECT count(*) = 1 FROM executor.run WHERE state = 'LEASED'")
    # As the row is of what the dispatcher leased, rather than the start itself.
    await stack.sql.execute("UPDATE executor.workflow_execution SET state = 'PENDING'")
    assert await executions(stub, {"state": "running"}) == [running]
    assert await executions(stub, {"state": "PENDING"}) == [waiting]
    assert await executions(stub, {"state": "PENDING"}, states=["RUNNING"]) == []
    assert await executions(stub, states=["RUNNING", "PENDING"]) == [running, waiting]
    assert await runs(stub, {"attempts": [{"outcome": "RUNNING"}]}) == ["a"]
    GATES.open.set()
    await stack.wait(running)
    assert await executions(stub, {"state": "SUCCESS", "errorMessage": "", "cancelledBy": ""}) == [running]
    assert await runs(stub, {"attempts": [{"outcome": "SUCCESS"}], "state": "success"}) == ["a"]


async def test_what_stands_beside_the_example_holds_whatever_the_matcher_says(
    stack: Stack, stub: ExecutorServiceStub
) -> None:
    one, two = await stack.run(BROKEN, payload={"n": 1}), await stack.run(BROKEN, payload={"n": 2})
    either = {"matchAny": True}
    wide = {"triggerPayload": {"n": 1}, "state": "FAILED"}
    assert await executions(stub, wide, matcher=either) == [two.id, one.id]
    assert await executions(stub, wide, matcher=either, workflowId=one.workflow_id) == [one.id]
    assert await executions(stub, wide, matcher=either, executionIds=[two.id]) == [two.id]
    assert await executions(stub, wide, matcher=either, states=["SUCCESS"]) == []
    bad = {"nodeId": "b", "state": "SUCCESS"}
    assert await runs(stub, bad, matcher=either) == ["a", "b", "a", "b"]
    assert await runs(stub, bad, matcher=either, executionId=one.id) == ["a", "b"]
    assert await runs(stub, bad, matcher=either, workflowId=one.workflow_id, states=["QUARANTINED"]) == ["b"]


async def test_a_range_of_creation_times_is_by_the_database_and_not_by_ids(
    stack: Stack, stub: ExecutorServiceStub
) -> None:
    ids = [(await stack.run(a_graph("a"))).id for _ in range(3)]
    times = [datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(hours=number) for number in range(3)]
    for execution_id, at, behind in zip(ids, times, (-20, 0, 20), strict=True):
        # An executor's clock that is hours ahead or behind: the id says another time than the row.
        millis = int((at + timedelta(hours=behind)).timestamp() * 1000)
        made = UUID(int=millis << 80 | UUID(execution_id).int % 2**80)
        update = "UPDATE executor.workflow_execution SET id = $1, created_date = $2 WHERE id = $3"
        await stack.sql.execute(update, made, at, UUID(execution_id))

    async def within(start: datetime | None, end: datetime | None) -> int:
        asked = {"field": "createTime", "startTime": _told(start), "endTime": _told(end)}
        return len(await executions(stub, timeRanges=[{name: told for name, told in asked.items() if told}]))

    assert await within(times[0], None) == 3
    assert await within(times[1], None) == 2
    assert await within(times[1], times[2]) == 1
    assert await within(None, times[1]) == 1
    assert await within(datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)) == 3
    assert await within(datetime(9999, 12, 31, tzinfo=UTC), None) == 0


def _told(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%dT%H:%M:%SZ}".rjust(20, "0")


async def test_pages_of_a_list_in_any_order_hold_everything_once(stack: Stack, stub: ExecutorServiceStub) -> None:
    expected = [run.id for run in await stack.client.executions.list_runs(order_by="").all()]
    assert expected == []
    for _ in range(3):
        await stack.run(BROKEN)
    for order_by in ("", "nodeId", "startTime desc, nodeId", "durationMs", "parkedTime desc", "id"):
        whole = [run.id for run in await stack.client.executions.list_runs(order_by=order_by).all()]
        paged = [run.id for run in await stack.client.executions.list_runs(order_by=order_by, page_size=2).all()]
        assert whole == paged, order_by
        assert len(set(paged)) == 9


async def test_the_client_asks_by_example(stack: Stack) -> None:
    began = datetime.now(UTC) - timedelta(minutes=1)
    found = await stack.run(BROKEN, payload={"order": 2**40, "big": "x"})
    client = stack.client.executions
    listed = await client.list(
        example={"triggerPayload": {"order": 2**40}, "workflowId": UUID(found.workflow_id)},
        time_ranges=[TimeRange("createTime", began)],
        order_by="createTime desc",
    ).all()
    assert [execution.id for execution in listed] == [found.id]
    assert not await client.list(time_ranges=[TimeRange("createTime", end=began)]).all()
    contains = Matcher(StringMode.CONTAINS, ignore_case=True)
    (run,) = await client.list_runs(example={"error": "BROKE"}, matcher=contains).all()
    assert (run.node_id, run.state) == ("b", RunState.QUARANTINED)
    ignoring = Matcher(ignored_paths=["errorType"])
    assert await client.list(example={"errorType": "?", "state": ExecutionState.FAILED}, matcher=ignoring).all()


@pytest.mark.parametrize(
    ("method", "asked", "path", "said"),
    [
        ("ListExecutions", {"example": {"state": "DONE"}}, "example.state", "none of PENDING"),
        ("ListExecutions", {"example": {"stat": "FAILED"}}, "example.stat", 'did you mean "state"?'),
        ("ListExecutions", {"example": {"outputs": {"a": 1}}}, "example.outputs", "ask ListRuns"),
        ("ListExecutions", {"orderBy": "revision"}, "orderBy", "nothing that this list can be ordered by"),
        ("ListExecutions", {"timeRanges": [{"field": "created"}]}, "timeRanges[0].field", "createTime"),
        ("ListRuns", {"example": {"durationMs": "5.5"}}, "example.durationMs", "not an integer"),
        ("ListRuns", {"example": {"attempts": [{"stackTrace": "x"}]}}, "example.attempts[0].stackTrace", "read alone"),
        ("ListRuns", {"pageToken": "WyJ2ZXJzaW9uIiwxXQ"}, "pageToken", "was not given out for this list"),
        ("ListRuns", {"pageSize": -1}, "pageSize", "-1 is not from 1 to 1000"),
    ],
)
async def test_i25_what_cannot_be_asked_for_is_named(
    stub: ExecutorServiceStub, method: str, asked: dict[str, Any], path: str, said: str
) -> None:
    request = json_format.ParseDict(asked, getattr(pb, f"{method}Request")())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(stub, method)(request)
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidRequest)
    assert [violation.field for violation in error.details.violations] == [path]
    assert said in error.details.violations[0].description


async def test_runs_of_an_execution_that_there_is_not_are_not_found(stack: Stack) -> None:
    with pytest.raises(ExecutionNotFound):
        await stack.client.executions.list_runs("01920000-0000-7000-8000-00000000e000").all()
