"""People, and the DLQ for them: they cancel, pause, requeue, fix and discard, twice, at once, and what is long gone."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from tests.simulator.clock import moment_of
from tests.simulator.executor import Executor
from tests.simulator.rows import ExecutionRow, RunRow
from tests.simulator.world import MAX_REQUEUES, World
from valkyr.errors import ValkyrError
from valkyr.flow.attempts import Fence
from valkyr.flow.events import (
    ControlReady,
    EndExecution,
    Event,
    LeaseEnded,
    PauseExecution,
    Request,
    Resolution,
    Resolve,
    ResumeExecution,
    RunDeadline,
    TimerDue,
)
from valkyr.flow.ids import run_id
from valkyr.flow.results import Lost, Success
from valkyr.flow.states import Ending, ExecutionState, RunState

_WAYS = (Resolution.REQUEUED, Resolution.REQUEUED, Resolution.FIXED, Resolution.DISCARDED)
FIX = '{"duration":"PT1S","fixed":true}'


class Operators:
    """What they ask for goes to any executor that is awake."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._asked: dict[tuple[UUID, int], Resolve] = {}
        self._requests = 0

    def _executor(self) -> Executor | None:
        awake = [executor for executor in self._world.executors if executor.awake]
        return self._world.dice.choice(awake) if awake else None

    def _execution(self) -> ExecutionRow:
        return self._world.dice.choice(list(self._world.store.executions.values()))

    def _request(self, name: str = "") -> Request:
        self._requests += 1
        name = name or f"request {self._requests}"
        return Request("somebody", "", name, name.encode())

    def _send(self, event: Event, times: int = 1) -> None:
        for _ in range(times):
            executor = self._executor()
            if executor is not None:
                executor.later(self._world.dice.random() * 0.05, executor.apply, [event])

    def cancel(self) -> None:
        """Once, twice, or in one batch with the deadline."""
        world = self._world
        world.counts["cancels"] += 1
        execution, executor = self._execution(), self._executor()
        event = EndExecution(execution.id, Ending.CANCEL, self._request())
        if executor is not None and execution.deadline is not None and world.dice.random() < 0.5:
            until = max(0.0, execution.deadline - world.clock.now)
            executor.later(until, executor.apply, [EndExecution(execution.id, Ending.DEADLINE), event])
        else:
            self._send(event, world.dice.choice((1, 1, 2)))

    def pause(self) -> None:
        """For a while; the same request twice, or a resume that overtakes its pause."""
        world = self._world
        world.counts["pauses of executions"] += 1
        execution = self._execution()
        pause = PauseExecution(execution.id, self._request())
        self._send(pause, world.dice.choice((1, 1, 2)))
        if world.dice.random() < 0.7:
            resume = ResumeExecution(execution.id, self._request())
            world.clock.after(world.dice.random() * world.dice.choice((0.05, 10.0)), self._send, resume)
            if world.dice.random() < 0.2:
                world.clock.after(world.dice.random() * 20.0, self._send, pause)

    def spoil(self) -> None:
        """A release of the executor cannot read some graph, for a while; its letters are discarded meanwhile."""
        world = self._world
        world.counts["graphs that could not be planned"] += 1
        execution, seconds = self._execution(), world.dice.random() * 20.0
        execution.plannable_from = world.clock.now + seconds
        world.clock.after(world.dice.random() * seconds, self._discard_all, execution)

    def _discard_all(self, execution: ExecutionRow) -> None:
        for row in execution.runs:
            if row.state is RunState.QUARANTINED and self._world.dice.random() < 0.5:
                self._send(self._resolve(row, row.quarantine_number, Resolution.DISCARDED))

    def resume_all(self) -> None:
        """Until nothing is paused any more."""
        for execution in self._world.store.executions.values():
            if execution.state is ExecutionState.PAUSED:
                self._send(ResumeExecution(execution.id, self._request()))

    def resolve(self) -> None:
        """Some quarantine, or two operators the same one; sometimes one that was resolved before."""
        rows = [row for row in self._world.store.runs.values() if row.quarantine_number]
        if not rows:
            return
        self._world.counts["resolutions asked for"] += 1
        row = self._world.dice.choice(rows)
        number = self._world.dice.choice((row.quarantine_number, row.quarantine_number, 1))
        event = self._resolve(row, number, self._world.dice.choice(_WAYS))
        self._send(event, self._world.dice.choice((1, 2)))
        if self._world.dice.random() < 0.5:
            self._send(self._resolve(row, number, self._world.dice.choice(_WAYS)))

    def _resolve(self, row: RunRow, number: int, way: Resolution, *, request: str = "") -> Resolve:
        world = self._world
        requeued = way is Resolution.REQUEUED
        late = moment_of(world.clock.now + world.dice.choice((2, 60)))
        return Resolve(
            row.key[0],
            row.id,
            number,
            way,
            self._request(request),
            outputs=FIX if way is Resolution.FIXED else None,
            inputs='{"trigger":null,"nodes":{}}' if requeued and world.dice.random() < 0.2 else None,
            new_key=requeued and world.dice.random() < 0.2,
            deadline=late if requeued and world.dice.random() < 0.2 else None,
            force=requeued and world.dice.random() < 0.2,
        )

    def stray(self) -> None:
        """What nobody should send, or what comes far too early or too late."""
        world = self._world
        world.counts["stray events"] += 1
        execution = self._execution()
        row = world.dice.choice(execution.runs)
        epoch = world.dice.choice((0, row.epoch - 1, row.epoch + 1, 99))
        unknown = run_id(execution.id, 1_000)
        events: Sequence[Event] = (
            LeaseEnded(*row.key, epoch, Success(b'{"stray":true}')),
            LeaseEnded(*row.key, row.epoch, Lost(), only_if_expired=True),
            LeaseEnded(execution.id, unknown, 1, Success(b"{}")),
            TimerDue(*row.key),
            RunDeadline(*row.key),
            EndExecution(execution.id, Ending.DEADLINE),
            PauseExecution(execution.id, self._request()),
            ResumeExecution(execution.id, self._request()),
            Resolve(execution.id, unknown, 1, Resolution.DISCARDED, self._request()),
            self._resolve(row, row.quarantine_number + 1, Resolution.FIXED),
            *([ControlReady(*row.key)] if row.node.control is not None else ()),
        )
        executor = self._executor()
        if executor is not None:
            chosen = world.dice.sample(events, world.dice.choice((1, 1, 3)))
            executor.apply(chosen * world.dice.choice((1, 2)))

    def tend(self) -> None:
        """Every letter that has arrived is answered, the same request again and again until it is done."""
        world = self._world
        for key in world.letters.letters:
            if key in world.invariants.ledger.resolved:
                continue
            if key not in self._asked:
                self._asked[key] = self._answer_to(world.store.runs[key[0]], key[1])
            self._ask(key)

    def _answer_to(self, row: RunRow, number: int) -> Resolve:
        ways: Sequence[Resolution] = _WAYS if number <= MAX_REQUEUES else (Resolution.FIXED, Resolution.DISCARDED)
        if self._world.store.executions[row.key[0]].ending is not None:
            ways = (Resolution.DISCARDED,)
        way = self._world.dice.choice(ways)
        return self._resolve(row, number, way, request=f"{row.id}/{number}:{way}")

    def _ask(self, key: tuple[UUID, int]) -> None:
        executor = self._executor()
        if executor is None:
            return

        def done(answers: Sequence[Fence | ValkyrError] | None) -> None:
            """Refused for what it asks: it is discarded, which is always possible."""
            if (
                answers is not None
                and isinstance(answers[0], ValkyrError)
                and key not in self._world.invariants.ledger.resolved
            ):
                row = self._world.store.runs[key[0]]
                if row.state is RunState.QUARANTINED and type(answers[0]).__name__ != "Internal":
                    self._asked[key] = self._resolve(row, key[1], Resolution.DISCARDED)

        executor.apply([self._asked[key]], done)
