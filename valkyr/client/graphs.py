"""client.graphs: validate, save, read and find workflows; their history, and drafts of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from valkyr.api.graph.v1 import graph_pb2
from valkyr.client.calls import Calls
from valkyr.client.drafts import Drafts
from valkyr.client.examples import ListQuery, Matcher, TimeRange
from valkyr.client.graph_documents import GraphOrDocument, Scope, one_message, read_given
from valkyr.client.graph_history import GraphHistory
from valkyr.client.graph_refusals import with_all_differences, with_all_findings
from valkyr.client.graph_saves import OnProgress, OnRetry, SaveRetries, SaveStage, send
from valkyr.client.ids import new_request_id
from valkyr.client.pages import Page, Pages
from valkyr.client.results import ResolvedVersions, SavedGraph, StoredGraph, Workflow
from valkyr.client.wire import saved_graph_of, stored_graph_of, workflow_of
from valkyr.client.wire_graphs import findings_of
from valkyr.errors import InvalidGraph, LimitExceeded, VersionConflict, Violation
from valkyr.graph.findings import Finding
from valkyr.graph.model import Graph, WorkflowInfo
from valkyr.graph.validate import Catalogue, validate
from valkyr.modules.described import builtin_schemas
from valkyr.rpc.graphs import fill_from_graph, workflow_to_proto

__all__ = ["GraphOrDocument", "Graphs"]


class Graphs(GraphHistory):
    """Calls to the graph store. A graph is a `Graph` or a document: {"workflow": ..., "nodes": [...], ...}."""

    def __init__(self, calls: Calls, scope: Scope) -> None:
        super().__init__(calls, scope)
        self.drafts = Drafts(calls, scope)

    async def validate(
        self,
        graph: GraphOrDocument,
        *,
        local: bool = False,
        catalogue: Catalogue | None = None,
        timeout: timedelta | None = None,
    ) -> Sequence[Finding]:
        """Every finding, errors first; asks the graph store, which knows the catalogue of modules.

        A graph with a config too deep to be sent has that found here, among the rest.
        `local` runs the same rules here, with no call: the modules known are those that come with Valkyr, or those of
        `catalogue`, which `client.modules.catalogue()` fetches.
        InvalidRequest for what cannot be read as a graph.
        """
        given = read_given(graph)
        namespace = self._scope.of(given.envelope)
        if local:
            return validate(given.graph, catalogue=builtin_schemas() if catalogue is None else catalogue)
        return await self._validate_remotely(namespace, given.workflow, given.graph, timeout)

    async def save(
        self,
        graph: GraphOrDocument,
        *,
        workflow: WorkflowInfo | None = None,
        version: int | None = None,
        message: str = "",
        request_id: str | None = None,
        validate_only: bool = False,
        max_retries: int = 3,
        initial_delay: float = 1.0,
        on_retry: OnRetry | None = None,
        on_progress: OnProgress | None = None,
        timeout: timedelta | None = None,
    ) -> SavedGraph:
        """Validates here, then saves all or nothing.

        `workflow` takes the place of the document's own; `version` is the one that was edited (or `workflow.version`).
        A save says all of the workflow: without description or labels it has none afterwards; only no name keeps the
        name. A document may name `namespace` and `message`; others given here are InvalidRequest.

        InvalidGraph with all `findings`, VersionConflict with `current_version` and all `differences` that others have
        made, VersionRequired, NameTaken and whatever else is wrong with it are raised at once. What is transient (the
        graph store is away, overloaded, or did not answer within `timeout`) is tried again, at most `max_retries`
        times, after `initial_delay` seconds that double each time, with jitter; the `request_id` sees to it that it is
        saved once, and stands in the last error's `metadata["requestId"]`.
        """
        given = read_given(graph)
        info = given.workflow if workflow is None else workflow
        retries = SaveRetries.of(max_retries, initial_delay, on_retry, on_progress)
        request = graph_pb2.SaveGraphRequest(
            namespace=self._scope.of(given.envelope),
            version=version,
            message=one_message(message, given.envelope),
            request_id=request_id or new_request_id(),
            validate_only=validate_only,
        )
        retries.tell(SaveStage.VALIDATING)
        await asyncio.to_thread(refuse_errors, given.graph)
        _put(request, info, given.graph)
        try:
            return saved_graph_of(await send(self._calls, "SaveGraph", request, retries=retries, timeout=timeout))
        except InvalidGraph as refused:
            retries.tell(SaveStage.EXPLAINING)
            raise await with_all_findings(
                refused, lambda: self._validate_remotely(request.namespace, info, given.graph, timeout)
            ) from None
        except VersionConflict as conflict:
            retries.tell(SaveStage.EXPLAINING)
            raise await with_all_differences(
                conflict,
                self._calls,
                namespace=request.namespace,
                workflow_id=request.workflow.id,
                edited=info.version if version is None else version,
                timeout=timeout,
            ) from None

    async def get(
        self,
        workflow_id: str,
        *,
        version: int | None = None,
        timeout: timedelta | None = None,
    ) -> StoredGraph:
        """The graph of a version, the latest by default. WorkflowNotFound, VersionNotFound."""
        request = graph_pb2.GetGraphRequest(namespace=self._namespace, workflow_id=workflow_id, version=version)
        return stored_graph_of((await self._calls.unary("GetGraph", request, timeout=timeout)).graph)

    async def resolve(self, workflow_ids: Sequence[str], *, timeout: timedelta | None = None) -> ResolvedVersions:
        """The latest versions of up to 1,000 workflows, in one call."""
        request = graph_pb2.ResolveVersionsRequest(namespace=self._namespace, workflow_ids=workflow_ids)
        answer = await self._calls.unary("ResolveVersions", request, timeout=timeout)
        return ResolvedVersions(dict(answer.versions), tuple(answer.missing_ids), tuple(answer.archived_ids))

    def find(
        self,
        *,
        example: Mapping[str, Any] | None = None,
        matcher: Matcher | None = None,
        order_by: str = "",
        time_ranges: Sequence[TimeRange] = (),
        page_size: int = 100,
        timeout: timedelta | None = None,
    ) -> Pages[Workflow]:
        """Workflows that look like `example`, by their latest versions, newest first unless `order_by` says otherwise.

        `find(example={"modules": [{"className": "HttpRequestModule"}]}, order_by="updateTime desc")`; all of the
        namespace without an example. InvalidRequest naming every path of the example that cannot be asked for.
        """
        query = ListQuery(example, matcher, order_by, time_ranges)

        async def fetch(token: str) -> Page[Workflow]:
            request = graph_pb2.FindWorkflowsRequest(namespace=self._namespace, page_size=page_size, page_token=token)
            query.put_into(request)
            answer = await self._calls.unary("FindWorkflows", request, timeout=timeout)
            return Page([workflow_of(workflow) for workflow in answer.workflows], answer.next_page_token)

        return Pages(fetch)

    async def _validate_remotely(
        self, namespace: str, workflow: WorkflowInfo, graph: Graph, timeout: timedelta | None
    ) -> Sequence[Finding]:
        request = graph_pb2.ValidateGraphRequest(namespace=namespace)
        try:
            _put(request, workflow, graph)
        except LimitExceeded:
            return validate(graph, catalogue=builtin_schemas())
        answer = await self._calls.unary("ValidateGraph", request, timeout=timeout)
        return findings_of(answer.errors, answer.warnings)


def _put(
    request: graph_pb2.SaveGraphRequest | graph_pb2.ValidateGraphRequest, workflow: WorkflowInfo, graph: Graph
) -> None:
    request.workflow.CopyFrom(workflow_to_proto(workflow))
    fill_from_graph(request, graph)


def refuse_errors(graph: Graph) -> None:
    """InvalidGraph for what every graph store refuses, with all that can be said here.

    The schemas of modules alone refuse nothing: the server may have newer ones.
    """
    if not any(finding.is_error for finding in validate(graph)):
        return
    findings = validate(graph, catalogue=builtin_schemas())
    errors = [finding for finding in findings if finding.is_error]
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    refused = InvalidGraph(
        f"the graph has {len(errors)} error{'s' if more else ''}: {errors[0].message}{more}",
        hint=errors[0].hint,
        violations=[Violation(finding.path, f"{finding.code}: {finding.message}") for finding in errors],
    )
    refused.findings = findings
    raise refused
