"""What runs see of those before them: as valkyr.flow has it, and, to check that, as the design says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import orjson

from tests.simulator.rows import ExecutionRow, RunRow
from valkyr.flow.outcomes import NO_RESULT, NodeResult
from valkyr.flow.sights import QuarantinedAs, StoredResult, visible_result
from valkyr.flow.states import RunState


def stored_result(execution: ExecutionRow, node: int) -> StoredResult:
    """READ_RESULTS and READ_EARLIER, of one run."""
    row = execution.runs[node]
    past = (execution.quarantines[row.id, number] for number in range(1, row.quarantine_number + 1))
    earlier = tuple(QuarantinedAs(one.revision, one.error, one.error_type) for one in past)
    return StoredResult(row.state, row.outputs, row.error, row.error_type, row.settled_revision, earlier)


def results_of(execution: ExecutionRow, nodes: Iterable[int], revision: int) -> dict[int, NodeResult]:
    return {node: visible_result(stored_result(execution, node), revision) for node in nodes}


def inputs_of(execution: ExecutionRow, row: RunRow, taken: Iterable[int]) -> tuple[object, ...]:
    """What a module is handed: the same in every attempt, unless a requeue says otherwise (DESIGN section 6)."""
    if row.replay.inputs is not None:
        return (row.replay.inputs,)
    sources = [execution.plan.edges[edge].source for edge in taken]
    seen = results_of(execution, sources, row.ready_revision or 0)
    return tuple((source, str(seen[source])) for source in sources)


def right_inputs_of(execution: ExecutionRow, row: RunRow, taken: Iterable[int]) -> tuple[object, ...]:
    """The same by the book."""
    if row.replay.inputs is not None:
        return (row.replay.inputs,)
    sources = [execution.plan.edges[edge].source for edge in taken]
    revision = row.ready_revision or 0
    return tuple((source, str(result_at(execution, execution.runs[source], revision))) for source in sources)


def result_at(execution: ExecutionRow, row: RunRow, revision: int) -> NodeResult:
    """Null if it was not settled then; that of a quarantine that was resolved later, if it was one."""
    if row.settled_revision is not None and row.settled_revision <= revision:
        outputs = orjson.loads(row.outputs) if row.state is RunState.SUCCESS and row.outputs else None
        return {"outputs": outputs, "error": _error(row.error_type, row.error)}
    past: NodeResult = NO_RESULT
    for number in range(1, row.quarantine_number + 1):
        quarantine = execution.quarantines[row.id, number]
        if quarantine.revision <= revision:
            past = {"outputs": None, "error": _error(quarantine.error_type, quarantine.error)}
    return past


def _error(kind: str | None, message: str | None) -> Mapping[str, str] | None:
    return None if message is None else {"type": str(kind), "message": message}
