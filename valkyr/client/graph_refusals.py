"""Refusals of the graph store made whole: what did not fit into a status is asked for.

Nothing here fails: what cannot be had stays as it came.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

from valkyr.api.graph.v1 import graph_pb2
from valkyr.client.calls import Calls
from valkyr.client.wire_graphs import diff_of
from valkyr.errors import Disagreement, InvalidGraph, MergeConflict, ValkyrError, VersionConflict
from valkyr.graph.findings import Finding, Severity

Findings = Callable[[], Awaitable[Sequence[Finding]]]
Disagreements = Callable[[], Awaitable[Sequence[Disagreement]]]


Refused = TypeVar("Refused", InvalidGraph, MergeConflict)


async def with_all_findings(refused: Refused, ask: Findings) -> Refused:
    """The refusal with `findings`: as `ask` tells them, or else those that the status had room for."""
    try:
        findings = await ask()
    except ValkyrError:
        findings = ()
    if not any(finding.is_error for finding in findings):
        # The catalogue may have changed meanwhile: what was refused was refused for a reason.
        findings = [_finding(violation.field, violation.description) for violation in refused.details.violations]
    refused.findings = findings
    return refused


async def with_all_differences(
    conflict: VersionConflict,
    calls: Calls,
    *,
    namespace: str,
    workflow_id: str,
    edited: int | None,
    timeout: timedelta | None,
) -> VersionConflict:
    """The conflict with all that was changed from the edited version to the current one."""
    if not conflict.is_truncated or edited is None:
        return conflict
    request = graph_pb2.DiffVersionsRequest(
        namespace=namespace, workflow_id=workflow_id, from_version=edited, to_version=conflict.current_version
    )
    try:
        diff = diff_of(await calls.unary("DiffVersions", request, timeout=timeout))
    except ValkyrError:
        return conflict
    if len(diff.differences) > len(conflict.differences):
        metadata = _metadata(conflict, fetched=len(diff.differences), total=diff.total)
        conflict.details = replace(conflict.details, differences=diff.differences, metadata=metadata)
    return conflict


async def with_all_disagreements(conflict: MergeConflict, ask: Disagreements) -> MergeConflict:
    """The conflict with all that does not go together, as `ask` tells it."""
    if not conflict.is_truncated:
        return conflict
    try:
        disagreements = await ask()
    except ValkyrError:
        return conflict
    if len(disagreements) > len(conflict.disagreements):
        total = int(conflict.details.metadata.get("total", 0))
        metadata = _metadata(conflict, fetched=len(disagreements), total=total)
        conflict.details = replace(conflict.details, disagreements=tuple(disagreements), metadata=metadata)
    return conflict


def _metadata(error: ValkyrError, *, fetched: int, total: int) -> dict[str, str]:
    rest = {key: value for key, value in error.details.metadata.items() if key not in ("total", "truncated")}
    return rest if fetched >= total else {**rest, "total": str(total), "truncated": "true"}


def _finding(path: str, description: str) -> Finding:
    """A violation of the status, `CODE: message`, as the finding that it was."""
    code, separator, message = description.partition(": ")
    if not separator:
        code, message = "INVALID_FIELD", description
    return Finding(Severity.ERROR, code, path, message)
