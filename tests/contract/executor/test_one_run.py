"""GetRun: one run by its id or its node's, with all that happened to it."""

from __future__ import annotations

from datetime import timedelta

from tests.builders import a_graph
from tests.contract.executor.test_answers import SERVICE, grpcurl
from tests.contract.executor.test_errors import call
from tests.executor_stack import Stack
from valkyr.api.executor.v1 import executor_pb2 as pb
from valkyr.api.executor.v1.executor_pb2_grpc import ExecutorServiceStub
from valkyr.graph.model import Retry
from valkyr.rpc.values import value_to_plain


async def test_a_run_is_found_by_its_id_and_by_its_node(stack: Stack, stub: ExecutorServiceStub) -> None:
    execution = await stack.run(a_graph("a -> b", modules={"a": ("TransformModule", {"output": [1, "two"]})}))
    run_id = (await stack.runs(execution.id))["a"].id
    [listed] = (
        await stub.ListRuns(pb.ListRunsRequest(execution_id=execution.id, include_outputs=True, page_size=1))
    ).runs
    for named in ({"run_id": run_id}, {"run_id": run_id.upper()}, {"node_id": "a"}):
        run = (await stub.GetRun(pb.GetRunRequest(execution_id=execution.id, **named))).run
        assert run == listed
        assert value_to_plain(run.outputs, "outputs") == [1, "two"]


async def test_a_run_shows_its_attempts_with_their_stack_traces_and_its_quarantines(
    stack: Stack, stub: ExecutorServiceStub
) -> None:
    graph = a_graph(
        "a",
        modules={"a": ("BrokenModule", {"permanent": False})},
        nodes={"a": {"retry": Retry(max_attempts=2, backoff_base=timedelta(milliseconds=1))}},
    )
    execution = await stack.run(graph)

    run = (await stub.GetRun(pb.GetRunRequest(execution_id=execution.id, node_id="a"))).run

    assert [(attempt.attempt, attempt.outcome) for attempt in run.attempts] == [(1, "TRANSIENT"), (2, "TRANSIENT")]
    for attempt in run.attempts:
        assert attempt.start_time.ToDatetime() <= attempt.finish_time.ToDatetime()
        assert attempt.stack_trace.splitlines()[0].startswith("Traceback")
        assert attempt.stack_trace.splitlines()[-1] == "RuntimeError: it broke"
    assert [(found.quarantine_number, found.failure_type) for found in run.quarantines] == [(1, "MAX_RETRIES")]
    [listed] = (await stub.ListRuns(pb.ListRunsRequest(execution_id=execution.id))).runs
    assert [attempt.stack_trace for attempt in listed.attempts] == ["", ""]


async def test_a_run_says_whose_success_it_has(stack: Stack, stub: ExecutorServiceStub) -> None:
    workflow_id = await stack.save(a_graph("a", modules={"a": "DedupedModule"}))
    first, second = [await stack.wait((await stack.client.executions.start(workflow_id)).id) for _ in range(2)]
    found, reused = [
        (await stub.GetRun(pb.GetRunRequest(execution_id=execution.id, node_id="a"))).run
        for execution in (first, second)
    ]
    assert reused.reused_from == pb.ReusedRun(execution_id=first.id, run_id=found.id)
    assert (reused.attempt, list(reused.attempts), reused.outputs) == (0, [], found.outputs)
    assert not found.HasField("reused_from")


async def test_what_a_requeue_put_in_is_shown(stack: Stack, stub: ExecutorServiceStub) -> None:
    execution = await stack.run(a_graph("a", modules={"a": ("FailModule", {"type": "PERMANENT"})}))
    [run] = (await stack.runs(execution.id)).values()
    given = {"trigger": {"n": 1}, "nodes": {}}
    await stack.client.runs.requeue(execution.id, run.id, quarantine_number=1, inputs=given)
    await stack.wait(execution.id)
    found = (await call(stub, "GetRun", pb.GetRunRequest(execution_id=execution.id, node_id="a"))).run
    assert value_to_plain(found.inputs, "inputs") == given
    assert [quarantine.resolution for quarantine in found.quarantines] == ["REQUEUED", "PENDING"]


async def test_grpcurl_names_a_run_by_its_node(stack: Stack) -> None:
    execution = await stack.run(a_graph("a -> b"))
    code, output = await grpcurl(stack, f"{SERVICE}/GetRun", data=f'{{"executionId": "{execution.id}", "nodeId": "b"}}')
    assert code == 0, output
    assert '"nodeId": "b"' in output
    code, output = await grpcurl(stack, f"{SERVICE}/GetRun", data=f'{{"executionId": "{execution.id}", "nodeId": "c"}}')
    assert code != 0
    assert all(word in output for word in ("NotFound", "'c'", "RUN_NOT_FOUND", "ListRuns"))
