"""Dead letters by example, over a real channel: what was answered is what can be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from services.chassis.example.resource import columns_of
from services.dlq.examples import LETTERS
from tests.dlq_lab import WORKFLOW, LetterEnum, a_quarantine, a_resolved, a_run, entries
from tests.example_lab import every_way_of_asking, to_be_asked, undescribed
from valkyr.api.dlq.v1 import dlq_pb2 as pb
from valkyr.api.dlq.v1.dlq_pb2_grpc import DeadLetterQueueServiceStub
from valkyr.errors import InvalidRequest
from valkyr.rpc.status import from_rpc_error

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


async def listed(
    stub: DeadLetterQueueServiceStub, example: Mapping[str, Any] | None = None, **fields: Any
) -> list[str]:
    """Node ids."""
    request = json_format.ParseDict({"example": dict(example or {}), **fields}, pb.ListDeadLettersRequest())
    return [letter.node_id for letter in (await stub.ListDeadLetters(request)).dead_letters]


async def quarantine(stub: DeadLetterQueueServiceStub, node_id: str, **fields: Any) -> str:
    run_id = a_run()
    await stub.QuarantineRuns(entries(a_quarantine(run_id, node_id=node_id, **fields)))
    return run_id


def test_every_field_that_is_answered_is_described() -> None:
    assert undescribed(LETTERS, pb.DeadLetter.DESCRIPTOR) == set()


def test_every_name_of_an_enum_can_be_asked_for() -> None:
    columns = dict(columns_of(LETTERS.fields))
    assert set(columns["failureType"].names) == set(LetterEnum.FailureType.keys()[1:])
    for name in ("resolution", "requestedResolution"):
        assert set(columns[name].names) == set(LetterEnum.Resolution.keys()[1:])


async def test_every_column_can_be_asked_for_and_ordered_by(stub: DeadLetterQueueServiceStub) -> None:
    await quarantine(stub, "a")
    for way in every_way_of_asking(LETTERS):
        assert len(await listed(stub, **way)) == ("example" not in way or "matcher" in way), way


async def test_what_was_answered_is_its_own_example(stub: DeadLetterQueueServiceStub) -> None:
    await quarantine(stub, "a", failure_reason="Клиент: 100% \\ declined", failure_type=LetterEnum.TIMEOUT)
    resolved = await quarantine(stub, "b", quarantined_time=NOW)
    await stub.QuarantineRuns(entries(a_resolved(resolved)))
    for letter in (await stub.ListDeadLetters(pb.ListDeadLettersRequest())).dead_letters:
        read = (await stub.GetDeadLetter(pb.GetDeadLetterRequest(dead_letter_id=letter.id))).dead_letter
        # An integer of 2^53 or more is shown as a string.
        assert read.original_inputs.struct_value["trigger"]["amount"] == "9007199254740993"
        exact = {"ignoredPaths": ["originalInputs.trigger.amount"]}
        assert await listed(stub, to_be_asked(read, LETTERS), matcher=exact) == [letter.node_id]


async def test_letters_are_found_by_what_the_run_was_given(stub: DeadLetterQueueServiceStub) -> None:
    await quarantine(stub, "a", inputs=b'{"trigger": {"order": 17, "who": "Ada"}}', config=b'{"url": "https://x/1"}')
    await quarantine(stub, "b", inputs=b'{"trigger": {"order": 18, "who": "Ben"}}', config=b'{"url": "https://y/2"}')
    await quarantine(stub, "c", inputs=b'{"trigger": "\\u0000"}')
    assert await listed(stub, {"originalInputs": {"trigger": {"order": 17}}}) == ["a"]
    assert await listed(stub, {"originalInputs": {"trigger": {"order": "17"}}}) == []
    starts = {"stringMode": "STARTS_WITH"}
    assert await listed(stub, {"originalConfig": {"url": "https://y"}}, matcher=starts) == ["b"]
    assert await listed(stub, {"attempts": [{"attempt": 2, "error": "declined 2"}]}) == ["c", "b", "a"]
    assert await listed(stub, {"attempts": [{"attempt": 2, "error": "declined 3"}]}) == []
    assert await listed(stub, {"originalInputs": None}) == ["c"]


async def test_what_stands_beside_the_example_holds_whatever_the_matcher_says(
    stub: DeadLetterQueueServiceStub,
) -> None:
    await quarantine(stub, "a", target="x", quarantined_time=NOW)
    await quarantine(stub, "b", target="y", quarantined_time=NOW + timedelta(hours=1), failure_type=LetterEnum.TIMEOUT)
    await stub.QuarantineRuns(entries(a_resolved(await quarantine(stub, "c", quarantined_time=NOW))))
    either, example = {"matchAny": True}, {"nodeId": "a", "workflowId": WORKFLOW.upper()}
    assert sorted(await listed(stub, example, matcher=either)) == ["a", "b", "c"]
    assert await listed(stub, example, matcher=either, target="y") == ["b"]
    assert await listed(stub, example, matcher=either, resolutions=["PENDING"]) == ["b", "a"]
    assert await listed(stub, example, matcher=either, failureTypes=["TIMEOUT"], resolutions=["FIXED"]) == []
    later = [{"field": "quarantinedTime", "startTime": "2026-11-22T12:30:00Z"}]
    assert await listed(stub, example, matcher=either, timeRanges=later) == ["b"]
    assert await listed(stub, orderBy="target desc, nodeId", pageSize=2) == ["b", "a"]


@pytest.mark.parametrize(
    ("asked", "path", "said"),
    [
        ({"example": {"resolution": "OPEN"}}, "example.resolution", "none of PENDING"),
        ({"example": {"failurReason": "x"}}, "example.failurReason", 'did you mean "failureReason"?'),
        ({"example": {"refused": {"problem": "x"}}}, "example.refused", "read alone"),
        ({"orderBy": "quarantinedTime down"}, "orderBy", "asc or desc"),
        ({"pageToken": "WyJ2ZXJzaW9uIiwxXQ"}, "pageToken", "was not given out for this list"),
    ],
)
async def test_i25_what_cannot_be_asked_for_is_named(
    stub: DeadLetterQueueServiceStub, asked: dict[str, Any], path: str, said: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListDeadLetters(json_format.ParseDict(asked, pb.ListDeadLettersRequest()))
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidRequest)
    assert [violation.field for violation in error.details.violations] == [path]
    assert said in error.details.violations[0].description
