"""What a workflow was, what became of it, and how it becomes that again."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import timedelta

from valkyr.api.graph.v1 import graph_pb2
from valkyr.client.calls import Calls
from valkyr.client.graph_documents import GraphOrDocument, Scope, edited_version, read_given
from valkyr.client.graph_refusals import with_all_differences, with_all_findings
from valkyr.client.graph_results import AuditEvent, MergedGraph, RestoredGraph, VersionDiff, WorkflowChange
from valkyr.client.ids import new_request_id
from valkyr.client.pages import Page, Pages
from valkyr.client.results import Workflow, WorkflowVersion
from valkyr.client.wire import version_of, workflow_of
from valkyr.client.wire_graphs import audit_event_of, diff_of, findings_of, merged_of, restored_of
from valkyr.client.workflow_watch import changes_of_workflows
from valkyr.errors import InvalidGraph, InvalidRequest, VersionConflict
from valkyr.graph.findings import Finding
from valkyr.graph.model import WorkflowInfo
from valkyr.rpc.graphs import graph_to_proto


class GraphHistory:
    """The part of client.graphs that is about versions."""

    def __init__(self, calls: Calls, scope: Scope) -> None:
        self._calls = calls
        self._scope = scope
        self._namespace = scope.namespace

    def versions(
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

    async def diff(
        self,
        workflow_id: str,
        from_version: int | None = None,
        to_version: int | None = None,
        *,
        timeout: timedelta | None = None,
    ) -> VersionDiff:
        """What became of each part from one version to another; by default what the latest has changed.

        WorkflowNotFound, VersionNotFound.
        """
        request = graph_pb2.DiffVersionsRequest(
            namespace=self._namespace, workflow_id=workflow_id, from_version=from_version, to_version=to_version
        )
        return diff_of(await self._calls.unary("DiffVersions", request, timeout=timeout))

    async def merge(
        self,
        workflow_id: str,
        graph: GraphOrDocument,
        *,
        workflow: WorkflowInfo | None = None,
        base_version: int | None = None,
        timeout: timedelta | None = None,
    ) -> MergedGraph:
        """`graph`, which began as `base_version` (or the document's `workflow.version`), put together with what others
        have saved since. Saves nothing.

        `workflow`, or the document's own, says what it is called and described as. WorkflowNotFound, VersionNotFound.
        """
        given = read_given(graph)
        base = edited_version(base_version, given.workflow, "base_version")
        if base is None:
            raise InvalidRequest.of_field(
                "base_version", "is absent; name the version that the graph began as", hint="graphs.get answers with it"
            )
        request = graph_pb2.MergeGraphRequest(
            namespace=self._scope.of(given.envelope),
            workflow_id=workflow_id,
            base_version=base,
            mine=graph_to_proto(given.graph, given.described(workflow)),
        )
        return merged_of(await self._calls.unary("MergeGraph", request, timeout=timeout))

    async def restore(
        self,
        workflow_id: str,
        version: int,
        *,
        current_version: int | None,
        message: str = "",
        request_id: str | None = None,
        timeout: timedelta | None = None,
    ) -> RestoredGraph:
        """Saves the graph of `version` as a new one, on top of `current_version`: what the caller takes for the latest.

        VersionConflict with all `differences` where it is not; InvalidGraph with all `findings` where what was right
        then is not any more; VersionRequired, WorkflowArchived; WorkflowNotFound, VersionNotFound.
        """
        request = graph_pb2.RestoreVersionRequest(
            namespace=self._namespace,
            workflow_id=workflow_id,
            version=version,
            current_version=current_version,
            message=message,
            request_id=request_id or new_request_id(),
        )
        try:
            return restored_of(await self._calls.unary("RestoreVersion", request, timeout=timeout))
        except InvalidGraph as refused:
            raise await with_all_findings(refused, lambda: self._findings_of(workflow_id, version, timeout)) from None
        except VersionConflict as conflict:
            raise await with_all_differences(
                conflict,
                self._calls,
                namespace=self._namespace,
                workflow_id=workflow_id,
                edited=current_version,
                timeout=timeout,
            ) from None

    async def archive(
        self,
        workflow_id: str,
        *,
        reason: str = "",
        request_id: str | None = None,
        timeout: timedelta | None = None,
    ) -> Workflow:
        """Takes a workflow out of use: what runs goes on, and nothing new is started or saved. WorkflowNotFound."""
        request = graph_pb2.ArchiveWorkflowRequest(
            namespace=self._namespace,
            workflow_id=workflow_id,
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        return workflow_of((await self._calls.unary("ArchiveWorkflow", request, timeout=timeout)).workflow)

    async def unarchive(
        self,
        workflow_id: str,
        *,
        reason: str = "",
        request_id: str | None = None,
        timeout: timedelta | None = None,
    ) -> Workflow:
        """Back in use, as it was. WorkflowNotFound."""
        request = graph_pb2.UnarchiveWorkflowRequest(
            namespace=self._namespace,
            workflow_id=workflow_id,
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        return workflow_of((await self._calls.unary("UnarchiveWorkflow", request, timeout=timeout)).workflow)

    def audit(
        self, workflow_id: str = "", *, page_size: int = 100, timeout: timedelta | None = None
    ) -> Pages[AuditEvent]:
        """Who changed what and when, newest first: of one workflow, or of the whole namespace."""

        async def fetch(token: str) -> Page[AuditEvent]:
            request = graph_pb2.ListAuditEventsRequest(
                namespace=self._namespace, workflow_id=workflow_id, page_size=page_size, page_token=token
            )
            answer = await self._calls.unary("ListAuditEvents", request, timeout=timeout)
            return Page([audit_event_of(event) for event in answer.events], answer.next_page_token)

        return Pages(fetch)

    def watch(
        self,
        workflow_ids: Sequence[str] = (),
        *,
        resume_token: str = "",
        on_token: Callable[[str], None] | None = None,
        patience: timedelta = timedelta(minutes=1),
    ) -> AsyncGenerator[WorkflowChange, None]:
        """Changes of these workflows, or of all, as they are made: from now on, or after `resume_token`. Never ends.

        `on_token` hears where another watch goes on, with nothing missed and nothing told twice: first when the watch
        has begun, then behind the changes told so far. A broken stream is opened anew; Unavailable after `patience`
        without an answer.
        """
        return changes_of_workflows(
            self._calls,
            namespace=self._namespace,
            workflow_ids=workflow_ids,
            resume_token=resume_token,
            on_token=on_token,
            patience=patience,
        )

    async def _findings_of(self, workflow_id: str, version: int, timeout: timedelta | None) -> Sequence[Finding]:
        asked = graph_pb2.GetGraphRequest(namespace=self._namespace, workflow_id=workflow_id, version=version)
        graph = (await self._calls.unary("GetGraph", asked, timeout=timeout)).graph
        request = graph_pb2.ValidateGraphRequest(
            namespace=self._namespace,
            nodes=graph.nodes,
            edges=graph.edges,
            modules=graph.modules,
            settings=graph.settings,
        )
        answer = await self._calls.unary("ValidateGraph", request, timeout=timeout)
        return findings_of(answer.errors, answer.warnings)
