"""Outbound calls: the graph store. Every call has a deadline; what it cannot reach is Unavailable with its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from valkyr.api.graph.v1 import graph_pb2, graph_pb2_grpc
from valkyr.errors import DeadlineExceeded, Unavailable
from valkyr.graph.model import Graph
from valkyr.rpc.channel import open_channel
from valkyr.rpc.graphs import graph_from_proto
from valkyr.rpc.status import rpc_errors

DEADLINE = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class FetchedGraph:
    """A version as the graph store keeps it. `task_ids` in the order of the nodes."""

    version: int
    content_hash: str
    graph: Graph
    task_ids: Sequence[UUID | None]


class GraphStoreGateway:
    """What the executor asks of the graph store."""

    def __init__(self, address: str) -> None:
        self._channel: Any = open_channel(address, principal="executor", deadline=DEADLINE)
        self._stub = graph_pb2_grpc.GraphStoreServiceStub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def resolve_versions(self, namespace: str, workflow_ids: Sequence[UUID]) -> dict[UUID, int]:
        """The latest versions; unknown ids are absent. Unavailable."""
        request = graph_pb2.ResolveVersionsRequest(namespace=namespace, workflow_ids=[str(i) for i in workflow_ids])
        with _named():
            response = await self._stub.ResolveVersions(request)
        return {UUID(workflow_id): version for workflow_id, version in response.versions.items()}

    async def get_graph(self, namespace: str, workflow_id: UUID, version: int) -> FetchedGraph:
        """One version. WorkflowNotFound, VersionNotFound, Unavailable."""
        request = graph_pb2.GetGraphRequest(namespace=namespace, workflow_id=str(workflow_id), version=version)
        with _named():
            response = await self._stub.GetGraph(request)
        _, graph = graph_from_proto(response.graph)
        task_ids = [UUID(node.task_id) if node.task_id else None for node in response.graph.nodes]
        workflow = response.graph.workflow
        return FetchedGraph(workflow.version, workflow.content_hash, graph, task_ids)


@contextmanager
def _named() -> Iterator[None]:
    """Turns what gRPC raises into our errors, and says who could not be reached."""
    try:
        with rpc_errors():
            yield
    except (Unavailable, DeadlineExceeded) as error:
        raise Unavailable(
            f"the graph store does not answer: {error.message}",
            hint="a version that ran before starts without the graph store, if the request names it",
            retry_after=error.details.retry_after or timedelta(seconds=1),
        ) from error
