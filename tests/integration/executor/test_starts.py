"""Executions recorded once and whole, whoever races, and also with the graph store away."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf.struct_pb2 import Value

from services.executor.store.starts import ROWS_AT_ONCE
from tests.builders import a_chain, a_fan, a_graph
from tests.counted_session import CountedSession
from tests.executor_modules import GATES
from tests.executor_stack import Stack, add_executor, eventually
from tests.integration.executor.conftest import OpenStack
from valkyr.api.executor.v1 import executor_pb2 as pb
from valkyr.api.executor.v1 import executor_pb2_grpc
from valkyr.client import ExecutionState, Start
from valkyr.errors import LimitExceeded, RequestIdReused, Unavailable, ValkyrError, VersionNotFound, WorkflowNotFound
from valkyr.graph.model import WorkflowInfo
from valkyr.rpc.channel import open_channel
from valkyr.rpc.status import rpc_errors


async def count(stack: Stack) -> tuple[int, int]:
    row = await stack.sql.fetchrow(
        "SELECT (SELECT count(*) FROM executor.workflow_execution), (SELECT count(*) FROM executor.run)"
    )
    return row[0], row[1]


async def test_i09_callers_that_race_over_two_executors_start_one_execution(make_stack: OpenStack) -> None:
    async with make_stack(names=("one", "two"), runner={"concurrency": 3}) as stack:
        workflow_id = await stack.save(a_graph("a -> b -> c"))

        started = await asyncio.gather(
            *(
                stack.clients[i % 2].executions.start(workflow_id, payload={"n": 1}, request_id="same")
                for i in range(50)
            )
        )

        assert len({execution.id for execution in started}) == 1
        assert await count(stack) == (1, 3)
        execution = await stack.wait(started[0].id)
        assert execution.run_counts == {"SUCCESS": 3}
        assert await stack.sql.fetchval("SELECT max(attempt) FROM executor.run") == 1


async def test_i09_batches_that_race_with_overlapping_request_ids_make_each_once(make_stack: OpenStack) -> None:
    async with make_stack(names=("one", "two"), runner={"concurrency": 3}) as stack:
        workflow_id = await stack.save(a_graph("a"))
        ids = [f"r{index}" for index in range(20)]
        batches = [[Start(workflow_id, request_id=key) for key in (ids if i % 2 else reversed(ids))] for i in range(10)]

        answers = await asyncio.gather(
            *(stack.clients[i % 2].executions.start_many(batch) for i, batch in enumerate(batches))
        )

        assert await count(stack) == (20, 20)
        by_key = [
            {start.request_id: execution.id for start, execution in zip(batch, answer, strict=True)}
            for batch, answer in zip(batches, answers, strict=True)
        ]
        assert all(mapping == by_key[0] for mapping in by_key)


@pytest.mark.parametrize(
    "change", [{"payload": {"n": 2}}, {"priority": 1}, {"version": 1}], ids=lambda c: next(iter(c))
)
async def test_i09_the_same_request_id_with_another_request_is_refused_and_writes_nothing(
    stack: Stack, change: dict[str, Any]
) -> None:
    workflow_id = await stack.save(a_graph("a"))
    first = await stack.client.executions.start(workflow_id, payload={"n": 1}, request_id="mine")

    with pytest.raises(RequestIdReused, match="mine") as caught:
        await stack.client.executions.start(workflow_id, request_id="mine", **{"payload": {"n": 1}, **change})

    assert caught.value.details.metadata["executionId"] == first.id
    assert await count(stack) == (1, 1)


async def test_i09_the_same_request_is_the_same_in_whatever_order_its_fields_come(stack: Stack) -> None:
    workflow_id = await stack.save(a_graph("a"))
    fields = [f"k{index}" for index in range(12)]
    stub = executor_pb2_grpc.ExecutorServiceStub(open_channel(stack.app.server.address))
    ids = set()
    for order in (fields, fields[::-1], sorted(fields, key=hash)):
        payload = Value()
        for name in order:
            payload.struct_value.fields[name].number_value = 1
        request = pb.StartExecutionRequest(workflow_id=workflow_id, request_id="same", payload=payload)
        ids.add((await stub.StartExecution(request)).execution.id)
    assert len(ids) == 1


async def test_i09_a_request_id_belongs_to_its_namespace(make_stack: OpenStack) -> None:
    async with make_stack() as stack:
        workflow_id = await stack.save(a_graph("a"))
        await stack.client.executions.start(workflow_id, request_id="mine")
        stub = executor_pb2_grpc.ExecutorServiceStub(open_channel(stack.app.server.address))
        with pytest.raises(Exception, match="no workflow"):
            await stub.StartExecution(
                pb.StartExecutionRequest(namespace="other", workflow_id=workflow_id, request_id="mine")
            )


async def test_starts_are_all_recorded_or_none(stack: Stack) -> None:
    good = await stack.save(a_graph("a"))
    await stack.client.executions.start(good, payload=1, request_id="taken")
    for bad, error in (
        (Start(str(uuid4())), WorkflowNotFound),
        (Start(good, version=7), VersionNotFound),
        (Start(good, payload=2, request_id="taken"), RequestIdReused),
    ):
        with pytest.raises(error):
            await stack.client.executions.start_many([Start(good), bad, Start(good)])
    assert await count(stack) == (1, 1)


async def test_a_batch_answers_in_order_with_repeats_of_its_own(stack: Stack) -> None:
    one, two = await stack.save(a_graph("a")), await stack.save(a_graph("b"))
    starts = [Start(one), Start(two), Start(one, request_id="x"), Start(one, request_id="x")]
    answers = await stack.client.executions.start_many(starts)
    assert [answer.workflow_id for answer in answers] == [one, two, one, one]
    assert answers[2].id == answers[3].id
    assert len({answer.id for answer in answers}) == 3
    assert await stack.client.executions.start_many([]) == []


async def test_i09_one_request_id_for_two_requests_of_a_call_is_refused_and_writes_nothing(stack: Stack) -> None:
    one, two = await stack.save(a_graph("a")), await stack.save(a_graph("b"))
    with pytest.raises(RequestIdReused, match="in the same call"):
        await stack.client.executions.start_many([Start(one, request_id="x"), Start(two, request_id="x")])
    assert await count(stack) == (0, 0)


async def test_the_runs_of_one_call_are_bounded(make_stack: OpenStack) -> None:
    async with make_stack(limits={"runs_per_start": 4}) as stack:
        pair = await stack.save(a_graph("a -> b"))
        assert len(await stack.client.executions.start_many([Start(pair)] * 2)) == 2
        with pytest.raises(LimitExceeded, match="6 runs, over 4"):
            await stack.client.executions.start_many([Start(pair)] * 3)


async def test_five_hundred_starts_in_one_call_all_end(stack: Stack) -> None:
    workflow_id = await stack.save(a_graph("a -> b"))
    started = await stack.client.executions.start_many([Start(workflow_id, payload=n) for n in range(500)])
    await stack.until("SELECT bool_and(state = 'SUCCESS') FROM executor.workflow_execution")
    payloads = await stack.sql.fetch("SELECT id::text, trigger_payload FROM executor.workflow_execution")
    assert dict(payloads) == {execution.id: str(n) for n, execution in enumerate(started)}
    assert await count(stack) == (500, 1000)


async def test_starts_of_several_versions_are_one_statement_and_more_only_where_a_request_id_was_used(
    stack: Stack,
) -> None:
    one, pair = await stack.save(a_graph("a")), await stack.save(a_graph("a -> b"))
    await stack.client.executions.start_many([Start(one), Start(pair, request_id="used")])
    counted = CountedSession(stack.app.parts.session)
    stack.app.parts.starts._session = counted  # type: ignore[assignment]

    await stack.client.executions.start_many([Start(one), Start(pair, request_id="new"), Start(one)])
    assert counted.statements == 1

    await stack.client.executions.start_many([Start(one), Start(pair, request_id="used")])
    assert counted.statements == 5, "refused; then looked for, read, and the other inserted"
    assert await count(stack) == (6, 8)


async def test_more_runs_than_one_statement_takes_are_written_whole_or_not_at_all(make_stack: OpenStack) -> None:
    nodes = 1_001
    async with make_stack(runner={"concurrency": 0}) as stack:
        workflow_id = await stack.save(a_fan(nodes - 2))
        starts = [Start(workflow_id, priority=index) for index in range(ROWS_AT_ONCE // nodes + 1)]
        await stack.sql.execute(
            f"""ALTER TABLE executor.run ADD CONSTRAINT not_the_very_last
                CHECK (node_index < {nodes - 1} OR rank > {1 - len(starts)})"""
        )
        with pytest.raises(ValkyrError, match="inside the service"):
            await stack.client.executions.start_many(starts)
        assert await count(stack) == (0, 0)

        await stack.sql.execute("ALTER TABLE executor.run DROP CONSTRAINT not_the_very_last")
        await stack.client.executions.start_many(starts)
        assert await count(stack) == (len(starts), len(starts) * nodes)


async def test_starting_pins_the_version_it_names(stack: Stack) -> None:
    saved = await stack.client.graphs.save(a_graph("a"))
    workflow_id = saved.workflow.id
    await stack.client.graphs.save(a_graph("a -> b"), workflow=WorkflowInfo(id=workflow_id), version=1)

    latest = await stack.client.executions.start(workflow_id)
    first = await stack.client.executions.start(workflow_id, version=1)

    assert (latest.version, first.version) == (2, 1)
    assert (await stack.wait(first.id)).run_counts == {"SUCCESS": 1}
    assert (await stack.wait(latest.id)).run_counts == {"SUCCESS": 2}


async def test_i16_with_the_graph_store_down_known_versions_start_and_finish(make_stack: OpenStack) -> None:
    async with make_stack() as stack:
        workflow_id = await stack.save(a_graph("a -> b", modules={"a": "HeldModule"}))
        running = await stack.client.executions.start(workflow_id)
        await stack.graph_store.server.stop(timedelta())

        known = await stack.client.executions.start(workflow_id, version=1)
        GATES.open.set()

        assert (await stack.wait(running.id)).state is ExecutionState.SUCCESS
        assert (await stack.wait(known.id)).state is ExecutionState.SUCCESS
        async with add_executor(stack, name="fresh"):  # its memory is empty: the pinned graph comes from the tables
            again = await stack.clients[1].executions.start(workflow_id, version=1)
            assert (await stack.wait(again.id)).state is ExecutionState.SUCCESS


async def test_i24_with_the_graph_store_down_a_start_without_a_version_is_unavailable(make_stack: OpenStack) -> None:
    async with make_stack() as stack:
        workflow_id = await stack.save(a_graph("a"))
        await stack.run(a_graph("b"))
        await stack.graph_store.server.stop(timedelta())
        stub = executor_pb2_grpc.ExecutorServiceStub(open_channel(stack.app.server.address))
        for version in (None, 3):
            with pytest.raises(Unavailable, match="graph store") as caught, rpc_errors():
                await stub.StartExecution(
                    pb.StartExecutionRequest(workflow_id=workflow_id, version=version), timeout=20
                )
            assert caught.value.details.retry_after is not None
            assert "version" in caught.value.hint


async def test_the_trace_of_the_call_is_kept_with_the_execution(stack: Stack) -> None:
    workflow_id = await stack.save(a_graph("a"))
    trace_id = uuid4().hex
    stub = executor_pb2_grpc.ExecutorServiceStub(open_channel(stack.app.server.address))
    answer = await stub.StartExecution(
        pb.StartExecutionRequest(workflow_id=workflow_id), metadata=[("traceparent", f"00-{trace_id}-{'a' * 16}-01")]
    )
    row = await stack.sql.fetchrow("SELECT trace_id, traceparent FROM executor.workflow_execution")
    assert answer.execution.trace_id == row["trace_id"] == trace_id
    assert row["traceparent"].startswith(f"00-{trace_id}-")


async def test_an_execution_without_a_trace_from_outside_gets_one_of_its_own(stack: Stack) -> None:
    one, two = await stack.start(a_graph("a")), await stack.start(a_graph("b"))
    traces = {(await stack.client.executions.get(key)).trace_id for key in (one, two)}
    assert len(traces) == 2
    assert all(len(trace) == 32 and int(trace, 16) for trace in traces)


async def test_who_started_it_and_with_what_is_kept(stack: Stack) -> None:
    payload = {"text": "Zoë \U0001f600", "list": [1, 2.5, None, True], "deep": {"a": {"b": []}}}
    execution_id = await stack.start(a_graph("a"), payload=payload, priority=7)
    execution = await stack.client.executions.get(execution_id)
    assert execution.trigger_payload == payload
    assert (execution.created_by, execution.priority) == ("tester", 7)
    row = await stack.sql.fetchrow("SELECT * FROM executor.workflow_execution")
    assert (row["created_by"], row["created_by_name"]) == (None, "tester")


async def test_a_connection_lost_while_starting_leaves_nothing_or_the_whole(
    make_stack: OpenStack, database_killer: Any
) -> None:
    """Backends are killed all the while; with one request_id a caller may repeat until it is told."""
    async with make_stack(runner={"concurrency": 4}) as stack:
        workflow_id = await stack.save(a_chain(5))
        await stack.wait((await stack.client.executions.start(workflow_id)).id)
        name = await stack.sql.fetchval("SELECT current_database()")
        killing = asyncio.create_task(kill_backends(database_killer, name, 25))
        keys = [f"key-{index}" for index in range(60)]
        ids = [await started_in_the_end(stack, workflow_id, key) for key in keys]
        await killing

        assert len(set(ids)) == 60
        await stack.until("SELECT bool_and(state = 'SUCCESS') FROM executor.workflow_execution", timeout=90)
        assert await count(stack) == (61, 305)
        assert (
            await stack.sql.fetchval(
                "SELECT count(*) FROM (SELECT execution_id FROM executor.run GROUP BY 1 HAVING count(*) <> 5) AS x"
            )
            == 0
        )


async def started_in_the_end(stack: Stack, workflow_id: str, key: str) -> str:
    async def attempt() -> str | None:
        try:
            return (await stack.client.executions.start(workflow_id, version=1, request_id=key)).id
        except ValkyrError:
            return None

    found = await eventually(attempt, f"{key} is started")
    UUID(found)
    return str(found)


async def kill_backends(killer: Any, database: str, times: int) -> None:
    """Of one database: tests of other processes have theirs on the same server."""
    for _ in range(times):
        await killer.fetch(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE application_name LIKE 'valkyr executor%' AND datname = $1 AND random() < 0.4""",
            database,
        )
        await asyncio.sleep(0.02)
