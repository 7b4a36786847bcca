"""Batches that are too much for one transaction, that wait for others' rows, or that come in floods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import pytest

from services.executor import queries
from services.executor.deadlines import Deadlines
from services.executor.store.session import Session
from tests.builders import a_graph
from tests.executor_lab import DONE, Lab, end_loop
from tests.executor_stack import Stack, until_true
from tests.integration.executor.conftest import OpenStack
from valkyr.client import ExecutionState
from valkyr.client.executions import Start
from valkyr.errors import Overloaded
from valkyr.flow.events import EndExecution, Event, TimerDue
from valkyr.flow.ids import run_id
from valkyr.flow.intake import Answer
from valkyr.flow.states import Ending
from valkyr.graph.model import Graph, Join

T = TypeVar("T")
IDLE = {"concurrency": 0, "poll_interval": timedelta(hours=1)}
"""Nothing but what the test does itself."""


async def started(stack: Stack, graph: Graph, count: int) -> list[str]:
    workflow_id = await stack.save(graph)
    return [execution.id for execution in await stack.client.executions.start_many([Start(workflow_id)] * count)]


@asynccontextmanager
async def held(stack: Stack, *execution_ids: str) -> AsyncIterator[None]:
    """The rows of executions, by somebody who takes long."""
    other = await asyncpg.connect(stack.database_url)
    try:
        async with other.transaction():
            await other.execute(
                "SELECT FROM executor.workflow_execution WHERE id = ANY($1::uuid[]) FOR UPDATE",
                [UUID(execution_id) for execution_id in execution_ids],
            )
            yield
    finally:
        await other.close()


class Noting:
    """A session that notes its statements, and whether transactions came on the connections kept for reports."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.statements: list[str] = []
        self.reserved: list[bool] = []

    def reading(self, **options: Any) -> Any:
        return self._session.reading(**options)

    async def repeat(self, work: Callable[[Any], Awaitable[T]], *, reserved: bool = False) -> T:
        self.reserved.append(reserved)
        return await self._session.repeat(lambda tx: work(_Noted(tx, self)), reserved=reserved)


class _Noted:
    def __init__(self, tx: Any, noting: Noting) -> None:
        self._tx = tx
        self._noting = noting

    async def fetch(self, statement: str, *arguments: Any) -> Any:
        self._noting.statements.append(statement)
        return await self._tx.fetch(statement, *arguments)

    async def execute(self, statement: str, *arguments: Any) -> Any:
        self._noting.statements.append(statement)
        return await self._tx.execute(statement, *arguments)


class NotedProgress:
    """Progress that notes how many events came at a time."""

    def __init__(self, lab: Lab) -> None:
        self._progress = lab.progress
        self.sizes: list[int] = []

    async def apply(self, events: Sequence[Event]) -> list[Answer]:
        self.sizes.append(len(events))
        return await self._progress.apply(events)


async def test_a_batch_over_the_time_limit_of_a_statement_is_applied_in_smaller_ones(make_stack: OpenStack) -> None:
    async with make_stack(runner=IDLE, database={"statement_timeout": timedelta(seconds=2)}) as stack:
        lab = Lab(stack)
        ids = await started(stack, a_graph("a"), 8)
        for execution_id in ids:
            await lab.lease(execution_id, "a")
        events = [await lab.event(execution_id, "a", DONE) for execution_id in ids]
        await stack.sql.execute(
            """CREATE FUNCTION executor.slow() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN PERFORM pg_sleep(60) FROM changed HAVING count(*) > 4; RETURN NULL; END';
               CREATE TRIGGER slow AFTER UPDATE ON executor.workflow_execution
                REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION executor.slow()"""
        )
        assert set(map(str, await lab.progress.apply(events))) == {"ACCEPTED"}
        assert {(await stack.wait(execution_id)).state for execution_id in ids} == {ExecutionState.SUCCESS}


async def test_one_execution_that_others_hold_keeps_no_other_of_the_batch_from_going_on(make_stack: OpenStack) -> None:
    async with make_stack(runner=IDLE, database={"lock_timeout": timedelta(milliseconds=100)}) as stack:
        lab = Lab(stack)
        ids = await started(stack, a_graph("a"), 6)
        for execution_id in ids:
            await lab.lease(execution_id, "a")
        events = [await lab.event(execution_id, "a", DONE) for execution_id in ids]
        async with held(stack, ids[2]):
            with pytest.raises(Overloaded):
                await lab.progress.apply(events)
            states = [(await stack.row(execution_id, "a"))["state"] for execution_id in ids]
            assert states == ["LEASED" if execution_id == ids[2] else "SUCCESS" for execution_id in ids]
        answers = [str(answer) for answer in await lab.progress.apply(events)]
        assert answers == ["ACCEPTED" if execution_id == ids[2] else "ALREADY_REPORTED" for execution_id in ids]


async def test_executions_that_end_together_are_weighed_by_their_runs(make_stack: OpenStack) -> None:
    async with make_stack(runner=IDLE) as stack:
        await end_loop("deadlines")
        lab = Lab(stack)
        [long] = await started(stack, a_graph("a -> b -> c -> d -> e"), 1)
        await started(stack, a_graph("a -> b"), 5)
        await stack.sql.execute(
            """UPDATE executor.workflow_execution
                SET deadline = now() - CASE WHEN id = $1 THEN interval '1 h' ELSE '0' END""",
            UUID(long),
        )
        progress = NotedProgress(lab)
        await Deadlines(lab.session, progress, runs_at_once=4).step()  # type: ignore[arg-type]
        assert progress.sizes[0] == 1, "one of five runs"
        assert max(progress.sizes) <= 2, "two of two runs each"
        assert {row[0] for row in await stack.sql.fetch("SELECT state FROM executor.workflow_execution")} == {"FAILED"}


async def test_deadlines_of_executions_that_cannot_be_ended_hold_up_no_other_kind(make_stack: OpenStack) -> None:
    async with make_stack(runner=IDLE, database={"lock_timeout": timedelta(milliseconds=100)}) as stack:
        await end_loop("deadlines")
        lab = Lab(stack)
        late, other = await started(stack, a_graph("a, b"), 2)
        await lab.lease(other, "b", seconds=-1)
        await stack.sql.execute("UPDATE executor.run SET deadline = now()")
        await stack.sql.execute("UPDATE executor.run SET stop_reason = 'DEADLINE' WHERE state = 'LEASED'")
        await stack.sql.execute("UPDATE executor.workflow_execution SET deadline = now() WHERE id = $1", UUID(late))
        deadlines = Deadlines(lab.session, lab.progress)
        async with held(stack, late):
            with pytest.raises(Overloaded):
                await deadlines.step()
            assert await stack.states(other) == {"a": "QUARANTINED", "b": "QUARANTINED"}
        await deadlines.step()
        assert set((await stack.states(late)).values()) == {"CANCELLED"}


async def test_many_deadlines_are_ended_in_one_step(make_stack: OpenStack) -> None:
    async with make_stack(runner=IDLE) as stack:
        await end_loop("deadlines")
        lab = Lab(stack)
        await started(stack, a_graph("a, b"), 3)
        await stack.sql.execute("UPDATE executor.run SET deadline = now() WHERE node_id = 'a'")
        assert await Deadlines(lab.session, lab.progress, batch=1).step() is None
        assert await stack.sql.fetchval("SELECT count(*) FROM executor.run WHERE state = 'QUARANTINED'") == 3


async def test_a_skip_that_travels_far_reads_the_pending_runs_once(make_stack: OpenStack) -> None:
    size = 12
    arrows = ["r -> c0", *(f"c{i} -> c{i + 1}" for i in range(size - 1))]
    arrows += [f"{source} -> g{i}" for i in range(size) for source in (f"c{i}", "o")]
    graph = a_graph(
        ", ".join(arrows),
        nodes={f"g{i}": {"join": Join.ANY} for i in range(size)},
        edges={"r->c0": {"condition": "false"}},
    )
    async with make_stack(runner=IDLE) as stack:
        session = Noting(stack.app.parts.session)
        lab = Lab(stack, session=session)
        execution_id = await stack.start(graph)
        await lab.lease(execution_id, "r", "o")
        await lab.report(execution_id, "o", DONE)
        await lab.report(execution_id, "r", DONE)
        states = await stack.states(execution_id)
        assert {states[f"c{i}"] for i in range(size)} == {"SKIPPED"}
        assert {states[f"g{i}"] for i in range(size)} == {"READY"}
        assert session.statements.count(queries.LOCK_PENDING_RUNS) == 1


async def test_only_the_ends_of_leases_use_the_connections_kept_for_them(make_stack: OpenStack) -> None:
    async with make_stack(runner=IDLE) as stack:
        session = Noting(stack.app.parts.session)
        lab = Lab(stack, session=session)
        execution_id = await stack.start(a_graph("a, b, wait", modules={"wait": ("DelayModule", {"duration": "PT1H"})}))
        key = UUID(execution_id)
        await lab.lease(execution_id, "a", "b")
        report = await lab.event(execution_id, "a", DONE)
        timer = TimerDue(key, run_id(key, 2))
        batches: list[list[Event]] = [[report], [timer], [timer, await lab.event(execution_id, "b", DONE)]]
        for batch in batches:
            await lab.progress.apply(batch)
        await lab.progress.apply([EndExecution(key, Ending.CANCEL)])
        assert session.reserved == [True, False, True, False]


async def test_a_flood_of_cancels_holds_up_neither_starts_nor_leases_nor_reports(make_stack: OpenStack) -> None:
    patient = timedelta(minutes=1)
    database = {"pool_size": 4, "lock_timeout": patient, "statement_timeout": patient}
    async with make_stack(database=database) as stack:
        ids = await started(stack, a_graph("x", nodes={"x": {"pool": "elsewhere"}}), 8)
        workflow_id = await stack.save(a_graph("a -> b -> c"))
        async with held(stack, *ids):
            cancels = [asyncio.create_task(stack.client.executions.cancel(id_, timeout=patient)) for id_ in ids]
            await stack.until_locked_out("two cancels wait", 2)
            execution = await stack.client.executions.start(workflow_id)
            assert (await stack.wait(execution.id)).state is ExecutionState.SUCCESS
            assert not any(cancel.done() for cancel in cancels)
        assert [(await cancel).state for cancel in cancels] == [ExecutionState.CANCELLED] * len(ids)


async def test_what_waits_for_rows_that_others_hold_takes_no_room_meanwhile(make_stack: OpenStack) -> None:
    patient = timedelta(minutes=1)
    async with make_stack(database={"lock_timeout": patient, "statement_timeout": patient}) as stack:
        execution_id = await stack.start(a_graph("wait", modules={"wait": ("DelayModule", {"duration": "PT1H"})}))
        workflow_id = await stack.save(a_graph("a -> b"))
        key = UUID(execution_id)
        async with held(stack, execution_id):
            timer = asyncio.create_task(stack.app.parts.progress.apply([TimerDue(key, run_id(key, 0))]))
            await stack.until_locked_out("the timer waits")
            execution = await stack.client.executions.start(workflow_id)
            assert (await stack.wait(execution.id)).state is ExecutionState.SUCCESS
        assert [str(answer) for answer in await timer] == ["LEASE_LOST"], "it was not due"


async def test_a_cancel_whose_turn_does_not_come_is_overloaded(make_stack: OpenStack) -> None:
    patient = timedelta(minutes=1)
    database = {"pool_size": 2, "lock_timeout": patient, "statement_timeout": patient}
    async with make_stack(runner=IDLE, database=database) as stack:
        first, second = await started(stack, a_graph("x"), 2)
        interventions = stack.app.parts.interventions
        interventions._patience = timedelta(milliseconds=300)
        async with held(stack, first):
            waits = asyncio.create_task(stack.client.executions.cancel(first, timeout=patient))
            await until_true(interventions._turns.locked, "the first has its turn")
            with pytest.raises(Overloaded, match="too many executions"):
                await interventions.cancel("default", EndExecution(UUID(second), Ending.CANCEL))
        assert (await waits).state is ExecutionState.CANCELLED
        assert (await stack.client.executions.cancel(second)).state is ExecutionState.CANCELLED
