"""Validating, saving and reading graphs."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson

from services.graph_store.model import (
    AnsweredRequest,
    AuditEvent,
    NewId,
    RowChanges,
    RowIds,
    SaveCommand,
    SavedVersion,
    StoredVersion,
    StoredWorkflow,
    check_edited_version,
    is_repeated,
    is_unchanged,
    row_changes,
)
from services.graph_store.store import Store, Transaction
from valkyr.errors import (
    Difference,
    InvalidGraph,
    LimitExceeded,
    NameTaken,
    RequestIdReused,
    Unavailable,
    VersionConflict,
    VersionNotFound,
    Violation,
    WorkflowNotFound,
)
from valkyr.graph.diff import diff_graphs, differences_of
from valkyr.graph.document import document_bytes, graph_from_canonical, graph_to_document, hash_of
from valkyr.graph.findings import Finding
from valkyr.graph.limits import Limits
from valkyr.graph.model import Graph
from valkyr.graph.validate import validate

MAX_RACES = 5
ROW_BYTES = 160
"""What an answer says of a row beside its document: its id twice and the framing, generously."""


class _Raced(Exception):
    """Another transaction was first: look again from the start."""


class _NothingSaved(Exception):
    """Carries the answer of a save that was only to be tried out of its transaction, which rolls back."""

    def __init__(self, answer: SavedVersion) -> None:
        super().__init__("validate_only")
        self.answer = answer


class CorruptVersion(Exception):
    """A stored document does not match its hash."""


@dataclass(frozen=True, slots=True)
class _Draft:
    """A save, validated and put into words, before it meets the database."""

    command: SaveCommand
    document: Mapping[str, Any]
    canonical: bytes
    content_hash: str
    request_hash: bytes
    warnings: Sequence[Finding]


class Graphs:
    """The use cases of SaveGraph, ValidateGraph and GetGraph."""

    def __init__(
        self,
        store: Store,
        *,
        limits: Limits,
        catalogue: Mapping[str, Any] | None,
        new_id: NewId,
        requests_kept: timedelta,
        max_answer_bytes: int,
    ) -> None:
        self._store = store
        self._limits = limits
        self._catalogue = catalogue
        self._new_id = new_id
        self._requests_kept = requests_kept
        self._max_answer_bytes = max_answer_bytes

    async def validate(self, graph: Graph) -> list[Finding]:
        """Every finding, errors first. In a thread, so that other calls go on beside ten thousand expressions."""
        return await asyncio.to_thread(validate, graph, catalogue=self._catalogue, limits=self._limits)

    async def save(self, command: SaveCommand) -> SavedVersion:
        """Saves all or nothing.

        InvalidGraph, LimitExceeded, VersionRequired, VersionConflict, NameTaken, RequestIdReused.
        """
        draft = await self._draft(command)

        async def work(tx: Transaction) -> SavedVersion:
            answer = await self._save(tx, draft)
            if command.validate_only:
                raise _NothingSaved(answer)
            return answer

        for _ in range(MAX_RACES):
            try:
                return await self._store.in_transaction(work)
            except _NothingSaved as nothing:
                return nothing.answer
            except _Raced:
                continue
            except VersionConflict as conflict:
                raise await self._explained(conflict, command) from None
            except NameTaken:
                answer = await self._answered_meanwhile(draft)
                if answer is None:
                    raise
                return answer
        raise Unavailable(
            "others keep saving the same workflow or request at the same time", retry_after=timedelta(milliseconds=100)
        )

    async def get(self, namespace: str, workflow_id: str, version: int | None) -> tuple[StoredVersion, Graph]:
        """A version whole, the latest if None. WorkflowNotFound, VersionNotFound."""
        async with self._store.transaction() as tx:
            found = await tx.find_version(namespace, workflow_id, version)
        if found is None:
            raise workflow_not_found(workflow_id)
        workflow, stored = found
        if stored is None:
            raise VersionNotFound(
                f"workflow {workflow_id} has no version {version}",
                hint=f"its versions are 1 to {workflow.version}",
                metadata={"currentVersion": str(workflow.version)},
            )
        return stored, _graph_of(stored)

    async def _draft(self, command: SaveCommand) -> _Draft:
        findings = await self.validate(command.graph)
        errors = [finding for finding in findings if finding.is_error]
        if errors:
            raise invalid_graph(errors)
        document = graph_to_document(command.graph)
        canonical = document_bytes(document)
        self._check_answer_size(command.graph, canonical)
        return _Draft(command, document, canonical, hash_of(canonical), _request_hash(command, canonical), findings)

    def _check_answer_size(self, graph: Graph, canonical: bytes) -> None:
        """What could be saved but never be read is refused: answers carry more than the requests that they answer."""
        rows = len(graph.nodes) + len(graph.edges) + len(graph.modules)
        ids = sum(len(node.node_id) for node in graph.nodes) * 2 + sum(len(edge.edge_id) for edge in graph.edges)
        size = len(canonical) + rows * ROW_BYTES + ids * 4
        if size > self._max_answer_bytes:
            raise LimitExceeded(
                f"the graph has {len(canonical):,} bytes, and its answer about {size:,}; at most"
                f" {self._max_answer_bytes:,} fit into a message",
                hint="split it into several workflows, or keep large data out of the configs",
            )

    async def _save(self, tx: Transaction, draft: _Draft) -> SavedVersion:
        command = draft.command
        workflow_id = command.workflow.id
        current = await tx.lock_workflow(command.namespace, workflow_id) if workflow_id else None
        if command.request_id:
            # Looked up under the lock: a repetition that waited for the first sees what that has written.
            answered = await tx.find_request(command.namespace, command.request_id, self._requests_kept)
            if answered is not None:
                return await _repeat(tx, draft, answered)
        if current is None:
            answer = await self._create(tx, draft)
        else:
            answer = await self._change(tx, draft, current)
        if command.request_id:
            await self._remember(tx, draft, answer)
        return answer

    async def _answered_meanwhile(self, draft: _Draft) -> SavedVersion | None:
        """The answer to the same request, if it was that which took the name: it was unknown when this one looked."""
        command = draft.command
        if not command.request_id:
            return None
        async with self._store.transaction() as tx:
            answered = await tx.find_request(command.namespace, command.request_id, self._requests_kept)
            return None if answered is None else await _repeat(tx, draft, answered)

    async def _explained(self, conflict: VersionConflict, command: SaveCommand) -> VersionConflict:
        """The conflict with what was changed since the edited version; as it is if there never was that version."""
        workflow_id, edited = command.workflow.id, command.workflow.version
        if workflow_id is None or edited is None:
            return conflict
        async with self._store.transaction() as tx:
            found = await tx.find_version(command.namespace, workflow_id, edited)
            if found is None or found[1] is None:
                return conflict
            current = await _version_of(tx, command.namespace, workflow_id, conflict.current_version)
        differences = await asyncio.to_thread(_differences, found[1], current)
        details = conflict.details
        return VersionConflict(conflict.message, hint=details.hint, metadata=details.metadata, differences=differences)

    async def _create(self, tx: Transaction, draft: _Draft) -> SavedVersion:
        command = draft.command
        workflow = await tx.insert_workflow(
            {
                "namespace": command.namespace,
                "id": command.workflow.id or self._new_id(),
                "created_by": command.author.principal_id,
                "created_by_name": command.author.principal,
                **_workflow_values(draft, name=command.workflow.name, version=1),
            }
        )
        if workflow is None:
            raise _Raced
        changes = row_changes({}, RowIds(), draft.document, new_id=self._new_id)
        return await self._write(tx, draft, workflow, changes, replaced=None)

    async def _change(self, tx: Transaction, draft: _Draft, current: StoredWorkflow) -> SavedVersion:
        wanted = draft.command.workflow
        unchanged = is_unchanged(current, wanted, draft.content_hash)
        if not (unchanged and is_repeated(current, wanted, draft.command.author)):
            check_edited_version(current, wanted.version)
        previous = await _version_of(tx, current.namespace, current.id, current.version)
        if unchanged:
            return SavedVersion(previous, draft.command.graph, draft.warnings, unchanged=True)
        changes = row_changes(orjson.loads(previous.document), previous.ids, draft.document, new_id=self._new_id)
        values = _workflow_values(draft, name=wanted.name or current.name, version=current.version + 1)
        workflow = await tx.update_workflow(current.namespace, current.id, values)
        return await self._write(tx, draft, workflow, changes, replaced=current)

    async def _write(
        self,
        tx: Transaction,
        draft: _Draft,
        workflow: StoredWorkflow,
        changes: RowChanges,
        *,
        replaced: StoredWorkflow | None,
    ) -> SavedVersion:
        command = draft.command
        await tx.insert_version(_version_values(draft, workflow), changes.ids)
        await tx.write_rows(command.namespace, workflow.id, changes)
        event = AuditEvent(
            id=self._new_id(),
            workflow_id=workflow.id,
            action="workflow.created" if replaced is None else "workflow.saved",
            author=command.author,
            from_version=replaced.version if replaced else None,
            to_version=workflow.version,
            from_hash=replaced.content_hash if replaced else None,
            to_hash=workflow.content_hash,
            message=command.message,
        )
        await tx.insert_audit_event(command.namespace, event)
        stored = StoredVersion(workflow, draft.canonical, changes.ids)
        return SavedVersion(stored, command.graph, draft.warnings, unchanged=False)

    async def _remember(self, tx: Transaction, draft: _Draft, answer: SavedVersion) -> None:
        workflow = answer.stored.workflow
        answered = AnsweredRequest(
            draft.request_hash, workflow.id, workflow.version, answer.unchanged, tuple(answer.warnings)
        )
        command = draft.command
        if not await tx.insert_request(command.namespace, command.request_id, answered, self._requests_kept):
            raise _Raced


def workflow_not_found(workflow_id: str) -> WorkflowNotFound:
    return WorkflowNotFound(
        f"there is no workflow {workflow_id} in this namespace", hint="FindWorkflows lists what there is"
    )


def invalid_graph(errors: Sequence[Finding]) -> InvalidGraph:
    """The error of a save whose graph has ERROR findings."""
    first = errors[0]
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    return InvalidGraph(
        f"{first.code}: {first.message}{more}; nothing was saved",
        hint=f"{first.hint}; ValidateGraph answers with every finding",
        metadata={"total": str(len(errors))},
        violations=[Violation(found.path, f"{found.code}: {found.message}") for found in errors],
    )


async def _repeat(tx: Transaction, draft: _Draft, answered: AnsweredRequest) -> SavedVersion:
    """The first answer to a request id once more. RequestIdReused for another request."""
    command = draft.command
    if answered.request_hash != draft.request_hash:
        raise RequestIdReused(
            f"request_id {command.request_id!r} was used before, with another request",
            hint="make a new request_id for every save; repeat one only with the same body",
        )
    stored = await _version_of(tx, command.namespace, answered.workflow_id, answered.version)
    return SavedVersion(stored, command.graph, answered.warnings, answered.unchanged)


async def _version_of(tx: Transaction, namespace: str, workflow_id: str, version: int) -> StoredVersion:
    found = await tx.find_version(namespace, workflow_id, version)
    if found is None or found[1] is None:
        raise CorruptVersion(f"workflow {workflow_id} lacks its version {version}")
    return found[1]


def _graph_of(stored: StoredVersion) -> Graph:
    workflow = stored.workflow
    if hash_of(stored.document) != workflow.content_hash:
        raise CorruptVersion(f"version {workflow.version} of workflow {workflow.id} does not match its hash")
    return graph_from_canonical(orjson.loads(stored.document))


def _differences(edited: StoredVersion, current: StoredVersion) -> Sequence[Difference]:
    return differences_of(diff_graphs(_graph_of(edited), _graph_of(current)))


def _request_hash(command: SaveCommand, canonical: bytes) -> bytes:
    """Of all that a save says, so that a repeated request can be told from another one."""
    workflow = command.workflow
    said = [workflow.id, workflow.name, workflow.description, workflow.version, command.message]
    return hashlib.sha256(orjson.dumps([said, dict(workflow.labels)], option=orjson.OPT_SORT_KEYS) + canonical).digest()


def _workflow_values(draft: _Draft, *, name: str | None, version: int) -> dict[str, Any]:
    command = draft.command
    return {
        "name": name,
        "description": command.workflow.description,
        "labels": dict(command.workflow.labels),
        "version": version,
        "content_hash": draft.content_hash,
        "last_modified_by": command.author.principal_id,
        "last_modified_by_name": command.author.principal,
    }


def _version_values(draft: _Draft, workflow: StoredWorkflow) -> dict[str, Any]:
    command = draft.command
    return {
        "namespace": workflow.namespace,
        "workflow_id": workflow.id,
        "version": workflow.version,
        "name": workflow.name,
        "description": workflow.description,
        "labels": dict(workflow.labels),
        "document": draft.canonical.decode(),
        "content_hash": workflow.content_hash,
        "node_count": len(command.graph.nodes),
        "edge_count": len(command.graph.edges),
        "message": command.message,
        "created_by": command.author.principal_id,
        "created_by_name": command.author.principal,
    }
