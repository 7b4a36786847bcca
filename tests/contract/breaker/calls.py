"""Calls of BreakerService in few words."""

from __future__ import annotations

from typing import Any

from tests.contract.breaker.conftest import TARGET
from valkyr.api.breaker.v1 import breaker_pb2 as pb
from valkyr.api.breaker.v1.breaker_pb2_grpc import BreakerServiceStub


async def report(stub: BreakerServiceStub, *results: str, target: str = TARGET, **outcome: Any) -> list[Any]:
    """Names of the answers; each outcome has a report id of its own unless one is given."""
    outcomes = [
        pb.CallOutcome(**{"target": target, "result": result, "report_id": f"{target}-{index}:1", **outcome})
        for index, result in enumerate(results)
    ]
    answer = await stub.ReportOutcomes(pb.ReportOutcomesRequest(outcomes=outcomes))
    return [pb.ReportOutcomesResponse.Answer.Name(number) for number in answer.answers]


async def trip(stub: BreakerServiceStub, target: str = TARGET, **outcome: Any) -> None:
    """Five failures."""
    assert await report(stub, *["FAILURE"] * 5, target=target, **outcome) == ["COUNTED"] * 5


async def ask(stub: BreakerServiceStub, *runs: str, target: str = TARGET, **request: Any) -> list[pb.PermitDecision]:
    requests = [pb.PermitRequest(**{"target": target, "run_id": run, "epoch": 1, **request}) for run in runs]
    return list((await stub.AcquirePermits(pb.AcquirePermitsRequest(requests=requests))).decisions)


async def get(stub: BreakerServiceStub, target: str = TARGET) -> pb.Breaker:
    breaker: pb.Breaker = (await stub.GetBreaker(pb.GetBreakerRequest(target=target))).breaker
    return breaker
