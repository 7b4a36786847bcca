"""Drives `advance` in memory the way the executor drives it over rows, and checks after every step what must hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from valkyr.flow.advance import (
    CONTROL_BUDGET,
    Change,
    ControlBudget,
    DecideControl,
    FailedForGood,
    Loaded,
    Need,
    NodeResult,
    Outcome,
    RunFacts,
    Succeeded,
    advance,
)
from valkyr.flow.joins import Gate, taken_edges
from valkyr.flow.plan import Plan, PlannedEdge, Sight
from valkyr.flow.results import LetterType
from valkyr.flow.states import (
    FINAL_RUN_STATES,
    MOVABLE_RUN_STATES,
    RUN_TRANSITIONS,
    ExecutionState,
    RunState,
    execution_state_after,
    open_delta,
)
from valkyr.graph.model import EdgeKind, Join

NOTHING: NodeResult = {"outputs": None, "error": None}


@dataclass
class Driver:
    """One execution in memory. `discarded` roots have failed for good and were discarded before it begins."""

    plan: Plan
    control_budget: int = CONTROL_BUDGET
    discarded: frozenset[int] = frozenset()
    # Whether an answer holds every row and result there is, asked for or not.
    generous: Callable[[], bool] = lambda: False
    rows: dict[int, RunFacts] = field(default_factory=dict)
    results: dict[int, NodeResult] = field(default_factory=dict)
    taken: dict[int, tuple[int, ...]] = field(default_factory=dict)
    wake_after: dict[int, timedelta | None] = field(default_factory=dict)
    failures: dict[int, FailedForGood] = field(default_factory=dict)
    needs: list[Need] = field(default_factory=list)
    state: ExecutionState = ExecutionState.PENDING
    open_runs: int = 0
    bad_runs: int = 0

    def __post_init__(self) -> None:
        for node in self.plan.nodes:
            self.rows[node.index] = RunFacts(RunState.PENDING, self._first_gate(node.incoming))
        for root in self.plan.roots:
            state = RunState.FAILED if root in self.discarded else RunState.READY
            self.rows[root] = RunFacts(state, self.rows[root].gate)
            self.taken[root] = ()
        self.open_runs = len(self.plan.roots) - len(self.discarded)
        self.bad_runs = len(self.discarded)

    def _first_gate(self, incoming: Sequence[int]) -> Gate:
        """As the discarded runs have left it: their SUCCESS edges dead, their FAILURE edges not taken."""
        decided = [self.plan.edges[edge] for edge in incoming if self.plan.edges[edge].source in self.discarded]
        return Gate(
            len(incoming) - len(decided),
            dead=any(edge.kind is EdgeKind.SUCCESS for edge in decided),
            excluded=tuple(edge.index for edge in decided),
        )

    def in_state(self, *states: RunState) -> list[int]:
        return [index for index, row in self.rows.items() if row.state in states]

    def state_of(self, node_id: str) -> RunState:
        return self.rows[self.plan.index_of[node_id]].state

    @property
    def states(self) -> dict[str, RunState]:
        return {node.node_id: self.rows[node.index].state for node in self.plan.nodes}

    def lease(self, node: int) -> None:
        assert self.rows[node].state is RunState.READY
        assert self.plan.nodes[node].control is None
        self.rows[node] = RunFacts(RunState.LEASED, self.rows[node].gate)

    def succeed(self, *node_ids: str, outputs: object = None) -> list[Change]:
        """Leases and ends these runs in one batch."""
        return self.end([Succeeded(self._leased(node_id), outputs) for node_id in node_ids])

    def fail(self, *node_ids: str, error_type: str = "TRANSIENT", message: str = "it broke") -> list[Change]:
        return self.end([self.failure(node_id, error_type, message) for node_id in node_ids])

    def failure(self, node_id: str, error_type: str = "TRANSIENT", message: str = "it broke") -> FailedForGood:
        return FailedForGood(self._leased(node_id), LetterType.MAX_RETRIES, error_type, message)

    def _leased(self, node_id: str) -> int:
        node = self.plan.index_of[node_id]
        if self.rows[node].state is RunState.READY:
            self.lease(node)
        return node

    def ripe(self) -> list[Outcome]:
        """What the engine does by itself: control nodes to decide, timers that are due."""
        control = [node for node in self.in_state(RunState.READY) if self.plan.nodes[node].control is not None]
        return [
            *(DecideControl(node) for node in control),
            *(Succeeded(node, {}) for node in self.in_state(RunState.WAITING)),
        ]

    def end(self, outcomes: Sequence[Outcome]) -> list[Change]:
        """One transaction: walks, writes, checks."""
        walk = advance(self.plan, outcomes, Sight(), budget=ControlBudget(self.control_budget))
        try:
            need = next(walk)
            while True:
                self.needs.append(need)
                need = walk.send(self._answer(need))
        except StopIteration as done:
            changes: list[Change] = done.value
        self._write(changes)
        self._check()
        return changes

    def _answer(self, need: Need) -> Loaded:
        if self.generous():
            return Loaded(dict(self.rows), {node: self.results.get(node, NOTHING) for node in self.rows})
        return Loaded(
            {node: self.rows[node] for node in need.rows},
            {node: self.results.get(node, NOTHING) for node in need.results},
        )

    def _write(self, changes: Sequence[Change]) -> None:
        assert len({change.node for change in changes}) == len(changes), "a node stands in the changes twice"
        for change in changes:
            self._check_transition(change)
            self.rows[change.node] = RunFacts(change.after, change.gate)
            self.open_runs += open_delta(change.before, change.after)
            self.bad_runs += change.after is RunState.QUARANTINED
            self._note(change)
        assert self.state not in (ExecutionState.SUCCESS, ExecutionState.FAILED), "something came after the end"
        self.state = execution_state_after(self.state, open_runs=self.open_runs, bad_runs=self.bad_runs)

    def _check_transition(self, change: Change) -> None:
        assert change.before is self.rows[change.node].state
        if change.before is change.after:
            assert change.after is RunState.PENDING
            return
        assert change.after in RUN_TRANSITIONS[change.before], f"{change.before} -> {change.after}"
        if change.before is RunState.PENDING and change.after is not RunState.SKIPPED:
            assert change.node not in self.taken, "readied twice"
            self.taken[change.node] = taken_edges(self.plan.nodes[change.node].incoming, change.gate)

    def _note(self, change: Change) -> None:
        if change.after in FINAL_RUN_STATES or change.after is RunState.QUARANTINED:
            error = change.failure.error if change.failure else None
            self.results[change.node] = {"outputs": change.outputs, "error": error}
        if change.failure is not None:
            self.failures[change.node] = change.failure
        if change.after is RunState.WAITING:
            self.wake_after[change.node] = change.wake_after

    def _check(self) -> None:
        """Counters recounted, gates recounted, nothing ready before its time."""
        states = [row.state for row in self.rows.values()]
        assert self.open_runs == sum(state in MOVABLE_RUN_STATES for state in states)
        assert self.bad_runs == sum(state is RunState.QUARANTINED for state in states) + len(self.discarded)
        for node in self.plan.nodes:
            decided = sum(self._is_decided(self.plan.edges[edge]) for edge in node.incoming)
            row = self.rows[node.index]
            if row.state is RunState.PENDING:
                assert row.gate.unmet == len(node.incoming) - decided
                assert row.gate.unmet > 0, "nothing is left to wait for"
            elif node.join is Join.ALL:
                assert decided == len(node.incoming), "left PENDING before every edge was decided"

    def _is_decided(self, edge: PlannedEdge) -> bool:
        source = self.rows[edge.source].state
        return source in FINAL_RUN_STATES or (source is RunState.QUARANTINED and edge.kind is EdgeKind.ALWAYS)
