"""BreakerService: gRPC in, gRPC out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from services.breaker import wire
from services.breaker.breakers import Breakers
from services.breaker.model.calls import CallOutcome, PermitAnswer, PermitRequest
from services.breaker.model.policy import Policy
from services.breaker.model.states import Answer
from services.breaker.store import Scope
from services.breaker.watch import Batch
from services.chassis.example.query import read_query
from services.chassis.interceptors import caller, namespace_of
from valkyr.api.breaker.v1 import breaker_pb2 as pb
from valkyr.api.breaker.v1 import breaker_pb2_grpc

OpenWatch = Callable[[str | None], AsyncGenerator[Batch, None]]
"""Of one namespace, or of all."""


class AcquiresPermits(Protocol):
    """The breaker at work, or switched off."""

    async def acquire(self, requests: Sequence[PermitRequest]) -> list[PermitAnswer]: ...


class ReportsOutcomes(Protocol):
    """The breaker at work, or switched off."""

    async def report(self, outcomes: Sequence[CallOutcome]) -> list[Answer]: ...


class BreakerServicer(breaker_pb2_grpc.BreakerServiceServicer):
    """Decodes, calls a use case, encodes; errors are the interceptor's."""

    def __init__(
        self,
        permits: AcquiresPermits,
        outcomes: ReportsOutcomes,
        breakers: Breakers,
        *,
        watch: OpenWatch,
        policy: Policy,
    ) -> None:
        self._permits = permits
        self._outcomes = outcomes
        self._breakers = breakers
        self._watch = watch
        self._policy = wire.write_policy(policy)

    async def AcquirePermits(self, request: pb.AcquirePermitsRequest, context: Any) -> pb.AcquirePermitsResponse:
        requests = wire.read_permits(request, caller(context).principal)
        answers = await self._permits.acquire(requests)
        return pb.AcquirePermitsResponse(decisions=map(wire.write_permit, requests, answers))

    async def ReportOutcomes(self, request: pb.ReportOutcomesRequest, context: Any) -> pb.ReportOutcomesResponse:
        outcomes = wire.read_outcomes(request, caller(context).principal)
        return pb.ReportOutcomesResponse(answers=wire.write_answers(await self._outcomes.report(outcomes)))

    async def GetBreaker(self, request: pb.GetBreakerRequest, context: Any) -> pb.GetBreakerResponse:
        view = await self._breakers.get(wire.read_key(request))
        return pb.GetBreakerResponse(breaker=wire.write_breaker(view, self._policy))

    async def ListBreakers(self, request: pb.ListBreakersRequest, context: Any) -> pb.ListBreakersResponse:
        query = read_query(request, self._breakers.resource)
        scope = Scope(wire.read_prefix(request.target_prefix), wire.read_states(request.states))
        found, next_page_token = await self._breakers.find(namespace_of(request), query, scope)
        return pb.ListBreakersResponse(
            breakers=[wire.write_breaker(view, self._policy) for view in found], next_page_token=next_page_token
        )

    async def WatchBreakers(
        self, request: pb.WatchBreakersRequest, context: Any
    ) -> AsyncIterator[pb.WatchBreakersResponse]:
        namespace = namespace_of(request)
        async with aclosing(self._watch(None if request.all_namespaces else namespace)) as batches:
            async for batch in batches:
                yield wire.write_batch(batch, self._policy)
