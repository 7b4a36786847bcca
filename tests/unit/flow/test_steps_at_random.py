"""Whole transactions over rows at random: pauses and resumes, retries, lost runners, deadlines, breakers, quarantines
and their resolutions, messages that come twice or late, ends at any moment; against the reference."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial

from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.unit.executor.executions import EXECUTION
from tests.unit.flow.batches import a_pause, a_request, a_resume, an_end
from tests.unit.flow.cases import AT_RANDOM, WORDS, Case, a_case, dice, sizes
from tests.unit.flow.lives import Go, Lives, Script, Way, cut_short
from tests.unit.flow.plans import plan_of
from tests.unit.flow.table import Table
from valkyr.flow.attempts import Fence
from valkyr.flow.events import ControlReady, Event, LeaseEnded, Resolution, Resolve, RunDeadline, TimerDue
from valkyr.flow.leasing import BREAKER
from valkyr.flow.results import Failure, FailureType, Lost, Omitted, Release, Result, Snooze, Success
from valkyr.flow.states import FINAL_RUN_STATES, SETTLED_EXECUTION_STATES, Ending, ExecutionState, RunState
from valkyr.graph.model import Join

R, E = RunState, ExecutionState
DONE = Success(b"{}")
PERMANENT = Failure(FailureType.PERMANENT, "as it was told")
ONCE_MORE = Failure(FailureType.TRANSIENT, "once more")
COMES_BACK: list[Result | Lost | Omitted] = [ONCE_MORE, Release(), Snooze(timedelta(seconds=1)), Lost(), Omitted()]
RESOLUTIONS = {Way.REQUEUE: Resolution.REQUEUED, Way.FIX: Resolution.FIXED, Way.DISCARD: Resolution.DISCARDED}
Move = Callable[[], None]
SOME = settings(AT_RANDOM, max_examples=300)
WAYS = [*RESOLUTIONS, Way.LEAVE]


def scripts_of(case: Case, seed: random.Random) -> dict[str, Script]:
    """Up to three quarantines for each run. Work goes as it likes, what the engine decides always the same way."""
    scripts = {}
    for module in case.graph.modules:
        ways = [*seed.choices(WAYS, k=2), seed.choice([Way.FIX, Way.DISCARD, Way.LEAVE])]
        goes = seed.choices(list(Go), [4, 2, 2, 1], k=4)
        if module.class_name != "Work":
            goes = [Go.WELL if case.succeeds[module.node_id] else Go.BADLY] * 4
        scripts[module.node_id] = Script(goes, ways)
    return scripts


@dataclass
class Play:
    """Plays by scripts. What has been said once may be said again, later."""

    table: Table
    scripts: Mapping[str, Script]
    order: random.Random
    said: list[LeaseEnded] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    opened_by: dict[str, str] = field(default_factory=dict)
    # Whose condition could not be evaluated: the first quarantine of these was the end of no go.
    broken: set[int] = field(default_factory=set)

    def step(self) -> bool:
        """One transaction, or one lease; false when nothing can happen any more but what changes nothing."""
        if self._is_paused and self.order.random() < 0.2:
            self._apply([a_resume()])
        self._stray()
        coming = [*self._leases(), *self._ends(), *self._engine(), *self._resolutions()]
        if not coming:
            if self._is_paused:
                self._apply([a_resume()])
                return True
            return False
        execution = self.table.execution
        if self.order.random() < 0.2 and execution.state not in SETTLED_EXECUTION_STATES and not execution.ending:
            coming.append(partial(self._apply, [a_pause()]))
        self.order.choice(coming)()
        self._note_openings()
        return True

    @property
    def _is_paused(self) -> bool:
        return self.table.paused and self.table.execution.ending is None

    def _apply(self, events: list[Event], *, problem: str = "") -> None:
        answers = self.table.apply(events, problem=problem)
        assert all(isinstance(answer, Fence) for answer in answers)
        for said, answer in zip(events, answers, strict=True):
            self.counts[type(said).__name__] += answer is Fence.ACCEPTED

    def _stray(self) -> None:
        """A message that comes again, and a lease that was over before: nothing changes."""
        if not self.said or self.order.random() > 0.2:
            return
        before = (dict(self.table.rows), self.table.execution)
        again = self.order.choice(self.said)
        if again.epoch == self.table.rows[self._node(again)].lease.epoch and self._state(self._node(again)) is R.LEASED:
            return
        assert self.table.apply([again])[0] in (Fence.LEASE_LOST, Fence.ALREADY_REPORTED)
        assert (self.table.rows, self.table.execution) == before

    def _node(self, ended: LeaseEnded) -> int:
        return next(node for node, row in self.table.rows.items() if row.id == ended.run_id)

    def _state(self, node: int) -> RunState:
        return self.table.rows[node].facts.state

    def _script(self, node: int) -> Script:
        return self.scripts[self.table.plan.nodes[node].node_id]

    def _go(self, node: int) -> Go:
        """How the present one ends: each quarantine but that of a broken condition was the end of one."""
        row = self.table.rows[node]
        return self._script(node).goes[row.quarantine_number - (node in self.broken)]

    def _is_work(self, node: int) -> bool:
        return self.table.plan.nodes[node].control is None

    def _leases(self) -> list[Move]:
        """What may become of work that is READY, or held back."""
        table = self.table
        waiting = [node for node in table.in_state(R.READY, R.PARKED) if self._is_work(node)]
        moves: list[Move] = [partial(self._be_late, node) for node in waiting if self._go(node) is Go.LATE]
        for node in waiting:
            if table.rows[node].facts.state is R.READY:
                moves.append(partial(table.lease if self.order.random() < 0.9 else table.hold_back, node))
            elif table.rows[node].parked_by == BREAKER:
                moves.append(partial(table.let_go, node))
        return moves

    def _be_late(self, node: int) -> None:
        """Held by nobody, it fails; whoever holds it is told to stop."""
        self.table.be_late(node)
        assert self.table.apply([RunDeadline(EXECUTION, self.table.rows[node].id)]) == [Fence.ACCEPTED]

    def _ends(self) -> list[Move]:
        return [partial(self._end, node) for node in self.table.in_state(R.LEASED)]

    def _end(self, node: int) -> None:
        row = self.table.rows[node]
        if self.order.random() < 0.3 and not row.lease.deadline_passed:
            self._report(node, self.order.choice(COMES_BACK))
            return
        match self._go(node):
            case Go.WELL:
                self._report(node, DONE)
            case Go.BADLY:
                self._report(node, PERMANENT)
            case Go.GIVEN_UP if self.table.execution.ending is None:
                self._report(node, DONE, problem="unforeseen")
            case Go.GIVEN_UP:
                self._report(node, PERMANENT)
            case Go.LATE:
                if not row.lease.deadline_passed and self.table.execution.ending is None:
                    self._be_late(node)
                self._report(node, self.order.choice([PERMANENT, *COMES_BACK]))
                assert self._state(node) not in (R.READY, R.PARKED), "it was too late to come back"

    def _report(self, node: int, result: Result | Lost | Omitted, *, problem: str = "") -> None:
        row = self.table.rows[node]
        ended = LeaseEnded(EXECUTION, row.id, row.lease.epoch, result, 1)
        batch: list[Event] = [ended]
        if not problem and self.table.execution.ending is None:
            both: list[Event] = [a_pause(), a_resume()]
            batch += both[: self.order.choice([0, 0, 0, 0, 0, 0, 1, 2])]
        self._apply(batch, problem=problem)
        self.said.append(ended)

    def _engine(self) -> list[Move]:
        """Timers, and control nodes whose turn it is."""
        moves: list[Move] = []
        for node in self.table.in_state(R.WAITING):
            due = TimerDue(EXECUTION, self.table.rows[node].id)
            moves.append(partial(self._apply, [due]))
        for node in self.table.in_state(R.READY):
            turn = ControlReady(EXECUTION, self.table.rows[node].id)
            if not self._is_work(node):
                moves.append(partial(self._apply, [turn]))
        return moves

    def _resolutions(self) -> list[Move]:
        moves: list[Move] = []
        for node in self.table.in_state(R.QUARANTINED):
            row = self.table.rows[node]
            way = self._script(node).ways[row.quarantine_number - 1]
            if way is Way.LEAVE or (self.table.execution.ending is not None and way is not Way.DISCARD):
                continue
            asked = Resolve(EXECUTION, row.id, row.quarantine_number, RESOLUTIONS[way], a_request())
            moves.append(partial(self._apply, [asked]))
        return moves

    def _note_openings(self) -> None:
        """Which edge opened an ANY join, and whose condition broke: as observed."""
        for node in self.table.plan.nodes:
            gate = self.table.rows[node.index].facts.gate
            if node.join is Join.ANY and gate.chosen:
                self.opened_by.setdefault(node.node_id, self.table.plan.edges[gate.chosen[0]].edge_id)
            if gate.broken:
                self.broken.add(node.index)


def a_play(seed: random.Random, count: int, order: random.Random) -> tuple[Case, Play]:
    case = a_case(seed, count, joins=list(Join), conditions=WORDS)
    return case, Play(Table(plan_of(case.graph), order), scripts_of(case, seed), order)


@SOME
@given(dice, sizes, dice)
def test_runs_end_where_the_tables_say_however_often_they_were_paused_lost_or_late(
    seed: random.Random, count: int, order: random.Random
) -> None:
    case, play = a_play(seed, count, order)
    while play.step():
        pass
    table = play.table
    assert table.states == Lives(case.graph, play.scripts, play.opened_by).states()
    assert table.execution.state is (E.FAILED if table.execution.bad_runs else E.SUCCESS)
    event(f"{min(3, play.counts['PauseExecution'])} pauses")


@SOME
@given(dice, sizes, dice, st.sampled_from([Ending.CANCEL, Ending.DEADLINE]))
def test_an_end_at_any_moment_also_of_a_paused_execution_cuts_everything_short(
    seed: random.Random, count: int, order: random.Random, ending: Ending
) -> None:
    _, play = a_play(seed, count, order)
    table = play.table
    for _ in range(seed.randint(0, 12)):
        play.step()
    if table.execution.state in SETTLED_EXECUTION_STATES:
        return
    then, paused = table.states, table.paused
    table.execution = replace(table.execution, deadline_passed=ending is Ending.DEADLINE)
    assert table.apply([an_end(ending)]) == [Fence.ACCEPTED]
    while play.step():
        pass
    succeeded = {node for node, state in table.states.items() if state is R.SUCCESS}
    discarded = {table.plan.nodes[node].node_id for node in table.discarded}
    assert table.states == cut_short(then, succeeded, discarded)
    assert table.execution.state is (E.CANCELLED if ending is Ending.CANCEL else E.FAILED)
    assert set(table.states.values()) <= FINAL_RUN_STATES | {R.QUARANTINED}
    event(f"{ending}, {'paused' if paused else 'running'}")
