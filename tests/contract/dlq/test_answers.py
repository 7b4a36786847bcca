"""What DeadLetterQueueService answers, over a real channel and through grpcurl."""

from __future__ import annotations

import asyncio
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from services.chassis.serve import Server
from services.dlq.app import App
from tests.dlq_lab import (
    TRACE,
    TRACEPARENT,
    FakeExecutor,
    LetterEnum,
    a_quarantine,
    a_resolved,
    a_run,
    entries,
    serving,
)
from valkyr.api.dlq.v1 import dlq_pb2 as pb
from valkyr.api.dlq.v1.dlq_pb2_grpc import DeadLetterQueueServiceStub
from valkyr.errors import Unavailable
from valkyr.rpc.status import rpc_errors
from valkyr.rpc.values import plain_to_struct, plain_to_value

SERVICE = "valkyr.api.dlq.v1.DeadLetterQueueService"
NOW = datetime(2026, 5, 1, tzinfo=UTC)


async def grpcurl(app: App, *arguments: str, data: Any = None) -> tuple[int, str]:
    """Exit code, and what it printed on both streams."""
    program = shutil.which("grpcurl", path=str(Path(sys.executable).parent)) or "grpcurl"
    flags = ["-plaintext", "-max-time", "20", *(["-d", "@"] if data is not None else [])]
    process = await asyncio.create_subprocess_exec(
        program,
        *flags,
        app.server.address,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate(b"" if data is None else orjson.dumps(data))
    return process.returncode or 0, output.decode()


async def a_letter(stub: DeadLetterQueueServiceStub, **fields: Any) -> pb.DeadLetter:
    """Quarantines a run, and reads its letter from the list."""
    run_id = a_run()
    await stub.QuarantineRuns(entries(a_quarantine(run_id, **fields)))
    request = pb.ListDeadLettersRequest(run_id=run_id, namespace=fields.get("namespace", ""))
    letters: list[pb.DeadLetter] = list((await stub.ListDeadLetters(request)).dead_letters)
    return letters[0]


async def test_a_letter_read_alone_shows_everything(stub: DeadLetterQueueServiceStub) -> None:
    listed = await a_letter(stub)
    letter = (await stub.GetDeadLetter(pb.GetDeadLetterRequest(dead_letter_id=listed.id))).dead_letter
    assert letter.original_inputs.struct_value["trigger"]["amount"] == "9007199254740993"
    assert letter.original_config.struct_value["url"] == "https://api.stripe.com"
    assert [attempt.stack_trace for attempt in letter.attempts] == ["Traceback 1", "Traceback 2", "Traceback 3"]
    assert [attempt.error for attempt in letter.attempts] == ["declined 1", "declined 2", "declined 3"]
    assert letter.attempts[0].HasField("start_time")
    assert not letter.attempts[0].HasField("finish_time")
    assert (letter.failure_type, letter.resolution) == (LetterEnum.MAX_RETRIES, LetterEnum.PENDING)
    assert (letter.trace_id, letter.traceparent) == (TRACE, TRACEPARENT)
    assert (letter.idempotency_key, letter.requeue_count, letter.previous_id) == ("k" * 64, 0, "")
    assert letter.namespace == "default"


async def test_a_list_leaves_out_what_is_heavy(stub: DeadLetterQueueServiceStub) -> None:
    letter = await a_letter(stub)
    assert not letter.HasField("original_inputs")
    assert not letter.HasField("original_config")
    assert [attempt.stack_trace for attempt in letter.attempts] == ["", "", ""]
    assert letter.attempts[0].error == "declined 1"


UNSHOWABLE = {
    "many-numbers": b"[" + b"1," * 1_000_000 + b"1]",
    "deep": b"[" * 300 + b"]" * 300,
    "deepest": b"[" * 1000 + b"]" * 1000,
}


@pytest.mark.parametrize("inputs", UNSHOWABLE.values(), ids=UNSHOWABLE.keys())
async def test_inputs_that_fit_into_no_value_are_shown_as_text(stub: DeadLetterQueueServiceStub, inputs: bytes) -> None:
    letter = await a_letter(stub, inputs=inputs)
    whole = (await stub.GetDeadLetter(pb.GetDeadLetterRequest(dead_letter_id=letter.id))).dead_letter
    assert whole.original_inputs.string_value == inputs.decode()


async def test_pages_hold_every_letter_once_newest_first(stub: DeadLetterQueueServiceStub) -> None:
    times = [NOW - timedelta(minutes=number // 3) for number in range(10)]
    await stub.QuarantineRuns(entries(*(a_quarantine(a_run(), quarantined_time=time) for time in times)))
    seen: list[pb.DeadLetter] = []
    request = pb.ListDeadLettersRequest(page_size=3)
    while True:
        page = await stub.ListDeadLetters(request)
        seen += page.dead_letters
        # What comes in between pages is newer, and moves nothing.
        await stub.QuarantineRuns(entries(a_quarantine(a_run(), quarantined_time=NOW + timedelta(hours=1))))
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert [len(seen), len({letter.id for letter in seen})] == [10, 10]
    assert [letter.quarantined_time.ToDatetime(UTC) for letter in seen] == times


async def test_a_page_ends_before_it_is_too_large(stub: DeadLetterQueueServiceStub) -> None:
    for _ in range(3):
        await stub.QuarantineRuns(entries(a_quarantine(a_run(), failure_reason="x" * 3_500_000)))
    page = await stub.ListDeadLetters(pb.ListDeadLettersRequest())
    assert (len(page.dead_letters), bool(page.next_page_token)) == (2, True)
    rest = await stub.ListDeadLetters(pb.ListDeadLettersRequest(page_token=page.next_page_token))
    assert (len(rest.dead_letters), rest.next_page_token) == (1, "")


async def test_lists_filter(stub: DeadLetterQueueServiceStub) -> None:
    execution, workflow, runs = a_run(), a_run(), [a_run() for _ in range(4)]
    await stub.QuarantineRuns(
        entries(
            a_quarantine(runs[0], execution_id=execution),
            a_quarantine(runs[1], workflow_id=workflow, failure_type=LetterEnum.TIMEOUT),
            a_quarantine(runs[2], target="grpc:x"),
            a_quarantine(runs[3], namespace="other"),
            a_resolved(runs[0]),
        )
    )

    async def listed(**fields: Any) -> list[int]:
        answer = await stub.ListDeadLetters(pb.ListDeadLettersRequest(**fields))
        return sorted(runs.index(letter.run_id) for letter in answer.dead_letters)

    assert await listed() == [0, 1, 2]
    assert await listed(namespace="other") == [3]
    assert await listed(execution_id=execution) == [0]
    assert await listed(workflow_id=workflow.upper()) == [1]
    assert await listed(run_id=runs[2]) == [2]
    assert await listed(target="grpc:x") == [2]
    assert await listed(resolutions=[LetterEnum.FIXED]) == [0]
    assert await listed(resolutions=[LetterEnum.FIXED, LetterEnum.PENDING]) == [0, 1, 2]
    assert await listed(failure_types=[LetterEnum.TIMEOUT, LetterEnum.MANUAL]) == [1]
    assert await listed(failure_types=[LetterEnum.TIMEOUT], target="grpc:x") == []


async def test_a_requeue_with_other_inputs_hands_them_on_as_they_are(
    stub: DeadLetterQueueServiceStub, executor: FakeExecutor
) -> None:
    letter = await a_letter(stub)
    deep: Any = 1
    for _ in range(29):
        deep = {"d": deep}
    inputs = {"trigger": {"amount": 1.5, "deep": deep}, "nodes": {"a": {"outputs": None}}}
    sent = plain_to_struct({"inputs": inputs}, "inputs").fields["inputs"]
    deadline = Timestamp(seconds=1_900_000_000, nanos=500_000_000)
    request = pb.RequeueDeadLetterRequest(
        dead_letter_id=letter.id, inputs=sent, new_key=True, deadline=deadline, reason="mended"
    )
    answer = (await stub.RequeueDeadLetter(request)).dead_letter
    assert (answer.resolution, answer.resolved_by, answer.reviewed_by) == (LetterEnum.REQUEUED, "tester", "tester")
    assert (answer.resolution_reason, answer.requested_resolution) == ("mended", LetterEnum.RESOLUTION_UNSPECIFIED)
    # What it was quarantined with is kept.
    assert answer.original_inputs.struct_value["trigger"]["amount"] == "9007199254740993"
    (call,) = executor.calls
    assert call.request.inputs == request.inputs
    assert call.request.deadline == deadline
    assert (call.request.new_key, call.request.force, call.request.reason) == (True, True, "mended")
    assert (call.request.run_id, call.request.execution_id) == (letter.run_id, letter.execution_id)
    assert call.principal == "tester"


async def test_a_requeue_without_inputs_sends_none(stub: DeadLetterQueueServiceStub, executor: FakeExecutor) -> None:
    letter = await a_letter(stub)
    await stub.RequeueDeadLetter(pb.RequeueDeadLetterRequest(dead_letter_id=letter.id))
    assert not executor.calls[0].request.HasField("inputs")
    assert not executor.calls[0].request.HasField("deadline")


@pytest.mark.parametrize("outputs", [None, {}, [], "text", {"n": 2**53 - 1}], ids=repr)
async def test_a_fix_may_supply_anything(
    stub: DeadLetterQueueServiceStub, executor: FakeExecutor, outputs: Any
) -> None:
    letter = await a_letter(stub)
    request = pb.FixDeadLetterRequest(dead_letter_id=letter.id, outputs=plain_to_value(outputs), request_id="r")
    answer = await stub.FixDeadLetter(request)
    assert answer.dead_letter.resolution == LetterEnum.FIXED
    assert executor.calls[0].request.outputs == request.outputs
    assert await stub.FixDeadLetter(request) == answer


async def test_i24_what_was_asked_for_while_the_executor_was_away_is_done_when_it_is_back(
    stub: DeadLetterQueueServiceStub, executor: FakeExecutor, executor_server: Server
) -> None:
    letter = await a_letter(stub)
    port = executor_server.port
    await executor_server.stop()
    with pytest.raises(Unavailable) as caught, rpc_errors():
        await stub.DiscardDeadLetter(pb.DiscardDeadLetterRequest(dead_letter_id=letter.id, reason="no", request_id="r"))
    assert caught.value.details.retry_after
    read = pb.GetDeadLetterRequest(dead_letter_id=letter.id)
    waiting = (await stub.GetDeadLetter(read)).dead_letter
    assert (waiting.resolution, waiting.requested_resolution) == (LetterEnum.PENDING, LetterEnum.DISCARDED)
    async with serving(executor, port=port), asyncio.timeout(30):
        while (await stub.GetDeadLetter(read)).dead_letter.resolution != LetterEnum.DISCARDED:
            await asyncio.sleep(0.05)
    assert len(executor.effects) == 1


async def test_grpcurl_resolves_a_letter(app: App, stub: DeadLetterQueueServiceStub) -> None:
    letter = await a_letter(stub)
    body = {"deadLetterId": letter.id, "inputs": {"trigger": {"amount": 1}, "nodes": {}}, "reason": "mended"}
    code, output = await grpcurl(app, f"{SERVICE}/RequeueDeadLetter", data=body)
    assert code == 0, output
    answer = orjson.loads(output)["deadLetter"]
    assert (answer["resolution"], answer["failureType"]) == ("REQUEUED", "MAX_RETRIES")
    code, output = await grpcurl(app, f"{SERVICE}/FixDeadLetter", data={"deadLetterId": letter.id, "outputs": None})
    assert code != 0
    assert "DEAD_LETTER_RESOLVED" in output
    code, output = await grpcurl(app, f"{SERVICE}/ListDeadLetters", data={"resolutions": ["REQUEUED"]})
    assert [letter["id"] for letter in orjson.loads(output)["deadLetters"]] == [letter.id]


async def test_grpcurl_lists_and_describes_the_service(app: App) -> None:
    assert SERVICE in (await grpcurl(app, "list"))[1]
    code, output = await grpcurl(app, "describe", SERVICE)
    assert code == 0, output
    assert "rpc QuarantineRuns ( .valkyr.api.dlq.v1.QuarantineRunsRequest )" in output
