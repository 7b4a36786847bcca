"""Outbound calls: the graph store, the breaker, the DLQ. Every call has a deadline, the watch apart; who cannot be
reached is Unavailable with its name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from services.executor.model import AttemptView, Letter, OutboxRow
from services.executor.targets import (
    FORCED_LOOK,
    BreakerNews,
    BreakerState,
    BreakerStatus,
    CallOutcome,
    PermitDecision,
    PermitRequest,
)
from valkyr.api.breaker.v1 import breaker_pb2, breaker_pb2_grpc
from valkyr.api.dlq.v1 import dlq_pb2, dlq_pb2_grpc
from valkyr.api.graph.v1 import graph_pb2, graph_pb2_grpc
from valkyr.errors import DeadlineExceeded, Unavailable
from valkyr.graph.catalogue import CatalogueModule
from valkyr.graph.model import Graph
from valkyr.rpc.channel import open_channel
from valkyr.rpc.graphs import graph_from_proto
from valkyr.rpc.modules import module_from_proto
from valkyr.rpc.status import rpc_errors

DEADLINE = timedelta(seconds=5)
RESOLVE_DEADLINE = timedelta(seconds=2)
"""One cheap look-up; calls that gathered while one was under way wait for that, and then for their own."""

MOMENT = timedelta(seconds=0.5)
"""How long specs of modules wait for a graph store that may be just coming back."""

DLQ_DEADLINE = timedelta(seconds=10)
BREAKER_DEADLINE = timedelta(seconds=2)
"""Of permits and outcomes: nobody waits for them but runs that are parked."""


@dataclass(frozen=True, slots=True)
class FetchedGraph:
    """A version as the graph store keeps it. `task_ids` in the order of the nodes."""

    version: int
    content_hash: str
    graph: Graph
    task_ids: Sequence[UUID | None]


@dataclass(frozen=True, slots=True)
class LatestVersion:
    """Where a workflow is now, and whether it is out of use."""

    version: int
    archived: bool


class GraphStoreGateway:
    """What the executor asks of the graph store."""

    def __init__(self, address: str) -> None:
        self._channel: Any = open_channel(address, principal="executor", deadline=DEADLINE)
        self._stub = graph_pb2_grpc.GraphStoreServiceStub(self._channel)
        self.on_catalogue: Callable[[str, int], None] = lambda namespace, revision: None
        """Called with the revision of a namespace's catalogue, as each answer about versions tells it."""

    async def close(self) -> None:
        await self._channel.close()

    async def resolve_versions(self, namespace: str, workflow_ids: Sequence[UUID]) -> dict[UUID, LatestVersion]:
        """The latest versions; unknown ids are absent. Unavailable."""
        request = graph_pb2.ResolveVersionsRequest(namespace=namespace, workflow_ids=[str(i) for i in workflow_ids])
        with _named("the graph store", _WITHOUT_GRAPH_STORE):
            response = await self._stub.ResolveVersions(request, timeout=RESOLVE_DEADLINE.total_seconds())
        self.on_catalogue(namespace, response.catalogue_revision)
        archived = frozenset(response.archived_ids)
        return {
            UUID(workflow_id): LatestVersion(version, workflow_id in archived)
            for workflow_id, version in response.versions.items()
        }

    async def register_modules(
        self, namespace: str, modules: Sequence[graph_pb2.ModuleSpec], *, patience: timedelta = MOMENT
    ) -> None:
        """InvalidRequest where the catalogue refuses one; Unavailable, after `patience` where nobody is there."""
        request = graph_pb2.RegisterModulesRequest(namespace=namespace, modules=modules)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._channel.channel_ready(), patience.total_seconds())
        with _named("the graph store", _WITHOUT_GRAPH_STORE):
            await self._stub.RegisterModules(request)

    async def get_graph(self, namespace: str, workflow_id: UUID, version: int) -> FetchedGraph:
        """One version. WorkflowNotFound, VersionNotFound, Unavailable."""
        request = graph_pb2.GetGraphRequest(namespace=namespace, workflow_id=str(workflow_id), version=version)
        with _named("the graph store", _WITHOUT_GRAPH_STORE):
            response = await self._stub.GetGraph(request)
        _, graph = graph_from_proto(response.graph)
        task_ids = [UUID(node.task_id) if node.task_id else None for node in response.graph.nodes]
        workflow = response.graph.workflow
        return FetchedGraph(workflow.version, workflow.content_hash, graph, task_ids)

    async def list_defaults(self, namespace: str) -> tuple[int, dict[str, CatalogueModule]]:
        """What modules of a namespace say where nodes say nothing, and a revision of the catalogue that it is at least
        as new as. Those that come with Valkyr are left out: their code is here. Unavailable."""
        found: dict[str, CatalogueModule] = {}
        first: int | None = None
        request = graph_pb2.ListModulesRequest(namespace=namespace, page_size=1_000, without_schemas=True)
        while first is None or request.page_token:
            with _named("the graph store", _WITHOUT_GRAPH_STORE):
                answer = await self._stub.ListModules(request)
            first = answer.catalogue_revision if first is None else first
            registered = [module for module in answer.modules if not module.built_in]
            found.update((module.class_name, module_from_proto(module)) for module in registered)
            request.page_token = answer.next_page_token
        return first, found


class BreakerGateway:
    """What the executor asks of the breaker, and tells it."""

    def __init__(self, address: str) -> None:
        # Back soon: while the breaker is away the executor goes by what it knew last.
        quick = [("grpc.max_reconnect_backoff_ms", 1000)]
        self._channel: Any = open_channel(address, principal="executor", deadline=BREAKER_DEADLINE, options=quick)
        self._stub = breaker_pb2_grpc.BreakerServiceStub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def watch(self) -> AsyncIterator[BreakerNews]:
        """The breakers of all namespaces: a snapshot, then changes, until the stream breaks. Unavailable."""
        with _named("the breaker", _WITHOUT_BREAKER):
            call = self._stub.WatchBreakers(breaker_pb2.WatchBreakersRequest(all_namespaces=True))
            try:
                async for response in call:
                    yield _news(response, datetime.now(UTC))
            finally:
                call.cancel()

    async def acquire_permits(self, requests: Sequence[PermitRequest]) -> list[PermitDecision]:
        """At most 1,000; answered in order, and the same for the same run and epoch. Unavailable."""
        with _named("the breaker", _WITHOUT_BREAKER):
            response = await self._stub.AcquirePermits(
                breaker_pb2.AcquirePermitsRequest(requests=[_permit_request(request) for request in requests])
            )
        return [_decision(decision) for decision in response.decisions]

    async def report_outcomes(self, outcomes: Sequence[CallOutcome]) -> None:
        """At most 10,000; safe to repeat. Unavailable."""
        with _named("the breaker", _WITHOUT_BREAKER):
            await self._stub.ReportOutcomes(
                breaker_pb2.ReportOutcomesRequest(outcomes=[_call_outcome(outcome) for outcome in outcomes])
            )


def _news(response: breaker_pb2.WatchBreakersResponse, now: datetime) -> BreakerNews:
    return BreakerNews(
        breakers=tuple(_status(breaker, now) for breaker in response.breakers),
        snapshot=response.snapshot,
        snapshot_complete=response.snapshot_complete,
        denies_by_default=_denies(response.default_policy) if response.HasField("default_policy") else None,
    )


def _status(breaker: breaker_pb2.Breaker, now: datetime) -> BreakerStatus:
    name = breaker_pb2.Breaker.State.Name(breaker.state)
    # What a later version may add is no reason to hold runs back.
    state = BreakerState(name) if name in BreakerState.__members__ else BreakerState.CLOSED
    next_retry_at = _time(breaker.next_retry_time) if breaker.HasField("next_retry_time") else None
    updated_at = _time(breaker.update_time) if breaker.HasField("update_time") else now
    return BreakerStatus(
        namespace=breaker.namespace,
        target=breaker.target,
        state=state,
        generation=breaker.generation,
        wait=_wait(state, next_retry_at, updated_at=updated_at, now=now),
        next_retry_at=next_retry_at,
        permits=max(1, breaker.policy.half_open_permits),
        denies=_denies(breaker.policy),
        episode_id=_uuid(breaker.episode_id),
    )


def _wait(state: BreakerState, next_retry_at: datetime | None, *, updated_at: datetime, now: datetime) -> timedelta:
    """How long it is not worth asking. The clocks of two machines may differ: by the breaker's own times it is never
    longer than that breaker stays open, and one who asks too early is told how long is left."""
    if state is BreakerState.FORCED_OPEN:
        return FORCED_LOOK
    if state is not BreakerState.OPEN or next_retry_at is None:
        return timedelta()
    return max(timedelta(), min(next_retry_at - now, next_retry_at - updated_at))


def _denies(policy: breaker_pb2.Policy) -> bool:
    return policy.on_unavailable == breaker_pb2.Policy.DENY


def _permit_request(request: PermitRequest) -> breaker_pb2.PermitRequest:
    return breaker_pb2.PermitRequest(
        namespace=request.namespace,
        target=request.target,
        run_id=str(request.run_id),
        epoch=request.epoch,
        hold=_duration(request.hold),
        traceparent=request.traceparent,
    )


def _decision(decision: breaker_pb2.PermitDecision) -> PermitDecision:
    return PermitDecision(
        allowed=decision.outcome in (breaker_pb2.PermitDecision.ALLOWED, breaker_pb2.PermitDecision.PERMIT),
        permit_id=_uuid(decision.permit_id),
        retry_after=decision.retry_after.ToTimedelta(),
        generation=decision.generation,
    )


def _call_outcome(outcome: CallOutcome) -> breaker_pb2.CallOutcome:
    return breaker_pb2.CallOutcome(
        namespace=outcome.namespace,
        target=outcome.target,
        result=breaker_pb2.CallOutcome.Result.Value(outcome.result.value),
        duration=None if outcome.duration_ms is None else _duration(timedelta(milliseconds=outcome.duration_ms)),
        permit_id=str(outcome.permit_id) if outcome.permit_id else "",
        generation=outcome.generation,
        report_id=outcome.report_id,
        traceparent=outcome.traceparent,
        end_time=_timestamp(outcome.ended_at),
    )


def _uuid(text: str) -> UUID | None:
    return UUID(text) if text else None


def _time(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)


def _timestamp(time: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp


def _duration(delta: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(delta)
    return duration


_WITHOUT_GRAPH_STORE = "a version that ran before starts without the graph store, if the request names it"
_WITHOUT_BREAKER = "runs go on by what was known last, and then by each policy's on_unavailable"
_WITHOUT_DLQ = "letters are kept until it does"


@dataclass(frozen=True, slots=True)
class Told:
    """Rows of the outbox that the DLQ has stored, and those that it never will, with why."""

    accepted: Sequence[int]
    refused: Mapping[int, str]


class DlqGateway:
    """What the executor tells the DLQ."""

    def __init__(self, address: str) -> None:
        self._channel: Any = open_channel(address, principal="executor", deadline=DLQ_DEADLINE)
        self._stub = dlq_pb2_grpc.DeadLetterQueueServiceStub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def tell(self, entries: Sequence[OutboxRow | Letter]) -> Told:
        """Quarantines and resolutions, in order. Unavailable; safe to repeat."""
        request = dlq_pb2.QuarantineRunsRequest(entries=[_entry(entry) for entry in entries])
        with _named("the DLQ", _WITHOUT_DLQ):
            response = await self._stub.QuarantineRuns(request)
        return Told(list(response.accepted_ids), {refusal.id: refusal.problem for refusal in response.refusals})


def _entry(entry: OutboxRow | Letter) -> dlq_pb2.QuarantineRunsRequest.Entry:
    if isinstance(entry, Letter):
        return dlq_pb2.QuarantineRunsRequest.Entry(id=entry.row.id, quarantine=_quarantine(entry))
    record = entry.record
    return dlq_pb2.QuarantineRunsRequest.Entry(
        id=entry.id,
        resolved=dlq_pb2.Resolved(
            namespace=entry.namespace,
            run_id=str(entry.run_id),
            execution_id=str(entry.execution_id),
            quarantine_number=record.quarantine_number,
            resolution=dlq_pb2.DeadLetter.Resolution.Value(record.resolution),
            resolved_by=record.resolved_by or "",
            reason=record.reason or "",
            resolved_time=_optional(record.resolved_at),
        ),
    )


def _quarantine(letter: Letter) -> dlq_pb2.Quarantine:
    row, record = letter.row, letter.row.record
    return dlq_pb2.Quarantine(
        namespace=row.namespace,
        run_id=str(row.run_id),
        execution_id=str(row.execution_id),
        quarantine_number=record.quarantine_number,
        task_id=str(row.task_id) if row.task_id else "",
        node_id=row.node_id,
        workflow_id=str(letter.workflow_id),
        version=letter.version,
        class_name=row.class_name,
        failure_type=dlq_pb2.DeadLetter.FailureType.Value(record.failure_type),
        failure_reason=record.error or "",
        error_type=record.error_type,
        inputs=letter.inputs,
        config=letter.config,
        attempts=[_attempt(attempt) for attempt in letter.attempts],
        target=row.target or "",
        episode_id=str(row.episode_id) if row.episode_id else "",
        traceparent=letter.traceparent,
        quarantined_time=_optional(record.quarantined_at),
        idempotency_key=row.idempotency_key or "",
    )


def _attempt(view: AttemptView) -> dlq_pb2.Attempt:
    return dlq_pb2.Attempt(
        attempt=view.attempt,
        outcome=view.outcome,
        runner_id=view.runner_id,
        start_time=_optional(view.started_at),
        finish_time=_optional(view.finished_at),
        error=view.error,
        stack_trace=view.stack_trace,
    )


def _optional(time: datetime | None) -> Timestamp | None:
    return None if time is None else _timestamp(time)


@contextmanager
def _named(who: str, hint: str) -> Iterator[None]:
    """Turns what gRPC raises into our errors, and says who could not be reached."""
    try:
        with rpc_errors():
            yield
    except (Unavailable, DeadlineExceeded) as error:
        raise Unavailable(
            f"{who} does not answer: {error.message}",
            hint=hint,
            retry_after=error.details.retry_after or timedelta(seconds=1),
        ) from error
