"""Drives `advance` in memory the way the executor drives it over rows, and checks after every step what must hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from valkyr.flow.advance import advance, fails_fast
from valkyr.flow.joins import Gate, taken_edges
from valkyr.flow.outcomes import (
    CONTROL_BUDGET,
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
from valkyr.flow.plan import Plan, PlannedEdge, Sight
from valkyr.flow.results import LetterType
from valkyr.flow.states import (
    CANCELLED_AT_ONCE,
    FINAL_RUN_STATES,
    MOVABLE_RUN_STATES,
    RUN_TRANSITIONS,
    SETTLED_EXECUTION_STATES,
    Ending,
    ExecutionState,
    RunState,
    bad_delta,
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
    quarantines: Counter[int] = field(default_factory=Counter)
    # Runs that were discarded: FAILED, and still bad.
    given_up: set[int] = field(default_factory=set)
    needs: list[Need] = field(default_factory=list)
    state: ExecutionState = ExecutionState.PENDING
    ending: Ending | None = None
    open_runs: int = 0
    bad_runs: int = 0

    def __post_init__(self) -> None:
        for node in self.plan.nodes:
            self.rows[node.index] = RunFacts(RunState.PENDING, self._first_gate(node.incoming))
        for root in self.plan.roots:
            state = RunState.FAILED if root in self.discarded else RunState.READY
            self.rows[root] = RunFacts(state, self.rows[root].gate)
            self.taken[root] = ()
        self.given_up |= self.discarded
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

    def taken_by(self, node_id: str) -> list[str]:
        """The frozen edges of a run, by id."""
        return [self.plan.edges[edge].edge_id for edge in self.taken[self.plan.index_of[node_id]]]

    def lease(self, node: int) -> None:
        assert self.rows[node].state is RunState.READY
        assert self.plan.nodes[node].control is None
        self.rows[node] = replace(self.rows[node], state=RunState.LEASED)

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

    def requeue(self, *node_ids: str) -> list[Change]:
        return self.end([Requeued(self._quarantined(node_id)) for node_id in node_ids])

    def fix(self, node_id: str, outputs: object = None) -> list[Change]:
        return self.end([Succeeded(self._quarantined(node_id), outputs)])

    def discard(self, *node_ids: str) -> list[Change]:
        return self.end([Discarded(self._quarantined(node_id)) for node_id in node_ids])

    def _quarantined(self, node_id: str) -> int:
        node = self.plan.index_of[node_id]
        assert self.rows[node].state is RunState.QUARANTINED
        return node

    def cancel(self, ending: Ending = Ending.CANCEL) -> None:
        """Ends the execution: what nobody holds is CANCELLED at once."""
        assert self.ending is None
        self.ending = ending
        for node in self.in_state(*CANCELLED_AT_ONCE):
            self.rows[node] = replace(self.rows[node], state=RunState.CANCELLED)
        self.open_runs = len(self.in_state(RunState.LEASED))
        self._settle(reopened=False)

    def ripe(self) -> list[Outcome]:
        """What the engine does by itself: control nodes to decide, timers that are due."""
        control = [node for node in self.in_state(RunState.READY) if self.plan.nodes[node].control is not None]
        return [
            *(DecideControl(node) for node in control),
            *(Succeeded(node, {}) for node in self.in_state(RunState.WAITING)),
        ]

    def give_up(self, node_id: str) -> None:
        """The engine could not carry on after this run: it is quarantined as it is, none of its edges decided."""
        node = self._leased(node_id)
        failed = FailedForGood(node, LetterType.PERMANENT_ERROR, "PERMANENT", "unforeseen")
        changes = [Change(node, RunState.LEASED, RunState.QUARANTINED, self.rows[node].gate, failure=failed)]
        self._apply(changes, reopened=False)

    def end(self, outcomes: Sequence[Outcome]) -> list[Change]:
        """One transaction: walks, writes, checks."""
        if self.ending is not None:
            outcomes = [self._halted(outcome) for outcome in outcomes]
        fixed = {outcome.node for outcome in outcomes if isinstance(outcome, Succeeded)}
        reopened = any(
            isinstance(outcome, Requeued)
            or (outcome.node in fixed and self.rows[outcome.node].state is RunState.QUARANTINED)
            for outcome in outcomes
        )
        assert reopened or self._may_move(outcomes), "something came after the end"
        changes = self._walk(outcomes)
        self._apply(changes, reopened=reopened)
        return changes

    def _apply(self, changes: Sequence[Change], *, reopened: bool) -> None:
        self._write(changes)
        if self.ending is None and fails_fast(self.plan, changes):
            self.cancel(Ending.FAIL_FAST)
        self._settle(reopened=reopened)
        self._check()

    def _halted(self, outcome: Outcome) -> Halted:
        """In an execution that ends only leases end, and letters are discarded."""
        match outcome:
            case Discarded():
                return Halted(outcome.node, RunState.FAILED)
            case Succeeded() if self.rows[outcome.node].state is RunState.LEASED:
                return Halted(outcome.node, RunState.SUCCESS)
            case FailedForGood() if self.rows[outcome.node].state is RunState.LEASED:
                return Halted(outcome.node, RunState.CANCELLED)
        raise AssertionError(f"{outcome} in an execution that ends")

    def _may_move(self, outcomes: Sequence[Outcome]) -> bool:
        """A discard may come after the end, and what it readied then: a join whose last edge it decides."""
        if self.state not in SETTLED_EXECUTION_STATES or self.open_runs > 0:
            return self.state is not ExecutionState.SUCCESS
        return all(isinstance(outcome, Discarded | Halted) for outcome in outcomes)

    def _walk(self, outcomes: Sequence[Outcome]) -> list[Change]:
        walk = advance(self.plan, outcomes, Sight(), budget=ControlBudget(self.control_budget))
        try:
            need = next(walk)
            while True:
                self.needs.append(need)
                need = walk.send(self._answer(need))
        except StopIteration as done:
            changes: list[Change] = done.value
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
            decided = change.always_decided or self.rows[change.node].always_decided
            self.rows[change.node] = RunFacts(change.after, change.gate, decided)
            self.open_runs += open_delta(change.before, change.after)
            self.bad_runs += bad_delta(change.before, change.after, handled=change.handled)
            self._note(change)

    def _settle(self, *, reopened: bool) -> None:
        self.state = execution_state_after(
            self.state, open_runs=self.open_runs, bad_runs=self.bad_runs, ending=self.ending, reopened=reopened
        )

    def _check_transition(self, change: Change) -> None:
        row = self.rows[change.node]
        assert change.before is row.state
        if change.before is change.after is RunState.PENDING:
            return
        assert change.after in RUN_TRANSITIONS[change.before], f"{change.before} -> {change.after}"
        if change.before is RunState.PENDING and change.after not in (RunState.SKIPPED, RunState.CANCELLED):
            assert change.node not in self.taken, "readied twice"
            self.taken[change.node] = taken_edges(self.plan.nodes[change.node].incoming, change.gate)
        elif change.node in self.taken:
            frozen = taken_edges(self.plan.nodes[change.node].incoming, change.gate)
            assert self.taken[change.node] == frozen, "its edges are frozen"

    def _note(self, change: Change) -> None:
        node = change.node
        if change.before is RunState.QUARANTINED and change.after is RunState.FAILED and change.failure is None:
            self.given_up.add(node)  # its error stays
        elif change.after in FINAL_RUN_STATES or change.after is RunState.QUARANTINED:
            error = change.failure.error if change.failure else None
            self.results[node] = {"outputs": change.outputs, "error": error}
        elif change.before is RunState.QUARANTINED:
            self.results.pop(node)
        if change.failure is not None:
            self.failures[node] = change.failure
        self.quarantines[node] += change.after is RunState.QUARANTINED
        if change.after is RunState.WAITING:
            self.wake_after[node] = change.wake_after

    def _check(self) -> None:
        """Counters recounted, gates recounted, nothing ready before its time."""
        states = [row.state for row in self.rows.values()]
        assert self.open_runs == sum(state in MOVABLE_RUN_STATES for state in states)
        assert self.bad_runs == sum(state is RunState.QUARANTINED for state in states) + len(self.given_up)
        self._check_end(states)
        if self.ending is None:
            self._check_gates()

    def _check_end(self, states: Sequence[RunState]) -> None:
        if self.ending is not None:
            assert not set(states) & CANCELLED_AT_ONCE, "nothing is to be started any more"
        if self.state not in SETTLED_EXECUTION_STATES:
            assert self.open_runs > 0, "nothing can move, and it does not end"
        elif self.state is ExecutionState.SUCCESS:
            assert set(states) <= FINAL_RUN_STATES
            assert self.bad_runs == 0
        elif self.ending is None:
            assert self.bad_runs > 0

    def _check_gates(self) -> None:
        for node in self.plan.nodes:
            decided = sum(self._is_decided(self.plan.edges[edge]) for edge in node.incoming)
            row = self.rows[node.index]
            if row.state is RunState.PENDING:
                assert row.gate.unmet == len(node.incoming) - decided
                assert row.gate.unmet > 0, "nothing is left to wait for"
            elif node.join is Join.ALL:
                assert decided == len(node.incoming), "left PENDING before every edge was decided"

    def _is_decided(self, edge: PlannedEdge) -> bool:
        source = self.rows[edge.source]
        return source.state in FINAL_RUN_STATES or (edge.kind is EdgeKind.ALWAYS and source.always_decided)
