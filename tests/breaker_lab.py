"""A breaker service beside a stack, which can be stopped and started again, and a hand to trip it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from services.breaker.app import open_app
from services.breaker.settings import BreakerSettings
from services.chassis.settings import ServerSettings
from services.executor.gateways import BreakerGateway
from services.executor.targets import CallOutcome, CallResult
from tests.builders import a_graph
from tests.executor_stack import Stack
from tests.free_ports import a_port_base
from tests.postgres import patient
from valkyr.api.breaker.v1 import breaker_pb2, breaker_pb2_grpc
from valkyr.graph.model import Graph, Module
from valkyr.rpc.channel import open_channel

TARGET_NAME = "test:target"
SOON = timedelta(milliseconds=300)
NOT_SOON = timedelta(hours=1)


class BreakerLab:
    """A breaker at an address that stays the same."""

    def __init__(self, database_url: str, **settings: Any) -> None:
        port = a_port_base()
        self.address = f"127.0.0.1:{port}"
        self._settings = BreakerSettings(database=patient(database_url), server=ServerSettings(port=port), **settings)
        self._running = AsyncExitStack()
        self._hand = BreakerGateway(self.address)
        self._channel = open_channel(self.address)

    async def start(self) -> None:
        await self._running.enter_async_context(open_app(self._settings))

    async def stop(self) -> None:
        await self._running.aclose()

    async def close(self) -> None:
        await self._hand.close()
        await self._channel.close()
        await self.stop()

    async def trip(self, target: str = TARGET_NAME) -> None:
        """As many failures as it takes, reported by somebody else."""
        breaker = await self.get(target)
        threshold = self._settings.failure_threshold
        await self._hand.report_outcomes([_failure(target, breaker.generation) for _ in range(threshold)])
        assert (await self.get(target)).state == breaker_pb2.Breaker.OPEN

    async def get(self, target: str = TARGET_NAME) -> breaker_pb2.Breaker:
        stub = breaker_pb2_grpc.BreakerServiceStub(self._channel)
        response = await stub.GetBreaker(breaker_pb2.GetBreakerRequest(target=target), wait_for_ready=True)
        return response.breaker

    async def state(self, target: str = TARGET_NAME) -> str:
        return str(breaker_pb2.Breaker.State.Name((await self.get(target)).state))


@asynccontextmanager
async def open_breaker(database_url: str, **settings: Any) -> AsyncIterator[BreakerLab]:
    """By default it opens after two failures, for 0.3 s, and one probe closes it."""
    lab = BreakerLab(
        database_url,
        **{
            "failure_threshold": 2,
            "timeout_duration": SOON,
            "half_open_permits": 1,
            "half_open_success_threshold": 1,
            **settings,
        },
    )
    await lab.start()
    try:
        yield lab
    finally:
        await lab.close()


def calls(*nodes: str, target: str = TARGET_NAME) -> Graph:
    """Nodes without edges, each of which calls the target."""
    return a_graph(", ".join(nodes), modules={node: Module(node, "CallModule", target=target) for node in nodes})


async def parked(stack: Stack, execution_id: str, number: int) -> None:
    """Waits until so many runs of an execution are parked by the breaker."""
    await stack.until(
        """SELECT count(*) = $2 FROM executor.run
           WHERE execution_id = $1 AND state = 'PARKED' AND parked_by = 'BREAKER'""",
        UUID(execution_id),
        number,
        what=f"{number} runs are parked",
    )


async def retry_is_due(stack: Stack, target: str = TARGET_NAME) -> None:
    """As if the time were over for which the breaker holds the target back; no executor is told."""
    await stack.sql.execute("UPDATE breaker.circuit_breaker_state SET next_retry_at = now() WHERE target = $1", target)


def hold_for(stack: Stack, wait: timedelta, target: str = TARGET_NAME) -> None:
    """The executors take it that it is worth asking for the target then."""
    for app in stack.executors:
        app.parts.breakers.mirror.hold(("default", target), wait)
        app.parts.breakers.turn.wake.set()


def _failure(target: str, generation: int) -> CallOutcome:
    return CallOutcome(
        namespace="default",
        target=target,
        result=CallResult.FAILURE,
        duration_ms=1,
        permit_id=None,
        generation=generation,
        report_id=f"{uuid4()}:1",
        traceparent="",
        ended_at=datetime.now(UTC),
    )
