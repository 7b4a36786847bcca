"""A COMMIT whose answer was lost: what it set going goes on at once, though no loop would look for an hour."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from tests.builders import a_graph
from tests.executor_stack import Stack, eventually
from tests.integration.executor.conftest import OpenStack
from valkyr.client import ExecutionState
from valkyr.errors import Unavailable

SLEEPY = {"poll_interval": "PT1H"}
DELAY = ("DelayModule", {"duration": "PT0.2S"})


def lose_the_answer(stack: Stack, number: int) -> list[int]:
    """Of the `number`-th transaction from now on; the answer holds how many there were."""
    session = stack.app.parts.session
    good = session.repeat
    seen = [0]

    async def repeat(work: Any, *, reserved: bool = False) -> Any:
        async def losing(tx: Any) -> Any:
            result = await work(tx)
            seen[0] += 1
            if seen[0] == number:
                await tx.execute("COMMIT")
                tx.terminate()  # what the session says to its own COMMIT is not heard
            return result

        return await good(losing, reserved=reserved)

    session.repeat = repeat  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize(
    ("arrows", "number"), [("d", 1), ("a -> d", 2)], ids=["of a start", "of the report that begins a delay"]
)
async def test_what_nobody_heard_of_is_carried_on_at_once(make_stack: OpenStack, arrows: str, number: int) -> None:
    async with make_stack(runner=SLEEPY) as stack:
        workflow_id = await stack.save(a_graph(arrows, modules={"d": DELAY}))
        seen = lose_the_answer(stack, number)
        with suppress(Unavailable):
            await stack.client.executions.start(workflow_id, request_id="once")

        async def settled() -> bool:
            found = [execution async for execution in stack.client.executions.list(workflow_id=workflow_id)]
            return [execution.state for execution in found] == [ExecutionState.SUCCESS]

        async with asyncio.timeout(60):
            await eventually(settled, "it ends")
        assert seen[0] >= number
