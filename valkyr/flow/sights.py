"""What a run sees of those before it: their outcomes as they were at the revision that readied it, in every attempt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from valkyr.flow.facts import ExecutionFacts
from valkyr.flow.ids import RunKey, run_id
from valkyr.flow.plan import Plan, PlannedNode, Sight
from valkyr.flow.states import RunState
from valkyr.frozen import cheaply_made


@cheaply_made
@dataclass(frozen=True, slots=True)
class StoredResult:
    """The outcome of a run as it is stored: JSON text of the outputs, the error, and the revision that settled it.

    `earlier` holds its quarantines, oldest first: what those saw that became ready behind one by an ALWAYS edge.
    """

    state: RunState
    outputs: str | None
    error: str | None
    error_type: str | None
    settled_revision: int | None
    earlier: tuple[QuarantinedAs, ...] = ()


@dataclass(frozen=True, slots=True)
class QuarantinedAs:
    """The outcome that a run had while it was quarantined, from that revision on."""

    revision: int
    error: str | None
    error_type: str


# Results by node of one execution.
ResultOf = Callable[[int], StoredResult | None]


def sight_of(
    plan: Plan,
    facts: ExecutionFacts,
    node: PlannedNode,
    *,
    taken: Iterable[int],
    ready_revision: int,
    result_of: ResultOf,
    replaced: str | None,
) -> Sight:
    """What the expressions of a run's config see. `replaced` is JSON that stands in the place of the inputs that would
    be assembled: expressions read it too."""
    nodes = {plan.nodes[i].node_id: _visible(as_of(result_of(i), ready_revision)) for i in sorted(node.needs)}
    if replaced is None:
        return Sight(trigger=facts.trigger, execution=facts.visible, nodes=nodes)
    document = orjson.loads(replaced)
    given = document.get("nodes") or {}
    predecessors = {plan.nodes[plan.edges[edge].source].node_id for edge in taken}
    for name in nodes.keys() & (predecessors | given.keys()):
        nodes[name] = {"outputs": None, "error": None, **(given.get(name) or {})}
    return Sight(trigger=document.get("trigger"), execution=facts.visible, nodes=nodes)


def as_of(result: StoredResult | None, revision: int) -> StoredResult | None:
    """The outcome as it was at that revision: null if there was none, and that of a quarantine which was resolved
    later, so that what became ready behind it sees the same in every attempt."""
    if result is None:
        return None
    if result.settled_revision is not None and result.settled_revision <= revision:
        return result
    before = [past for past in result.earlier if past.revision <= revision]
    if not before:
        return None
    last = before[-1]
    return StoredResult(RunState.QUARANTINED, None, last.error, last.error_type, last.revision)


def visible_result(result: StoredResult | None, revision: int) -> Mapping[str, Any]:
    """What expressions see of a node: null unless it was settled by `revision`."""
    return _visible(as_of(result, revision))


def _visible(result: StoredResult | None) -> Mapping[str, Any]:
    if result is None:
        return {"outputs": None, "error": None}
    outputs = orjson.loads(result.outputs) if result.state is RunState.SUCCESS and result.outputs else None
    return {"outputs": outputs, "error": error_of(result)}


def error_of(result: StoredResult) -> dict[str, Any] | None:
    """What expressions see as an error; null after a success."""
    if result.error is None:
        return None
    return {"type": str(result.error_type), "message": result.error}


def results_by_node(execution_id: UUID, results: Mapping[RunKey, StoredResult]) -> ResultOf:
    """Looks results up by node of one execution."""
    return lambda node: results.get((execution_id, run_id(execution_id, node)))
