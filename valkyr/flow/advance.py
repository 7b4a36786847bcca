"""Carries outcomes through a graph: edges decided, joins judged, skips propagated, control nodes decided. Pure.

`advance` is a generator: it yields what it needs to know (`Need`) and is sent what was asked for (`Loaded`), so that
the caller decides how to read, and a test answers from a dict. It returns what changes, each node at most once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from valkyr.duration import parse_duration
from valkyr.flow.edges import CannotEvaluate, Decision, SourceEnd, decide_edge
from valkyr.flow.joins import Verdict, judge, pass_edge, taken_edges
from valkyr.flow.outcomes import (
    Change,
    ControlBudget,
    DecideControl,
    Discarded,
    FailedForGood,
    Halted,
    Loaded,
    Need,
    NodeResult,
    Outcome,
    Requeued,
    RunFacts,
    Succeeded,
)
from valkyr.flow.plan import Control, Plan, PlannedEdge, PlannedNode, Sight
from valkyr.flow.results import FailureType, LetterType
from valkyr.flow.states import CANCELLED_AT_ONCE, RunState
from valkyr.graph.model import EdgeKind, FailurePolicy

_NOTHING: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class _Skipped:
    """Skips travel by the queue, not by recursion: a chain of ten thousand is as fine as one of two."""

    node: int
    end: SourceEnd


@dataclass(slots=True)
class _Walk:
    plan: Plan
    base: Sight
    rows: dict[int, RunFacts]
    results: dict[int, NodeResult]
    queue: deque[Outcome | _Skipped]
    budget: ControlBudget
    changes: dict[int, Change] = field(default_factory=dict)
    # FAIL_FAST has struck: what still ends has no consequences.
    failed_fast: bool = False


def fails_fast(plan: Plan, changes: Iterable[Change]) -> bool:
    """Whether these changes end the execution like a cancel, as FAILED: the first quarantine does, under FAIL_FAST."""
    return plan.settings.failure_policy is FailurePolicy.FAIL_FAST and any(
        change.after is RunState.QUARANTINED for change in changes
    )


def advance(
    plan: Plan,
    outcomes: Sequence[Outcome],
    base: Sight,
    *,
    budget: ControlBudget | None = None,
    rows: Mapping[int, RunFacts] | None = None,
) -> Generator[Need, Loaded, list[Change]]:
    """What `outcomes` of one execution change. `base` carries `trigger` and `execution` for expressions.

    The rows of the nodes in `outcomes` are asked for like any other, as they were before (LEASED, WAITING, READY), but
    for those that are given in `rows`.
    """
    walk = _Walk(plan, base, dict(rows or {}), {}, deque(outcomes), budget or ControlBudget())
    while walk.queue:
        need = _need_of(walk)
        if need is not None:
            loaded = yield need
            # Only what was asked for: what this walk has changed already stands, whatever else was loaded.
            walk.rows.update((index, loaded.rows[index]) for index in need.rows)
            walk.results.update((index, loaded.results[index]) for index in need.results)
        _follow(walk, walk.queue.popleft())
    changes = list(walk.changes.values())
    return [_cancelled(change) for change in changes] if walk.failed_fast else changes


def _cancelled(change: Change) -> Change:
    """Of what this walk had readied or counted down before FAIL_FAST struck, nothing stays."""
    if change.after not in CANCELLED_AT_ONCE:
        return change
    return Change(change.node, change.before, RunState.CANCELLED, change.gate)


def _need_of(walk: _Walk) -> Need | None:
    """Nothing while the next outcome's needs are known; else the needs of the whole queue, to read them at once."""
    need = _missing(walk, (walk.queue[0],))
    return need if need is None or len(walk.queue) == 1 else _missing(walk, walk.queue)


def _missing(walk: _Walk, outcomes: Iterable[Outcome | _Skipped]) -> Need | None:
    rows: set[int] = set()
    results: set[int] = set()
    known, edges = walk.rows, walk.plan.edges
    for outcome in outcomes:
        node = walk.plan.nodes[outcome.node]
        if node.index not in known:
            rows.add(node.index)
        if isinstance(outcome, Halted):
            continue
        if isinstance(outcome, DecideControl | Requeued) and node.control is not None and outcome.sight is None:
            results |= node.needs
        if isinstance(outcome, Discarded):
            results.add(node.index)
        for index in node.outgoing:
            edge = edges[index]
            if edge.target not in known:
                rows.add(edge.target)
            if edge.needs:
                results |= edge.needs
    # Not a difference of sets: that looks at all that is known, each time.
    unknown = frozenset(index for index in results if index not in walk.results) if results else _NOTHING
    return Need(frozenset(rows), unknown) if rows or unknown else None


def _follow(walk: _Walk, outcome: Outcome | _Skipped) -> None:
    node = walk.plan.nodes[outcome.node]
    if walk.failed_fast:
        _halt(walk, node, outcome)
        return
    match outcome:
        case DecideControl():
            _decide_control(walk, node, outcome.sight)
        case Succeeded():
            _record(walk, node, RunState.SUCCESS, outputs=outcome.outputs)
            _leave(walk, node, SourceEnd.SUCCESS, _sight_of_edges(walk, node, outputs=outcome.outputs))
        case FailedForGood():
            _follow_failure(walk, node, outcome)
        case _Skipped():
            _leave(walk, node, outcome.end, walk.base)
        case Requeued():
            _requeue(walk, node, outcome.sight)
        case Discarded():
            _discard(walk, node)
        case Halted():
            _record(walk, node, outcome.state)


def _discard(walk: _Walk, node: PlannedNode) -> None:
    """ALWAYS edges are as decided at quarantine; one that could not be carried on then is decided now."""
    error = walk.results[node.index]["error"]
    if not walk.rows[node.index].always_decided:
        _leave(walk, node, SourceEnd.QUARANTINED, _sight_of_edges(walk, node, error=error))
    _record(walk, node, RunState.FAILED)
    walk.results[node.index] = {"outputs": None, "error": error}
    _leave(walk, node, SourceEnd.DISCARDED, walk.base)


def _halt(walk: _Walk, node: PlannedNode, outcome: Outcome | _Skipped) -> None:
    """After FAIL_FAST struck: a success is kept, any other end of a lease is a cancel; what nobody held is cancelled
    with all the rest, and letters stay."""
    match outcome:
        case Succeeded():
            _record(walk, node, RunState.SUCCESS, outputs=outcome.outputs)
        case FailedForGood() if walk.rows[node.index].state is RunState.LEASED:
            _record(walk, node, RunState.CANCELLED)
        case Discarded():
            _record(walk, node, RunState.FAILED)
        case Halted():
            _record(walk, node, outcome.state)
        case _:
            pass


def _requeue(walk: _Walk, node: PlannedNode, sight: Sight | None) -> None:
    facts = walk.rows[node.index]
    walk.rows[node.index] = replace(facts, gate=replace(facts.gate, broken=""))
    _record(walk, node, RunState.READY)
    if node.control is not None and walk.budget.take():
        walk.queue.append(DecideControl(node.index, sight))


def _follow_failure(walk: _Walk, node: PlannedNode, failed: FailedForGood) -> None:
    walk.results[node.index] = {"outputs": None, "error": failed.error}
    sight = _sight_of_edges(walk, node, error=failed.error)
    if failed.handled_by_edges and _is_handled(walk, node, sight):
        _record(walk, node, RunState.FAILED, failure=failed)
        _leave(walk, node, SourceEnd.HANDLED, sight)
    else:
        fast = walk.plan.settings.failure_policy is FailurePolicy.FAIL_FAST
        _record(walk, node, RunState.QUARANTINED, failure=failed, always_decided=not fast)
        if fast:
            walk.failed_fast = True
        else:
            _leave(walk, node, SourceEnd.QUARANTINED, sight)


def _is_handled(walk: _Walk, node: PlannedNode, sight: Sight) -> bool:
    edges = (walk.plan.edges[index] for index in node.outgoing)
    return any(
        decide_edge(SourceEnd.HANDLED, edge.kind, _holds(edge, sight))[0] is Decision.TAKEN
        for edge in edges
        if edge.kind is EdgeKind.FAILURE
    )


def _leave(walk: _Walk, node: PlannedNode, end: SourceEnd, sight: Sight) -> None:
    """Decides the edges out of a node, and what that means for their targets."""
    decided_before = walk.rows[node.index].always_decided
    for index in node.outgoing:
        edge = walk.plan.edges[index]
        decision, problem = decide_edge(end, edge.kind, _holds(edge, sight), decided_before=decided_before)
        if decision is not Decision.UNDECIDED:
            _arrive(walk, edge, decision, problem)


def _arrive(walk: _Walk, edge: PlannedEdge, decision: Decision, problem: str) -> None:
    target = walk.plan.nodes[edge.target]
    facts = walk.rows[edge.target]
    if facts.state is not RunState.PENDING:
        return  # an ANY join that is open already
    broken = f"the condition of edge {edge.edge_id!r} could not be evaluated: {problem}" if problem else ""
    gate = pass_edge(facts.gate, edge.index, decision, join=target.join, broken=broken)
    walk.rows[edge.target] = RunFacts(facts.state, gate, facts.always_decided)
    match judge(gate, target.join):
        case Verdict.WAIT:
            walk.changes[edge.target] = Change(edge.target, RunState.PENDING, RunState.PENDING, gate)
        case Verdict.READY:
            _become_ready(walk, target)
        case Verdict.SKIP:
            _record(walk, target, RunState.SKIPPED)
            walk.queue.append(_Skipped(target.index, SourceEnd.SKIPPED))
        case Verdict.SKIP_DEAD:
            _record(walk, target, RunState.SKIPPED)
            walk.queue.append(_Skipped(target.index, SourceEnd.SKIPPED_DEAD))


def _become_ready(walk: _Walk, node: PlannedNode) -> None:
    """The run leaves PENDING here and now, also where the queue decides further: an ANY join opens once only."""
    gate = walk.rows[node.index].gate
    _record(walk, node, RunState.READY)
    if gate.broken:
        failed = FailedForGood(
            node.index, LetterType.PERMANENT_ERROR, FailureType.PERMANENT, gate.broken, handled_by_edges=False
        )
        walk.queue.append(failed)
    elif node.control is not None and walk.budget.take():
        walk.queue.append(DecideControl(node.index))


def _decide_control(walk: _Walk, node: PlannedNode, sight: Sight | None) -> None:
    if node.control is Control.PASS_THROUGH:
        walk.queue.append(Succeeded(node.index, {}))
        return
    try:
        delay = _delay_of(node.config.resolve(sight or _sight(walk, node.needs)))
    except CannotEvaluate as error:
        walk.queue.append(FailedForGood(node.index, LetterType.PERMANENT_ERROR, FailureType.PERMANENT, str(error)))
        return
    _record(walk, node, RunState.WAITING, wake_after=delay)


def _delay_of(config: Any) -> timedelta:
    text = config.get("duration") if isinstance(config, dict) else None
    if not isinstance(text, str):
        raise CannotEvaluate(f"duration: expected an ISO 8601 duration such as PT5S, got {str(text)[:64]!r}")
    try:
        return parse_duration(text)
    except ValueError as error:
        raise CannotEvaluate(f"duration: {error}") from error


def _record(
    walk: _Walk,
    node: PlannedNode,
    after: RunState,
    *,
    outputs: Any = None,
    wake_after: timedelta | None = None,
    failure: FailedForGood | None = None,
    always_decided: bool = False,
) -> None:
    """Notes a transition; the state before is that of the row, whatever happened to it in this walk."""
    facts = walk.rows[node.index]
    earlier = walk.changes.get(node.index)
    before = earlier.before if earlier else facts.state
    walk.rows[node.index] = RunFacts(after, facts.gate, facts.always_decided)
    walk.results[node.index] = {"outputs": outputs, "error": failure.error if failure else None}
    walk.changes[node.index] = Change(
        node.index, before, after, facts.gate, outputs, wake_after, failure, always_decided
    )


def _sight_of_edges(walk: _Walk, node: PlannedNode, *, outputs: Any = None, error: Any = None) -> Sight:
    """What the conditions of a node's outgoing edges see; built only where there is a condition."""
    if not walk.plan.evaluates:
        return walk.base
    edges = [walk.plan.edges[index] for index in node.outgoing]
    if all(edge.condition is None for edge in edges):
        return walk.base
    needs = frozenset[int]().union(*(edge.needs for edge in edges))
    return replace(_sight(walk, needs | {node.index}), outputs=outputs, error=error)


def _sight(walk: _Walk, needs: frozenset[int]) -> Sight:
    nodes = walk.plan.nodes
    return replace(walk.base, nodes={nodes[index].node_id: walk.results[index] for index in sorted(needs)})


def _holds(edge: PlannedEdge, sight: Sight) -> Callable[[], bool]:
    condition = edge.condition
    return _always if condition is None else (lambda: condition.holds(sight))


def _always() -> bool:
    return True


__all__ = [
    "Change",
    "ControlBudget",
    "DecideControl",
    "Discarded",
    "FailedForGood",
    "Halted",
    "Loaded",
    "Need",
    "Outcome",
    "Requeued",
    "RunFacts",
    "Succeeded",
    "advance",
    "fails_fast",
    "taken_edges",
]
