"""Pausing and resuming as the servicer asks for it, and what then stands in the tables."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from services.executor.model import ExecutionView
from tests.executor_stack import Stack
from valkyr.flow.events import PauseExecution, Request, ResumeExecution


def a_request(request_id: str | None = None, *, body: bytes = b"all that was asked") -> Request:
    return Request("Eve", "to look at it", request_id, body)


async def pause(stack: Stack, execution_id: str, request: Request | None = None, *, by: int = 0) -> ExecutionView:
    """At one of the stack's executors, by default at the first."""
    event = PauseExecution(UUID(execution_id), request or a_request())
    return await stack.executors[by].parts.interventions.pause("default", event)


async def resume(stack: Stack, execution_id: str, request: Request | None = None, *, by: int = 0) -> ExecutionView:
    event = ResumeExecution(UUID(execution_id), request or a_request())
    return await stack.executors[by].parts.interventions.resume("default", event)


async def state_of(stack: Stack, execution_id: str) -> str:
    state: str = await stack.sql.fetchval(
        "SELECT state FROM executor.workflow_execution WHERE id = $1", UUID(execution_id)
    )
    return state


async def held_back(stack: Stack, execution_id: str) -> dict[str, Any]:
    """Of what is PARKED by node id: what by."""
    rows = await stack.sql.fetch(
        "SELECT node_id, parked_by FROM executor.run WHERE execution_id = $1 AND state = 'PARKED' ORDER BY id",
        UUID(execution_id),
    )
    return {row[0]: row[1] for row in rows}
