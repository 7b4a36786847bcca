"""Progress over a real channel: with heartbeats, with reports, and with the next lease."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from tests.unit.runner.test_grpc_transport import Executor, transport_to
from valkyr.api.executor.v1 import runner_pb2 as pb
from valkyr.runner.leases import Failure, FailureType, LeaseRef, RunResult

REF, SILENT = LeaseRef("e", "r", 1), LeaseRef("e", "s", 1)


class Listening(Executor):
    """Keeps what it is told of progress: None where nothing was said."""

    def __init__(self) -> None:
        super().__init__(timedelta(minutes=2))
        self.said: list[bytes | None] = []

    def _note(self, one: Any) -> None:
        self.said.append(one.progress if one.HasField("progress") else None)

    async def LeaseRuns(self, request: pb.LeaseRunsRequest, context: Any) -> pb.LeaseRunsResponse:
        return pb.LeaseRunsResponse(runs=[pb.LeasedRun(run_id="r", execution_id="e", epoch=1, progress=b"[1]")])

    async def HeartbeatRuns(self, request: pb.HeartbeatRunsRequest, context: Any) -> pb.HeartbeatRunsResponse:
        response = pb.HeartbeatRunsResponse()
        for lease in request.leases:
            self._note(lease)
            response.answers.add(command=pb.HeartbeatRunsResponse.CONTINUE)
        return response

    async def ReportRuns(self, request: pb.ReportRunsRequest, context: Any) -> pb.ReportRunsResponse:
        response = pb.ReportRunsResponse()
        for result in request.results:
            self._note(result)
            response.answers.add(outcome=pb.ReportRunsResponse.ACCEPTED)
        return response


async def test_progress_comes_with_leases_and_goes_with_heartbeats_and_reports() -> None:
    executor = Listening()  # type: ignore[abstract]
    failure = Failure(FailureType.TRANSIENT, "x")
    async with transport_to(executor, lambda: 100.0) as transport:
        [leased] = (await transport.lease_runs(max_runs=1)).runs
        await asyncio.to_thread(transport.heartbeat_runs, [REF, SILENT], progress={REF: b"[2]"}, as_of=None)
        await transport.report_runs([RunResult(REF, failure, progress=b"[3]"), RunResult(SILENT, failure)])
    assert leased.progress == b"[1]"
    assert executor.said == [b"[2]", None, b"[3]", None]
