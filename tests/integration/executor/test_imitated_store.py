"""The simulator's store does to rows what the statements do: both are taken through the same random steps, and the rows
are compared after each of them.

All steps of a walk are one transaction of PostgreSQL, in which `now()` stands still: time passes by moving what is in
the rows, and no loop of the executor sees anything.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from services.executor.facts import Known
from services.executor.handoff import Grant
from services.executor.store import leases, parking, reusing
from services.executor.store import progress as statements
from services.executor.store.parking import ParkedRun, Parking
from services.executor.store.reusing import Released
from services.executor.transaction import Transaction
from tests.builders import a_graph
from tests.executor_lab import CANCEL_GRACE, Lab, end_loop
from tests.integration.executor.conftest import OpenStack
from tests.simulator.clock import moment_of, seconds_of
from tests.simulator.rows import ExecutionRow, RunRow, first_rows
from tests.simulator.store import Store
from valkyr.flow import events
from valkyr.flow.effects import Prepared
from valkyr.flow.intake import Answer
from valkyr.flow.results import Failure, FailureType, Lost, Omitted, Release, Snooze, Success
from valkyr.flow.states import MOVABLE_RUN_STATES, Ending, ExecutionState, RunState, StopReason
from valkyr.flow.writes import Writes
from valkyr.graph.model import Graph

R = RunState
STEPS = 60
"""Of one execution at most: most have ended by then."""
EXECUTIONS = 8
EPSILON = 1e-4
"""Seconds by which times may differ: the simulator's are floating."""

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
DELAY = ("DelayModule", {"duration": "PT20S"})
FIX = '{"fixed": true}'
RESULTS = (
    Success(b'{"done": true}'),
    Success(b'{"done": false}'),
    Failure(FailureType.TRANSIENT, "it broke"),
    Failure(FailureType.PERMANENT, "it will never work"),
    Failure(FailureType.RATE_LIMITED, "later", retry_after=timedelta(seconds=40)),
    Snooze(timedelta(seconds=30)),
    Release(),
    Lost(),
    Omitted(),
)
_MOVING = MOVABLE_RUN_STATES | {R.QUARANTINED}
DEDUPED = ("DedupedModule", {})
TIMES = ("lease_until", "retry_after", "ready_at", "deadline", "trusted_until")
COLUMNS = (
    *("state", "leased_by", "settled_revision", "outputs", "error", "error_type", "dedupes", "reused_run_id"),
    *TIMES,
)


def a_mixed_graph() -> Graph:
    """Joins, control nodes, a Delay, runs whose equals are looked for, deadlines, and edges of every kind."""
    return a_graph(
        "a -> j, b -> j, b -> c -> d, a -> wait -> e, a -> f, f -> g, f -> h, b -> any, e -> any",
        modules={"b": DEDUPED, "c": None, "e": DEDUPED, "j": DEDUPED, "wait": DELAY},
        nodes={
            "any": {"join": "ANY"},
            "b": {"deadline": timedelta(seconds=40)},
            "d": {"deadline": timedelta(seconds=20)},
            "e": {"deadline": timedelta(seconds=10)},
            "f": {"deadline": timedelta(seconds=10)},
            "j": {"deadline": timedelta(seconds=10)},
            "wait": {"deadline": timedelta(seconds=15)},
        },
        edges={
            "f->g": {"kind": "FAILURE", "condition": "error.type != 'PERMANENT'"},
            "f->h": {"kind": "ALWAYS"},
            "a->f": {"condition": "outputs.done"},
        },
    )


class Recorded(Transaction):
    """Keeps what it has written."""

    written: Writes

    async def _write(self, writes: Writes) -> None:
        self.written = writes
        await super()._write(writes)


class Twins:
    """One execution in PostgreSQL and in the simulator's store."""

    def __init__(self, lab: Lab, tx: Any, known: Known, now: datetime, dice: random.Random) -> None:
        facts, plan = known.facts, known.version.plan
        self.lab, self.tx, self.known, self.dice = lab, tx, known, dice
        self.store = Store(lease=lab.lease_policy.duration.total_seconds(), grace=CANCEL_GRACE.total_seconds())
        self.store.now = seconds_of(now)
        self.execution = ExecutionRow(
            facts.id, "A", facts, Graph(), plan, ExecutionState.PENDING, len(plan.roots), deadline=None
        )

    async def begin(self) -> None:
        """As INSERT_STARTS and INSERT_RUNS have left them a moment ago."""
        began, deadline = await self.tx.fetchrow(
            """SELECT (SELECT min(ready_at) FROM executor.run WHERE execution_id = e.id), e.deadline
               FROM executor.workflow_execution e WHERE e.id = $1""",
            self.execution.id,
        )
        self.execution.deadline = deadline and seconds_of(deadline)
        self.store.insert(self.execution, first_rows(self.execution, seconds_of(began)))
        await self.check("the start")

    async def apply(self, taken: Sequence[events.Event]) -> list[Answer]:
        """A transaction of progress, with the room that there happens to be."""
        room, means = self.dice.choice((0, 0, 1, 5)), self.lab.progress._means
        transaction = Recorded(means, self.tx, {self.execution.id: self.known}, lambda: Grant(room))
        answers = (await transaction.run(taken, None)).answers
        self._write(transaction.written)
        await self.check(f"{taken} answered {answers}")
        return answers

    def _write(self, writes: Writes) -> None:
        """In the order of the statements."""
        store = self.store
        store.finish_runs(writes.finished)
        store.end_runs(writes.ended)
        store.resolve_quarantines(writes.resolved)
        store.set_deadlines(writes.deadlines)
        store.change_runs(writes.changed, self.lab.lease_policy.holder)
        store.note_reused(writes.reused)
        store.insert_quarantines(writes.quarantines)
        store.insert_outbox(writes.outbox)
        store.stop_runs(writes.stopped, StopReason.DEADLINE)
        left = store.end_executions([event for event, _ in writes.endings])
        assert all(
            step.changed_execution(left[event.execution_id]) in writes.executions for event, step in writes.endings
        )
        store.update_executions(writes.executions)
        store.insert_interventions(writes.interventions)
        store.pause_runs(writes.paused)
        store.resume_runs(writes.resumed)

    async def release(self, row: RunRow) -> None:
        """Also one that may be leased already, or was quarantined since."""
        number = row.quarantine_number - self.dice.choice((0, 0, 0, 1))
        released = await reusing.release_undecided(self.tx, [Released(row.key, number, "key", "", "", dedupes=True)])
        assert (len(released) == 1) is self.store.release_undecided(row, "key", number)
        await self.check(f"released {row.node.node_id}")

    async def lease(self, rows: Sequence[RunRow]) -> None:
        runs = [
            Prepared(*row.key, row.node.index, row.epoch + 1, row.attempt + 1, b"", b"", "", "", "key") for row in rows
        ]
        await leases.lease_runs(self.tx, runs, self.lab.lease_policy)
        self.store.lease_runs([(row, None) for row in rows], self.lab.lease_policy.holder)
        await self.check(f"leased {[row.node.node_id for row in rows]}")

    async def heartbeat(self, rows: Sequence[RunRow]) -> None:
        held = [(*row.key, row.epoch - self.dice.choice((0, 0, 1))) for row in rows]
        answers = await leases.heartbeat_runs(self.tx, held, self.lab.lease_policy.duration)
        assert answers == self.store.heartbeat_runs([(run, epoch) for _, run, epoch in held])
        await self.check("a heartbeat")

    async def stop(self, rows: Sequence[RunRow]) -> None:
        """Also those that are not leased, and all of them a second time, which no transaction asks for."""
        keys = [row.key for row in rows]
        for reason in self.dice.sample((StopReason.DEADLINE, StopReason.CANCEL), 2):
            await statements.stop_runs(self.tx, keys, reason, CANCEL_GRACE)
            self.store.stop_runs(keys, reason)
            await self.check(f"{reason} was told to {[row.node.node_id for row in rows]}")

    async def park(self, row: RunRow) -> None:
        parked = Parking("default", *row.key, "somewhere", None, timedelta(seconds=15))
        await parking.park_runs(self.tx, [parked])
        self.store.park_runs([(row, 15.0)])
        await self.check(f"parked {row.node.node_id}")

    async def let_go(self, row: RunRow) -> None:
        await parking.unpark_probes(self.tx, [ParkedRun(("default", "somewhere"), *row.key, row.epoch)])
        self.store.unpark([row])
        await self.check(f"let go {row.node.node_id}")

    async def pass_time(self, by: timedelta) -> None:
        moved = ", ".join(f"{column} = {column} - $1::interval" for column in TIMES)
        await self.tx.execute(f"UPDATE executor.run SET {moved}", by)
        await self.tx.execute("UPDATE executor.workflow_execution SET deadline = deadline - $1::interval", by)
        for row in (*self.execution.runs, self.execution):
            for column in TIMES:
                at = getattr(row, column, None)
                if at is not None:
                    setattr(row, column, at - by.total_seconds())

    async def check(self, after: str) -> None:
        """What a lock reads, and what is shown of the rows."""
        runs = self.execution.runs
        [(execution, locked)] = (await statements.lock(self.tx, {self.execution.id: [r.id for r in runs]})).values()
        now = self.store.now
        assert _told(execution, "now") == _told(self.execution.locked(now), "now"), after
        read = f"SELECT id, {', '.join(COLUMNS)} FROM executor.run WHERE execution_id = $1"
        rows = await self.tx.fetch(read, self.execution.id)
        shown = {row["id"]: row for row in rows}
        for row in runs:
            # The runner stays on the row for the record; the target is written when it is looked for.
            unlike = ("runner_id", "target")
            where = f"{row.node.node_id}, after {after}"
            assert _told(locked[row.node.index], *unlike) == _told(row.locked(now), *unlike), where
            assert _plain(shown[row.id]) == pytest.approx(_imitated(row), abs=EPSILON), where
        await self._check_records(after)

    async def _check_records(self, after: str) -> None:
        mine = self.execution.id
        read = "SELECT run_id, quarantine_number, kind FROM executor.outbox WHERE execution_id = $1 ORDER BY id"
        told = await self.tx.fetch(read, mine)
        outbox = [(row.run, row.number, row.kind) for row in self.store.outbox.values()]
        assert [tuple(row) for row in told] == outbox, after
        read = "SELECT kind, request_id FROM executor.execution_intervention WHERE execution_id = $1"
        asked = await self.tx.fetch(read, mine)
        assert {tuple(row) for row in asked} == self.store.asked.keys(), after
        quarantines = await self.tx.fetch(
            """SELECT run_id, quarantine_number, failure_type, error_type, error, revision, resolution, request_id
               FROM executor.run_quarantine WHERE execution_id = $1""",
            mine,
        )
        assert {tuple(row) for row in quarantines} == {
            (run, number, q.failure_type, q.error_type, q.error, q.revision, q.resolution, q.request_id)
            for (run, number), q in self.execution.quarantines.items()
        }, after
        read = "SELECT error_type, cancel_request_id, deadline FROM executor.workflow_execution WHERE id = $1"
        *shown, deadline = await self.tx.fetchrow(read, mine)
        assert shown == [self.execution.error_type, self.execution.cancel_request], after
        assert (deadline and seconds_of(deadline)) == pytest.approx(self.execution.deadline, abs=EPSILON), after


def _told(facts: Any, *without: str) -> dict[str, Any]:
    return {name: getattr(facts, name) for name in facts.__dataclass_fields__ if name not in without}


def _plain(row: Any) -> dict[str, Any]:
    return {name: seconds_of(row[name]) if name in TIMES and row[name] else row[name] for name in COLUMNS}


def _imitated(row: RunRow) -> dict[str, Any]:
    return {name: row.holder if name == "leased_by" else getattr(row, name) for name in COLUMNS}


class Walk:
    """What happens next, at random."""

    def __init__(self, twins: Twins, dice: random.Random) -> None:
        self.twins = twins
        self.dice = dice
        self.requests = 0
        self.steps = 0

    async def step(self) -> None:
        self.steps += 1
        rows, dice = self.twins.execution.runs, self.dice
        ready = [row for row in rows if row.state is R.READY and not row.undecided]
        deduping = [row for row in rows if row.node.dedupe is not None]
        held = [row for row in rows if row.state is R.LEASED]
        parked = [row for row in rows if row.parked_by == "BREAKER"]
        beats = 6 if any(row.stop_reason for row in held) else 1
        common = (
            "lease",
            "lease",
            "lease",
            "release",
            "release",
            "park",
            "let go",
            "time",
            "time",
            "stop",
            *["events"] * 8,
        )
        match dice.choice((*common, *["heartbeat"] * beats)):
            case "lease" if ready:
                await self.twins.lease(dice.sample(ready, dice.randint(1, len(ready))))
            case "release":
                await self.twins.release(dice.choice(deduping))
            case "heartbeat" if held:
                await self.twins.heartbeat(held)
            case "stop":
                await self.twins.stop([*held[:1], dice.choice(rows)])
            case "park" if ready:
                await self.twins.park(dice.choice(ready))
            case "let go" if parked:
                await self.twins.let_go(dice.choice(parked))
            case "time":
                await self.twins.pass_time(timedelta(seconds=dice.random() * 15))
            case _:
                await self.twins.apply(self.some_events())

    def some_events(self) -> list[events.Event]:
        """Those of whole executions first, as a transaction takes them."""
        rows = self.moving() if self.dice.random() < 0.9 else self.twins.execution.runs
        of_runs = [self.event_of(row) for row in self.dice.sample(rows, self.dice.randint(1, min(4, len(rows))))]
        return [*self.of_execution(self.twins.execution), *of_runs]

    def of_execution(self, execution: ExecutionRow) -> list[events.Event]:
        rare = self.dice.random()
        if rare < 0.05:
            return [events.PauseExecution(execution.id, self.request())]
        if rare < 0.25:
            return [events.ResumeExecution(execution.id, self.request())]
        if rare < 0.35:
            return [events.EndExecution(execution.id, Ending.DEADLINE)]
        if rare > 0.97:
            return [events.EndExecution(execution.id, Ending.CANCEL, self.request())]
        return []

    def moving(self) -> list[RunRow]:
        """Runs to which something can happen yet."""
        return [row for row in self.twins.execution.runs if row.state in _MOVING]

    def event_of(self, row: RunRow) -> events.Event:
        late = row.deadline is not None and row.deadline <= self.twins.store.now
        match row.state:
            case R.LEASED if self.dice.random() < (0.8 if late else 0.1):
                return events.RunDeadline(*row.key)
            case R.LEASED:
                return events.LeaseEnded(*row.key, row.epoch, self.dice.choice(RESULTS), duration_ms=3)
            case R.WAITING:
                return events.TimerDue(*row.key)
            case R.READY if row.node.control is not None:
                return events.ControlReady(*row.key)
            case R.READY if row.node.dedupe is not None and self.dice.random() < 0.5:
                number = row.quarantine_number - self.dice.choice((0, 0, 0, 1))
                return events.Reused(*row.key, number, row.key, FIX, "key", "inputs", "config")
            case R.QUARANTINED:
                return self.resolution_of(row)
            case _:
                return events.RunDeadline(*row.key)

    def resolution_of(self, row: RunRow) -> events.Resolve:
        way = self.dice.choice(
            (*[events.Resolution.REQUEUED] * 4, events.Resolution.FIXED, events.Resolution.DISCARDED)
        )
        resolve = events.Resolve(*row.key, row.quarantine_number, way, self.request())
        if way is events.Resolution.FIXED:
            return replace(resolve, outputs=FIX)
        if way is events.Resolution.DISCARDED:
            return resolve
        deadline = moment_of(self.twins.store.now) + timedelta(seconds=self.dice.choice((20, 3_600)))
        extras: dict[str, Any] = {"inputs": '{"trigger": null, "nodes": {}}', "new_key": True, "deadline": deadline}
        chosen = {name: value for name, value in extras.items() if self.dice.random() < 0.3}
        return replace(resolve, force=True, **chosen)

    def request(self) -> events.Request:
        self.requests += 1
        name = f"request {self.requests}"
        return events.Request("Eve", "", name, name.encode())


@pytest.mark.parametrize("seed", range(3))
async def test_the_simulator_s_store_does_what_the_statements_do(make_stack: OpenStack, seed: int) -> None:
    dice = random.Random(seed)
    async with make_stack(runner={"concurrency": 0, "poll_interval": HOUR}) as stack:
        await end_loop("control")
        lab, graph, steps = Lab(stack), a_mixed_graph(), 0
        for _ in range(EXECUTIONS):
            deadline = datetime.now(UTC) + dice.choice((MINUTE, HOUR))
            execution_id = UUID(await stack.start(graph, deadline=deadline))
            known = (await stack.app.parts.cache.get_many([execution_id]))[execution_id]
            transaction = stack.sql.transaction()
            await transaction.start()
            twins = Twins(lab, stack.sql, known, await stack.sql.fetchval("SELECT now()"), dice)
            await twins.begin()
            walk = Walk(twins, dice)
            while walk.moving() and walk.steps < STEPS:
                await walk.step()
            await transaction.rollback()
            steps += walk.steps
        assert steps > EXECUTIONS * STEPS / 4
