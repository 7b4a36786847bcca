"""client.runs.get: what is sent, and what comes back. The ways out of QUARANTINED are in test_failures."""

from __future__ import annotations

from typing import Any

import pytest

from valkyr import errors
from valkyr.api.executor.v1 import executor_pb2 as pb
from valkyr.client import Client
from valkyr.client.json_values import value_of


async def test_a_run_is_named_by_its_id_or_its_node(script: Any, client: Client) -> None:
    run = pb.Run(id="r1", node_id="a", map_index=-1, state=pb.Run.SUCCESS, outputs=value_of([1], path=""))
    run.attempts.add(attempt=1, outcome="TRANSIENT", stack_trace="Traceback\n")
    script.answer("GetRun", pb.GetRunResponse(run=run))
    read = await client.runs.get("e1", "r1")
    await client.runs.get("e1", node_id="a")
    assert (read.node_id, read.outputs, read.attempts[0].stack_trace) == ("a", [1], "Traceback\n")
    assert [(request.execution_id, request.run_id, request.node_id) for request in script.requests("GetRun")] == [
        ("e1", "r1", ""),
        ("e1", "", "a"),
    ]


async def test_a_run_that_is_not_there_is_its_own_error(script: Any, client: Client) -> None:
    script.answer("GetRun", errors.RunNotFound("execution e1 has no node 'x'"))
    with pytest.raises(errors.RunNotFound):
        await client.runs.get("e1", node_id="x")
