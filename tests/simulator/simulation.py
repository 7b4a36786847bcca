"""One schedule from its seed: a storm of faults and people, then calm, in which everything must come to its end."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from uuid import UUID

from tests.simulator.breakers import Breakers
from tests.simulator.executor import Executor
from tests.simulator.invariants import Invariants
from tests.simulator.letters import DeadLetterQueue
from tests.simulator.moves import FINAL
from tests.simulator.operators import Operators
from tests.simulator.process import Process
from tests.simulator.reference import check_against_reference
from tests.simulator.rows import ExecutionRow, RunRow, first_rows
from tests.simulator.runners import RemoteRunner
from tests.simulator.telling import told_graph
from tests.simulator.weather import a_weather
from tests.simulator.whole import SETTLED
from tests.simulator.workload import REMOTE_POOL, TARGETS, Workload, a_taste, a_workload
from tests.simulator.world import World
from valkyr.flow.facts import ExecutionFacts
from valkyr.flow.states import ExecutionState, RunState

BOUND = 1_500.0
"""Seconds of virtual time after the storm within which all has ended: about three times what the longest takes."""

STEPS = 20_000
LONGEST_PAUSE = 40.0

Trace = Callable[[str], None]


class Simulation:
    """Everything is drawn from `seed`: the same seed is the same schedule, to the last step."""

    def __init__(self, seed: int, trace: Trace | None = None) -> None:
        dice = random.Random(seed)
        self.world = world = World(dice, a_weather(dice), trace)
        world.invariants = Invariants(world)
        world.letters = DeadLetterQueue(world)
        world.breakers = Breakers(world)
        self._operators = Operators(world)
        self._taste = a_taste(dice)
        self._alone = False
        equals = "Once" in self._taste.classes
        for number in range(dice.choice((1, 1, 1, 2, 3)) + equals):
            self._add(number, UUID(int=(7 << 124) | (seed << 64) | (number << 32)))
        world.executors = [
            Executor(world, f"executor {n}", capacity=dice.choice((1, 2, 8))) for n in range(dice.randint(1, 3))
        ]
        remote = any(node.pool == REMOTE_POOL for load in world.workloads.values() for node in load.graph.nodes)
        world.remote = [
            RemoteRunner(world, f"runner {n}", capacity=dice.choice((1, 4)))
            for n in range(dice.randint(1, 3) if remote else 0)
        ]

    def _add(self, number: int, id_: UUID) -> None:
        world = self.world
        workload = world.workloads[id_] = a_workload(world.dice, self._taste)
        world.clock.after(world.dice.random() * world.dice.choice((1, 1, 15)), self._begin, number, id_, workload)

    def _begin(self, number: int, id_: UUID, workload: Workload) -> None:
        world, plan = self.world, workload.plan
        facts = ExecutionFacts(id_, "default", id_, 1, 0, b"null", "")
        deadline = None if workload.timeout is None else world.clock.now + workload.timeout
        execution = ExecutionRow(
            id_, "ABCD"[number], facts, workload.graph, plan, ExecutionState.PENDING, len(plan.roots), deadline
        )
        world.store.insert(execution, first_rows(execution, world.clock.now))
        world.invariants.ledger.open(execution)
        if world.tracing:
            world.say("execution {} begins: {}", execution.name, told_graph(workload.graph))
        awake = [executor for executor in world.executors if executor.awake]
        if awake:
            world.dice.choice(awake).lease_roots(execution)
        for executor in world.executors:
            executor.wake()

    def run(self) -> Counter[str]:
        """What happened, counted. Raises Violation."""
        world, clock = self.world, self.world.clock
        processes: list[Process] = [*world.executors, *world.remote]
        for process in processes:
            process.start()
        self._plan_storm(processes)
        clock.after(world.weather.storm, self._calm_down, processes)
        while not world.finished and clock.step():
            if clock.now > world.weather.storm + BOUND or clock.steps > STEPS:
                world.invariants.ledger.fail(
                    "STUCK", "after {} s and {} steps: {}", int(clock.now), clock.steps, self._left()
                )
        if not world.finished:
            world.invariants.ledger.fail("STUCK", "nothing is left to happen: {}", self._left())
        self._check_end()
        world.counts["schedules"] += 1
        world.counts["steps"] += clock.steps
        return world.counts

    def _plan_storm(self, processes: list[Process]) -> None:
        weather, dice = self.world.weather, self.world.dice
        for times, trouble in (
            (weather.crashes, lambda: self._crash(dice.choice(processes))),
            (weather.pauses, lambda: self._pause(dice.choice(processes))),
            (weather.outages, self._take_away),
            (weather.trips, lambda: self.world.breakers.trip(dice.choice(TARGETS))),
            (weather.cancels, self._operators.cancel),
            (weather.stops, self._operators.pause),
            (weather.resolves, self._operators.resolve),
            (weather.stray, self._operators.stray),
            (weather.spoils, self._operators.spoil),
        ):
            for _ in range(times):
                self.world.clock.after(dice.random() * (1.0 + weather.storm), self._befall, trouble)

    def _befall(self, trouble: Callable[[], None]) -> None:
        if not self.world.finished and self.world.store.executions:
            trouble()

    def _crash(self, process: Process) -> None:
        if not process.alive:
            return
        self.world.counts["crashes"] += 1
        if self.world.tracing:
            self.world.say("{} dies", process.holder)
        process.crash()
        self.world.clock.after(self.world.dice.random() * 10, self._start_again, process)

    def _start_again(self, process: Process) -> None:
        if not process.alive:
            if self.world.tracing:
                self.world.say("{} starts", process.holder)
            process.paused_until = 0.0
            process.start()

    def _pause(self, process: Process) -> None:
        if process.awake:
            self.world.counts["pauses of processes"] += 1
            seconds = self.world.dice.choice((0.5, 5.0, LONGEST_PAUSE)) * self.world.dice.random()
            if self.world.tracing:
                self.world.say("{} stands still for {:.1f} s", process.holder, seconds)
            process.pause(seconds)

    def _take_away(self) -> None:
        """The DLQ, or the breakers, for a while."""
        service = self.world.dice.choice((self.world.letters, self.world.breakers))
        self.world.counts["outages of DLQ and breakers"] += 1
        service.away = True
        self.world.clock.after(self.world.dice.random() * 30, service.come_back)

    def _calm_down(self, processes: list[Process]) -> None:
        """Faults cease, whatever was away comes back, and operators answer every letter. Sometimes DLQ and
        breakers stay away until nothing can move any more (I16)."""
        world = self.world
        world.weather.calm()
        if world.tracing:
            world.say("calm")
        world.letters.come_back()
        world.breakers.come_back()
        for target in TARGETS:
            world.breakers.close(target)
        self._alone = world.dice.random() < 0.2
        if self._alone:
            world.letters.away = world.breakers.away = True
        for execution in world.store.executions.values():
            execution.plannable_from = 0.0
        for process in processes:
            self._start_again(process)
        self._tend()

    def _tend(self) -> None:
        world = self.world
        if self._alone and not any(execution.open_runs for execution in world.store.executions.values()):
            world.counts["schedules that came to rest alone"] += 1
            self._alone = False
            world.letters.come_back()
            world.breakers.come_back()
        self._operators.tend()
        self._operators.resume_all()
        if self._is_finished():
            world.finished = True
        else:
            world.clock.after(0.5 + world.dice.random() * 3, self._tend)

    def _is_finished(self) -> bool:
        world = self.world
        return (
            len(world.store.executions) == len(world.workloads)
            and all(execution.state in SETTLED for execution in world.store.executions.values())
            and not world.store.outbox
            and world.invariants.ledger.resolved.keys() >= world.invariants.ledger.quarantines
        )

    def _check_end(self) -> None:
        """Everything has come to an end, and to the right one."""
        world = self.world
        told = (set(world.letters.letters), set(world.letters.resolved))
        if told != (world.invariants.ledger.quarantines, set(world.invariants.ledger.resolved)):
            world.invariants.ledger.fail(
                "I15", "the DLQ was told {} letters of {}", len(told[0]), len(world.invariants.ledger.quarantines)
            )
        for execution in world.store.executions.values():
            world.counts[f"executions {execution.ending or execution.state}"] += 1
            for row in execution.runs:
                world.counts[f"runs {row.state}"] += 1
                if row.state not in FINAL and execution.ending is None and not self._waits_for_good(execution, row):
                    world.invariants.ledger.fail("END", "{} is {} for good", row.id, row.state)
            if execution.ending is None:
                check_against_reference(world, execution)

    def _waits_for_good(self, execution: ExecutionRow, row: RunRow) -> bool:
        return row.state is RunState.PENDING and execution.state is ExecutionState.FAILED

    def _left(self) -> str:
        world = self.world
        parts = [
            f"{execution.name} is {execution.state}: "
            + ", ".join(f"{row.node.node_id} {row.state}" for row in execution.runs if row.state not in FINAL)
            for execution in world.store.executions.values()
        ]
        letters = len(world.invariants.ledger.quarantines - world.invariants.ledger.resolved.keys())
        return "; ".join([*parts, f"{letters} letters, {len(world.store.outbox)} rows in the outbox"])
