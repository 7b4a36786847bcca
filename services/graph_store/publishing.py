"""Publishing a draft: saved as it is where its base is current, else merged with what others have saved since."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta

from services.graph_store.merging import Merging
from services.graph_store.model import (
    AuditEvent,
    NewId,
    Request,
    SaveCommand,
    SavedVersion,
    StoredWorkflow,
    request_hash,
)
from services.graph_store.model_drafts import (
    NO_VERSION,
    Draft,
    DraftRow,
    MergeCommand,
    MergedGraph,
    PublishCommand,
    check_in_use,
    check_revision,
    draft_not_found,
    graph_of_draft,
)
from services.graph_store.saving import AfterSave, Saving
from services.graph_store.store import Store, Transaction
from services.graph_store.store_drafts import Drafts as Rows
from services.graph_store.validation import summary_of, violations_of
from valkyr.errors import LimitExceeded, MergeConflict, Unavailable, VersionConflict, VersionRequired
from valkyr.graph.conflict_text import sentence_of
from valkyr.graph.conflicts import disagreements_of

METHOD = "PublishDraft"
MAX_RACES = 10


class _DraftMoved(Exception):
    """The draft was saved, published or discarded since it was read: look again from the start."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A draft's place, and its workflow, None if that is not there."""

    row: DraftRow | None
    workflow: StoredWorkflow | None


class Publishing:
    """The use case of PublishDraft."""

    def __init__(self, store: Store, rows: Rows, merging: Merging, saving: Saving, *, new_id: NewId) -> None:
        self._store = store
        self._rows = rows
        self._merging = merging
        self._saving = saving
        self._new_id = new_id

    async def publish(self, command: PublishCommand) -> SavedVersion:
        """The version that the draft has become. The draft is gone then, in the same transaction, and kept otherwise.

        As `Saving.save`, and DraftNotFound, DraftConflict, MergeConflict.
        """
        said = request_hash(command.workflow_id, command.author.principal, command.revision, command.message)
        request = Request(METHOD, command.request_id, said)
        for _ in range(MAX_RACES):
            # The draft first: if it is this very request that has taken it away, its answer is there by then.
            found = await self._find(command)
            answer = await self._saving.answer_to(command.namespace, request)
            if answer is not None:
                return answer
            draft = _wanted(command, found)
            try:
                save = await self._save_of(command, request, draft, found.workflow)
            except (MergeConflict, LimitExceeded):
                # This very request may have been carried out in the meantime, and others may have saved since.
                answer = await self._saving.answer_to(command.namespace, request)
                if answer is None:
                    raise
                return answer
            try:
                return await self._saving.save(save, after=self._taking_away(command, draft), explained=False)
            except (VersionConflict, VersionRequired, _DraftMoved):
                continue
        raise Unavailable("others keep saving this workflow at the same time", retry_after=timedelta(milliseconds=200))

    async def _find(self, command: PublishCommand) -> _Found:
        async with self._store.transaction() as tx:
            found = await self._rows.find(tx, command.key)
            workflow = await tx.find_workflow(command.namespace, command.workflow_id)
        return _Found(None if found is None else found[0], workflow)

    async def _save_of(
        self, command: PublishCommand, request: Request, draft: Draft, workflow: StoredWorkflow | None
    ) -> SaveCommand:
        """What is to be saved over the current version. MergeConflict."""
        current = NO_VERSION if workflow is None else workflow.version
        graph = await asyncio.to_thread(graph_of_draft, draft)
        info = replace(draft.workflow, id=command.workflow_id, version=current or None)
        merge = None
        if draft.base_version != current:
            merge = await self._merging.merge(
                MergeCommand(command.namespace, command.workflow_id, draft.base_version, graph, draft.workflow)
            )
            if merge.graph is None or merge.info is None or not merge.is_valid:
                raise _merge_conflict(draft, merge)
            graph, info = merge.graph, merge.info
        return SaveCommand(
            namespace=command.namespace,
            workflow=info,
            graph=graph,
            author=command.author,
            request_id=command.request_id,
            message=command.message,
            method=METHOD,
            request=request,
            action="workflow.published",
            merged=merge is not None,
            warnings=None if merge is None else merge.findings,
        )

    def _taking_away(self, command: PublishCommand, draft: Draft) -> AfterSave:
        async def after(tx: Transaction, saved: SavedVersion) -> None:
            if not await self._rows.empty(tx, draft):
                raise _DraftMoved
            if saved.unchanged:
                # The save leaves no audit event then, but the draft is gone.
                event = AuditEvent(
                    id=self._new_id(),
                    workflow_id=draft.key.workflow_id,
                    action="draft.discarded",
                    author=command.author,
                    from_hash=draft.content_hash,
                    message=f"published, as version {saved.stored.workflow.version} says it already",
                )
                await tx.insert_audit_event(command.namespace, event)

        return after


def _wanted(command: PublishCommand, found: _Found) -> Draft:
    """The draft that is meant, of a workflow that is in use. DraftNotFound, DraftConflict, WorkflowArchived."""
    if found.row is None or found.row.draft is None:
        raise draft_not_found(command.workflow_id)
    check_revision(found.row, command.revision)
    if found.workflow is not None:
        check_in_use(found.workflow)
    return found.row.draft


def _merge_conflict(draft: Draft, merge: MergedGraph) -> MergeConflict:
    """What stands between a draft and the current version: conflicts, else the errors of what they make together."""
    current = merge.workflow.version
    metadata = {"currentVersion": str(current), "baseVersion": str(draft.base_version)}
    began = f"the draft began as version {draft.base_version}, and"
    mend = f"save the draft as both are to be, with baseVersion {current}, and publish it"
    if merge.conflicts:
        number = len(merge.conflicts)
        first = sentence_of(merge.conflicts[0])
        return MergeConflict(
            f"{began} version {current} has changed the same"
            f" ({first if number == 1 else f'{number:,} conflicts, the first of them: {first}'}); the draft is kept",
            hint=f"MergeGraph answers with every conflict; {mend}",
            metadata={**metadata, "conflicts": str(number)},
            disagreements=disagreements_of(merge.conflicts),
        )
    errors = [finding for finding in merge.findings if finding.is_error]
    return MergeConflict(
        f"{began} with what version {current} has changed it cannot be saved: {summary_of(errors)}; the draft is kept",
        hint=f"MergeGraph answers with the graph that they make together and every finding; {mend}",
        metadata={**metadata, "errors": str(len(errors))},
        violations=violations_of(errors),
    )
