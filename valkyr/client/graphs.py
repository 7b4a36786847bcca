"""client.graphs: validate, save, read and find workflows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from valkyr.api.graph.v1 import graph_pb2
from valkyr.client.calls import Calls
from valkyr.client.examples import ListQuery, Matcher, TimeRange
from valkyr.client.ids import new_request_id
from valkyr.client.pages import Page, Pages
from valkyr.client.results import ResolvedVersions, SavedGraph, StoredGraph, Workflow, WorkflowVersion
from valkyr.client.wire import saved_graph_of, stored_graph_of, version_of, workflow_of
from valkyr.errors import InvalidGraph, InvalidRequest, LimitExceeded, Violation
from valkyr.graph.document import (
    Envelope,
    envelope_from_document,
    graph_from_document,
    workflow_from_document,
)
from valkyr.graph.findings import Finding
from valkyr.graph.model import Graph, WorkflowInfo
from valkyr.graph.validate import validate
from valkyr.modules import catalogue
from valkyr.rpc.graphs import fill_from_graph, finding_from_proto, workflow_to_proto

GraphOrDocument = Graph | Mapping[str, Any]


class Graphs:
    """Calls to the graph store. A graph is a `Graph` or a document: {"workflow": ..., "nodes": [...], ...}."""

    def __init__(self, calls: Calls, namespace: str, *, named: bool = True) -> None:
        """`named`: somebody chose the namespace, so that a document of another one is refused."""
        self._calls = calls
        self._namespace = namespace
        self._named = named

    async def validate(
        self, graph: GraphOrDocument, *, local: bool = False, timeout: timedelta | None = None
    ) -> Sequence[Finding]:
        """Every finding, errors first; asks the graph store, which knows the catalogue of modules.

        A graph with a config too deep to be sent has that found here, among the rest.
        `local` runs the same rules here, with no call: the modules known are those that come with Valkyr.
        InvalidRequest for what cannot be read as a graph.
        """
        workflow, value, envelope = _read(graph)
        namespace = self._namespace_of(envelope)
        if local:
            return validate(value, catalogue=catalogue())
        return await self._validate_remotely(namespace, workflow, value, timeout)

    async def save(
        self,
        graph: GraphOrDocument,
        *,
        workflow: WorkflowInfo | None = None,
        version: int | None = None,
        message: str = "",
        request_id: str | None = None,
        validate_only: bool = False,
        timeout: timedelta | None = None,
    ) -> SavedGraph:
        """Validates here, then saves all or nothing.

        `workflow` takes the place of the document's own; `version` is the one that was edited (or `workflow.version`).
        A save says all of the workflow: without description or labels it has none afterwards; only no name keeps the
        name. A document may name `namespace` and `message`; others given here are InvalidRequest.
        InvalidGraph with all `findings`; VersionConflict with `current_version` and the first `differences`
        that others have made; VersionRequired; NameTaken.
        """
        own, value, envelope = _read(graph)
        info = own if workflow is None else workflow
        namespace = self._namespace_of(envelope)
        _refuse_errors(value)
        request = graph_pb2.SaveGraphRequest(
            namespace=namespace,
            version=version,
            message=one_message(message, envelope),
            request_id=request_id or new_request_id(),
            validate_only=validate_only,
        )
        _put(request, info, value)
        try:
            return saved_graph_of(await self._calls.unary("SaveGraph", request, timeout=timeout))
        except InvalidGraph as refused:
            refused.findings = await self._validate_remotely(namespace, info, value, timeout)
            raise

    async def get(
        self,
        workflow_id: str,
        *,
        version: int | None = None,
        expand_config: bool = False,
        timeout: timedelta | None = None,
    ) -> StoredGraph:
        """The graph of a version, the latest by default. WorkflowNotFound, VersionNotFound."""
        request = graph_pb2.GetGraphRequest(namespace=self._namespace, workflow_id=workflow_id, version=version)
        return stored_graph_of((await self._calls.unary("GetGraph", request, timeout=timeout)).graph)

    async def resolve(self, workflow_ids: Sequence[str], *, timeout: timedelta | None = None) -> ResolvedVersions:
        """The latest versions of up to 1,000 workflows, in one call."""
        request = graph_pb2.ResolveVersionsRequest(namespace=self._namespace, workflow_ids=workflow_ids)
        answer = await self._calls.unary("ResolveVersions", request, timeout=timeout)
        return ResolvedVersions(dict(answer.versions), tuple(answer.missing_ids))

    def list_versions(
        self, workflow_id: str, *, page_size: int = 100, timeout: timedelta | None = None
    ) -> Pages[WorkflowVersion]:
        """The history, newest first. WorkflowNotFound."""

        async def fetch(token: str) -> Page[WorkflowVersion]:
            request = graph_pb2.ListVersionsRequest(
                namespace=self._namespace, workflow_id=workflow_id, page_size=page_size, page_token=token
            )
            answer = await self._calls.unary("ListVersions", request, timeout=timeout)
            return Page([version_of(version) for version in answer.versions], answer.next_page_token)

        return Pages(fetch)

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

    def _namespace_of(self, envelope: Envelope) -> str:
        if self._named and envelope.namespace not in ("", self._namespace):
            raise InvalidRequest.of_field(
                "namespace",
                f"the document is of {envelope.namespace!r}, and {self._namespace!r} is what was asked for; name one",
            )
        return envelope.namespace or self._namespace

    async def _validate_remotely(
        self, namespace: str, workflow: WorkflowInfo, graph: Graph, timeout: timedelta | None
    ) -> Sequence[Finding]:
        request = graph_pb2.ValidateGraphRequest(namespace=namespace)
        try:
            _put(request, workflow, graph)
        except LimitExceeded:
            return validate(graph, catalogue=catalogue())
        answer = await self._calls.unary("ValidateGraph", request, timeout=timeout)
        return [finding_from_proto(finding) for finding in (*answer.errors, *answer.warnings)]


def one_message(given: str, envelope: Envelope) -> str:
    """The message given, or else the document's. InvalidRequest where both say something else."""
    if given and envelope.message and given != envelope.message:
        raise InvalidRequest.of_field(
            "message", f"the document says {envelope.message[:40]!r}, and {given[:40]!r} was given; give one of them"
        )
    return given or envelope.message


def _read(graph: GraphOrDocument) -> tuple[WorkflowInfo, Graph, Envelope]:
    if isinstance(graph, Graph):
        return WorkflowInfo(), graph, Envelope()
    if not isinstance(graph, Mapping):
        raise InvalidRequest(f"expected a Graph or a document (a mapping), got a {type(graph).__name__}")
    return workflow_from_document(graph), graph_from_document(graph), envelope_from_document(graph)


def _put(
    request: graph_pb2.SaveGraphRequest | graph_pb2.ValidateGraphRequest, workflow: WorkflowInfo, graph: Graph
) -> None:
    request.workflow.CopyFrom(workflow_to_proto(workflow))
    fill_from_graph(request, graph)


def _refuse_errors(graph: Graph) -> None:
    """InvalidGraph for what every graph store refuses, with all that can be said here.

    The schemas of modules alone refuse nothing: the server may have newer ones.
    """
    if not any(finding.is_error for finding in validate(graph)):
        return
    findings = validate(graph, catalogue=catalogue())
    errors = [finding for finding in findings if finding.is_error]
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    refused = InvalidGraph(
        f"the graph has {len(errors)} error{'s' if more else ''}: {errors[0].message}{more}",
        hint=errors[0].hint,
        violations=[Violation(finding.path, f"{finding.code}: {finding.message}") for finding in errors],
    )
    refused.findings = findings
    raise refused
