"""What tests of the dead letter queue stand on: messages in few words, and an executor that misbehaves if told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

import uuid_utils

from services.chassis.interceptors import caller
from services.chassis.serve import Server
from services.chassis.settings import ServerSettings
from tests.free_ports import a_port_base
from valkyr.api.dlq.v1 import dlq_pb2 as pb
from valkyr.api.executor.v1 import executor_pb2, executor_pb2_grpc
from valkyr.errors import QuarantineResolved, RequestIdReused, Unavailable
from valkyr.telemetry import current_traceparent

EXECUTION = "01920000-0000-7000-8000-00000000e000"
WORKFLOW = "01920000-0000-7000-8000-00000000f000"
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
EXECUTOR_SERVICE: str = executor_pb2.DESCRIPTOR.services_by_name["ExecutorService"].full_name

Entry = pb.QuarantineRunsRequest.Entry
LetterEnum = pb.DeadLetter


def a_run() -> str:
    return str(uuid_utils.uuid7())


def a_quarantine(run_id: str, number: int = 1, **fields: Any) -> pb.Quarantine:
    """Of a run that failed three times; `fields` replace what it says."""
    message = pb.Quarantine(
        **{
            "run_id": run_id,
            "execution_id": EXECUTION,
            "quarantine_number": number,
            "task_id": "01920000-0000-7000-8000-00000000a000",
            "node_id": "charge",
            "workflow_id": WORKFLOW,
            "version": 4,
            "class_name": "ChargeCard",
            "failure_type": LetterEnum.MAX_RETRIES,
            "failure_reason": "the card was declined",
            "error_type": "TRANSIENT",
            "inputs": b'{"trigger":{"amount":9007199254740993},"nodes":{}}',
            "config": b'{"url": "https://api.stripe.com", "n": 1.0}',
            "target": "http:api.stripe.com",
            "episode_id": "01920000-0000-7000-8000-00000000b000",
            "traceparent": TRACEPARENT,
            "quarantined_time": datetime.now(UTC),
            "idempotency_key": "k" * 64,
            **fields,
        }
    )
    if not message.attempts:
        for attempt in (1, 2, 3):
            message.attempts.add(
                attempt=attempt,
                outcome="TRANSIENT",
                runner_id="runner-1",
                start_time=datetime.now(UTC),
                error=f"declined {attempt}",
                stack_trace=f"Traceback {attempt}",
            )
    return message


def a_resolved(run_id: str, number: int = 1, resolution: int = LetterEnum.FIXED, **fields: Any) -> pb.Resolved:
    return pb.Resolved(
        **{
            "run_id": run_id,
            "execution_id": EXECUTION,
            "quarantine_number": number,
            "resolution": resolution,
            "resolved_by": "somebody else",
            "reason": "directly",
            "resolved_time": datetime(2026, 1, 2, tzinfo=UTC),
            **fields,
        }
    )


def entries(*events: Any) -> pb.QuarantineRunsRequest:
    """Quarantines and resolutions, numbered from 1."""
    request = pb.QuarantineRunsRequest()
    for number, event in enumerate(events, 1):
        entry = request.entries.add(id=number)
        (entry.quarantine if isinstance(event, pb.Quarantine) else entry.resolved).CopyFrom(event)
    return request


@dataclass(frozen=True, slots=True)
class Call:
    """One call that reached the executor."""

    method: str
    request: Any
    principal: str
    traceparent: str


@dataclass(slots=True)
class FakeExecutor:
    """Resolves a quarantine once, and answers a request id once, as the real one does.

    `refuse` is raised in place of doing anything; `drop` answers are lost after it was done; it waits for `gate`.
    """

    calls: list[Call] = field(default_factory=list)
    effects: dict[tuple[str, int], tuple[str, str, str]] = field(default_factory=dict)
    answered: dict[str, bytes] = field(default_factory=dict)
    refuse: Exception | None = None
    drop: int = 0
    gate: asyncio.Event | None = None
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    before: Callable[[], Any] | None = None

    async def RequeueRun(self, request: Any, context: Any) -> Any:
        await self._resolve("REQUEUED", request, context)
        return executor_pb2.RequeueRunResponse()

    async def CompleteRunManually(self, request: Any, context: Any) -> Any:
        await self._resolve("FIXED", request, context)
        return executor_pb2.CompleteRunManuallyResponse()

    async def DiscardRun(self, request: Any, context: Any) -> Any:
        await self._resolve("DISCARDED", request, context)
        return executor_pb2.DiscardRunResponse()

    def resolve_directly(self, run_id: str, number: int, resolution: str, by: str, reason: str = "directly") -> None:
        """As an operator who calls the executor itself."""
        self.effects.setdefault((run_id, number), (resolution, by, reason))

    async def _resolve(self, resolution: str, request: Any, context: Any) -> None:
        who = caller(context).principal
        self.calls.append(Call(resolution, request, who, current_traceparent()))
        self.arrived.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.refuse is not None:
            raise self.refuse
        self._do(resolution, request, who)
        if self.drop > 0:
            self.drop -= 1
            raise Unavailable("the answer was lost")

    def _do(self, resolution: str, request: Any, who: str) -> None:
        body = request.SerializeToString(deterministic=True)
        first = self.answered.setdefault(request.request_id, body)
        if first != body:
            raise RequestIdReused("request_id was used before, with another request")
        key = (request.run_id, request.quarantine_number)
        winner = self.effects.get(key)
        if winner is None:
            self.effects[key] = (resolution, who, request.request_id)
        elif winner[2] != request.request_id:
            del self.answered[request.request_id]
            raise QuarantineResolved(
                "somebody came first",
                metadata={
                    "resolution": winner[0],
                    "resolvedBy": winner[1],
                    "resolvedTime": "2026-01-02T03:04:05+00:00",
                },
            )


_Unbuilt: Any = executor_pb2_grpc.ExecutorServiceServicer
"""Answers every other method with UNIMPLEMENTED."""


@cache
def executor_port() -> int:
    """Of this process: nobody takes it while the executor is away."""
    return a_port_base()


@asynccontextmanager
async def serving(executor: FakeExecutor, *, port: int = 0) -> AsyncIterator[Server]:
    """The fake over a real channel, at `server.address`."""
    servicer = _Unbuilt()
    servicer.RequeueRun = executor.RequeueRun
    servicer.CompleteRunManually = executor.CompleteRunManually
    servicer.DiscardRun = executor.DiscardRun
    add = executor_pb2_grpc.add_ExecutorServiceServicer_to_server
    async with Server(ServerSettings(port=port), [(EXECUTOR_SERVICE, add, servicer)]) as server:
        yield server
