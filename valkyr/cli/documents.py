"""What `--json` prints: the SDK's results in the JSON names of the protos, every key always there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from valkyr.cli.graph_files import PlacedFinding
from valkyr.client import DeadLetter, Draft, MergedGraph, SavedGraph, StoredGraph, Workflow
from valkyr.client.client import DEFAULT_NAMESPACE
from valkyr.errors import ValkyrError
from valkyr.graph.conflicts import disagreements_of
from valkyr.graph.document import graph_to_document
from valkyr.graph.findings import Finding
from valkyr.graph.model import Graph, WorkflowInfo

_SAME_IN_JSON = (str, int, float, bool, type(None))
_TIMES = {
    "created_at": "create_time",
    "expires_at": "expire_time",
    "started_at": "start_time",
    "finished_at": "finish_time",
    "opened_at": "opened_time",
    "parked_at": "parked_time",
    "refused_at": "refused_time",
    "resolved_at": "resolved_time",
}


def document_of(value: Any) -> Any:
    """A result of the SDK as JSON-able values."""
    if isinstance(value, _SAME_IN_JSON):
        return value
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if is_dataclass(value) and not isinstance(value, type):
        return {_json_name(type(value), field.name): document_of(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): document_of(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [document_of(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no JSON form")


def graph_file_of(stored: StoredGraph) -> dict[str, Any]:
    """The document of a graph file: saved again it is checked against the version that it was read from."""
    return {"workflow": _identity(stored.workflow), **graph_to_document(stored.graph)}


def graph_file_of_draft(draft: Draft) -> dict[str, Any]:
    """The document of a graph file that begins where the draft began."""
    said = draft.workflow
    workflow = {
        "id": draft.workflow_id,
        "name": said.name,
        "description": said.description,
        "labels": dict(said.labels),
        "version": draft.base_version,
    }
    return {"workflow": {key: value for key, value in workflow.items() if value}, **graph_to_document(draft.graph)}


def draft_document(draft: Draft) -> dict[str, Any]:
    """A draft, its graph as a graph file."""
    plain: dict[str, Any] = document_of(replace(draft, workflow=WorkflowInfo(), graph=Graph()))
    del plain["workflow"]
    return plain | {"graph": graph_file_of_draft(draft)}


def merged_document(merged: MergedGraph) -> dict[str, Any]:
    """A merge: its graph as a graph file, null where there are conflicts, and their values as JSON text."""
    return {
        "graph": None if merged.stored is None else graph_file_of(merged.stored),
        "conflicts": [document_of(entry) for entry in disagreements_of(merged.conflicts)],
        "totalConflicts": merged.total_conflicts,
        "findings": [finding_of(finding) for finding in merged.findings],
        "currentVersion": merged.current_version,
        "bothMoved": list(merged.both_moved),
    }


def saved_of(saved: SavedGraph, warnings: Sequence[PlacedFinding]) -> dict[str, Any]:
    """The answer to a save, without the graph that was sent."""
    return {
        "workflow": document_of(saved.workflow),
        "unchanged": saved.unchanged,
        "nodeIdToTaskId": dict(saved.node_id_to_task_id),
        "edgeIdToConnectionId": dict(saved.edge_id_to_connection_id),
        "moduleIdMapping": dict(saved.module_id_mapping),
        "warnings": [placed_finding_of(warning) for warning in warnings],
    }


def finding_of(finding: Finding) -> dict[str, Any]:
    """A finding, as ValidateGraph answers it."""
    answer: dict[str, Any] = document_of(finding)
    return answer


def placed_finding_of(placed: PlacedFinding) -> dict[str, Any]:
    """A finding with `file`, `line` and `column`, null where it is about no file."""
    line, column = placed.position or (None, None)
    return {"file": placed.source, "line": line, "column": column} | finding_of(placed.finding)


def error_of(error: ValkyrError, exit_code: int) -> dict[str, Any]:
    """An error, as `--json` prints it on standard error."""
    details = error.details
    return {
        "error": {
            "reason": error.reason,
            "message": error.message,
            "hint": details.hint,
            "exitCode": exit_code,
            "metadata": dict(details.metadata),
            "violations": [document_of(violation) for violation in details.violations],
            "differences": [document_of(difference) for difference in details.differences],
            "conflicts": [document_of(disagreement) for disagreement in details.disagreements],
            "retryAfterSeconds": None if details.retry_after is None else details.retry_after.total_seconds(),
        }
    }


def _identity(workflow: Workflow) -> dict[str, Any]:
    identity = {
        "id": workflow.id,
        "namespace": "" if workflow.namespace == DEFAULT_NAMESPACE else workflow.namespace,
        "name": workflow.name,
        "description": workflow.description,
        "labels": dict(workflow.labels),
        "version": workflow.version,
    }
    return {key: value for key, value in identity.items() if value}


def _json_name(kind: type, name: str) -> str:
    if name.endswith("_at"):
        name = _TIMES.get(name, name.removesuffix("_at").removesuffix("d") + "_time")
        name = "quarantined_time" if kind is DeadLetter and name == "quarantine_time" else name
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
