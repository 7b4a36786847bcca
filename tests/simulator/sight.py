"""What a run sees of those before it: their outcomes as they were at the revision that readied it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import orjson

from tests.simulator.rows import ExecutionRow, RunRow
from valkyr.flow.outcomes import NO_RESULT, NodeResult
from valkyr.flow.plan import PlannedNode, Sight
from valkyr.flow.states import RunState


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


def results_of(execution: ExecutionRow, nodes: Iterable[int], revision: int) -> dict[int, NodeResult]:
    return {node: result_at(execution, execution.runs[node], revision) for node in nodes}


def sight_of(
    execution: ExecutionRow, node: PlannedNode, taken: Iterable[int], revision: int, replaced: str | None
) -> Sight:
    """What a control node's config is resolved against."""
    plan = execution.plan
    nodes = {plan.nodes[i].node_id: result_at(execution, execution.runs[i], revision) for i in sorted(node.needs)}
    if replaced is not None:
        given = orjson.loads(replaced).get("nodes") or {}
        before = {plan.nodes[plan.edges[edge].source].node_id for edge in taken}
        for name in nodes.keys() & (before | given.keys()):
            nodes[name] = {**NO_RESULT, **(given.get(name) or {})}
    return Sight(nodes=nodes)


def inputs_of(execution: ExecutionRow, row: RunRow, taken: Iterable[int]) -> tuple[object, ...]:
    """What a module is handed: the same in every attempt, unless a requeue says otherwise (DESIGN section 6)."""
    if row.replay.inputs is not None:
        return (row.replay.inputs,)
    revision = row.ready_revision or 0
    plan = execution.plan
    return tuple((edge, str(result_at(execution, execution.runs[plan.edges[edge].source], revision))) for edge in taken)
