"""Plays one execution to its end: what is ready is run, then time skips to whatever comes next."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import orjson

from valkyr.flow import events as flow
from valkyr.flow.attempts import RetryPolicy
from valkyr.flow.effects import Prepared
from valkyr.flow.intake import StepRules
from valkyr.flow.plan import PlannedNode
from valkyr.flow.results import Lost
from valkyr.flow.states import Ending, RunState
from valkyr.graph.model import Dedupe, Graph, Settings
from valkyr.module import ModuleSpec
from valkyr.planning.compiled import new_memory, plan_of
from valkyr.runner.leases import Failure, FailureType, LeasedRun, LeaseRef, Result, Success
from valkyr.runner.outcomes import encode_outputs, failure_of
from valkyr.testing.bench import LEASE, Bench
from valkyr.testing.equals import Equals
from valkyr.testing.rows import START, Rows
from valkyr.testing.scripts import LOST, Discard, Fix, Outcome, Requeue, Resolution, Returns, Takes

LEASE_RUNS_OUT = timedelta(minutes=2)
"""How long a lost runner's lease lasts: what an executor grants unless it is configured otherwise."""

MAX_REQUEUES = 5


@dataclass(frozen=True, slots=True)
class Moment:
    """At this time, counted from the start, the run of this node came to this state; LEASED: in that attempt."""

    at: timedelta
    node_id: str
    state: RunState
    attempt: int


@dataclass(frozen=True, slots=True)
class Rules:
    """What a test says. A script that is no sequence counts for every attempt, or quarantine."""

    outcomes: Mapping[str, Outcome | Sequence[Outcome]]
    resolutions: Mapping[str, Resolution | Sequence[Resolution]]
    retry: RetryPolicy
    deadline: timedelta | None
    cancel_at: timedelta | None
    concurrency: int
    jitter: float


@dataclass(slots=True)
class Held:
    """A lease that somebody holds, until when, and how it ends then."""

    node: int
    epoch: int
    until: timedelta
    result: Result | Lost
    began: timedelta


class Play:
    """One execution; `to_the_end` once."""

    def __init__(
        self, graph: Graph, specs: Mapping[str, ModuleSpec], trigger: bytes, rules: Rules, bench: Bench
    ) -> None:
        self.timeline: list[Moment] = []
        self.costs: dict[int, float] = {}
        self._specs = specs
        self._rules = rules
        self._bench = bench
        self._held: list[tuple[timedelta, int, Held]] = []
        self._numbers = itertools.count()
        self._resolved: Counter[int] = Counter()
        step_rules = StepRules(self._retry_of, lambda: rules.jitter, new_memory, MAX_REQUEUES)
        plan = plan_of(graph, lambda _module, _config: "", self._dedupe_of)
        self.rows = Rows(plan, trigger, step_rules, self._tell, deadline=rules.deadline)
        self.equals = Equals(self.rows, self)

    async def to_the_end(self) -> None:
        """Until nothing can happen any more, the resolutions included."""
        self._ripe()
        while True:
            while await self._work() or self._skip():
                pass
            if not self._resolve():
                return
            self._ripe()

    def target_of(self, node: PlannedNode, config: bytes) -> str:
        """No breakers here: nothing is held back."""
        return ""

    def _retry_of(self, node: PlannedNode, settings: Settings) -> RetryPolicy:
        spec = self._specs.get(node.class_name)
        return self._rules.retry.narrowed(node.retry, settings.default_retry, spec.retry if spec else None)

    def _dedupe_of(self, class_name: str) -> Dedupe | None:
        spec = self._specs.get(class_name)
        return spec.dedupe if spec else None

    def _tell(self, node: int, state: RunState) -> None:
        self.equals.heard(node, state)
        planned = self.rows.plan.nodes[node]
        self.timeline.append(Moment(self.rows.now, planned.node_id, state, self.rows.row(node).attempt))

    def _apply(self, *events: flow.Event) -> None:
        self.rows.apply(*events)
        self._ripe()
        self._stop_those_told()

    def _ripe(self) -> None:
        """What is decided about before anybody may lease it."""
        while self._ripe_control() or self.equals.decide():
            pass

    def _ripe_control(self) -> bool:
        """Control nodes that one transaction left for another; whether there were any."""
        ready = self.rows.in_state(RunState.READY)
        left = [node for node in ready if self.rows.plan.nodes[node].control is not None]
        if left:
            self.rows.apply(*(flow.ControlReady(self.rows.facts.id, self.rows.run_of(node)) for node in left))
        return bool(left)

    def _stop_those_told(self) -> None:
        """Runners are told with their next heartbeat; here at once. What had ended by then counts."""
        for place, (until, number, held) in enumerate(self._held):
            if until > self.rows.now and self.rows.row(held.node).stop_reason is not None:
                held.result = Failure(FailureType.CANCELLED, "the run was told to stop while the module was running")
                self._held[place] = (self.rows.now, number, held)
        heapq.heapify(self._held)

    async def _work(self) -> bool:
        """Leases what is ready, as far as there is room; whether it was anything."""
        ready = [node for node in self.rows.in_state(RunState.READY) if self.rows.ready_at[node] <= self.rows.now]
        ready.sort(key=lambda node: (-self.rows.plan.nodes[node].priority, self.rows.ready_at[node], node))
        room = max(0, self._rules.concurrency - len(self._held))
        for node in ready[:room]:
            await self._lease(node)
        return bool(ready[:room])

    async def _lease(self, node: int) -> None:
        prepared = self.rows.lease(node, self)
        held = Held(node, prepared.epoch, self.rows.now, Success(b"{}"), self.rows.now)
        await self._run(held, prepared)
        heapq.heappush(self._held, (held.until, next(self._numbers), held))

    async def _run(self, held: Held, prepared: Prepared) -> None:
        """Sets how the attempt ends, and when."""
        planned = self.rows.plan.nodes[held.node]
        if prepared.problem:
            held.result = Failure(FailureType.PERMANENT, prepared.problem)
            return
        script = self._script(planned.node_id, prepared.attempt)
        takes = script.time if isinstance(script, Takes) else START
        timeout = self._timeout(planned)
        if isinstance(script, Takes):
            script = script.then
        held.until += takes
        if script is LOST:
            held.until += LEASE_RUNS_OUT
            held.result = Lost()
        elif timeout is not None and takes >= timeout > START:
            held.until = held.began + timeout
            message = f"the attempt took longer than its timeout of {timeout.total_seconds():g} s"
            held.result = Failure(FailureType.TIMEOUT, message)
        elif isinstance(script, Returns):
            held.result = _as_returned(script)
        elif isinstance(script, BaseException):
            held.result = failure_of(script)
        else:
            await self._really(held, prepared, planned, timeout)

    def _script(self, node_id: str, attempt: int) -> Outcome | None:
        said = self._rules.outcomes.get(node_id)
        if isinstance(said, Sequence):
            return said[attempt - 1] if attempt <= len(said) else None
        return said

    def _timeout(self, planned: PlannedNode) -> timedelta | None:
        spec = self._specs.get(planned.class_name)
        return planned.timeout or (spec.timeout if spec else None)

    async def _really(self, held: Held, prepared: Prepared, planned: PlannedNode, timeout: timedelta | None) -> None:
        leased = LeasedRun(
            ref=LeaseRef(str(prepared.execution_id), str(prepared.id), prepared.epoch),
            attempt=prepared.attempt,
            node_id=planned.node_id,
            class_name=planned.class_name,
            config=prepared.config,
            inputs=prepared.inputs,
            idempotency_key=prepared.idempotency_key,
            lease_duration=LEASE,
            timeout=timeout,
            deadline=prepared.deadline,
            progress=(prepared.progress or "").encode(),
        )
        ended = await self._bench.run(leased)
        if ended.progress is not None:
            self.rows.progress[held.node] = ended.progress.decode()
        held.result = ended.result.result

    def _skip(self) -> bool:
        """To whatever comes next; false if nothing does."""
        coming = self._coming()
        if coming is None:
            return False
        self.rows.now = max(self.rows.now, coming)
        # What is reported at the very moment of a deadline was in time.
        return self._end_leases() or self._timers() or self._deadlines() or self._end() or self._is_ready()

    def _coming(self) -> timedelta | None:
        rows = self.rows
        if not rows.execution.open_runs:
            return None
        times = [until for until, _, _ in self._held[:1]]
        times += [rows.wake_at[node] for node in rows.in_state(RunState.WAITING)]
        times += [rows.ready_at[node] for node in rows.in_state(RunState.READY)] if not self._is_full else []
        times += [rows.deadline_at[node] for node in self._under_deadline()]
        if rows.execution.ending is None:
            times += [time for time in (self._rules.deadline, self._rules.cancel_at) if time is not None]
        return min(times, default=None)

    @property
    def _is_full(self) -> bool:
        return len(self._held) >= self._rules.concurrency

    def _under_deadline(self) -> list[int]:
        nodes = self.rows.in_state(RunState.READY, RunState.WAITING, RunState.LEASED)
        return [node for node in nodes if node in self.rows.deadline_at and self.rows.row(node).stop_reason is None]

    def _is_ready(self) -> bool:
        return any(self.rows.ready_at[node] <= self.rows.now for node in self.rows.in_state(RunState.READY))

    def _end_leases(self) -> bool:
        """Of one lease: what ends at the same moment ends in the order in which it began."""
        if not self._held or self._held[0][0] > self.rows.now:
            return False
        _, _, held = heapq.heappop(self._held)
        if isinstance(held.result, Success) and held.result.cost_tokens is not None:
            self.costs[held.node] = held.result.cost_tokens
        duration = int((self.rows.now - held.began).total_seconds() * 1000)
        run = self.rows.run_of(held.node)
        self._apply(flow.LeaseEnded(self.rows.facts.id, run, held.epoch, held.result, duration))
        return True

    def _timers(self) -> bool:
        due = [node for node in self.rows.in_state(RunState.WAITING) if self.rows.wake_at[node] <= self.rows.now]
        if due:
            self._apply(*(flow.TimerDue(self.rows.facts.id, self.rows.run_of(node)) for node in due))
        return bool(due)

    def _deadlines(self) -> bool:
        late = [node for node in self._under_deadline() if self.rows.deadline_at[node] <= self.rows.now]
        if late:
            self._apply(*(flow.RunDeadline(self.rows.facts.id, self.rows.run_of(node)) for node in late))
        return bool(late)

    def _end(self) -> bool:
        if self.rows.execution.ending is not None:
            return False
        rows, rules = self.rows, self._rules
        if rules.deadline is not None and rules.deadline <= rows.now:
            self._apply(flow.EndExecution(rows.facts.id, Ending.DEADLINE))
        elif rules.cancel_at is not None and rules.cancel_at <= rows.now:
            self._apply(flow.EndExecution(rows.facts.id, Ending.CANCEL, _REQUEST))
        else:
            return False
        return True

    def _resolve(self) -> bool:
        """Of one quarantine; whether there was one for which something was said."""
        for node in self.rows.in_state(RunState.QUARANTINED):
            said = self._rules.resolutions.get(self.rows.plan.nodes[node].node_id)
            if isinstance(said, Sequence):
                said = said[self._resolved[node]] if self._resolved[node] < len(said) else None
            if said is None:
                continue
            self._resolved[node] += 1
            self._apply(self._event_of(node, said))
            return True
        return False

    def _event_of(self, node: int, said: Resolution) -> flow.Resolve:
        quarantine = (self.rows.facts.id, self.rows.run_of(node), self.rows.row(node).quarantine_number)
        match said:
            case Requeue(inputs=inputs, new_key=new_key):
                text = None if inputs is None else orjson.dumps(inputs).decode()
                return flow.Resolve(*quarantine, flow.Resolution.REQUEUED, _REQUEST, inputs=text, new_key=new_key)
            case Fix(outputs=outputs):
                text = encode_outputs(outputs).decode()
                return flow.Resolve(*quarantine, flow.Resolution.FIXED, _REQUEST, outputs=text)
            case Discard():
                return flow.Resolve(*quarantine, flow.Resolution.DISCARDED, _REQUEST)


_REQUEST = flow.Request("valkyr.testing", "", None, b"")


def _as_returned(script: Returns) -> Result:
    try:
        return Success(encode_outputs(script.value))
    except Exception as error:  # noqa: BLE001 - as for a module
        return failure_of(error)
