"""The client: one object for the whole engine, its parts as attributes."""

from __future__ import annotations

from datetime import timedelta
from types import TracebackType
from typing import Self

from valkyr.api.executor.v1 import executor_pb2_grpc
from valkyr.api.graph.v1 import graph_pb2_grpc
from valkyr.client.calls import Calls
from valkyr.client.executions import Executions
from valkyr.client.graphs import Graphs

DEFAULT_GRAPH_STORE = "127.0.0.1:50051"
DEFAULT_EXECUTOR = "127.0.0.1:50052"
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
        namespace: str | None = None,
        principal: str | None = None,
        timeout: timedelta = DEFAULT_TIMEOUT,
        connect_timeout: timedelta | None = None,
    ) -> None:
        self._graph_store = Calls(
            graph_pb2_grpc.GraphStoreServiceStub,
            name="graph store",
            address=graph_store,
            principal=principal,
            timeout=timeout,
            connect_timeout=connect_timeout,
        )
        self._executor = Calls(
            executor_pb2_grpc.ExecutorServiceStub,
            name="executor",
            address=executor,
            principal=principal,
            timeout=timeout,
            connect_timeout=connect_timeout,
        )
        self.namespace = namespace or DEFAULT_NAMESPACE
        self.graphs = Graphs(self._graph_store, self.namespace, named=bool(namespace))
        self.executions = Executions(self._executor, self.namespace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections. Idempotent."""
        await self._graph_store.close()
        await self._executor.close()
