"""The save itself, whoever asks for it: SaveGraph, RestoreVersion and PublishDraft all end here.

One way of validating, locking, comparing, writing, auditing, and of answering a request that is sent once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from services.graph_store.model import (
    AuditEvent,
    NewId,
    Request,
    RowChanges,
    RowIds,
    SaveCommand,
    SavedVersion,
    StoredVersion,
    StoredWorkflow,
    check_edited_version,
    graph_of,
    info_of,
    is_layout,
    is_repeated,
    is_unchanged,
    request_hash,
    row_changes,
)
from services.graph_store.model_drafts import check_in_use
from services.graph_store.store import Raced, Store, Transaction
from services.graph_store.store_requests import Requests
from services.graph_store.validation import Validation
from valkyr.errors import (
    Difference,
    InvalidGraph,
    LimitExceeded,
    NameTaken,
    VersionConflict,
)
from valkyr.graph.diff import diff_graphs, differences_of
from valkyr.graph.document import document_bytes, graph_to_document, hash_of
from valkyr.graph.findings import Finding, Severity
from valkyr.graph.model import Graph

ROW_BYTES = 160
"""What an answer says of a row beside its document: its id twice and the framing, generously."""

AfterSave = Callable[[Transaction, SavedVersion], Awaitable[None]]


class _NothingSaved(Exception):
    """Carries the answer of a save that was only to be tried out of its transaction, which rolls back."""

    def __init__(self, answer: SavedVersion) -> None:
        super().__init__("validate_only")
        self.answer = answer


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A save, validated and put into words, before it meets the database."""

    command: SaveCommand
    document: Mapping[str, Any]
    canonical: bytes
    content_hash: str
    request: Request
    warnings: Sequence[Finding]


class Saving:
    """Saves graphs, each all or nothing."""

    def __init__(
        self,
        store: Store,
        requests: Requests,
        validation: Validation,
        *,
        new_id: NewId,
        max_answer_bytes: int,
    ) -> None:
        self._store = store
        self._requests = requests
        self._validation = validation
        self._new_id = new_id
        self._max_answer_bytes = max_answer_bytes

    async def save(
        self, command: SaveCommand, *, after: AfterSave | None = None, explained: bool = True
    ) -> SavedVersion:
        """Saves all or nothing. `after` runs in the same transaction once the rest is written, also where that is
        nothing because the graph is unchanged; not for a repeated request. What it raises undoes the save. A
        VersionConflict says what was changed since, unless it is not to be `explained`.

        InvalidGraph, LimitExceeded, VersionRequired, VersionConflict, WorkflowArchived, NameTaken, RequestIdReused.
        """
        try:
            prepared = await self._prepare(command)
        except (InvalidGraph, LimitExceeded):
            if not command.request_id:
                raise
            # What was right when it was first sent may be wrong by now: the first answer stands.
            answer = await self.answer_to(command.namespace, request_of(command))
            if answer is None:
                raise
            return answer
        try:
            return await self._save(prepared, after)
        except VersionConflict as conflict:
            if not explained:
                raise
            raise await self._explained(conflict, command) from None
        except NameTaken as taken:
            # Perhaps by the same request: it was unknown when this one looked.
            answer = await self.answer_to(command.namespace, prepared.request)
            if answer is None:
                raise await self._named(taken, command) from None
            return answer

    async def answer_to(self, namespace: str, request: Request) -> SavedVersion | None:
        """The first answer to a request that was answered before. RequestIdReused for another request."""
        if not request.id:
            return None
        async with self._store.transaction() as tx:
            return await self._first_answer(tx, namespace, request)

    async def _save(self, prepared: _Prepared, after: AfterSave | None) -> SavedVersion:
        command = prepared.command

        async def work(tx: Transaction) -> SavedVersion:
            answer = await self._save_in(tx, prepared, after)
            if command.validate_only:
                raise _NothingSaved(answer)
            return answer

        try:
            return await self._store.in_transaction(work)
        except _NothingSaved as nothing:
            return nothing.answer

    async def _prepare(self, command: SaveCommand) -> _Prepared:
        warnings = command.warnings
        if warnings is None:
            warnings = await self._validation.warnings(command.namespace, command.graph)
        return await asyncio.to_thread(_prepared, command, warnings, self._max_answer_bytes)

    async def _save_in(self, tx: Transaction, prepared: _Prepared, after: AfterSave | None) -> SavedVersion:
        command, request = prepared.command, prepared.request
        workflow_id = command.workflow.id
        current = await tx.lock_workflow(command.namespace, workflow_id) if workflow_id else None
        # Looked up under the lock: a repetition that waited for the first sees what that has written.
        first = await self._first_answer(tx, command.namespace, request)
        if first is not None:
            return first
        if current is None:
            answer = await self._create(tx, prepared)
        else:
            answer = await self._change(tx, prepared, current)
        if after is not None:
            await after(tx, answer)
        await self._requests.remember(tx, command.namespace, request, _answer_of(answer))
        return answer

    async def _first_answer(self, tx: Transaction, namespace: str, request: Request) -> SavedVersion | None:
        answer = await self._requests.answer_to(tx, namespace, request)
        if answer is None:
            return None
        stored = await tx.get_version(namespace, answer["workflowId"], answer["version"])
        graph = await asyncio.to_thread(graph_of, stored)
        warnings = [_finding(values) for values in answer["warnings"]]
        return SavedVersion(stored, graph, warnings, unchanged=answer["unchanged"], merged=answer["merged"])

    async def _explained(self, conflict: VersionConflict, command: SaveCommand) -> VersionConflict:
        """The conflict with what was changed since the edited version; as it is if there never was that version."""
        workflow_id, edited = command.workflow.id, command.workflow.version
        if workflow_id is None or edited is None:
            return conflict
        async with self._store.transaction() as tx:
            found = await tx.find_version(command.namespace, workflow_id, edited)
            if found is None or found[1] is None:
                return conflict
            current = await tx.get_version(command.namespace, workflow_id, conflict.current_version)
        differences = await asyncio.to_thread(_differences, found[1], current)
        details = conflict.details
        return VersionConflict(conflict.message, hint=details.hint, metadata=details.metadata, differences=differences)

    async def _named(self, taken: NameTaken, command: SaveCommand) -> NameTaken:
        """With the workflow that has the name; as it is if that has gone in the meantime."""
        async with self._store.transaction() as tx:
            holder = await tx.id_of_name(command.namespace, command.workflow.name or "")
        if holder is None:
            return taken
        return NameTaken(taken.message, hint=taken.hint, metadata={"workflowId": holder})

    async def _create(self, tx: Transaction, prepared: _Prepared) -> SavedVersion:
        command = prepared.command
        workflow = await tx.insert_workflow(
            {
                "namespace": command.namespace,
                "id": command.workflow.id or self._new_id(),
                "created_by": command.author.principal_id,
                "created_by_name": command.author.principal,
                **_workflow_values(prepared, name=command.workflow.name, version=1),
            }
        )
        if workflow is None:
            raise Raced
        changes = row_changes({}, RowIds(), prepared.document, new_id=self._new_id)
        return await self._write(tx, prepared, workflow, changes)

    async def _change(self, tx: Transaction, prepared: _Prepared, current: StoredWorkflow) -> SavedVersion:
        check_in_use(current)
        command = prepared.command
        if command.restored is not None:
            said = replace(info_of(current), id=current.id, version=command.workflow.version)
            command = replace(command, workflow=said)
            prepared = replace(prepared, command=command)
        wanted = command.workflow
        unchanged = is_unchanged(current, wanted, prepared.content_hash)
        if not (unchanged and is_repeated(current, wanted, command.author)):
            check_edited_version(current, wanted.version, restores=command.restored is not None)
        previous = await tx.get_version(current.namespace, current.id, current.version)
        if unchanged:
            return SavedVersion(previous, command.graph, prepared.warnings, unchanged=True, merged=command.merged)
        before = orjson.loads(previous.document)
        restored = command.restored.ids if command.restored else None
        changes = row_changes(before, previous.ids, prepared.document, new_id=self._new_id, restored=restored)
        values = _workflow_values(prepared, name=wanted.name or current.name, version=current.version + 1)
        workflow = await tx.update_workflow(current.namespace, current.id, values)
        layout = is_layout(before, prepared.document, changes) and info_of(current) == info_of(workflow)
        return await self._write(tx, prepared, workflow, changes, replaced=current, layout=layout)

    async def _write(
        self,
        tx: Transaction,
        prepared: _Prepared,
        workflow: StoredWorkflow,
        changes: RowChanges,
        *,
        replaced: StoredWorkflow | None = None,
        layout: bool = False,
    ) -> SavedVersion:
        command = prepared.command
        values = {**_version_values(prepared, workflow), "layout": layout}
        await tx.insert_version(values, changes.ids)
        await tx.write_rows(command.namespace, workflow.id, changes)
        event = AuditEvent(
            id=self._new_id(),
            workflow_id=workflow.id,
            action=command.action or ("workflow.created" if replaced is None else "workflow.saved"),
            author=command.author,
            from_version=replaced.version if replaced else None,
            to_version=workflow.version,
            from_hash=replaced.content_hash if replaced else None,
            to_hash=workflow.content_hash,
            message=command.message,
        )
        await tx.insert_audit_event(command.namespace, event)
        stored = StoredVersion(workflow, prepared.canonical, changes.ids)
        return SavedVersion(stored, command.graph, prepared.warnings, unchanged=False, merged=command.merged)


def check_answer_size(graph: Graph, canonical: bytes, *, limit: int) -> None:
    """What could be saved but never be read is LimitExceeded: answers carry more than the requests that they answer."""
    rows = len(graph.nodes) + len(graph.edges) + len(graph.modules)
    ids = sum(len(node.node_id) for node in graph.nodes) * 2 + sum(len(edge.edge_id) for edge in graph.edges)
    size = len(canonical) + rows * ROW_BYTES + ids * 4
    if size > limit:
        raise LimitExceeded(
            f"the graph has {len(canonical):,} bytes, and its answer about {size:,}; at most {limit:,} fit into a"
            " message",
            hint="split it into several workflows, or keep large data out of the configs",
        )


def request_of(command: SaveCommand) -> Request:
    """What is remembered of a save, so that a repeated one can be told from another."""
    return command.request or _request_of_graph(command, document_bytes(graph_to_document(command.graph)))


def _prepared(command: SaveCommand, warnings: Sequence[Finding], max_answer_bytes: int) -> _Prepared:
    document = graph_to_document(command.graph)
    canonical = document_bytes(document)
    check_answer_size(command.graph, canonical, limit=max_answer_bytes)
    request = command.request or _request_of_graph(command, canonical)
    return _Prepared(command, document, canonical, hash_of(canonical), request, warnings)


def _answer_of(saved: SavedVersion) -> dict[str, Any]:
    """What is remembered of an answer: the version has the rest."""
    workflow = saved.stored.workflow
    return {
        "workflowId": workflow.id,
        "version": workflow.version,
        "unchanged": saved.unchanged,
        "merged": saved.merged,
        "warnings": [asdict(warning) for warning in saved.warnings],
    }


def _finding(values: Mapping[str, Any]) -> Finding:
    ids = {name: tuple(values[name]) for name in ("node_ids", "edge_ids")}
    return Finding(**{**values, **ids, "severity": Severity(values["severity"])})


def _differences(edited: StoredVersion, current: StoredVersion) -> Sequence[Difference]:
    workflows = info_of(edited.workflow), info_of(current.workflow)
    return differences_of(diff_graphs(graph_of(edited), graph_of(current), workflows=workflows))


def _request_of_graph(command: SaveCommand, canonical: bytes) -> Request:
    workflow = command.workflow
    said = [workflow.id, workflow.name, workflow.description, workflow.version, command.message]
    return Request(command.method, command.request_id, request_hash(said, dict(workflow.labels), canonical))


def _workflow_values(prepared: _Prepared, *, name: str | None, version: int) -> dict[str, Any]:
    command = prepared.command
    return {
        "name": name,
        "description": command.workflow.description,
        "labels": dict(command.workflow.labels),
        "version": version,
        "content_hash": prepared.content_hash,
        "last_modified_by": command.author.principal_id,
        "last_modified_by_name": command.author.principal,
    }


def _version_values(prepared: _Prepared, workflow: StoredWorkflow) -> dict[str, Any]:
    command = prepared.command
    return {
        "namespace": workflow.namespace,
        "workflow_id": workflow.id,
        "version": workflow.version,
        "name": workflow.name,
        "description": workflow.description,
        "labels": dict(workflow.labels),
        "document": prepared.canonical.decode(),
        "content_hash": workflow.content_hash,
        "node_count": len(command.graph.nodes),
        "edge_count": len(command.graph.edges),
        "restored_from": command.restored.workflow.version if command.restored else None,
        "message": command.message,
        "created_by": command.author.principal_id,
        "created_by_name": command.author.principal,
    }
