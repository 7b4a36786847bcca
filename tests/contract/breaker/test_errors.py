"""Every documented error of BreakerService, provoked over a real channel."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from services.breaker.app import App
from tests.contract.breaker.calls import ask, report
from valkyr.api.breaker.v1 import breaker_pb2 as pb
from valkyr.api.breaker.v1.breaker_pb2_grpc import BreakerServiceStub
from valkyr.errors import InvalidRequest, LimitExceeded, Unavailable, ValkyrError
from valkyr.rpc.status import from_rpc_error


async def error_of(call: Any) -> ValkyrError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is not grpc.StatusCode.INTERNAL
    return from_rpc_error(caught.value)


async def violation_of(call: Any) -> tuple[str, str]:
    """Field and description."""
    error = await error_of(call)
    assert isinstance(error, InvalidRequest)
    [violation] = error.details.violations
    return violation.field, violation.description


@pytest.mark.parametrize(
    ("changed", "field", "said"),
    [
        ({"target": ""}, "requests[1].target", "is required"),
        ({"target": "x" * 501}, "requests[1].target", "1 to 500 characters without NUL, not 501"),
        ({"target": "a\0b"}, "requests[1].target", "without NUL"),
        ({"run_id": ""}, "requests[1].runId", "is required; takes an id of the run, such as a UUID"),
        ({"run_id": "r" * 256}, "requests[1].runId", "1 to 255"),
        ({"run_id": "a\0b"}, "requests[1].runId", "printable"),
        ({"epoch": -1}, "requests[1].epoch", "-1 is negative"),
        ({"hold": Duration(seconds=3601)}, "requests[1].hold", "3601s is not from 1s to 3600s; takes how long"),
        ({"hold": Duration()}, "requests[1].hold", "0s is not from 1s to 3600s; takes how long the call may take"),
        ({"hold": Duration(nanos=999_000_000)}, "requests[1].hold", "0.999s is not from 1s"),
        ({"hold": Duration(seconds=-1)}, "requests[1].hold", "-1s is not from"),
        ({"hold": Duration(seconds=10**18)}, "requests[1].hold", "1000000000000000000s and 0ns is no duration"),
        ({"namespace": "a b"}, "requests[1].namespace", "'a b' is no namespace"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_i25_what_a_request_for_permits_must_not_hold(
    stub: BreakerServiceStub, changed: dict[str, Any], field: str, said: str
) -> None:
    good: dict[str, Any] = {"target": "t", "run_id": "r", "epoch": 1}
    requests = [pb.PermitRequest(**good), pb.PermitRequest(**{**good, **changed})]
    found = await violation_of(stub.AcquirePermits(pb.AcquirePermitsRequest(requests=requests)))
    assert found[0] == field
    assert said in found[1]


@pytest.mark.parametrize(
    ("changed", "field", "said"),
    [
        ({"target": ""}, "outcomes[1].target", "is required"),
        ({"target": "x" * 501}, "outcomes[1].target", "not 501"),
        ({"result": 0}, "outcomes[1].result", "takes SUCCESS, FAILURE, EXCLUDED"),
        ({"result": 77}, "outcomes[1].result", "77 is given"),
        (
            {"report_id": ""},
            "outcomes[1].reportId",
            "is required; takes an id that no other call has, such as <run id>",
        ),
        ({"duration": Duration(seconds=-2)}, "outcomes[1].duration", "-2s is negative; takes how long the call took"),
        ({"duration": Duration(seconds=10**18)}, "outcomes[1].duration", "is no duration; takes one such as 40s"),
        ({"report_id": "r" * 256}, "outcomes[1].reportId", "1 to 255"),
        ({"permit_id": "mine"}, "outcomes[1].permitId", "'mine' is no permit"),
        ({"generation": -1}, "outcomes[1].generation", "-1 is no generation"),
        ({"generation": 2_000_000_001}, "outcomes[1].generation", "is no generation"),
        ({"namespace": "/"}, "outcomes[1].namespace", "'/' is no namespace"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_i25_what_a_report_must_not_hold(
    stub: BreakerServiceStub, changed: dict[str, Any], field: str, said: str
) -> None:
    good: dict[str, Any] = {"target": "t", "result": pb.CallOutcome.FAILURE, "report_id": "r:1"}
    outcomes = [pb.CallOutcome(**good), pb.CallOutcome(**{**good, **changed})]
    found = await violation_of(stub.ReportOutcomes(pb.ReportOutcomesRequest(outcomes=outcomes)))
    assert found[0] == field
    assert said in found[1]
    listed = await stub.ListBreakers(pb.ListBreakersRequest())
    assert not listed.breakers, "nothing of a batch that is refused is counted"


async def test_i25_batches_have_a_limit(stub: BreakerServiceStub) -> None:
    error = await error_of(ask(stub, *["r"] * 1_001))
    assert isinstance(error, LimitExceeded)
    assert "1,001 in one call, over 1,000" in str(error)
    error = await error_of(report(stub, *["SUCCESS"] * 10_001))
    assert isinstance(error, LimitExceeded)
    assert "10,001 in one call, over 10,000" in str(error)


async def test_i25_namespaces_must_be_names(stub: BreakerServiceStub) -> None:
    calls = [
        stub.AcquirePermits(pb.AcquirePermitsRequest(namespace="a b")),
        stub.ReportOutcomes(pb.ReportOutcomesRequest(namespace="a b")),
        stub.GetBreaker(pb.GetBreakerRequest(namespace="a b", target="t")),
        stub.ListBreakers(pb.ListBreakersRequest(namespace="a b")),
        stub.WatchBreakers(pb.WatchBreakersRequest(namespace="a b")).read(),
    ]
    for call in calls:
        assert (await violation_of(call))[0] == "namespace"


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.ListBreakersRequest(page_size=-1), "pageSize"),
        (pb.ListBreakersRequest(page_size=1_001), "pageSize"),
        (pb.ListBreakersRequest(page_token="x"), "pageToken"),
        (pb.ListBreakersRequest(states=[pb.Breaker.CLOSED, pb.Breaker.STATE_UNSPECIFIED]), "states[1]"),
        (pb.ListBreakersRequest(states=[99]), "states[0]"),  # type: ignore[list-item]
        (pb.ListBreakersRequest(target_prefix="a\0"), "targetPrefix"),
        (pb.ListBreakersRequest(target_prefix="x" * 501), "targetPrefix"),
    ],
    ids=["negative", "too large", "token", "no state", "unknown state", "nul", "long"],
)
async def test_i25_what_a_list_must_not_ask(
    stub: BreakerServiceStub, request_: pb.ListBreakersRequest, field: str
) -> None:
    assert (await violation_of(stub.ListBreakers(request_)))[0] == field


async def test_i25_a_page_token_is_of_one_list(stub: BreakerServiceStub) -> None:
    for target in ("a", "b"):
        await report(stub, "FAILURE", target=target, report_id="r:1")
    token = (await stub.ListBreakers(pb.ListBreakersRequest(page_size=1))).next_page_token
    other = pb.ListBreakersRequest(page_size=1, page_token=token, target_prefix="b")
    assert (await violation_of(stub.ListBreakers(other)))[0] == "pageToken"


@pytest.mark.parametrize("target", ["", "x" * 501, "\0"], ids=["none", "long", "nul"])
async def test_i25_a_breaker_is_asked_for_by_a_target(stub: BreakerServiceStub, target: str) -> None:
    assert (await violation_of(stub.GetBreaker(pb.GetBreakerRequest(target=target))))[0] == "target"


async def test_i24_without_its_database_it_is_unavailable_and_says_when_to_come_back(
    app: App, stub: BreakerServiceStub
) -> None:
    await app.database.close()
    calls = [
        ask(stub, "r"),
        report(stub, "FAILURE"),
        stub.GetBreaker(pb.GetBreakerRequest(target="t")),
        stub.ListBreakers(pb.ListBreakersRequest()),
        stub.WatchBreakers(pb.WatchBreakersRequest()).read(),
    ]
    for call in calls:
        error = await error_of(call)
        assert isinstance(error, Unavailable)
        assert error.details.retry_after is not None
