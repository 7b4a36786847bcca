"""RunnerService: gRPC in, gRPC out."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from services.chassis.interceptors import namespace_of, remaining
from services.chassis.paging import bad_page_token, page_place, page_size_of, page_token
from services.executor import wire_runners as wire
from services.executor.catalogue import Catalogue
from services.executor.holding import Holding
from services.executor.lending import Lending
from services.executor.reporting import Ended, Reporting
from services.executor.runners import Runners
from services.executor.settings import LeaseSettings
from services.executor.wire import write_time
from valkyr.api.executor.v1 import runner_pb2 as pb
from valkyr.api.executor.v1 import runner_pb2_grpc

ANSWER_IN_TIME = timedelta(milliseconds=500)
"""How long before the caller's deadline a waiting call answers that there is nothing."""


class RunnerServicer(runner_pb2_grpc.RunnerServiceServicer):
    """Decodes, calls a use case, encodes; errors are the interceptor's."""

    def __init__(
        self,
        runners: Runners,
        lending: Lending,
        holding: Holding,
        reporting: Reporting,
        catalogue: Catalogue,
        settings: LeaseSettings,
    ) -> None:
        self._runners = runners
        self._lending = lending
        self._holding = holding
        self._reporting = reporting
        self._catalogue = catalogue
        self._settings = settings

    async def RegisterRunner(self, request: pb.RegisterRunnerRequest, context: Any) -> pb.RegisterRunnerResponse:
        namespace = namespace_of(request)
        said = wire.read_registration(request, namespace)
        await self._runners.check_takes_id(said)
        await self._catalogue.hand_on(namespace, request.modules)
        row, ended = await self._runners.register(said)
        response = pb.RegisterRunnerResponse(runner=wire.write_runner(row, lost=False), leases_ended=ended)
        response.lease_duration.FromTimedelta(self._settings.duration)
        response.heartbeat_interval.FromTimedelta(self._settings.heartbeat_interval)
        write_time(response.server_time, row.now)
        return response

    async def LeaseRuns(self, request: pb.LeaseRunsRequest, context: Any) -> pb.LeaseRunsResponse:
        asked = wire.read_lease(request, namespace_of(request))
        left = remaining(context)
        if left is not None:
            asked = replace(asked, wait=max(timedelta(), min(asked.wait, left - ANSWER_IN_TIME)))
        return wire.write_lent(await self._lending.lease(asked))

    async def HeartbeatRuns(self, request: pb.HeartbeatRunsRequest, context: Any) -> pb.HeartbeatRunsResponse:
        beat = wire.read_beat(request, namespace_of(request))
        answer = await self._holding.heartbeat(beat)
        return wire.write_beaten(beat, answer.answers, now=answer.now, drain=answer.drain)

    async def ReportRuns(self, request: pb.ReportRunsRequest, context: Any) -> pb.ReportRunsResponse:
        read = wire.read_results(request)
        answers, now = await self._reporting.report(
            namespace_of(request),
            wire.read_runner_id(request.runner_id),
            wire.read_incarnation(request.incarnation),
            [result for result in read if isinstance(result, Ended)],
        )
        told = iter(answers)
        return wire.write_reported(request, [one if isinstance(one, str) else next(told) for one in read], now)

    async def DrainRunner(self, request: pb.DrainRunnerRequest, context: Any) -> pb.DrainRunnerResponse:
        namespace, runner_id = namespace_of(request), wire.read_runner_id(request.runner_id)
        incarnation = wire.read_incarnation(request.incarnation) if request.incarnation else None
        row = await self._runners.drain(namespace, runner_id, incarnation)
        self._lending.drained(namespace, runner_id, row.said.incarnation)
        return pb.DrainRunnerResponse(runner=wire.write_runner(row, lost=self._runners.is_lost(row)))

    async def ListRunners(self, request: pb.ListRunnersRequest, context: Any) -> pb.ListRunnersResponse:
        size = page_size_of(request)
        match page_place(request):
            case None:
                after = ("", "", "")
            case [str(pool), str(runner_id), str(namespace)]:
                after = (pool, runner_id, namespace)
            case _:
                raise bad_page_token(request.page_token)
        rows = await self._runners.list(namespace_of(request), request.pool, after=after, limit=size + 1)
        last = rows[size - 1].said if len(rows) > size else None
        return pb.ListRunnersResponse(
            runners=[wire.write_runner(row, lost=self._runners.is_lost(row)) for row in rows[:size]],
            next_page_token=page_token(request, [last.pool, last.runner_id, last.namespace]) if last else "",
        )
