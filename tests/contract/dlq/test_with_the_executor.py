"""The dead letter queue and the real executor, over real channels both ways."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.chassis.settings import DatabaseSettings, ServerSettings
from services.dlq.app import open_app
from services.dlq.settings import DlqSettings
from tests.builders import a_graph
from tests.contract.dlq.test_errors import a_discard, a_fix, a_requeue, error_of
from tests.dlq_lab import LetterEnum
from tests.executor_modules import GATES
from tests.executor_stack import Stack, eventually, open_stack
from tests.free_ports import a_port_base
from valkyr.api.dlq.v1 import dlq_pb2 as pb
from valkyr.api.dlq.v1.dlq_pb2_grpc import DeadLetterQueueServiceStub
from valkyr.api.executor.v1 import executor_pb2, executor_pb2_grpc
from valkyr.errors import DeadLetterResolved, ExecutionEnded
from valkyr.rpc.channel import open_channel
from valkyr.rpc.values import plain_to_value

FAILING = a_graph("first -> broken -> last", modules={"broken": "BrokenModule", "last": "InputsModule"})


@dataclass(frozen=True, slots=True)
class Both:
    """A graph store, an executor and a dead letter queue on one database."""

    stack: Stack
    stub: DeadLetterQueueServiceStub
    executor: executor_pb2_grpc.ExecutorServiceStub

    async def letters(self, execution_id: str, count: int = 1) -> list[pb.DeadLetter]:
        """The execution's letters, newest first, once there are so many."""

        return await letters_of(self.stub, execution_id, count)

    async def quarantined(self) -> tuple[str, pb.DeadLetter]:
        """An execution that failed for good, and its letter."""
        execution_id = await self.stack.start(FAILING)
        assert (await self.stack.wait(execution_id)).state == "FAILED"
        return execution_id, (await self.letters(execution_id))[0]

    async def resolution_of(self, letter: pb.DeadLetter) -> pb.DeadLetter:
        """The letter once it is no longer PENDING."""

        async def ask() -> pb.DeadLetter | None:
            read = pb.GetDeadLetterRequest(dead_letter_id=letter.id)
            answer = (await self.stub.GetDeadLetter(read)).dead_letter
            return answer if answer.resolution != LetterEnum.PENDING else None

        found: pb.DeadLetter = await eventually(ask, f"a resolution of {letter.id}")
        return found


async def letters_of(stub: DeadLetterQueueServiceStub, execution_id: str, count: int = 1) -> list[pb.DeadLetter]:
    """Newest first, once there are so many."""

    async def ask() -> list[pb.DeadLetter] | None:
        answer = await stub.ListDeadLetters(pb.ListDeadLettersRequest(execution_id=execution_id))
        return list(answer.dead_letters) if len(answer.dead_letters) >= count else None

    found: list[pb.DeadLetter] = await eventually(ask, f"{count} letters of {execution_id}")
    return found


@asynccontextmanager
async def a_dlq(database_url: str, port: int, executor: str) -> AsyncIterator[DeadLetterQueueServiceStub]:
    settings = DlqSettings(
        database=DatabaseSettings(url=database_url), server=ServerSettings(port=port), executor=executor
    )
    async with open_app(settings) as app:
        channel = open_channel(app.server.address, principal="tester")
        try:
            yield DeadLetterQueueServiceStub(channel)
        finally:
            await channel.close()


@pytest.fixture
async def both(migrated_database_url: Callable[..., str], tmp_path: Path) -> AsyncIterator[Both]:
    GATES.reset()
    url, port = migrated_database_url("graph_store", "executor", "dlq"), a_port_base() + 3
    async with open_stack(url, tmp_path, dlq=f"127.0.0.1:{port}") as stack:
        address = stack.app.server.address
        channel = open_channel(address, principal="directly")
        try:
            async with a_dlq(url, port, address) as stub:
                yield Both(stack, stub, executor_pb2_grpc.ExecutorServiceStub(channel))
        finally:
            await channel.close()


async def test_i21_a_run_that_failed_for_good_has_a_letter_that_says_all(both: Both) -> None:
    execution_id, listed = await both.quarantined()
    letter = (await both.stub.GetDeadLetter(pb.GetDeadLetterRequest(dead_letter_id=listed.id))).dead_letter
    assert (letter.node_id, letter.class_name, letter.quarantine_number) == ("broken", "BrokenModule", 1)
    assert (letter.failure_type, letter.error_type) == (LetterEnum.PERMANENT_ERROR, "PERMANENT")
    assert "it broke" in letter.failure_reason
    assert "first" in letter.original_inputs.struct_value["nodes"]
    assert letter.attempts[0].error
    execution = await both.stack.client.executions.get(execution_id)
    assert (letter.workflow_id, letter.version, letter.trace_id) == (
        execution.workflow_id,
        execution.version,
        execution.trace_id,
    )


async def test_i22_a_fix_lets_the_execution_go_on(both: Both) -> None:
    execution_id, letter = await both.quarantined()
    answer = await both.stub.FixDeadLetter(a_fix(letter.id, {"paid": True}, request_id="r"))
    assert answer.dead_letter.resolution == LetterEnum.FIXED
    execution = await both.stack.wait(execution_id)
    assert execution.state == "SUCCESS"
    outputs: Any = (await both.stack.runs(execution_id))["last"].outputs
    assert outputs["inputs"]["nodes"]["broken"]["outputs"] == {"paid": True}
    assert await both.stub.FixDeadLetter(a_fix(letter.id, {"paid": True}, request_id="r")) == answer


async def test_i22_a_requeued_run_that_fails_again_has_a_letter_of_its_own(both: Both) -> None:
    execution_id, letter = await both.quarantined()
    inputs = {"trigger": {"mended": True}, "nodes": {"first": {"outputs": {}}}}
    await both.stub.RequeueDeadLetter(a_requeue(letter.id, inputs=inputs, reason="try again"))
    second, first = await both.letters(execution_id, 2)
    assert (second.previous_id, second.requeue_count, second.quarantine_number) == (letter.id, 1, 2)
    assert (first.resolution, first.resolved_by) == (LetterEnum.REQUEUED, "tester")
    whole = (await both.stub.GetDeadLetter(pb.GetDeadLetterRequest(dead_letter_id=second.id))).dead_letter
    assert whole.original_inputs == plain_to_value(inputs)
    assert whole.idempotency_key != letter.idempotency_key


async def test_i22_who_resolves_directly_at_the_executor_resolves_the_letter(both: Both) -> None:
    execution_id, letter = await both.quarantined()
    await both.executor.DiscardRun(
        executor_pb2.DiscardRunRequest(
            execution_id=execution_id, run_id=letter.run_id, quarantine_number=1, reason="never mind", request_id="r"
        )
    )
    # Before or after the outbox has told it: the executor's word counts.
    error = await error_of(both.stub.FixDeadLetter(a_fix(letter.id)))
    assert isinstance(error, DeadLetterResolved)
    assert (error.details.metadata["resolution"], error.details.metadata["resolvedBy"]) == ("DISCARDED", "directly")
    resolved = await both.resolution_of(letter)
    assert (resolved.resolution, resolved.resolved_by) == (LetterEnum.DISCARDED, "directly")
    assert resolved.HasField("resolved_time")


async def test_into_an_execution_that_was_ended_only_a_discard_works(both: Both) -> None:
    graph = a_graph("broken, held", modules={"broken": "BrokenModule", "held": "HeldModule"})
    execution_id = await both.stack.start(graph)
    (letter,) = await both.letters(execution_id)
    await both.executor.CancelExecution(executor_pb2.CancelExecutionRequest(execution_id=execution_id))
    for call, request in (
        (both.stub.RequeueDeadLetter, a_requeue(letter.id)),
        (both.stub.FixDeadLetter, a_fix(letter.id)),
    ):
        error = await error_of(call(request))
        assert isinstance(error, ExecutionEnded)
        assert "start a new execution" in error.hint
    answer = await both.stub.DiscardDeadLetter(a_discard(letter.id))
    assert answer.dead_letter.resolution == LetterEnum.DISCARDED


async def test_i15_a_letter_comes_when_the_dead_letter_queue_does(
    migrated_database_url: Callable[..., str], tmp_path: Path
) -> None:
    GATES.reset()
    url, port = migrated_database_url("graph_store", "executor", "dlq"), a_port_base() + 3
    async with open_stack(url, tmp_path, dlq=f"127.0.0.1:{port}") as stack:
        execution_id = await stack.start(FAILING)
        assert (await stack.wait(execution_id)).state == "FAILED"
        async with a_dlq(url, port, stack.app.server.address) as stub:
            assert len(await letters_of(stub, execution_id)) == 1
            await stack.until("select count(*) = 0 from executor.outbox")
