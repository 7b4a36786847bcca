"""client.graphs.drafts: the caller's own draft of each workflow, apart from what is published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from valkyr.api.graph.v1 import graph_pb2
from valkyr.client.calls import Calls
from valkyr.client.graph_documents import GraphOrDocument, Scope, edited_version, read_given
from valkyr.client.graph_refusals import with_all_differences, with_all_disagreements, with_all_findings
from valkyr.client.graph_results import Draft, PublishedDraft, SavedDraft
from valkyr.client.ids import new_request_id
from valkyr.client.wire_graphs import draft_of, findings_of, merged_of, published_of, saved_draft_of
from valkyr.errors import Disagreement, InvalidGraph, MergeConflict, VersionConflict
from valkyr.graph.conflicts import disagreements_of
from valkyr.graph.findings import Finding
from valkyr.graph.model import WorkflowInfo
from valkyr.rpc.graphs import graph_to_proto


class Drafts:
    """Calls about drafts: one for each workflow and principal, kept for 90 days after its last save."""

    def __init__(self, calls: Calls, scope: Scope) -> None:
        self._calls = calls
        self._scope = scope

    async def save(
        self,
        workflow_id: str,
        graph: GraphOrDocument,
        *,
        workflow: WorkflowInfo | None = None,
        base_version: int | None = None,
        revision: int | None = None,
        request_id: str | None = None,
        timeout: timedelta | None = None,
    ) -> SavedDraft:
        """Keeps the graph as the caller's draft, errors and all; `findings` say what keeps it from being published.

        `workflow` says what it is to be called and described as; so does a document's own. Where neither says anything,
        it is as before. `base_version`, or the document's `workflow.version`, is the version that was edited. With
        `revision`, DraftConflict where another was saved since; 0: there is to be none yet.
        """
        given = read_given(graph)
        request = graph_pb2.SaveDraftRequest(
            namespace=self._scope.of(given.envelope),
            workflow_id=workflow_id,
            graph=graph_to_proto(given.graph, given.described(workflow)),
            base_version=edited_version(base_version, given.workflow, "base_version"),
            revision=revision,
            request_id=request_id or new_request_id(),
        )
        return saved_draft_of(await self._calls.unary("SaveDraft", request, timeout=timeout))

    async def get(self, workflow_id: str, *, timeout: timedelta | None = None) -> Draft:
        """The caller's draft. DraftNotFound."""
        request = graph_pb2.GetDraftRequest(namespace=self._scope.namespace, workflow_id=workflow_id)
        return draft_of((await self._calls.unary("GetDraft", request, timeout=timeout)).draft)

    async def discard(
        self,
        workflow_id: str,
        *,
        revision: int | None = None,
        request_id: str | None = None,
        timeout: timedelta | None = None,
    ) -> None:
        """Throws the draft away. DraftNotFound; DraftConflict where `revision` is stale."""
        request = graph_pb2.DiscardDraftRequest(
            namespace=self._scope.namespace,
            workflow_id=workflow_id,
            revision=revision,
            request_id=request_id or new_request_id(),
        )
        await self._calls.unary("DiscardDraft", request, timeout=timeout)

    async def publish(
        self,
        workflow_id: str,
        *,
        revision: int | None = None,
        message: str = "",
        request_id: str | None = None,
        timeout: timedelta | None = None,
    ) -> PublishedDraft:
        """Saves the draft as a new version, together with what others have saved since; the draft is gone then.

        Where it is refused it is kept: InvalidGraph with all `findings`, MergeConflict with all `disagreements` or with
        all `findings` of what both make together, DraftConflict where `revision` is stale, WorkflowArchived, NameTaken;
        DraftNotFound.
        """
        request = graph_pb2.PublishDraftRequest(
            namespace=self._scope.namespace,
            workflow_id=workflow_id,
            revision=revision,
            message=message,
            request_id=request_id or new_request_id(),
        )
        try:
            return published_of(await self._calls.unary("PublishDraft", request, timeout=timeout))
        except InvalidGraph as refused:
            raise await with_all_findings(refused, lambda: self._findings(workflow_id, timeout)) from None
        except MergeConflict as refused:
            if "errors" in refused.details.metadata:
                raise await with_all_findings(refused, lambda: self._findings(workflow_id, timeout)) from None
            raise await with_all_disagreements(refused, lambda: self._disagreements(workflow_id, timeout)) from None
        except VersionConflict as refused:
            raise await with_all_differences(
                refused,
                self._calls,
                namespace=self._scope.namespace,
                workflow_id=workflow_id,
                edited=int(refused.details.metadata.get("editedVersion", 0)) or None,
                timeout=timeout,
            ) from None

    async def _findings(self, workflow_id: str, timeout: timedelta | None) -> Sequence[Finding]:
        """Of what the draft would be published as."""
        draft = await self.get(workflow_id, timeout=timeout)
        if draft.base_version != draft.current_version:
            merged = await self._merged(draft, timeout)
            return findings_of(merged.errors, merged.warnings)
        message = graph_to_proto(draft.graph)
        request = graph_pb2.ValidateGraphRequest(
            namespace=self._scope.namespace,
            nodes=message.nodes,
            edges=message.edges,
            modules=message.modules,
            settings=message.settings,
        )
        answer = await self._calls.unary("ValidateGraph", request, timeout=timeout)
        return findings_of(answer.errors, answer.warnings)

    async def _disagreements(self, workflow_id: str, timeout: timedelta | None) -> Sequence[Disagreement]:
        draft = await self.get(workflow_id, timeout=timeout)
        return disagreements_of(merged_of(await self._merged(draft, timeout)).conflicts)

    async def _merged(self, draft: Draft, timeout: timedelta | None) -> graph_pb2.MergeGraphResponse:
        request = graph_pb2.MergeGraphRequest(
            namespace=self._scope.namespace,
            workflow_id=draft.workflow_id,
            base_version=draft.base_version,
            mine=graph_to_proto(draft.graph, replace(draft.workflow, version=None)),
        )
        answer: graph_pb2.MergeGraphResponse = await self._calls.unary("MergeGraph", request, timeout=timeout)
        return answer
