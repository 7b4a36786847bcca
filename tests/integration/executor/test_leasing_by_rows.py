"""Statements that lease and reap many rows say of each what valkyr/flow/leasing.py says of one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import product
from uuid import UUID, uuid4

import asyncpg
import pytest

from services.executor.store import leases
from services.executor.store.progress import lock
from services.executor.store.session import PINNED_PLANNER
from valkyr.flow.leasing import Serving, has_run_out, may_lease
from valkyr.flow.states import RunState

SERVING = Serving("default", frozenset({"NoopModule"}), serves_all=False)
PARKERS = {RunState.PARKED: ("BREAKER", "PAUSE")}


@pytest.fixture
async def connection(executor_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(executor_database_url, server_settings=PINNED_PLANNER)
    try:
        yield connection
    finally:
        await connection.close()


async def insert(connection: asyncpg.Connection, state: RunState, *, control: bool, past: bool, by: str | None) -> UUID:
    """A run whose times are all to come, or all past, in an execution of its own with the same id."""
    run = uuid4()
    await connection.execute(
        """INSERT INTO executor.workflow_execution (id, namespace, workflow_id, version, trace_id, traceparent)
           VALUES ($1, 'default', $1, 1, '', '')""",
        run,
    )
    await connection.execute(
        """INSERT INTO executor.run (execution_id, id, node_index, node_id, class_name, state, is_control, parked_by,
               ready_at, lease_until, ready_revision)
           VALUES ($1, $1, 0, 'a', 'NoopModule', $2, $3, $4, now() + $5, now() + $5, 1)""",
        run,
        state,
        control,
        by,
        timedelta(hours=-1 if past else 1),
    )
    return run


async def test_what_is_selected_to_lease_is_what_may_be_leased(connection: asyncpg.Connection) -> None:
    wanted = set()
    for state, control, past in product(RunState, [True, False], [True, False]):
        for by in PARKERS.get(state, (None,)):
            run = await insert(connection, state, control=control, past=past, by=by)
            if may_lease(state, control=control, due=past):
                wanted.add(run)
    async with connection.transaction():
        found = await leases.select_to_lease(connection, SERVING, limit=100)
    assert {candidate.id for _, candidate in found} == wanted
    assert len(wanted) == 1


async def test_what_is_found_expired_is_what_has_run_out(connection: asyncpg.Connection) -> None:
    runs = [
        await insert(connection, state, control=False, past=past, by=None)
        for state, past in product(RunState, [True, False])
    ]
    async with connection.transaction():
        locked = [
            row for _, rows in (await lock(connection, {run: [run] for run in runs})).values() for row in rows.values()
        ]
    expired = {lost.run_id for lost in await leases.expired_leases(connection, 100)}
    assert expired == {row.id for row in locked if has_run_out(row)}
    assert len(expired) == 1
