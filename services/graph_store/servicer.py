"""GraphStoreService: gRPC in, gRPC out."""

from __future__ import annotations

from typing import Any

from opentelemetry import trace

from services.chassis.example.query import read_query
from services.chassis.interceptors import caller, namespace_of
from services.chassis.paging import page_size_of, page_token
from services.graph_store import wire
from services.graph_store.examples import WORKFLOWS
from services.graph_store.graphs import Graphs
from services.graph_store.model import Author
from services.graph_store.workflows import Workflows
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.api.graph.v1 import graph_pb2_grpc


class GraphStoreServicer(graph_pb2_grpc.GraphStoreServiceServicer):
    """Decodes, calls a use case, encodes; errors are the interceptor's."""

    def __init__(self, graphs: Graphs, workflows: Workflows) -> None:
        self._graphs = graphs
        self._workflows = workflows

    async def ValidateGraph(self, request: pb.ValidateGraphRequest, context: Any) -> pb.ValidateGraphResponse:
        graph = wire.read_graph(request)
        return wire.write_validation(await self._graphs.validate(namespace_of(request), graph))

    async def SaveGraph(self, request: pb.SaveGraphRequest, context: Any) -> pb.SaveGraphResponse:
        command = wire.read_save(request, namespace_of(request), _author(context))
        return wire.write_saved(await self._graphs.save(command))

    async def GetGraph(self, request: pb.GetGraphRequest, context: Any) -> pb.GetGraphResponse:
        stored, graph = await self._graphs.get(
            namespace_of(request), wire.read_workflow_id(request.workflow_id), wire.read_version(request)
        )
        return wire.write_graph(stored, graph, expand_config=request.expand_config)

    async def ResolveVersions(self, request: pb.ResolveVersionsRequest, context: Any) -> pb.ResolveVersionsResponse:
        asked = wire.read_workflow_ids(request.workflow_ids)
        known = await self._workflows.resolve_versions(namespace_of(request), list(asked.values()))
        return pb.ResolveVersionsResponse(
            versions={sent: known[workflow_id] for sent, workflow_id in asked.items() if workflow_id in known},
            missing_ids=[sent for sent, workflow_id in asked.items() if workflow_id not in known],
        )

    async def ListVersions(self, request: pb.ListVersionsRequest, context: Any) -> pb.ListVersionsResponse:
        size = page_size_of(request)
        versions = await self._workflows.list_versions(
            namespace_of(request),
            wire.read_workflow_id(request.workflow_id),
            below=wire.read_version_place(request),
            limit=size + 1,
        )
        return pb.ListVersionsResponse(
            versions=wire.write_versions(versions[:size]),
            next_page_token=page_token(request, [versions[size - 1].version]) if len(versions) > size else "",
        )

    async def FindWorkflows(self, request: pb.FindWorkflowsRequest, context: Any) -> pb.FindWorkflowsResponse:
        namespace = namespace_of(request)
        found, next_page_token = await self._workflows.find_workflows(namespace, read_query(request, WORKFLOWS))
        return pb.FindWorkflowsResponse(
            workflows=[wire.write_workflow(workflow) for workflow in found], next_page_token=next_page_token
        )


def _author(context: Any) -> Author:
    span = trace.get_current_span().get_span_context()
    return wire.author_of(caller(context).principal, f"{span.trace_id:032x}" if span.is_valid else "")
