"""Writes new executions and their runs; finds those that a request_id made before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from typing import Any
from uuid import UUID

from services.executor import queries
from services.executor.model import ExecutionView, LeasePolicy, StartRequest, rank_of
from valkyr.flow.effects import Prepared
from valkyr.flow.ids import run_id
from valkyr.flow.plan import Plan
from valkyr.flow.states import ExecutionState, RunState
from valkyr.frozen import cheaply_made

ROWS_AT_ONCE = 10_000


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
        request, timeout = self.request, self.plan.settings.timeout
        ends = [end for end in (request.deadline, created_at + timeout if timeout else None) if end is not None]
        return ExecutionView(
            id=self.id,
            namespace=request.namespace,
            workflow_id=request.workflow_id,
            version=self.version,
            state=self.state,
            revision=1,
            priority=request.priority,
            trigger_type=request.trigger_type,
            trigger_payload=None,
            created_at=created_at,
            started_at=None if self.state is ExecutionState.PENDING else created_at,
            finished_at=created_at if self.state is ExecutionState.SUCCESS else None,
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


async def insert_executions(tx: Any, executions: Sequence[NewExecution]) -> datetime | None:
    """Inserts executions, not their runs: when they were created; None if a request_id was taken meanwhile."""
    rows = [
        (
            e.id,
            e.request.namespace,
            e.request.workflow_id,
            e.version,
            e.state,
            len(e.plan.roots),
            e.request.priority,
            e.request.trigger_type,
            e.request.payload,
            e.request.traceparent,
            e.request.request_id,
            e.request.request_hash if e.request.request_id else None,
            _uuid_or_none(e.request.principal),
            e.request.principal,
            e.request.deadline,
            e.plan.settings.timeout,
        )
        for e in executions
    ]
    inserted = await tx.fetch(queries.INSERT_EXECUTIONS, *zip(*rows, strict=True))
    return inserted[0][0] if len(inserted) == len(executions) else None


def _uuid_or_none(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


async def insert_runs(tx: Any, executions: Sequence[NewExecution], policy: LeasePolicy) -> None:
    """One run per node: roots READY, or LEASED where handed to a runner at once; the others PENDING."""
    rows = chain.from_iterable(_rows_of(execution) for execution in executions)
    while slice_ := list(islice(rows, ROWS_AT_ONCE)):
        columns = list(zip(*slice_, strict=True))
        await tx.execute(
            queries.INSERT_RUNS, *columns[:17], policy.holder, policy.runner_id, policy.duration, *columns[17:]
        )


def _rows_of(execution: NewExecution) -> Iterable[tuple[Any, ...]]:
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
            node.control is not None,
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
