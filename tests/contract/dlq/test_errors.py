"""Every documented error of DeadLetterQueueService, provoked over a real channel."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from tests.bad_resolutions import BAD_INPUTS, BAD_REASONS
from tests.contract.dlq.test_answers import a_letter
from tests.dlq_lab import FakeExecutor, LetterEnum, a_quarantine, a_run, entries
from valkyr.api.dlq.v1 import dlq_pb2 as pb
from valkyr.api.dlq.v1.dlq_pb2_grpc import DeadLetterQueueServiceStub
from valkyr.errors import (
    DeadLetterNotFound,
    DeadLetterResolved,
    ExecutionEnded,
    InvalidRequest,
    LimitExceeded,
    NotQuarantined,
    RequestIdReused,
    TooManyRequeues,
    ValkyrError,
)
from valkyr.rpc.status import from_rpc_error
from valkyr.rpc.values import plain_to_value

ID = "0198c5a2-7e1c-7f3a-9d52-0c4b7a1e6f80"


async def error_of(call: Any) -> ValkyrError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    trailers = sum(len(key) + len(value) for key, value in caught.value.trailing_metadata() or ())
    assert trailers < 6 * 1024
    assert caught.value.code() is not grpc.StatusCode.INTERNAL
    return from_rpc_error(caught.value)


def a_requeue(letter_id: str, **fields: Any) -> pb.RequeueDeadLetterRequest:
    if "inputs" in fields:
        fields["inputs"] = plain_to_value(fields["inputs"])
    return pb.RequeueDeadLetterRequest(dead_letter_id=letter_id, **fields)


def a_fix(letter_id: str, outputs: Any = 1, **fields: Any) -> pb.FixDeadLetterRequest:
    return pb.FixDeadLetterRequest(dead_letter_id=letter_id, outputs=plain_to_value(outputs), **fields)


def a_discard(letter_id: str, reason: str = "worthless", **fields: Any) -> pb.DiscardDeadLetterRequest:
    return pb.DiscardDeadLetterRequest(dead_letter_id=letter_id, reason=reason, **fields)


@pytest.mark.parametrize("where", [{}, {"namespace": "elsewhere"}], ids=["unknown", "another-namespace"])
async def test_dead_letter_not_found(
    stub: DeadLetterQueueServiceStub, executor: FakeExecutor, where: dict[str, str]
) -> None:
    letter_id = (await a_letter(stub)).id if where else ID
    calls = [
        stub.GetDeadLetter(pb.GetDeadLetterRequest(dead_letter_id=letter_id, **where)),
        stub.RequeueDeadLetter(a_requeue(letter_id, **where)),
        stub.FixDeadLetter(a_fix(letter_id, **where)),
        stub.DiscardDeadLetter(a_discard(letter_id, **where)),
    ]
    for call in calls:
        error = await error_of(call)
        assert isinstance(error, DeadLetterNotFound)
        assert letter_id in str(error)
    assert not executor.calls
    assert not (await stub.ListDeadLetters(pb.ListDeadLettersRequest(namespace="elsewhere"))).dead_letters


async def test_dead_letter_resolved(stub: DeadLetterQueueServiceStub) -> None:
    letter = await a_letter(stub)
    await stub.DiscardDeadLetter(a_discard(letter.id))
    for call in (stub.FixDeadLetter(a_fix(letter.id)), stub.RequeueDeadLetter(a_requeue(letter.id))):
        error = await error_of(call)
        assert isinstance(error, DeadLetterResolved)
        said = error.details.metadata
        assert (said["resolution"], said["resolvedBy"]) == ("DISCARDED", "tester")
        assert said["resolvedTime"]


async def test_too_many_requeues(stub: DeadLetterQueueServiceStub) -> None:
    letter = await a_letter(stub, number=6)
    error = await error_of(stub.RequeueDeadLetter(a_requeue(letter.id)))
    assert isinstance(error, TooManyRequeues)
    assert "force" in error.hint
    assert (await stub.RequeueDeadLetter(a_requeue(letter.id, force=True))).dead_letter.requeue_count == 5


async def test_execution_ended(stub: DeadLetterQueueServiceStub, executor: FakeExecutor) -> None:
    letter = await a_letter(stub)
    executor.refuse = ExecutionEnded("it was cancelled", hint="start a new execution")
    error = await error_of(stub.RequeueDeadLetter(a_requeue(letter.id)))
    assert isinstance(error, ExecutionEnded)
    assert "start a new execution" in error.hint
    executor.refuse = None
    discarded = await stub.DiscardDeadLetter(a_discard(letter.id))
    assert discarded.dead_letter.resolution == LetterEnum.DISCARDED


async def test_request_id_reused(stub: DeadLetterQueueServiceStub) -> None:
    letter = await a_letter(stub)
    await stub.FixDeadLetter(a_fix(letter.id, 1, request_id="r"))
    assert isinstance(await error_of(stub.FixDeadLetter(a_fix(letter.id, 2, request_id="r"))), RequestIdReused)


BAD_REQUEUES = {
    "id": ({"letter_id": "x"}, "deadLetterId", "'x' is no UUID"),
    "no-id": ({"letter_id": ""}, "deadLetterId", "is required"),
    "namespace": ({"namespace": "a b"}, "namespace", "'a b' is no namespace"),
    **{f"inputs-{name}": ({"inputs": inputs}, path, says) for name, (inputs, path, says) in BAD_INPUTS.items()},
    **{f"reason-{name}": ({"reason": reason}, "reason", says) for name, (reason, says) in BAD_REASONS.items()},
    "request-id": ({"request_id": "x" * 256}, "requestId", "255"),
    "request-id-text": ({"request_id": "a\nb"}, "requestId", "'a\\nb' is no request id"),
}


@pytest.mark.parametrize(("fields", "path", "says"), BAD_REQUEUES.values(), ids=BAD_REQUEUES.keys())
async def test_i25_a_bad_requeue_is_told_which_field(
    stub: DeadLetterQueueServiceStub, executor: FakeExecutor, fields: dict[str, Any], path: str, says: str
) -> None:
    letter_id = (await a_letter(stub)).id
    error = await error_of(stub.RequeueDeadLetter(a_requeue(**{"letter_id": letter_id, **fields})))
    assert isinstance(error, InvalidRequest)
    assert error.details.violations[0].field == path
    assert says in error.details.violations[0].description
    assert not executor.calls


async def test_i24_a_deadline_that_has_passed_is_refused_before_anything_is_kept(
    stub: DeadLetterQueueServiceStub, executor: FakeExecutor
) -> None:
    letter = await a_letter(stub)
    error = await error_of(stub.RequeueDeadLetter(a_requeue(letter.id, deadline=datetime(2026, 1, 1, tzinfo=UTC))))
    assert isinstance(error, InvalidRequest)
    assert error.details.violations[0].field == "deadline"
    assert "2026-01-01T00:00:00+00:00 has passed" in error.message
    assert not executor.calls
    again = (await stub.GetDeadLetter(pb.GetDeadLetterRequest(dead_letter_id=letter.id))).dead_letter
    assert (again.requested_resolution, again.HasField("refused")) == (0, False)
    to_come = a_requeue(letter.id, deadline=datetime.now(UTC) + timedelta(hours=1))
    assert (await stub.RequeueDeadLetter(to_come)).dead_letter.resolution == LetterEnum.REQUEUED


async def test_i24_what_the_executor_refused_stays_in_sight(
    stub: DeadLetterQueueServiceStub, executor: FakeExecutor
) -> None:
    letter = await a_letter(stub)
    for refusal in (ExecutionEnded("it was cancelled"), NotQuarantined("it is SUCCESS")):
        executor.refuse = refusal
        await error_of(stub.RequeueDeadLetter(a_requeue(letter.id, reason="again")))
    read = (await stub.GetDeadLetter(pb.GetDeadLetterRequest(dead_letter_id=letter.id))).dead_letter
    refused = read.refused
    assert (refused.resolution, refused.requested_by) == (LetterEnum.REQUEUED, "tester")
    assert refused.problem == "NOT_QUARANTINED: it is SUCCESS"
    assert abs(refused.refused_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)) < timedelta(minutes=1)
    (listed,) = (await stub.ListDeadLetters(pb.ListDeadLettersRequest())).dead_letters
    assert not listed.HasField("refused")


async def test_i25_integers_that_lose_digits_nan_and_bad_deadlines_are_refused(
    stub: DeadLetterQueueServiceStub,
) -> None:
    requests = [a_requeue(ID, inputs={"trigger": {"n": 1}, "nodes": {}}) for _ in range(3)]
    trigger = [request.inputs.struct_value.fields["trigger"].struct_value.fields["n"] for request in requests]
    trigger[0].number_value, trigger[1].number_value = 2.0**53, float("nan")
    for request in requests[:2]:
        error = await error_of(stub.RequeueDeadLetter(request))
        assert isinstance(error, InvalidRequest)
        assert error.details.violations[0].field == "inputs.trigger.n"
    requests[2].deadline.seconds = 10**12
    error = await error_of(stub.RequeueDeadLetter(requests[2]))
    assert error.details.violations[0].field == "deadline"


async def test_i25_what_is_too_large_or_too_deep_is_refused(stub: DeadLetterQueueServiceStub) -> None:
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    calls = [
        stub.FixDeadLetter(a_fix(ID, "x" * (1024 * 1024 - 1))),
        stub.FixDeadLetter(a_fix(ID, deep)),
        stub.RequeueDeadLetter(a_requeue(ID, inputs={"trigger": "x" * 4 * 1024 * 1024, "nodes": {}})),
    ]
    for call, path in zip(calls, ("outputs", "outputs", "inputs"), strict=True):
        error = await error_of(call)
        assert isinstance(error, LimitExceeded)
        assert error.details.violations[0].field == path
    fits = await error_of(stub.FixDeadLetter(a_fix(ID, "x" * (1024 * 1024 - 2))))
    assert isinstance(fits, DeadLetterNotFound)


async def test_i25_outputs_and_the_reason_of_a_discard_are_required(stub: DeadLetterQueueServiceStub) -> None:
    error = await error_of(stub.FixDeadLetter(pb.FixDeadLetterRequest(dead_letter_id=ID)))
    assert isinstance(error, InvalidRequest)
    assert error.details.violations[0].field == "outputs"
    for reason in ("", " \n"):
        error = await error_of(stub.DiscardDeadLetter(a_discard(ID, reason)))
        assert isinstance(error, InvalidRequest)
        assert error.details.violations[0].field == "reason"


BAD_LISTS = {
    "page-size": ({"page_size": -1}, "pageSize"),
    "page-size-over": ({"page_size": 1001}, "pageSize"),
    "token": ({"page_token": "x"}, "pageToken"),
    "execution": ({"execution_id": "x"}, "executionId"),
    "workflow": ({"workflow_id": "x"}, "workflowId"),
    "run": ({"run_id": "x"}, "runId"),
    "resolution": ({"resolutions": [0]}, "resolutions[0]"),
    "resolution-unknown": ({"resolutions": [1, 99]}, "resolutions[1]"),
    "failure-type": ({"failure_types": [99]}, "failureTypes[0]"),
    "target": ({"target": "a\x00"}, "target"),
    "namespace": ({"namespace": "/"}, "namespace"),
}


@pytest.mark.parametrize(("fields", "path"), BAD_LISTS.values(), ids=BAD_LISTS.keys())
async def test_i25_a_bad_list_is_told_which_field(
    stub: DeadLetterQueueServiceStub, fields: dict[str, Any], path: str
) -> None:
    error = await error_of(stub.ListDeadLetters(pb.ListDeadLettersRequest(**fields)))
    assert isinstance(error, InvalidRequest)
    assert error.details.violations[0].field == path


async def test_a_page_token_belongs_to_its_list(stub: DeadLetterQueueServiceStub) -> None:
    await stub.QuarantineRuns(entries(*(a_quarantine(a_run()) for _ in range(2))))
    page = await stub.ListDeadLetters(pb.ListDeadLettersRequest(page_size=1))
    other = pb.ListDeadLettersRequest(page_token=page.next_page_token, target="x")
    error = await error_of(stub.ListDeadLetters(other))
    assert error.details.violations[0].field == "pageToken"


async def test_too_many_entries(stub: DeadLetterQueueServiceStub) -> None:
    error = await error_of(stub.QuarantineRuns(entries(*[a_quarantine(a_run())] * 501)))
    assert isinstance(error, LimitExceeded)
    assert error.details.violations[0].field == "entries"
