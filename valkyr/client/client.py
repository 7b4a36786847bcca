"""The client: one object for the whole engine, its parts as attributes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from valkyr.api.breaker.v1 import breaker_pb2_grpc
from valkyr.api.dlq.v1 import dlq_pb2_grpc
from valkyr.api.executor.v1 import executor_pb2_grpc, runner_pb2_grpc
from valkyr.api.graph.v1 import graph_pb2_grpc
from valkyr.client.breakers import Breakers
from valkyr.client.calls import Calls
from valkyr.client.dead_letters import DeadLetters
from valkyr.client.executions import Executions
from valkyr.client.graph_documents import Scope
from valkyr.client.graphs import Graphs
from valkyr.client.modules import Modules
from valkyr.client.runners import Runners
from valkyr.client.runs import Runs

DEFAULT_GRAPH_STORE = "127.0.0.1:50051"
DEFAULT_EXECUTOR = "127.0.0.1:50052"
DEFAULT_BREAKER = "127.0.0.1:50053"
DEFAULT_DLQ = "127.0.0.1:50054"
DEFAULT_NAMESPACE = "default"
DEFAULT_TIMEOUT = timedelta(seconds=10)


class Client:
    """`async with Client() as client: ...`; or call `close()`. Addresses are `host:port` or gRPC targets (`dns:///...`).

    `timeout` bounds every call, its repeats included, where the call names no other. `principal` is who calls, for the
    audit ("anonymous" if None). `namespace` is whose workflows, "default" if None; only then may a document that is
    saved or validated name another one. `connect_timeout`, where given, is how long a server that was never reached is
    tried.
    Connects with the first call, and belongs to the event loop that made it.
    """

    def __init__(
        self,
        graph_store: str = DEFAULT_GRAPH_STORE,
        executor: str = DEFAULT_EXECUTOR,
        *,
        breaker: str = DEFAULT_BREAKER,
        dlq: str = DEFAULT_DLQ,
        namespace: str | None = None,
        principal: str | None = None,
        timeout: timedelta = DEFAULT_TIMEOUT,
        connect_timeout: timedelta | None = None,
    ) -> None:

        def calls(make_stub: Callable[[Any], Any], name: str, address: str) -> Calls:
            return Calls(
                make_stub,
                name=name,
                address=address,
                principal=principal,
                timeout=timeout,
                connect_timeout=connect_timeout,
            )

        graphs = calls(graph_pb2_grpc.GraphStoreServiceStub, "graph store", graph_store)
        executions = calls(executor_pb2_grpc.ExecutorServiceStub, "executor", executor)
        runners = calls(runner_pb2_grpc.RunnerServiceStub, "executor", executor)
        breakers = calls(breaker_pb2_grpc.BreakerServiceStub, "breaker service", breaker)
        letters = calls(dlq_pb2_grpc.DeadLetterQueueServiceStub, "dead letter queue", dlq)
        self._calls = (graphs, executions, runners, breakers, letters)
        self.namespace = namespace or DEFAULT_NAMESPACE
        self.graphs = Graphs(graphs, Scope(self.namespace, named=bool(namespace)))
        self.modules = Modules(graphs, self.namespace)
        self.executions = Executions(executions, self.namespace)
        self.runs = Runs(executions, self.namespace)
        self.runners = Runners(runners, self.namespace)
        self.breakers = Breakers(breakers, self.namespace)
        self.dead_letters = DeadLetters(letters, self.namespace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections. Idempotent."""
        for calls in self._calls:
            await calls.close()
