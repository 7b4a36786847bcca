"""What attempts say of how far they are reaches those after them: within a budget, and after a requeue."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import a_graph
from tests.executor_modules import GATES
from tests.integration.executor.conftest import OpenStack
from valkyr.client import ExecutionState

QUICK = {"retry": {"backoff_base_ms": 10, "backoff_max_ms": 40, "max_attempts": 10}}


@pytest.mark.parametrize(
    ("inputs", "found"),
    [(None, {"attempt": 3}), ({"trigger": 1, "nodes": {}}, None)],
    ids=["same inputs", "other inputs, to which it does not belong"],
)
async def test_an_attempt_finds_what_those_before_it_have_said(
    make_stack: OpenStack, inputs: dict[str, Any] | None, found: Any
) -> None:
    async with make_stack(runner=QUICK) as stack:
        execution = await stack.run(a_graph("a", modules={"a": "ProgressModule"}))
        assert [context.progress for context in GATES.contexts] == [{"attempt": 1}, {"attempt": 2}, {"attempt": 3}]
        run = (await stack.runs(execution.id))["a"]
        await stack.client.runs.requeue(execution.id, run.id, quarantine_number=1, inputs=inputs)
        assert (await stack.wait(execution.id)).state is ExecutionState.SUCCESS
        assert (await stack.runs(execution.id))["a"].outputs == {"found": found}
