"""GraphStoreService: gRPC in, gRPC out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from opentelemetry import trace

from services.chassis.example.query import read_query
from services.chassis.interceptors import caller, namespace_of
from services.chassis.paging import fitting, page_size_of, page_token
from services.graph_store import wire, wire_drafts, wire_history, wire_modules
from services.graph_store.archiving import Archiving
from services.graph_store.drafts import Drafts
from services.graph_store.examples import WORKFLOWS
from services.graph_store.graphs import Graphs
from services.graph_store.history import History
from services.graph_store.merging import Merging
from services.graph_store.model import Author
from services.graph_store.modules import ModuleCatalogue
from services.graph_store.publishing import Publishing
from services.graph_store.watch import Watching
from services.graph_store.workflows import Workflows
from valkyr.api.graph.v1 import graph_pb2 as pb
from valkyr.api.graph.v1 import graph_pb2_grpc


@dataclass(frozen=True, slots=True)
class UseCases:
    """What the graph store does, each for some of its RPCs."""

    graphs: Graphs
    workflows: Workflows
    history: History
    watching: Watching
    merging: Merging
    drafts: Drafts
    publishing: Publishing
    archiving: Archiving
    modules: ModuleCatalogue


class GraphStoreServicer(graph_pb2_grpc.GraphStoreServiceServicer):
    """Decodes, calls a use case, encodes; errors are the interceptor's."""

    def __init__(self, use_cases: UseCases) -> None:
        self._graphs = use_cases.graphs
        self._workflows = use_cases.workflows
        self._history = use_cases.history
        self._watching = use_cases.watching
        self._merging = use_cases.merging
        self._drafts = use_cases.drafts
        self._publishing = use_cases.publishing
        self._archiving = use_cases.archiving
        self._modules = use_cases.modules

    async def ValidateGraph(self, request: pb.ValidateGraphRequest, context: Any) -> pb.ValidateGraphResponse:
        graph = await asyncio.to_thread(wire.read_graph, request)
        return wire.write_validation(await self._graphs.validate(namespace_of(request), graph))

    async def SaveGraph(self, request: pb.SaveGraphRequest, context: Any) -> pb.SaveGraphResponse:
        # In threads, here and below: a graph of ten thousand nodes takes the loop from nobody.
        command = await asyncio.to_thread(wire.read_save, request, namespace_of(request), _author(context))
        return await asyncio.to_thread(wire.write_saved, await self._graphs.save(command))

    async def GetGraph(self, request: pb.GetGraphRequest, context: Any) -> pb.GetGraphResponse:
        stored, graph = await self._graphs.get(
            namespace_of(request), wire.read_workflow_id(request.workflow_id), wire.read_version(request)
        )
        return await asyncio.to_thread(wire.write_graph, stored, graph, expand_config=request.expand_config)

    async def ResolveVersions(self, request: pb.ResolveVersionsRequest, context: Any) -> pb.ResolveVersionsResponse:
        asked = wire.read_workflow_ids(request.workflow_ids)
        found, revision = await self._workflows.resolve_versions(namespace_of(request), list(asked.values()))
        known = {sent: found[workflow_id] for sent, workflow_id in asked.items() if workflow_id in found}
        return pb.ResolveVersionsResponse(
            versions={sent: latest.version for sent, latest in known.items()},
            missing_ids=[sent for sent in asked if sent not in known],
            archived_ids=[sent for sent, latest in known.items() if latest.archived],
            catalogue_revision=revision,
        )

    async def ListVersions(self, request: pb.ListVersionsRequest, context: Any) -> pb.ListVersionsResponse:
        size = page_size_of(request)
        versions = await self._workflows.list_versions(
            namespace_of(request),
            wire.read_workflow_id(request.workflow_id),
            below=wire.read_version_place(request),
            limit=size + 1,
        )
        messages = fitting(wire.write_versions(versions[:size]))
        token = page_token(request, [messages[-1].version]) if len(versions) > len(messages) else ""
        return pb.ListVersionsResponse(versions=messages, next_page_token=token)

    async def FindWorkflows(self, request: pb.FindWorkflowsRequest, context: Any) -> pb.FindWorkflowsResponse:
        namespace = namespace_of(request)
        query = read_query(request, WORKFLOWS)
        found = await self._workflows.find_workflows(namespace, query)
        messages = fitting(map(wire.write_workflow, found.workflows[: query.size]))
        return pb.FindWorkflowsResponse(
            workflows=messages, next_page_token=query.page(found.rows, kept=len(messages))[1]
        )

    async def DiffVersions(self, request: pb.DiffVersionsRequest, context: Any) -> pb.DiffVersionsResponse:
        namespace = namespace_of(request)
        diffed = await self._history.diff_versions(namespace, *wire_history.read_diffed(request))
        return await asyncio.to_thread(wire_history.write_diff, diffed)

    async def RestoreVersion(self, request: pb.RestoreVersionRequest, context: Any) -> pb.RestoreVersionResponse:
        command = wire_history.read_restore(request, namespace_of(request), _author(context))
        return await asyncio.to_thread(wire_history.write_restored, await self._history.restore(command))

    async def MergeGraph(self, request: pb.MergeGraphRequest, context: Any) -> pb.MergeGraphResponse:
        command = await asyncio.to_thread(wire_drafts.read_merge, request, namespace_of(request))
        return await asyncio.to_thread(wire_drafts.write_merged, await self._merging.merge(command))

    async def SaveDraft(self, request: pb.SaveDraftRequest, context: Any) -> pb.SaveDraftResponse:
        author = _author(context)
        command = await asyncio.to_thread(wire_drafts.read_save_draft, request, namespace_of(request), author)
        return await asyncio.to_thread(wire_drafts.write_saved_draft, await self._drafts.save(command))

    async def GetDraft(self, request: pb.GetDraftRequest, context: Any) -> pb.GetDraftResponse:
        key = wire_drafts.read_key(request.workflow_id, namespace_of(request), _author(context))
        return pb.GetDraftResponse(draft=await asyncio.to_thread(wire_drafts.write_draft, await self._drafts.get(key)))

    async def DiscardDraft(self, request: pb.DiscardDraftRequest, context: Any) -> pb.DiscardDraftResponse:
        await self._drafts.discard(wire_drafts.read_discard(request, namespace_of(request), _author(context)))
        return pb.DiscardDraftResponse()

    async def PublishDraft(self, request: pb.PublishDraftRequest, context: Any) -> pb.PublishDraftResponse:
        command = wire_drafts.read_publish(request, namespace_of(request), _author(context))
        return await asyncio.to_thread(wire_drafts.write_published, await self._publishing.publish(command))

    async def ArchiveWorkflow(self, request: pb.ArchiveWorkflowRequest, context: Any) -> pb.ArchiveWorkflowResponse:
        command = wire_drafts.read_archive(request, namespace_of(request), _author(context))
        return pb.ArchiveWorkflowResponse(workflow=wire.write_workflow(await self._archiving.set(command)))

    async def UnarchiveWorkflow(
        self, request: pb.UnarchiveWorkflowRequest, context: Any
    ) -> pb.UnarchiveWorkflowResponse:
        command = wire_drafts.read_archive(request, namespace_of(request), _author(context))
        return pb.UnarchiveWorkflowResponse(workflow=wire.write_workflow(await self._archiving.set(command)))

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, context: Any) -> pb.ListAuditEventsResponse:
        size = page_size_of(request)
        events = await self._history.list_audit_events(
            namespace_of(request),
            wire.read_workflow_id(request.workflow_id) if request.workflow_id else None,
            below=wire_history.read_event_place(request),
            limit=size + 1,
        )
        messages = fitting(wire_history.write_events(events[:size]))
        token = page_token(request, [events[len(messages) - 1].number]) if len(events) > len(messages) else ""
        return pb.ListAuditEventsResponse(events=messages, next_page_token=token)

    async def WatchWorkflows(
        self, request: pb.WatchWorkflowsRequest, context: Any
    ) -> AsyncIterator[pb.WatchWorkflowsResponse]:
        watched = wire_history.read_watch(request, namespace_of(request))
        async with aclosing(self._watching.batches(watched)) as batches:
            async for batch in batches:
                yield wire_history.write_batch(batch)

    async def RegisterModules(self, request: pb.RegisterModulesRequest, context: Any) -> pb.RegisterModulesResponse:
        wanted = wire_modules.read_registration(request, namespace_of(request), _author(context))
        return wire_modules.write_registered(await self._modules.register(wanted))

    async def ListModules(self, request: pb.ListModulesRequest, context: Any) -> pb.ListModulesResponse:
        page = await self._modules.list_modules(
            namespace_of(request),
            after=wire_modules.read_module_place(request),
            limit=page_size_of(request),
            with_schemas=not request.without_schemas,
        )
        answer, last = wire_modules.write_page(page)
        answer.next_page_token = page_token(request, [last]) if last else ""
        return answer


def _author(context: Any) -> Author:
    span = trace.get_current_span().get_span_context()
    return wire.author_of(caller(context).principal, f"{span.trace_id:032x}" if span.is_valid else "")
