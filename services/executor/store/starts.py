"""Writes new executions and their runs; finds those that a request_id made before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import chain, islice
from typing import Any
from uuid import UUID

import asyncpg

from services.executor import queries
from services.executor.model import ExecutionView, LeasePolicy, StartRequest, rank_of
from valkyr.flow.effects import Prepared
from valkyr.flow.ids import run_id
from valkyr.flow.plan import Plan
from valkyr.flow.states import ExecutionState, RunState
from valkyr.frozen import cheaply_made

ROWS_AT_ONCE = 10_000
_REQUEST_KEY = "workflow_execution_request"


@cheaply_made
@dataclass(frozen=True, slots=True)
class NewExecution:
    """An execution to insert. `leased` maps a node to what is handed to a runner in the same transaction."""

    id: UUID
    request: StartRequest
    version: int
    plan: Plan
    task_ids: Sequence[UUID | None]
    leased: dict[int, Prepared]

    @property
    def state(self) -> ExecutionState:
        if not self.plan.nodes:
            return ExecutionState.SUCCESS
        return ExecutionState.RUNNING if self.leased else ExecutionState.PENDING

    def as_created(self, created_at: datetime) -> ExecutionView:
        """As clients see it from then on, until something happens."""
        request, timeout, state = self.request, self.plan.settings.timeout, self.state
        ends = [end for end in (request.deadline, created_at + timeout if timeout else None) if end is not None]
        return ExecutionView(
            id=self.id,
            namespace=request.namespace,
            workflow_id=request.workflow_id,
            version=self.version,
            state=state,
            revision=1,
            priority=request.priority,
            trigger_type=request.trigger_type,
            trigger_payload=None,
            created_at=created_at,
            started_at=None if state is ExecutionState.PENDING else created_at,
            finished_at=created_at if state is ExecutionState.SUCCESS else None,
            error_type=None,
            error_message=None,
            trace_id=request.traceparent.split("-")[1],
            created_by=request.principal,
            modified_at=created_at,
            deadline=min(ends) if ends else None,
        )


async def find_requests(tx: Any, requests: Iterable[StartRequest]) -> dict[tuple[str, str], tuple[UUID, bytes]]:
    """(namespace, request_id) -> (execution, hash of the first request), for those that were used before."""
    keyed = [(r.namespace, r.request_id) for r in requests if r.request_id]
    if not keyed:
        return {}
    rows = await tx.fetch(queries.FIND_REQUESTS, *zip(*keyed, strict=True))
    return {(row[0], row[1]): (row[2], row[3]) for row in rows}


async def insert_starts(connection: Any, executions: Sequence[NewExecution], policy: LeasePolicy) -> datetime | None:
    """Inserts executions and one run per node, all or nothing; when. None if a request_id was used before.

    Runs are READY or, where handed to a runner at once, LEASED if they are roots, else PENDING. A single statement, so
    that no transaction is needed round it, as long as there are at most ROWS_AT_ONCE runs.
    """
    rows = [_row_of(execution) for execution in executions]
    runs = chain.from_iterable(_runs_of(execution) for execution in executions)
    first, more = list(islice(runs, ROWS_AT_ONCE)), list(islice(runs, ROWS_AT_ONCE))
    lease = policy.holder, policy.runner_id, policy.duration
    try:
        if not more:
            created_at: datetime = await connection.fetchval(queries.INSERT_STARTS, first, *lease, rows)
            return created_at
        async with connection.transaction():
            created_at = await connection.fetchval(queries.INSERT_STARTS, first, *lease, rows)
            while more:
                await connection.execute(queries.INSERT_RUNS, more, *lease)
                more = list(islice(runs, ROWS_AT_ONCE))
            return created_at
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != _REQUEST_KEY:
            raise
        return None


def _row_of(execution: NewExecution) -> tuple[Any, ...]:
    """executor.new_execution."""
    request, plan = execution.request, execution.plan
    return (
        execution.id,
        request.namespace,
        request.workflow_id,
        execution.version,
        execution.state,
        len(plan.roots),
        request.priority,
        request.trigger_type,
        request.payload,
        request.traceparent,
        request.request_id,
        request.request_hash if request.request_id else None,
        _uuid_or_none(request.principal),
        request.principal,
        request.deadline,
        plan.settings.timeout,
    )


@lru_cache(maxsize=1_000)
def _uuid_or_none(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _runs_of(execution: NewExecution) -> Iterable[tuple[Any, ...]]:
    """executor.new_run, one for each node."""
    base = execution.request.priority
    for node in execution.plan.nodes:
        prepared = execution.leased.get(node.index)
        state = RunState.PENDING if node.incoming else RunState.LEASED if prepared else RunState.READY
        yield (
            execution.id,
            run_id(execution.id, node.index),
            execution.request.namespace,
            node.index,
            node.node_id,
            execution.task_ids[node.index],
            node.class_name,
            node.decided_first,
            node.pool,
            rank_of(base, node.priority),
            node.target or (prepared.target if prepared else None) or None,
            state,
            len(node.incoming),
            1 if prepared else 0,
            prepared.idempotency_key if prepared else None,
            prepared.inputs_hash if prepared else None,
            prepared.config_hash if prepared else None,
            node.deadline,
        )
